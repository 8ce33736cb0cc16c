"""A full results tree of a study that never ran, with accuracies that can be counted by hand.

20 examples of 4 classes. In every evaluation the first few examples are wrong: as many as the
tables below say. The CW attack errs on one fewer of them and on example 19, so that the worst case
is one example worse than PGD.

`write_rich_tree` adds the weights of the best epoch, certificates and gradients of one method at
one budget; `write_pictured_tree` adds the images, what PGD made of them, the loss around some, and
the budgets that one method learnt of its training examples.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from safetensors.numpy import save_file

from advtrain.results.certified import write_certified
from advtrain.results.collect import CellRecord, read_cell
from advtrain.results.files import write_table
from advtrain.results.history import write_history
from advtrain.results.landscapes import write_landscapes
from advtrain.results.outcomes import write_outcomes
from advtrain.results.probes import write_probes

STUDY = "fake"
CLASSES = 4
EXAMPLES = 20
SEEDS = (0, 1)
EPSILONS = (0.1, 0.2)
CURVE = (0.05, 0.1, 0.2, 0.3)
METHODS = ("natural", "pgd_at", "fgsm_mixed")
ATTACKS = ("fgsm", "pgd_20", "cw_20")
BACKWARDS = {"fgsm": 1, "pgd_20": 20, "cw_20": 20}
PARAMETERS = {
    "fgsm": {},
    "pgd_20": {"steps": 20, "restarts": 1},
    "cw_20": {"steps": 20, "restarts": 1},
}
TRAINING_EXAMPLES = 100
EPOCHS = 3
PASSES = {"natural": 1, "pgd_at": 11, "fgsm_mixed": 2}
SECONDS = {"natural": (10.0, 12.0), "pgd_at": (110.0, 132.0), "fgsm_mixed": (20.0, 24.0)}

CLEAN_WRONG = {"natural": (0, 0), "pgd_at": (2, 4), "fgsm_mixed": (0, 0)}
# method, training epsilon: attack epsilon: attack: (seed 0, seed 1)
WRONG = {
    ("natural", None): {
        0.05: {"pgd_20": (9, 9)},
        0.1: {"fgsm": (10, 10), "pgd_20": (18, 18), "cw_20": (18, 18)},
        0.2: {"fgsm": (18, 18), "pgd_20": (20, 20), "cw_20": (20, 20)},
        0.3: {"pgd_20": (20, 20)},
    },
    ("pgd_at", 0.1): {
        0.05: {"pgd_20": (4, 5)},
        0.1: {"fgsm": (6, 8), "pgd_20": (8, 10), "cw_20": (8, 10)},
        0.2: {"pgd_20": (16, 18)},
        0.3: {"pgd_20": (20, 20)},
    },
    ("pgd_at", 0.2): {
        0.05: {"pgd_20": (3, 5)},
        0.1: {"pgd_20": (6, 8)},
        0.2: {"fgsm": (8, 10), "pgd_20": (10, 12), "cw_20": (10, 12)},
        0.3: {"pgd_20": (16, 18)},
    },
    ("fgsm_mixed", 0.1): {
        0.05: {"pgd_20": (3, 3)},
        0.1: {"fgsm": (4, 4), "pgd_20": (6, 6), "cw_20": (6, 6)},
        0.2: {"pgd_20": (16, 16)},
        0.3: {"pgd_20": (20, 20)},
    },
    ("fgsm_mixed", 0.2): {
        0.05: {"pgd_20": (3, 10)},
        0.1: {"pgd_20": (5, 16)},
        0.2: {"fgsm": (7, 2), "pgd_20": (10, 19), "cw_20": (10, 20)},
        0.3: {"pgd_20": (15, 20)},
    },
}

# The best weights of pgd_at at 0.1: attack: (seed 0, seed 1)
RICH = ("pgd_at", 0.1)
WRONG_BEST = {"fgsm": (1, 3), "pgd_20": (2, 4), "cw_20": (2, 4)}
# The examples that ibp verifies; the last weights withstand all attacks on them.
VERIFIED = (range(12, 19), range(13, 19))
CERTIFICATES = ("ibp-linf-0.1", "smoothing_025-l2")
PROBE = "gradients"

# By how much the loss around an example rises per budget along its gradient; across, it is a
# parabola. The second example of fgsm_mixed has a gradient of 0.
SLOPES = {"natural": 4.0, "pgd_at": 1.0, "fgsm_mixed": 2.0}
PICTURED = 2
SIDE = 5
LEARNT = ("pgd_at", 0.2)

NAMES = ("circle", "cross", "dot", "line")
SHAPE = (1, 3, 3)
# The places of the examples in the test split, which is in another order than the rows.
SPLIT = np.array([0, 19, 8, 11, *range(1, 8), 9, 10, *range(12, 19)])


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def cell_name(method: str, epsilon: float | None, seed: int) -> str:
    return f"{method}-s{seed}" if epsilon is None else f"{method}-linf-{epsilon}-s{seed}"


def cells() -> Iterator[tuple[str, str, float | None, int]]:
    for method, epsilon in WRONG:
        for seed in SEEDS:
            yield cell_name(method, epsilon, seed), method, epsilon, seed


def evaluations(method: str, epsilon: float | None) -> list[str]:
    return [
        f"{attack}-linf-{budget}"
        for budget, attacks in WRONG[method, epsilon].items()
        for attack in attacks
    ]


def study_info(**changes: object) -> dict[str, object]:
    return {
        "name": STUDY,
        "title": "A study that never ran",
        "description": "Accuracies that can be counted by hand.",
        "dataset": "blobs",
        "classes": CLASSES,
        "curve_attack": "pgd_20",
        "attacks": list(ATTACKS),
        "methods": list(METHODS),
        "method_modules": {method: method for method in METHODS},
        "method_updates": dict.fromkeys(METHODS, "plain"),
        "method_upstream": {method: {"teacher": None, "start": None} for method in METHODS},
        "method_additions": {method: [] for method in METHODS},
        "certificates": [],
        "attack_sources": {},
        "strict": False,
        "data_set": {"name": "blobs", "module": "blobs", "parameters": {}, "split": {}},
        "published": {},
        "failures": [],
        **changes,
    }


def write_tree(root: Path, study: str = STUDY) -> None:
    """Write results/train and results/attack of the whole study below `root`."""
    for cell, method, epsilon, seed in cells():
        write_training(root, study, cell, method, epsilon, seed)
        for name in evaluations(method, epsilon):
            write_evaluation(root, study, cell, name, method, epsilon, seed)


def read_records(root: Path, study: str = STUDY) -> list[CellRecord]:
    return [
        read_cell(root, study, cell, evaluations(method, epsilon))
        for cell, method, epsilon, _ in cells()
    ]


def write_rich_tree(root: Path, study: str = STUDY) -> None:
    """Write the whole study, with the best weights, certificates and probes of one method."""
    write_tree(root, study)
    method, epsilon = RICH
    for seed in SEEDS:
        cell = cell_name(method, epsilon, seed)
        for attack in ATTACKS:
            name = f"{attack}-linf-{epsilon}-best"
            write_evaluation(root, study, cell, name, method, epsilon, seed, "best")
        for name in CERTIFICATES:
            write_certificate(root, study, cell, name, method, seed)
        write_probe(root, study, cell)


def read_pictured_records(root: Path, study: str = STUDY) -> list[CellRecord]:
    return [
        read_cell(root, study, cell, evaluations(method, epsilon), (), (PROBE,))
        for cell, method, epsilon, _ in cells()
    ]


def read_rich_records(root: Path, study: str = STUDY) -> list[CellRecord]:
    records = []
    for cell, method, epsilon, _ in cells():
        names, certificates, probes = evaluations(method, epsilon), (), ()
        if (method, epsilon) == RICH:
            names += [f"{attack}-linf-{epsilon}-best" for attack in ATTACKS]
            certificates, probes = CERTIFICATES, (PROBE,)
        records.append(read_cell(root, study, cell, names, certificates, probes))
    return records


def write_pictured_tree(root: Path, study: str = STUDY) -> None:
    """Write the whole study, with all that its pictures are made of."""
    write_tree(root, study)
    write_splits(root)
    for cell, method, epsilon, _ in cells():
        write_probe(root, study, cell)
        if (method, epsilon) == LEARNT:
            write_values(root, study, cell)
        for name in evaluations(method, epsilon):
            if name.startswith("pgd_20"):
                keep_images(root, study, cell, name)


def prepared(root: Path) -> Path:
    return root / "data/prepared/blobs"


def pixels(place: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Return the uint8 image of an example."""
    return (7 * place + 11 * np.arange(np.prod(shape))).astype(np.uint8).reshape(shape)


