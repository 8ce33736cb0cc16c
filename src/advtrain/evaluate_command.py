"""`advtrain evaluate`: somebody's model as a study of its own, run by the same graph.

The command writes what `params.yaml` would say (an overlay below `.pipeline/evaluate`), lets
Snakemake run it, and prints the table. Pasted into `params.yaml`, the overlay is the same study.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from advtrain.command_error import CommandError
from advtrain.graph.nodes import Graph
from advtrain.params.quantities import fraction
from advtrain.params.reader import NORMS, SECTIONS, ParamsError, did_you_mean, load_yaml, read
from advtrain.params.schema import Params
from advtrain.params.signatures import modules

FOLDER = ".pipeline/evaluate"
EPSILONS = {"linf": "8/255", "l2": "0.5", "l1": "12"}
"""The budget of each norm at which most robustness on small colour images is reported."""


class EvaluateError(CommandError):
    """The command line cannot be made a study; the message says why and what to do."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the options of `advtrain evaluate`."""
    command.add_argument(
        "--model",
        required=True,
        metavar="FILE.py:FUNCTION",
        help="what builds the network (function `build` if none is named), or a model of "
        "params.yaml",
    )
    command.add_argument(
        "--weights", default="", metavar="FILE", help="a state dict: safetensors or torch.save's"
    )
    command.add_argument(
        "--part", default="", metavar="NAME", help="which state dict of the file, if several fit"
    )
    command.add_argument("--dataset", required=True, metavar="NAME", help="of params.yaml")
    command.add_argument(
        "--attacks", required=True, metavar="NAME,...", help="of params.yaml, or modules"
    )
    command.add_argument("--norm", default="linf", choices=NORMS)
    command.add_argument(
        "--epsilon",
        nargs="+",
        metavar="E",
        help="budgets in [0, 1] pixel units; default "
        + ", ".join(f"{epsilon} for {norm}" for norm, epsilon in EPSILONS.items()),
    )
    command.add_argument(
        "--curve", nargs="+", metavar="E", help="budgets of a curve under the last of the attacks"
    )
    command.add_argument(
        "--examples", type=int, metavar="N", help="the first N test examples; default all"
    )
    command.add_argument("--batch-size", type=int, metavar="B", help="default 250")
    for name, what in (("mean", "of each channel, subtracted"), ("std", "then divided by")):
        command.add_argument(
            f"--{name}",
            type=_numbers,
            default=[],
            metavar="A,...",
            help=f"{what} in front of the network; default: it normalises by itself",
        )
    command.add_argument("--name", metavar="NAME", help="of the study; default: from the file")
    command.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="jobs at once")
    command.add_argument("--dry-run", action="store_true", help="say what would be run")


