"""What the report of a study of a thousand cells costs (P10).

    python benchmarks/report.py [--quick] [--only study page] [--folder FOLDER]

The rows are made up: methods that withstand more and less, seeds that differ, the parameters and
hashes that a real study carries. `study` writes the tables, the model cards, the figures, the page,
the paper, the metrics and the plots as the jobs of the graph do, one after the other in one
process; `page` opens that page in Chromium, where there is one. Times are wall time.
"""

import hashlib
import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import torch  # noqa: E402

from advtrain.reporting.card import write_cards  # noqa: E402
from advtrain.reporting.figures import write_figures  # noqa: E402
from advtrain.reporting.html import write_report  # noqa: E402
from advtrain.reporting.metrics import write_metrics  # noqa: E402
from advtrain.reporting.paper import write_paper  # noqa: E402
from advtrain.reporting.plots import write_plots  # noqa: E402
from advtrain.reporting.shown import nothing_collected  # noqa: E402
from advtrain.reporting.study import check_info  # noqa: E402
from advtrain.reporting.study_report import StudyReport  # noqa: E402
from advtrain.reporting.tables import write_tables  # noqa: E402
from advtrain.results.collect import Collected, write_collected  # noqa: E402
from advtrain.results.history import history_table  # noqa: E402
from advtrain.results.names import epsilon_text, parse_evaluation  # noqa: E402
from advtrain.results.schema import CELLS, COSTS, OUTCOMES, PROBES  # noqa: E402
from benchmarks import harness  # noqa: E402
from benchmarks.harness import Goal, Results  # noqa: E402

CLASSES = 10
EXAMPLES = 200
SEEDS = 5
LEVELS = (1, 2, 3, 4, 6, 8, 12, 16)
"""The budgets, in levels of 255."""
ATTACKS = {"fgsm": 1, "pgd_20": 20, "pgd_100": 100, "cw_100": 100, "square": 0}
"""The attacks with their backward passes."""
CURVE = "pgd_20"
EPOCHS = 30
SORT = """() => {
    document.querySelectorAll("table.results thead button")[3].click();
    return document.body.offsetHeight;
}"""
FILTER = """() => {
    const box = document.querySelector("input[type=search]");
    box.value = "method_07 8/255";
    box.dispatchEvent(new Event("input"));
    return document.body.offsetHeight;
}"""
"""What a reader does with the table of results, until the page is laid out again."""
RECIPE: dict[str, Any] = {
    f"option_{place}": value
    for place, value in enumerate([0.1, "none", False, 12, [0.5, 0.75], 0.0005] * 6)
}


def budget(level: int) -> str:
    """A budget in the name of a cell: `8_255`."""
    return epsilon_text(level / 255).replace("/", "_")


def made_cells(methods: int, seeds: int) -> Iterator[tuple[str, str, int | None, int]]:
    """Name the cells: natural training, and the methods at each budget."""
    for seed in range(seeds):
        yield f"natural-s{seed}", "natural", None, seed
    for place in range(methods):
        for level in LEVELS:
            for seed in range(seeds):
                method = f"method_{place:02}"
                yield f"{method}-linf-{budget(level)}-s{seed}", method, level, seed


def evaluations(level: int | None) -> list[str]:
    """Every attack at the cell's own budget, or at all where it has none, and the curve."""
    own = [level] if level else LEVELS
    found = [f"{attack}-linf-{budget(one)}" for attack in ATTACKS for one in own]
    return found + [f"{CURVE}-linf-{budget(one)}" for one in LEVELS if one not in own]


