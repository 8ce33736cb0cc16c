"""`advtrain export`: a cell's weights with the network's code and its card, for plain PyTorch.

The code goes along as source, cut out of this package into one file, and not as a traced program
(`torch.export`): source can be read, trained further, moved to any device, and loaded by versions
of torch that do not exist yet. `--mlflow` adds a traced program, which MLflow keeps and loads.
"""

import argparse
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from advtrain.command_error import CommandError
from advtrain.evaluate_command import with_evaluations
from advtrain.graph.files import imported_beside
from advtrain.graph.nodes import Graph
from advtrain.graph.records import Manifest, read_manifest
from advtrain.params.reader import did_you_mean
from advtrain.params.schema import Params
from advtrain.provenance import digest_files, hash_file
from advtrain.reporting.card import Card, card_text, read_cards
from advtrain.reporting.study import StudyInfo, check_info
from advtrain.results.collect import read_collected
from advtrain.results.files import DamagedFileError
from advtrain.standalone import files, standalone

FOLDER = "exports"
BESIDE = "code"
"""The folder of the export that holds the files of a user's own network."""


class ExportError(CommandError):
    """The cell cannot be exported; the message says why and what to do."""


def export(root: Path, here: Path, params: Params, arguments: argparse.Namespace) -> Path:
    """Write the folder of a cell.

    Args:
        root: the repository's top folder.
        here: the folder that `--out` is relative to.
        params: the parameters.
        arguments: the command line.

    Returns:
        The folder, with `model.safetensors`, `model.py`, `config.json` and the card `README.md`;
        with `--mlflow`, an MLflow model in `mlflow`.

    Raises:
        ExportError: if there is no such cell, its files are not here or not those of its rows, its
            model's code has changed since, it collapsed, or the folder is in use.
    """
    study, cell = locate(root, arguments.cell)
    manifest = _manifest(root, study, cell)
    model = manifest["params"]["model"]
    weights = _weights(root, manifest, arguments.weights)
    _same_code(root, manifest)
    facts = _facts(root, manifest)
    card = _card(root, params, study, cell, manifest, facts)
    if card.collapsed and not arguments.collapsed:
        (flag, *_) = (flag for flag in card.flags if flag.kind == "collapsed")
        raise ExportError(
            f"{study}/{cell}: {flag.words(lambda share: f'{share:.1%}')}; such weights are of use "
            "as a bad example alone: --collapsed exports them, and the card says so"
        )
    ending = "" if arguments.weights == "last" else f"-{arguments.weights}"
    out = here / arguments.out if arguments.out else root / FOLDER / study / f"{cell}{ending}"
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ExportError(f"{out} is in use; remove it, or name another folder with --out")
    told = _config(manifest, study, arguments.weights, hash_file(weights), facts)
    with _whole(out) as folder:
        shutil.copyfile(weights, folder / "model.safetensors")
        copy_own_files(root, model, folder)
        (folder / "model.py").write_text(code(root, model, facts), encoding="utf-8")
        (folder / "config.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        if arguments.mlflow:
            from advtrain.tracking.mlflow_model import save_mlflow_model

            save_mlflow_model(folder, {name: told[name] for name in ("study", "cell", "key")})
        text = card_text(card, _loading(told, mlflow=arguments.mlflow))
        (folder / "README.md").write_text(text, encoding="utf-8")
    return out


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """Give a folder to fill, which gets its name when it is full, or is gone."""
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.replace(out)  # an empty folder gives way
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def locate(root: Path, name: str) -> tuple[str, str]:
    """Find the one finished cell that a name means; returns the study and the cell.

    Raises:
        ExportError: if there is none, or several.
    """
    pattern = name if "/" in name else f"*/{name}"
    trained = root / "results/train"
    found = [path.parent for path in sorted(trained.glob(f"{pattern}/manifest.json"))]
    if len(found) == 1:
        return found[0].parent.name, found[0].name
    if found:
        studies = ", ".join(f"{path.parent.name}/{path.name}" for path in found)
        raise ExportError(f"several studies have a cell {name}: {studies}; name one of these")
    known = [path.parent for path in trained.glob("*/*/manifest.json")]
    names = [f"{path.parent.name}/{path.name}" if "/" in name else path.name for path in known]
    raise ExportError(
        f"there is no finished cell {name}{did_you_mean(name, sorted(set(names)))}; "
        "`advtrain status --all` lists the cells, `dvc pull` or snakemake brings them"
    )


def _manifest(root: Path, study: str, cell: str) -> Manifest:
    path = root / "results/train" / study / cell / "manifest.json"
    found = read_manifest(path)
    if found is None:
        raise ExportError(f"{path} cannot be read; `dvc checkout` restores it")
    return found


def _weights(root: Path, manifest: Manifest, which: str) -> Path:
    """Return the file of the weights, if it holds the bytes that the training wrote."""
    (name,) = (one for one in manifest["outputs"] if one.endswith(f"/{which}.safetensors"))
    path: Path = root / name
    if not path.is_file():
        raise ExportError(f"{path} is not here; `dvc pull checkpoints` brings it if it was pushed")
    if hash_file(path) != manifest["outputs"][name]["sha256"]:
        raise ExportError(
            f"{path} has other bytes than its manifest says; `dvc checkout` restores it"
        )
    return path


def _same_code(root: Path, manifest: Manifest) -> None:
    """Refuse code that would make another network of the same weights."""
    model = manifest["params"]["model"]["module"]
    for file, digest in digest_files(root, files(root, model)).items():
        if manifest["code"].get(file) != digest:
            raise ExportError(
                f"{file} has changed since {manifest['name']} was trained, so that it may be "
                "another network; check out the commit of the training, or run snakemake"
            )


def _facts(root: Path, manifest: Manifest) -> Mapping[str, Any]:
    """Read what is known of the data set that the cell was trained on."""
    path = root / "data/prepared" / manifest["params"]["dataset"] / "dataset.json"
    try:
        facts: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(
            f"{path}: {error}; `dvc pull data/prepared` brings it, snakemake makes it"
        ) from None
    return facts


def _card(
    root: Path,
    params: Params,
    study: str,
    cell: str,
    manifest: Manifest,
    facts: Mapping[str, Any],
) -> Card:
    """Return the card, if the collected rows are of this very training."""
    mend = "run `snakemake --cores all`, which collects them"
    try:
        collected = read_collected(root / "results/collect" / study)
    except (FileNotFoundError, DamagedFileError) as error:
        raise ExportError(f"{study}: the rows for the card cannot be read: {error}") from None
    cards = read_cards(collected, _info(root, params, study, facts))
    if cell not in cards:
        raise ExportError(f"{study}/{cell}: the collected rows do not have it; {mend}")
    if cards[cell].row["key"] != manifest["key"]:
        raise ExportError(f"{study}/{cell}: the collected rows are of another training; {mend}")
    return cards[cell]


def _info(root: Path, params: Params, study: str, facts: Mapping[str, Any]) -> StudyInfo:
    params = with_evaluations(root, params)
    if study not in params.studies:
        raise ExportError(
            f"params.yaml has no study {study} (any more), which says what the numbers are of"
        )
    graph = Graph(replace(params, run=(study,)), root, names_only=True)
    shown = graph[f"tables:{study}"].params
    return check_info({**shown, "classes": len(facts["classes"]), "failures": []})


def copy_own_files(root: Path, model: Mapping[str, Any], out: Path) -> None:
    """Copy the file that builds a user's network, and those beside it that it imports."""
    if model["module"] == "external":
        file = root / model["parameters"]["file"]
        for path in imported_beside(file):
            target = out / BESIDE / path.relative_to(file.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def code(root: Path, model: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Write `model.py`: the network's definitions, and a function that loads the weights."""
    given = {
        "channels": facts["channels"],
        "size": facts["size"],
        "classes": len(facts["classes"]),
        **model["parameters"],
    }
    arguments = {name: repr(value) for name, value in given.items()}
    if model["module"] == "external":
        own = f"{BESIDE}/{Path(model['parameters']['file']).name}"
        arguments["file"] = f"str(Path(__file__).with_name({BESIDE!r}) / {Path(own).name!r})"
    lines = "".join(f"        {name}={value},\n" for name, value in arguments.items())
    return (
        f'"""{model["module"]}: needs torch and safetensors; `load` returns it with its '
        f'weights."""\n\n'
        f"from __future__ import annotations\n\n"
        f"{standalone(root, model['module'])}\n\n"
        f"def load(weights: str | None = None) -> nn.Module:\n"
        f'    """Return the network with the weights beside it, in eval mode, on the CPU.\n\n'
        f"    Args:\n"
        f"        weights: another safetensors file.\n"
        f'    """\n'
        f"    from pathlib import Path\n\n"
        f"    from safetensors.torch import load_file\n\n"
        f"    network = {model['module']}(\n{lines}    )\n"
        f'    path = weights or Path(__file__).with_name("model.safetensors")\n'
        f"    network.load_state_dict(load_file(path))\n"
        f"    return network.eval()\n"
    )


def _config(
    manifest: Manifest, study: str, weights: str, sha256: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Say for programs what the folder holds."""
    params = manifest["params"]
    return {
        "study": study,
        "cell": manifest["name"].split("/")[1],
        "key": manifest["key"],
        "weights": weights,
        "sha256": sha256,
        "model": {name: params["model"][name] for name in ("module", "parameters")},
        "method": params["method"]["module"],
        "threat": params["threat"],
        "seed": params["seed"],
        "dataset": facts["name"],
        "input": {
            "shape": ["N", facts["channels"], facts["size"], facts["size"]],
            "type": "float32",
            "range": [0, 1],
        },
        "classes": facts["classes"],
    }


def _loading(config: Mapping[str, Any], *, mlflow: bool) -> str:
    """Say how to load the folder's weights."""
    shape = ", ".join(map(str, config["input"]["shape"]))
    text = (
        f"The {config['weights']} weights of the training, SHA-256 `{config['sha256']}`. "
        f"`model.py` needs torch and safetensors and nothing else (a `resnet` also torchvision):\n"
        f"\n```python\nfrom model import load  # in this folder\n\n"
        f"network = load()  # eval mode, on the CPU\n"
        f"logits = network(images)  # images ({shape}), float32 in [0, 1]\n```\n\n"
        f"`config.json` says the same for programs, with the names of the classes."
    )
    if mlflow:
        text += (
            "\n\nThe folder `mlflow` is an MLflow model, a traced program of the network:\n\n"
            '```python\nnetwork = mlflow.pytorch.load_model("mlflow")  # a module, as above\n'
            'predictor = mlflow.pyfunc.load_model("mlflow")  # predict(array) returns logits\n```'
        )
    return text
