"""Study -> nodes: what there is to compute, where it is written, and the key that names it.

A node's content key is the hash of its stage, its resolved parameters, the code that computes it
and the keys of what it reads. Two nodes with one key hold one result, in whatever study they
stand; a change of anything that can move a number changes the key, and nothing else does.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from advtrain.params import quantities
from advtrain.params.schema import Entry, Epsilon, Params, Study
from advtrain.params.signatures import Value, needs_threat, signature
from advtrain.provenance import closure, code_digest, digest_files, hash_json

STAGES = ("prepare", "train", "attack", "collect", "tables", "figures", "report")
TABLES = ("results", "costs", "curve")
FIGURES = ("accuracy_epsilon", "training_curves", "trade_off")
TABLE_FORMATS = ("md", "csv", "tex", "parquet")
FIGURE_FORMATS = ("svg", "pdf", "png")
TEMPLATES = "src/advtrain/reporting/templates"


class DuplicateCellError(ValueError):
    """Two entries of a study would write the same files."""


@dataclass(frozen=True)
class Node:
    """One computation: `train` of a cell, `attack` of a cell by an attack, `tables` of a study.

    Attributes:
        stage: one of `STAGES`.
        name: unique in its stage, and the folder below the stage's: `digits/trades-linf-0.2-s0`.
        params: every resolved parameter that can move a number; part of the key.
        code: the digest of each file that computes it.
        folder: where its manifest lies, relative to the repository.
        outputs: the files that it writes, relative to the repository.
        volatile: outputs that differ from run to run (times), so that nothing may depend on them.
        unkeyed: what the run needs and no number depends on (device, batch size).
        inputs: the nodes whose outputs it reads.
    """

    root: Path
    stage: str
    name: str
    params: Mapping[str, Any]
    code: Mapping[str, str]
    folder: str
    outputs: tuple[str, ...]
    volatile: tuple[str, ...] = ()
    unkeyed: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple["Node", ...] = ()

    @property
    def id(self) -> str:
        """The node's name over all stages: `train:digits/trades-linf-0.2-s0`."""
        return f"{self.stage}:{self.name}"

    @functools.cached_property
    def key(self) -> str:
        """The content key."""
        upstream = sorted(one.key for one in self.inputs)
        return hash_json([self.stage, self.params, code_digest(self.code), upstream])

    @property
    def manifest(self) -> Path:
        """Where the record of what was computed lies, beside the results."""
        return self.root / self.folder / "manifest.json"

    @property
    def marker(self) -> str:
        """The file that Snakemake looks at: it exists if the results on disk have this key."""
        return f".pipeline/fresh/{self.stage}/{self.name}"

    @property
    def spec_path(self) -> str:
        """The immutable snapshot that the job runs from, whatever becomes of `params.yaml`."""
        return f".pipeline/specs/{self.stage}/{self.name}.{self.key}.json"

    @property
    def wip(self) -> str:
        """The folder of unfinished work, kept over a kill."""
        return f".pipeline/wip/{self.stage}/{self.name}.{self.key}"

    @property
    def progress(self) -> str:
        """The small file that says how far a running job is."""
        return f".pipeline/progress/{self.stage}/{self.name}.json"

    @property
    def log(self) -> str:
        """The job's log file."""
        return f"logs/{self.stage}/{self.name}.log"

    def spec(self) -> dict[str, Any]:
        """Return the snapshot: all that the job may know."""
        return {
            "stage": self.stage,
            "name": self.name,
            "key": self.key,
            "params": self.params,
            "code": self.code,
            "code_digest": code_digest(self.code),
            "folder": self.folder,
            "outputs": list(self.outputs),
            "volatile": list(self.volatile),
            "unkeyed": self.unkeyed,
            "inputs": [
                {"id": i.id, "key": i.key, "folder": i.folder, "outputs": list(i.outputs)}
                for i in self.inputs
            ],
        }