def digest(*parts: object) -> str:
    """The hash of something."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def cell_row(cell: str, method: str, level: int | None, seed: int) -> dict[str, Any]:
    """What is said of a cell, as `collect` writes it."""
    threat = {"norm": "linf", "epsilon": level / 255} if level else None
    parameters = {"beta": 6.0, "step_size": (level or 0) / 510, "steps": 10, "crafting": "eval"}
    params = {
        "dataset": "made",
        "method": {"name": method, "module": method, "parameters": parameters},
        "model": {"name": "made", "module": "made", "parameters": {"width": 16}},
        "recipe": {"name": "made", "parameters": RECIPE},
        "seed": seed,
        "threat": threat,
    }
    described = {}
    for name in evaluations(level):
        one = parse_evaluation(name)
        attack = {"name": one.attack, "module": one.attack.split("_")[0]}
        attack["parameters"] = {"steps": ATTACKS[one.attack], "restarts": 1, "kappa": 0.0}
        described[name] = {
            "key": digest(cell, name)[:16],
            "weights": "last",
            "checkpoint": digest(cell),
            "code_digest": digest(one.attack)[:16],
            "protocol": f"{name}: steps {ATTACKS[one.attack]}, on {EXAMPLES} test examples",
            "params": {"attack": attack, "threat": threat, "examples": None, "seed": seed},
        }
    return {
        "cell": cell,
        "label": method,
        "method": method,
        "module": method,
        "norm": threat and "linf",
        "epsilon": threat and level / 255,
        "seed": seed,
        "key": digest("key", cell)[:16],
        "status": "finished",
        "cause": "",
        "params": json.dumps(params, sort_keys=True),
        "data_hash": digest("data")[:16],
        "checkpoint_hash": digest(cell),
        "code_digest": digest("code")[:16],
        "epochs": EPOCHS,
        "examples": 1000,
        "forward_passes": 330_000.0,
        "backward_passes": 330_000.0,
        "best_epoch": EPOCHS - seed,
        "mlflow_experiment": "made",
        "mlflow_run_name": cell,
        "upstream": json.dumps({"prepare:made": {"key": digest(0)[:16], "digest": digest(1)[:16]}}),
        "evaluations": json.dumps(described, sort_keys=True),
    }


def outcome_columns(cell: str, place: int, level: int | None) -> Iterator[dict[str, Any]]:
    """The rows of each evaluation: the larger the budget, the more examples are wrong."""
    drawn = np.random.default_rng(place)
    hard = drawn.random(EXAMPLES)
    label = np.arange(EXAMPLES) % CLASSES
    strength = 0.35 + 0.4 * (level or 0) / max(LEVELS) + 0.05 * (place % 7)
    clean = hard < 0.95 - 0.1 * (level or 0) / max(LEVELS)
    for name in sorted(evaluations(level)):
        one = parse_evaluation(name)
        backward = ATTACKS[one.attack]
        share = strength - 4 * (one.epsilon or 0) - 0.001 * backward
        right = clean & (hard + 0.02 * drawn.random(EXAMPLES) < max(share, 0.0))
        yield {
            "cell": cell,
            "attack": name,
            "protocol": digest(name)[:16],
            "norm": "linf",
            "epsilon": one.epsilon,
            "example": np.arange(EXAMPLES),
            "label": label,
            "clean_prediction": np.where(clean, label, (label + 1) % CLASSES),
            "adversarial_prediction": np.where(right, label, (label + 2) % CLASSES),
            "distance": np.full(EXAMPLES, one.epsilon),
            "objective": drawn.normal(size=EXAMPLES),
            "forward": np.full(EXAMPLES, backward + 1),
            "backward": np.full(EXAMPLES, backward),
            "stage": "",
            "claim": np.where(right, "none", "confirmed"),
            "gain": np.full(EXAMPLES, 2.0),
            "late_gain": np.full(EXAMPLES, 0.02),
        }


def probe_columns(cell: str, place: int) -> dict[str, Any]:
    """Gradients that an attack can follow."""
    drawn = np.random.default_rng(place)
    ones = np.ones(EXAMPLES)
    return {
        "cell": cell,
        "example": np.arange(EXAMPLES),
        "label": np.arange(EXAMPLES) % CLASSES,
        "prediction": np.arange(EXAMPLES) % CLASSES,
        "loss": 0.1 * ones,
        "gradient": drawn.random(EXAMPLES),
        "margin_gradient": 5 * ones,
        "zero_share": 0 * ones,
        "logit_change": 0 * ones,
        "gradient_cosine": ones,
        "probabilities": np.zeros(EXAMPLES, dtype=bool),
    }


def stacked(schema: pa.Schema, parts: Iterator[dict[str, Any]]) -> pa.Table:
    """Put columns below one another; a single value stands in all rows."""
    tables = []
    for part in parts:
        arrays = []
        for field in schema:
            value = part[field.name]
            if pa.types.is_dictionary(field.type):
                texts = np.full(EXAMPLES, value) if isinstance(value, str) else value
                arrays.append(pa.array(texts, pa.string()).dictionary_encode())
            else:
                values = value if isinstance(value, np.ndarray) else np.full(EXAMPLES, value)
                arrays.append(pa.array(values).cast(field.type))
        tables.append(pa.Table.from_arrays(arrays, schema=schema))
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


def cost_rows(cell: str, place: int, level: int | None) -> list[dict[str, Any]]:
    """Seconds of the training and of each evaluation."""
    nothing = dict.fromkeys(COSTS.names)
    rows = [nothing | {"cell": cell, "stage": "train", "seconds": 60.0 + place % 11}]
    rows += [
        nothing | {"cell": cell, "stage": "attack", "evaluation": name, "seconds": 3.0}
        for name in evaluations(level)
    ]
    return [row | {"device": "cpu"} for row in rows]


def made_study(methods: int, seeds: int) -> Collected:
    """The collected rows of the whole study, in the order that `collect` gives them."""
    cells = sorted(made_cells(methods, seeds))
    history = [
        {
            "cell": cell,
            "epoch": epoch,
            "loss": 1 / epoch,
            "validation_clean_accuracy": 0.9 - 0.5 / epoch,
            "validation_robust_accuracy": 0.5 - 0.3 / epoch + 0.002 * seed,
        }
        for cell, _, _, seed in cells
        for epoch in range(1, EPOCHS + 1)
    ]
    named = pa.array([row.pop("cell") for row in history], pa.string())
    numbered = list(enumerate(cells))
    return replace(
        nothing_collected(),
        outcomes=stacked(
            OUTCOMES,
            (one for k, (cell, _, level, _) in numbered for one in outcome_columns(cell, k, level)),
        ),
        cells=pa.Table.from_pylist([cell_row(*cell) for cell in cells], CELLS),
        histories=history_table(history).add_column(0, "cell", named),
        costs=pa.Table.from_pylist(
            [row for k, (cell, _, level, _) in numbered for row in cost_rows(cell, k, level)], COSTS
        ),
        probes=stacked(PROBES, (probe_columns(cell, k) for k, (cell, *_) in numbered)),
    )


def told(methods: int) -> dict[str, Any]:
    """The study in words."""
    names = ["natural", *(f"method_{place:02}" for place in range(methods))]
    return {
        "name": "thousand",
        "title": "A thousand cells",
        "description": "Made-up rows.",
        "dataset": "made",
        "classes": CLASSES,
        "curve_attack": CURVE,
        "attacks": list(ATTACKS),
        "methods": names,
        "method_modules": {name: name for name in names},
        "method_updates": dict.fromkeys(names, "plain"),
        "method_upstream": {name: {"teacher": None, "start": None} for name in names},
        "method_additions": {name: [] for name in names},
        "certificates": [],
        "attack_sources": {},
        "strict": False,
        "data_set": {"module": "digits", "parameters": {}, "split": {}},
        "published": {},
        "failures": [],
    }


def built(folder: Path, methods: int) -> dict[str, float]:
    """Write everything that the report of the study has; the seconds of each part."""
    info = told(methods)
    report = StudyReport(check_info(info), folder / "collected", folder / "figures")
    parts: dict[str, Callable[[], object]] = {
        "tables": lambda: write_tables(folder / "collected", info, folder / "tables"),
        "cards": lambda: write_cards(folder / "collected", info, folder / "cards"),
        "figures": lambda: write_figures(folder / "collected", info, folder / "figures"),
        "page": lambda: write_report([report], folder / "index.html"),
        "paper": lambda: write_paper([report], folder),
        "metrics": lambda: write_metrics([report], folder / "metrics.json"),
        "plots": lambda: write_plots([report], folder / "plots"),
    }
    return {name: seconds(part) for name, part in parts.items()}


def seconds(action: Callable[[], object]) -> float:
    """The wall time of a call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def alone(folder: Path, methods: int, answer: Any) -> None:
    """Build the report in a process of its own, and answer with its times and its peak memory."""
    spent = built(folder, methods)
    # Kibibytes; macOS counts in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    answer.send((spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit))