def attacked(place: int, epsilon: float, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Return an image that was raised and lowered by epsilon in turns."""
    sign = np.where(np.arange(np.prod(shape)).reshape(shape) % 2, 1, -1)
    return np.clip(pixels(place, shape) / np.float32(255) + sign * epsilon, 0, 1)


def write_splits(root: Path, shape: tuple[int, ...] = SHAPE) -> None:
    """Write the test images, the same as a training split, and what is said of them."""
    images = [pixels(place, shape).tobytes() for place in SPLIT.tolist()]
    folder = prepared(root)
    folder.mkdir(parents=True, exist_ok=True)
    sha256 = {}
    for name, first in (("test", 1000), ("train", 0)):
        columns = {
            "example": pa.array(SPLIT + first, pa.int64()),
            "label": pa.array(SPLIT % CLASSES, pa.int16()),
            "image": pa.array(images, pa.binary(len(images[0]))),
        }
        batch = pa.RecordBatch.from_pydict(columns)
        path = folder / f"{name}.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        sha256[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    facts = {"classes": NAMES, "channels": shape[0], "size": shape[1], "sha256": sha256}
    write_json(folder / "dataset.json", facts)


def write_values(root: Path, study: str, cell: str) -> None:
    """Put budgets beside a training that was written: example i has i * epoch / 100 in the end.

    Half of them have none after the first epoch; the last one is of no split.
    """
    place, epochs = np.arange(EXAMPLES + 1), np.arange(1, EPOCHS + 1)
    values = np.outer(epochs, place) / 100
    values[0, : EXAMPLES // 2] = 0
    table = pa.table(
        {
            "example": np.tile(place, EPOCHS),
            "epoch": np.repeat(epochs, len(place)),
            "epsilon": values.ravel(),
        }
    )
    folder = root / "results" / "train" / study / cell
    write_table(folder / "examples.parquet", table)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["outputs"][f"results/train/{study}/{cell}/examples.parquet"] = {"size": 1}
    write_json(folder / "manifest.json", manifest)


def keep_images(
    root: Path,
    study: str,
    cell: str,
    name: str,
    kind: str = "float32",
    shape: tuple[int, ...] = SHAPE,
) -> None:
    """Put the attacked images beside the rows of an evaluation that was written."""
    folder = root / "results" / "attack" / study / cell / name
    epsilon = float(name.removesuffix("-best").split("-")[2])
    images = np.stack([attacked(place, epsilon, shape) for place in SPLIT.tolist()])
    stored = {"x_adv": images.astype(kind), "example": SPLIT + 1000}
    save_file(stored, folder / "adversarial.safetensors")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["params"]["adversarial"] = kind
    write_json(folder / "manifest.json", manifest)


def write_training(
    root: Path, study: str, cell: str, method: str, epsilon: float | None, seed: int
) -> None:
    folder = root / "results" / "train" / study / cell
    passes = PASSES[method] * EPOCHS * TRAINING_EXAMPLES
    threat = None if epsilon is None else {"norm": "linf", "epsilon": epsilon}
    rows: list[dict[str, float | int]] = []
    for epoch in range(1, EPOCHS + 1):
        row: dict[str, float | int] = {"epoch": epoch, "loss": 1.0 / epoch}
        row["validation_clean_accuracy"] = round(0.5 + 0.1 * epoch, 3)
        if threat:
            row["validation_robust_accuracy"] = (0.4, 0.5, 0.45)[epoch - 1]
        rows.append(row)
    write_history(folder / "history.parquet", rows)
    summary = {
        "status": "finished",
        "cause": "",
        "best_epoch": 2,
        "epochs": EPOCHS,
        "forward_passes": passes,
        "backward_passes": passes,
        "examples": TRAINING_EXAMPLES,
        "parameters": 1000,
    }
    seconds = SECONDS[method][seed]
    timing = {"started": 1.0, "finished": 1.0 + seconds, "seconds": seconds, "device": "cpu"}
    write_json(folder / "summary.json", summary)
    write_json(folder / "timing.json", timing)
    weights = f"checkpoints/{study}/{cell}"
    manifest = {
        "stage": "train",
        "name": f"{study}/{cell}",
        "key": digest(f"train {cell}")[:16],
        "params": {
            "dataset": "blobs",
            "method": {"name": method, "module": method, "parameters": {"steps": 7}},
            "model": {"name": "small", "module": "small_cnn", "parameters": {"width": 8}},
            "threat": threat,
            "recipe": {"name": "short", "parameters": {"epochs": EPOCHS}},
            "seed": seed,
        },
        "code": {"src/advtrain/noise.py": "0123456789abcdef"},
        "code_digest": digest("train code")[:16],
        "inputs": {"prepare:blobs": {"key": digest("data")[:16], "digest": digest("blobs")[:16]}},
        "outputs": {
            f"{weights}/{which}.safetensors": {"size": 9, "sha256": digest(f"{which} {cell}")}
            for which in ("last", "best")
        },
        "volatile": [f"results/train/{study}/{cell}/timing.json"],
        "environment": {"python": "3.11.0"},
    }
    write_json(folder / "manifest.json", manifest)


def write_evaluation(
    root: Path,
    study: str,
    cell: str,
    name: str,
    method: str,
    epsilon: float | None,
    seed: int,
    weights: str = "last",
) -> None:
    folder = root / "results" / "attack" / study / cell / name
    attack, _, budget = name.removesuffix("-best").split("-")
    wrong = WRONG[method, epsilon][float(budget)][attack][seed]
    if weights == "best" and (method, epsilon) == RICH:
        wrong = WRONG_BEST[attack][seed]
    label = np.arange(EXAMPLES) % CLASSES
    clean = np.where(np.arange(EXAMPLES) < CLEAN_WRONG[method][seed], (label + 1) % CLASSES, label)
    fooled = np.arange(EXAMPLES) < wrong
    if attack == "cw_20" and wrong < EXAMPLES:
        fooled[wrong - 1], fooled[-1] = False, True
    key = digest(f"attack {cell} {name}")[:16]
    iterative = BACKWARDS[attack] > 1
    columns: dict[str, np.ndarray | str | float] = {
        "cell": cell,
        "attack": name,
        "protocol": digest(f"{attack} at {budget}")[:16],
        "norm": "linf",
        "epsilon": float(budget),
        "example": np.arange(EXAMPLES) + 1000,
        "label": label,
        "clean_prediction": clean,
        "adversarial_prediction": np.where(fooled, (label + 1) % CLASSES, label),
        "distance": np.full(EXAMPLES, float(budget), dtype=np.float32),
        "objective": np.linspace(0, 1, EXAMPLES, dtype=np.float32),
        "forward": np.full(EXAMPLES, BACKWARDS[attack] + 1),
        "backward": np.full(EXAMPLES, BACKWARDS[attack]),
        "stage": np.full(EXAMPLES, ""),
        "claim": np.where(fooled, "confirmed", "none"),
        "gain": np.full(EXAMPLES, 2.0 if iterative else np.nan),
        "late_gain": np.full(EXAMPLES, 0.02 if iterative else np.nan),
    }
    stamps = {
        "cell_key": digest(f"train {cell}")[:16],
        "attack_key": key,
        "data": digest("blobs")[:16],
        "checkpoint": digest(f"{weights} {cell}"),
        "code": digest("attack code")[:16],
        "protocol": f"{attack} at {budget}",
        "study": study,
    }
    write_outcomes(folder / "outcomes.parquet", columns, stamps)
    write_json(folder / "timing.json", {"seconds": 0.5, "device": "cpu"})
    manifest = {
        "stage": "attack",
        "name": f"{study}/{cell}/{name}",
        "key": key,
        "params": {
            "cell": cell,
            "evaluation": name,
            "attack": {
                "name": attack,
                "module": attack.split("_")[0],
                "parameters": PARAMETERS[attack],
            },
            "precision": "float32",
            "threat": {"norm": "linf", "epsilon": float(budget)},
            "weights": weights,
            "examples": None,
            "seed": seed,
        },
        "code": {},
        "code_digest": digest("attack code")[:16],
        "inputs": {},
        "outputs": {},
        "volatile": [],
        "environment": {},
    }
    write_json(folder / "manifest.json", manifest)


def write_certificate(root: Path, study: str, cell: str, name: str, method: str, seed: int) -> None:
    """Write ibp, which verifies `VERIFIED`, or smoothing, whose radius is 0.05 times the place.

    Smoothing errs on the first example and abstains on the second.
    """
    folder = root / "results" / "certify" / study / cell / name
    certificate, norm, *budget = name.split("-")
    place = np.arange(EXAMPLES)
    label = place % CLASSES
    wrong = (label + 1) % CLASSES
    if certificate == "ibp":
        prediction = np.where(place < CLEAN_WRONG[method][seed], wrong, label)
        radius = np.where(np.isin(place, VERIFIED[seed]), float(budget[0]), 0.0)
    else:
        prediction = np.where(place == 0, wrong, np.where(place == 1, -1, label))
        radius = np.where(place == 1, 0.0, np.round(0.05 * place, 2))
    epsilon = float(budget[0]) if budget else None
    key = digest(f"certify {cell} {name}")[:16]
    columns: dict[str, np.ndarray | str | float | None] = {
        "cell": cell,
        "certificate": name,
        "norm": norm,
        "epsilon": epsilon,
        "example": place + 1000,
        "label": label,
        "prediction": prediction,
        "radius": radius,
        "forward": np.full(EXAMPLES, 2),
        "backward": np.full(EXAMPLES, 0),
    }
    stamps = {
        "cell_key": digest(f"train {cell}")[:16],
        "attack_key": key,
        "data": digest("blobs")[:16],
        "checkpoint": digest(f"last {cell}"),
        "code": digest("certify code")[:16],
        "protocol": f"{name} of the last weights",
        "study": study,
    }
    write_certified(folder / "certified.parquet", columns, stamps)
    write_json(folder / "timing.json", {"seconds": 0.25, "device": "cpu"})
    manifest = {
        "stage": "certify",
        "name": f"{study}/{cell}/{name}",
        "key": key,
        "params": {
            "cell": cell,
            "evaluation": name,
            "certificate": {"name": certificate, "module": certificate, "parameters": {}},
            "threat": {"norm": norm, "epsilon": epsilon},
            "weights": "last",
            "examples": None,
            "seed": seed,
        },
        "code": {},
        "code_digest": digest("certify code")[:16],
        "inputs": {},
        "outputs": {},
        "volatile": [],
        "environment": {},
    }
    write_json(folder / "manifest.json", manifest)


def write_probe(root: Path, study: str, cell: str) -> None:
    """Write gradients that an attack can follow, at the first half of the examples."""
    folder = root / "results" / "probe" / study / cell / PROBE
    place = np.arange(EXAMPLES // 2)
    key = digest(f"probe {cell}")[:16]
    columns: dict[str, np.ndarray | str] = {
        "cell": cell,
        "example": place + 1000,
        "label": place % CLASSES,
        "prediction": place % CLASSES,
        "loss": np.full(len(place), 0.1),
        "gradient": np.full(len(place), 0.5),
        "margin_gradient": np.full(len(place), 5.0),
        "zero_share": np.zeros(len(place)),
        "logit_change": np.zeros(len(place)),
        "gradient_cosine": np.ones(len(place)),
        "probabilities": np.zeros(len(place), dtype=bool),
    }
    stamps = {
        "cell_key": digest(f"train {cell}")[:16],
        "attack_key": key,
        "data": digest("blobs")[:16],
        "checkpoint": digest(f"last {cell}"),
        "code": digest("probe code")[:16],
        "protocol": "gradients of the last weights",
        "study": study,
    }
    write_probes(folder / "probes.parquet", columns, stamps)
    write_landscapes(folder / "landscapes.parquet", *landscape(cell), stamps)
    write_json(folder / "timing.json", {"seconds": 0.125, "device": "cpu"})
    manifest = {
        "stage": "probe",
        "name": f"{study}/{cell}/{PROBE}",
        "key": key,
        "params": {
            "cell": cell,
            "evaluation": PROBE,
            "model": {"name": "small", "module": "small_cnn", "parameters": {"width": 8}},
            "weights": "last",
            "examples": EXAMPLES // 2,
        },
        "code": {},
        "code_digest": digest("probe code")[:16],
        "inputs": {},
        "outputs": {},
        "volatile": [],
        "environment": {},
    }
    write_json(folder / "manifest.json", manifest)


def landscape(cell: str) -> tuple[dict[str, np.ndarray], dict[str, str | float]]:
    """Return the loss around the first examples of the split, and what the rows share.

    It rises along the gradient and is a parabola across; a gradient of 0 has no direction.
    """
    method, *budget = cell.split("-")[:-1]
    epsilon = float(budget[1]) if budget else EPSILONS[-1]
    offsets = np.linspace(-2, 2, SIDE)
    rise = SLOPES[method] * (offsets[None, :] + 2) + offsets[:, None] ** 2
    example = SPLIT[:PICTURED]
    gradient = np.stack([pixels(place) / 255 for place in example.tolist()])
    gradient[1] *= method != "fgsm_mixed"
    columns = {
        "example": example + 1000,
        "label": example % CLASSES,
        "prediction": example % CLASSES,
        "label_name": np.array([NAMES[place % CLASSES] for place in example.tolist()]),
        "image": np.stack([pixels(place) for place in example.tolist()]),
        "gradient": (gradient * SLOPES[method]).astype(np.float32),
        "loss": np.stack([rise] * PICTURED).astype(np.float32),
    }
    return columns, {"cell": cell, "norm": "linf", "epsilon": epsilon, "reach": 2.0}


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