class Graph:
    """All nodes of the studies that `run` names, each after what it reads."""

    def __init__(self, params: Params, root: Path) -> None:
        self.params = params
        self.root = root
        self.nodes: dict[str, Node] = {}
        self._codes: dict[tuple[str, ...], dict[str, str]] = {}
        for study in (params.studies[name] for name in params.run):
            self._study(study)
        report = self._node(
            "report",
            "all",
            params={"studies": [_shown(params.studies[name], params) for name in params.run]},
            roots=("pipeline/steps/report.py", *self._templates()),
            folder="reports",
            outputs=("reports/index.html", "reports/metrics.json"),
            inputs=tuple(
                n for s in ("prepare", "collect", "tables", "figures") for n in self.stage(s)
            ),
        )
        self.report = report

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def __getitem__(self, id: str) -> Node:
        return self.nodes[id]

    def stage(self, stage: str) -> list[Node]:
        """Return the nodes of a stage."""
        return [node for node in self if node.stage == stage]

    def _node(self, stage: str, name: str, *, roots: tuple[str, ...], **given: Any) -> Node:
        """Add a node, computed by the import closure of some files."""
        if roots not in self._codes:
            self._codes[roots] = digest_files(self.root, closure(self.root, roots))
        node = Node(root=self.root, stage=stage, name=name, code=self._codes[roots], **given)
        if node.id in self.nodes:
            raise DuplicateCellError(
                f"params.yaml: two entries make the cell {name} ({stage}); "
                "rename or remove one of them"
            )
        self.nodes[node.id] = node
        return node

    def _templates(self) -> tuple[str, ...]:
        found = (self.root / TEMPLATES).glob("*")
        return tuple(sorted(f"{TEMPLATES}/{p.name}" for p in found if p.is_file()))

    def _prepare(self, name: str) -> Node:
        if f"prepare:{name}" in self.nodes:
            return self.nodes[f"prepare:{name}"]
        entry = self.params.datasets[name]
        folder = f"data/prepared/{name}"
        files = ("train.arrow", "validation.arrow", "test.arrow", "dataset.json")
        return self._node(
            "prepare",
            name,
            params={"dataset": _data_set(entry)},
            roots=("pipeline/steps/prepare.py", f"src/advtrain/data/{entry.module}.py"),
            folder=folder,
            outputs=tuple(f"{folder}/{file}" for file in files),
            unkeyed={"raw_data": self.params.raw_data},
        )

    def _study(self, study: Study) -> None:
        data = self._prepare(study.dataset)
        attacks: list[Node] = []
        cells: list[Node] = []
        for method in study.methods:
            threatened = needs_threat(self.params.methods[method].module)
            for epsilon in study.epsilons if threatened else (None,):
                for seed in study.seeds:
                    cell = self._train(study, data, method, epsilon, seed)
                    cells.append(cell)
                    attacks += self._attacks(study, data, cell, epsilon)
        collect = self._node(
            "collect",
            study.name,
            params={
                "cells": {
                    cell.name.split("/")[1]: [
                        a.name.rsplit("/", 1)[1] for a in attacks if a.inputs[0] is cell
                    ]
                    for cell in cells
                }
            },
            roots=("pipeline/steps/collect.py",),
            folder=f"results/collect/{study.name}",
            outputs=tuple(
                f"results/collect/{study.name}/{table}.parquet"
                for table in ("outcomes", "cells", "histories", "costs")
            ),
            volatile=(f"results/collect/{study.name}/costs.parquet",),
            inputs=(*cells, *attacks),
        )
        for stage in ("tables", "figures"):
            folder = f"reports/{stage}/{study.name}"
            kinds = TABLES if stage == "tables" else FIGURES
            endings = (
                ("md", "csv", "tex", "parquet") if stage == "tables" else ("svg", "pdf", "png")
            )
            made = [f"{folder}/{kind}.{ending}" for kind in kinds for ending in endings]
            self._node(
                stage,
                study.name,
                params=_shown(study, self.params),
                roots=(f"pipeline/steps/{stage}.py",),
                folder=folder,
                outputs=tuple(made),
                volatile=tuple(m for m in made if m.startswith(f"{folder}/costs")),
                inputs=(collect, data),
            )

    def _train(
        self, study: Study, data: Node, method: str, epsilon: Epsilon | None, seed: int
    ) -> Node:
        params = self.params
        entry, model = params.methods[method], params.models[study.model]
        recipe = params.recipes[study.recipes[method]]
        threat = f"-{study.norm}-{epsilon.slug}" if epsilon else ""
        name = f"{study.name}/{method}{threat}-s{seed}"
        folder, weights = f"results/train/{name}", f"checkpoints/{name}"
        files = ("history.parquet", "summary.json", "timing.json")
        return self._node(
            "train",
            name,
            params={
                "dataset": study.dataset,
                "model": _resolved("models", model),
                "method": _resolved("methods", entry, epsilon),
                "threat": {"norm": study.norm, "epsilon": epsilon.value} if epsilon else None,
                "recipe": {"name": recipe.name, "parameters": _plain(recipe.parameters)},
                "seed": seed,
            },
            roots=(
                "pipeline/steps/train.py",
                f"src/advtrain/methods/{entry.module}.py",
                f"src/advtrain/models/{model.module}.py",
            ),
            folder=folder,
            outputs=(
                *(f"{weights}/{which}.safetensors" for which in ("last", "best")),
                *(f"{folder}/{file}" for file in files),
            ),
            volatile=(f"{folder}/timing.json",),
            unkeyed={"device": params.device},
            inputs=(data,),
        )

    def _attacks(
        self, study: Study, data: Node, cell: Node, epsilon: Epsilon | None
    ) -> Iterator[Node]:
        """Each attack at the cell's own budget (all of the study's if it has none), then the curve.

        An evaluation that both ask for is made once.
        """
        own = (epsilon,) if epsilon else study.epsilons
        wanted = [(attack, budget) for budget in own for attack in study.attacks]
        if study.curve:
            wanted += [(study.curve.attack, budget) for budget in study.curve.epsilons]
        for weights in study.weights:
            made: set[tuple[str, float]] = set()
            for attack, budget in wanted:
                if (attack, budget.value) not in made:
                    made.add((attack, budget.value))
                    yield self._attack(study, data, cell, attack, budget, weights)

    def _attack(
        self, study: Study, data: Node, cell: Node, attack: str, epsilon: Epsilon, weights: str
    ) -> Node:
        entry, model = self.params.attacks[attack], self.params.models[study.model]
        chosen = "" if weights == "last" else f"-{weights}"
        evaluation = f"{attack}-{study.norm}-{epsilon.slug}{chosen}"
        folder = f"results/attack/{cell.name}/{evaluation}"
        return self._node(
            "attack",
            f"{cell.name}/{evaluation}",
            params={
                "cell": cell.name.split("/")[1],
                "evaluation": evaluation,
                "model": _resolved("models", model),
                "attack": _resolved("attacks", entry, epsilon),
                "threat": {"norm": study.norm, "epsilon": epsilon.value},
                "weights": weights,
                "examples": study.attack_examples,
                "seed": cell.params["seed"],
            },
            roots=(
                "pipeline/steps/attack.py",
                f"src/advtrain/attacks/{entry.module}.py",
                f"src/advtrain/models/{model.module}.py",
            ),
            folder=folder,
            outputs=(f"{folder}/outcomes.parquet", f"{folder}/timing.json"),
            volatile=(f"{folder}/timing.json",),
            unkeyed={"device": self.params.device, "batch_size": study.attack_batch_size},
            inputs=(cell, data),
        )