@cache
def study(quick: bool) -> tuple[Path, int, int]:
    """Make the rows once; the folder, how many methods, and how many cells."""
    methods, seeds = (3, 2) if quick else (25, SEEDS)
    folder = Path(tempfile.mkdtemp(prefix="report-"))
    collected = made_study(methods, seeds)
    write_collected(collected, folder / "collected")
    return folder, methods, collected.cells.num_rows


def study_section(quick: bool) -> Results:
    """Seconds and memory of tables, cards, figures, page, paper, metrics and plots (P10)."""
    results = Results()
    folder, methods, cells = study(quick)
    context = multiprocessing.get_context("spawn")
    whole, memory, parts = [], [], []
    for _ in range(1 if quick else 3):
        mine, theirs = context.Pipe()
        job = context.Process(target=alone, args=(folder, methods, theirs))
        job.start()
        spent, peak = mine.recv()
        job.join()
        parts.append(spent)
        whole.append(sum(spent.values()))
        memory.append(peak / 1e9)
    for name in parts[0]:
        results.rows.append({"what": name, "s": harness.spread([one[name] for one in parts])})
    results.rows.append({"what": "all", "s": harness.spread(whole)})
    size = (folder / "index.html").stat().st_size / 1e6
    figures = sum(path.stat().st_size for path in (folder / "figures").glob("*.svg")) / 1e6
    rows = pa.parquet.read_metadata(folder / "collected/outcomes.parquet").num_rows
    results.remarks.append(
        f"{cells} cells, {rows:,} rows of attacks; the page has {size:.1f} MB, of which the "
        f"figures are {figures:.1f}."
    )
    label = f"P10 {cells} cells, tables, cards, figures, page, paper, metrics and plots: "
    results.goals += [
        Goal(f"{label}seconds", harness.spread(whole), 60, at_most=True),
        Goal(f"{label}peak memory, GB", harness.spread(memory), 2, at_most=True),
    ]
    return results