def _numbers(text: str) -> list[float]:
    try:
        return [fraction(one) for one in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def overlay(
    root: Path, here: Path, params: Params, arguments: argparse.Namespace
) -> tuple[str, dict[str, Any]]:
    """Say as `params.yaml` would what is to be evaluated.

    Args:
        root: the repository's top folder.
        here: the folder that the paths of the command line are relative to.
        params: the parameters without it.
        arguments: the command line.

    Returns:
        The study's name, and what `params.yaml` lacks for it.

    Raises:
        EvaluateError: if the study is there already, or a name is not known.
    """
    file, separator, build = arguments.model.partition(".py:")
    own = bool(separator) or arguments.model.endswith(".py")
    path = file + ".py" if separator else arguments.model
    name = arguments.name or _name(arguments.weights or path)
    for section in ("studies", "methods", *(["models"] if own else [])):
        if name in getattr(params, section):
            mend = f"`advtrain select {name}` and `snakemake` run it, or " * (section == "studies")
            raise EvaluateError(
                f"params.yaml has {section}.{name} already; {mend}choose another --name"
            )
    made: dict[str, Any] = {"run": [name]}
    if own:
        entry = {
            "module": "external",
            "file": _path(root, here, "--model", path),
            "build": build or "build",
        }
        tables = {"mean": arguments.mean, "std": arguments.std}
        made["models"] = {name: entry | {key: one for key, one in tables.items() if one}}
    elif arguments.model not in params.models:
        mend = did_you_mean(arguments.model, params.models)
        raise EvaluateError(
            f"--model {arguments.model}: expected FILE.py:FUNCTION or a model of params.yaml{mend}"
        )
    elif arguments.mean or arguments.std:
        raise EvaluateError(
            f"--mean, --std: are for a network of a file; models.{arguments.model} of params.yaml "
            "says how it normalises"
        )
    weights = _path(root, here, "--weights", arguments.weights) if arguments.weights else ""
    method = {"module": "given", "weights": weights, "part": arguments.part}
    made["methods"] = {name: {key: one for key, one in method.items() if one}}
    attacks = [one.strip() for one in arguments.attacks.split(",") if one.strip()]
    if not attacks:
        raise EvaluateError("--attacks: expected one name at least, such as autoattack")
    for option, section, wanted in (
        ("--dataset", "datasets", [arguments.dataset]),
        ("--attacks", "attacks", attacks),
    ):
        made |= _added(params, option, section, wanted)
    study = {
        "title": f"Evaluation of {name}",
        "dataset": arguments.dataset,
        "model": name if own else arguments.model,
        "norm": arguments.norm,
        "epsilons": _budgets(arguments.epsilon or [EPSILONS[arguments.norm]]),
        "methods": [name],
        "attacks": attacks,
        "attack_examples": arguments.examples,
        "attack_batch_size": arguments.batch_size,
        "weights": ["last"],
        "curve": arguments.curve and {"attack": attacks[-1], "epsilons": _budgets(arguments.curve)},
    }
    made["studies"] = {name: {key: one for key, one in study.items() if one is not None}}
    return name, made


def _name(path: str) -> str:
    """Make a file's name one that files of results can bear."""
    stem = re.sub(r"\.(py|pth?|tar|ckpt|bin|safetensors)$", "", Path(path).name)
    return re.sub(r"[^0-9A-Za-z_.]+", "_", stem).strip("_.") or "model"


def _budgets(texts: list[str]) -> list[str | float]:
    """Write decimals as YAML does, without quotes, where that names the same files."""
    decimal = re.compile(r"\d+\.\d+")
    return [
        float(one) if decimal.fullmatch(one) and str(float(one)) == one else one for one in texts
    ]


def _path(root: Path, here: Path, option: str, given: str) -> str:
    """Write a path as `params.yaml` does: relative to the repository if it is in it."""
    path = Path(os.path.abspath(here / Path(given).expanduser()))
    if not path.is_file():
        raise EvaluateError(f"{option}: there is no file {path}")
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _added(params: Params, option: str, section: str, wanted: list[str]) -> dict[str, Any]:
    """Return entries, with the defaults, for modules that `params.yaml` has none of."""
    entries, known = getattr(params, section), modules(SECTIONS[section])
    for name in wanted:
        if name not in entries and name not in known:
            mend = did_you_mean(name, sorted({*entries, *known}))
            raise EvaluateError(f"{option}: there is no {name!r}{mend}")
    absent = {name: dict[str, Any]() for name in wanted if name not in entries}
    return {section: absent} if absent else {}


def merged(root: Path, params: Params, made: Mapping[str, Any]) -> Params:
    """Read the parameters with an overlay laid over them.

    Raises:
        ParamsError: with one line for each problem.
    """
    source = dict(params.source)
    for key, value in made.items():
        mapping = isinstance(value, Mapping)
        source[key] = {**(source.get(key) or {}), **value} if mapping else value
    return read(root / "params.yaml", source)


def with_evaluations(root: Path, params: Params) -> Params:
    """Return the parameters with the studies of earlier evaluations, which stay to be run.

    One that cannot be read any more (its attack was taken out of `params.yaml`) is left out.
    """
    for path in sorted((root / FOLDER).glob("*.yaml")):
        try:
            made = load_yaml(path)
            if path.stem not in params.studies:
                params = merged(root, params, {**made, "run": list(params.run)})
        except ParamsError:
            continue
    return params


def write_overlay(root: Path, name: str, made: Mapping[str, Any]) -> Path:
    """Write the overlay to where Snakemake reads it from; return the path from the root."""
    path = Path(FOLDER, f"{name}.yaml")
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(as_yaml(made), encoding="utf-8")
    return path


def as_yaml(made: Mapping[str, Any]) -> str:
    """Write an overlay as it can be pasted into `params.yaml`."""
    return yaml.safe_dump(dict(made), sort_keys=False, default_flow_style=None, width=100)


def run(root: Path, name: str, made: Mapping[str, Any], params: Params, cores: int) -> int:
    """Run the study of an overlay; print its results and what the audits say of them.

    Args:
        root: the repository's top folder.
        name: of the study.
        made: the overlay.
        params: with the overlay.
        cores: jobs at once.

    Returns:
        Snakemake's exit code.

    Raises:
        ParamsError: if a file that it names is not there.
    """
    Graph(params, root)  # what it cannot derive is said here, before anything is written
    path = write_overlay(root, name, made)
    command = ["-m", "snakemake", "--cores", str(cores), "--configfile", str(path)]
    done = subprocess.run([sys.executable, *command], cwd=root, check=False).returncode
    if done:
        print(f"the evaluation did not finish; logs/*/{name}/ say why", file=sys.stderr)
        return done
    tables = root / f"reports/tables/{name}"
    shown = "\n".join(
        (tables / f"{table}.md").read_text(encoding="utf-8") for table in ("results", "audits")
    )
    kept = "\n".join(f"  {line}" for line in as_yaml(made).splitlines()[1:])
    print(
        f"\n{shown}\n"
        f"tables: reports/tables/{name}/; rows: results/attack/{name}/\n"
        "page: reports/index.html, which shows the last run; another run writes it anew\n"
        f"again: the same command, or snakemake --cores all --configfile {path}\n"
        f"to keep it as a study, merge into params.yaml:\n{kept}"
    )
    return 0