def _resolved(kind: str, entry: Entry, epsilon: Epsilon | None = None) -> dict[str, Any]:
    """Return an entry's parameters as the job gets them: steps in pixel units, lists for JSON."""
    values = _plain(entry.parameters)
    for name, value in values.items():
        if epsilon and value is not None and _is_step_size(kind, entry.module, name):
            values[name] = quantities.step_size(value, epsilon.value)
    return {"name": entry.name, "module": entry.module, "parameters": values}


def _plain(parameters: Mapping[str, Value]) -> dict[str, Any]:
    """Return values as JSON gives them back, so that a manifest compares equal."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in parameters.items()
    }


def _data_set(entry: Entry) -> dict[str, Any]:
    """Return a data set's parameters: those of its module, and those of the split."""
    own = signature("data", entry.module)
    values = _plain(entry.parameters)
    return {
        "name": entry.name,
        "module": entry.module,
        "parameters": {name: value for name, value in values.items() if name in own},
        "split": {name: value for name, value in values.items() if name not in own},
    }


def _is_step_size(kind: str, module: str, name: str) -> bool:
    return signature(kind, module)[name].quantity == "StepSize"


def _shown(study: Study, params: Params) -> dict[str, Any]:
    """Return what the tables, figures and the page show of a study besides its rows."""
    return {
        "name": study.name,
        "title": study.title,
        "description": study.description,
        "dataset": study.dataset,
        "model": study.model,
        "norm": study.norm,
        "epsilons": [{"text": e.text, "value": e.value} for e in study.epsilons],
        "methods": list(study.methods),
        "attacks": list(study.attacks),
        "curve_attack": study.curve.attack if study.curve else None,
        "method_modules": {m: params.methods[m].module for m in study.methods},
    }