def page_section(quick: bool) -> Results:
    """Seconds until the page of the study can be used, and a table of it is sorted (P10)."""
    results = Results()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        results.remarks.append("No Chromium here: the page was not opened.")
        return results
    from playwright.sync_api import sync_playwright

    folder, methods, cells = study(quick)
    if not (folder / "index.html").exists():
        built(folder, methods)
    opened, ordered, filtered = [], [], []
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for _ in range(1 if quick else 3):
            page = chromium.new_page()
            opened.append(seconds(partial(page.goto, (folder / "index.html").as_uri())))
            ordered.append(seconds(partial(page.evaluate, SORT)))
            filtered.append(seconds(partial(page.evaluate, FILTER)))
            page.close()
        chromium.close()
    for name, taken in (("opened", opened), ("sorted", ordered), ("filtered", filtered)):
        results.rows.append({"what": name, "s": harness.spread(taken)})
    label = f"P10 the page of {cells} cells is open in Chromium: seconds"
    results.goals.append(Goal(label, harness.spread(opened), 5, at_most=True))
    return results


SECTIONS: dict[str, Callable[[bool], Results]] = {"study": study_section, "page": page_section}


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and keep the results."""
    given = harness.parser(__doc__, SECTIONS).parse_args(argv)
    torch.set_num_threads(1)
    harness.measure("report", SECTIONS, given, given.quick)
    shutil.rmtree(study(given.quick)[0])


if __name__ == "__main__":
    main()
