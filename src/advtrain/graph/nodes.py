"""Study -> nodes: what there is to compute, where it is written, and the key that names it.

A node's content key is the hash of its stage, its resolved parameters, the code that computes it
and the keys of what it reads. Two nodes with one key hold one result, in whatever study they
stand; a change of anything that can move a number changes the key, and nothing else does.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from advtrain.graph.files import file_digests
from advtrain.graph.references import Reference, references
from advtrain.params import quantities
from advtrain.params.reader import ParamsError
from advtrain.params.schema import Entry, Epsilon, Params, Study
from advtrain.params.signatures import (
    Value,
    is_trained,
    needs_threat,
    norms,
    per_example,
    signature,
    takes_threat,
)
from advtrain.provenance import closure, code_digest, digest_files, hash_json, keep, recall

STAGES = (
    *("prepare", "train", "attack", "certify", "probe"),
    *("collect", "tables", "figures", "report"),
)
CELL_STAGES = ("train", "attack", "certify", "probe")
"""The stages of a cell: they compute on the device, read the weights of trainings, and are kept in
the store."""
TABLES = (
    *("results", "costs", "curve", "selection", "methods", "certified"),
    *("comparisons", "overlap", "transformed", "audits", "published", "claims"),
)
FIGURES = (
    *("accuracy_epsilon", "training_curves", "trade_off", "cost_passes", "cost_time"),
    *("attack_overlap", "class_accuracy", "certified_radius", "loss_surface", "input_gradients"),
    *("adapted_budgets", "adversarial_examples"),
)
COLLECTED = (
    *("outcomes", "cells", "histories", "costs", "certified", "probes"),
    *("adversarial", "landscapes", "example_values", "extremes"),
)
PLOTS = ("accuracy_epsilon", "training_curves", "trade_off")
"""What DVC draws, of all studies."""
TIMED = ("costs", "cost_time")
"""The tables and figures of measured times, which differ from run to run."""
TABLE_FORMATS = ("md", "csv", "tex", "parquet")
FIGURE_FORMATS = ("svg", "pdf", "png")
TEMPLATES = "src/advtrain/reporting/templates"
PUBLISHED = ("src/advtrain/published", "src/advtrain/published/registry")
"""Where the published claims and numbers are, as YAML files."""
BALLS = ("linf", "l2", "l1")
"""The norms that come with a budget."""
PROBED = 200
"""How many test examples a probe looks at."""
PICTURED = 4
"""Around how many of them the loss is shown."""
OWN_RADIUS_NORM = "l2"
"""The norm of the radius that a certificate finds by itself (randomised smoothing)."""


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
        roles: which input is what, where the stage does not say it: `teacher`, `start`.
        step: the module of `pipeline/steps` that computes it; empty if it is named as the stage.
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
    roles: Mapping[str, "Node"] = field(default_factory=dict)
    step: str = ""

    @property
    def id(self) -> str:
        """The node's name over all stages: `train:digits/trades-linf-0.2-s0`."""
        return f"{self.stage}:{self.name}"

    @functools.cached_property
    def key(self) -> str:
        """The content key."""
        upstream = sorted(one.key for one in self.inputs)
        roles = {role: one.key for role, one in self.roles.items()}
        return hash_json([self.stage, self.params, code_digest(self.code), upstream, roles])

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
            "step": self.step or self.stage,
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
            "roles": {role: one.id for role, one in self.roles.items()},
        }


class Graph:
    """All nodes of the studies that `run` names, each after what it reads.

    Args:
        params: the parameters.
        root: the repository's top folder.
        names_only: whether a file that a parameter names may be absent, because no key is asked
            for.

    Raises:
        ParamsError: if it is absent and may not be, or cannot be read.
        DuplicateCellError: if two entries of a study would write the same files.
    """

    def __init__(self, params: Params, root: Path, *, names_only: bool = False) -> None:
        self.params = params
        self.root = root
        self.names_only = names_only
        self.nodes: dict[str, Node] = {}
        self._codes: dict[tuple[str, ...], dict[str, str]] = {}
        self._files: dict[str, dict[str, str]] = {}
        recall(root)
        for study in (params.studies[name] for name in params.run):
            self._study(study)
        try:
            kept = [one for one in references(root) if one.study in params.studies]
        except ValueError as error:
            raise ParamsError(str(error)) from None
        for one in kept:
            self._reference(one)
        report = self._node(
            "report",
            "all",
            params={
                "studies": [_shown(params.studies[name], params) for name in params.run],
                "references": [self._shown_reference(one) for one in kept],
            },
            roots=("pipeline/steps/report.py", *self._published(), *self._templates()),
            folder="reports",
            outputs=(
                *(f"reports/{file}" for file in ("index.html", "metrics.json", "paper.tex")),
                *(f"reports/numbers/{name}.tex" for name in params.run),
                *(f"reports/plots/{name}.csv" for name in PLOTS),
            ),
            inputs=tuple(
                n for s in ("prepare", "collect", "tables", "figures") for n in self.stage(s)
            ),
        )
        self.report = report
        keep(root)

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

    def _with_files(
        self, kind: str, entry: Entry, epsilon: Epsilon | None = None
    ) -> dict[str, Any]:
        """Return an entry's resolved parameters, with the digests of the files that they name."""
        resolved = _resolved(kind, entry, epsilon)
        known = signature(kind, entry.module)
        files: dict[str, str] = {}
        for name, path in entry.parameters.items():
            if known[name].quantity == "File" and path:
                files |= self._digests(f"params.yaml: {kind}.{entry.name}.{name}", str(path))
        return {**resolved, "files": files} if files else resolved

    def _digests(self, place: str, path: str) -> dict[str, str]:
        """Hash a file that a parameter names; every node of a study names the same ones."""
        if path not in self._files:
            try:
                self._files[path] = file_digests(self.root, path)
            except OSError as error:
                if self.names_only:
                    return {}
                cause = error.strerror or "there is no such file"
                raise ParamsError(
                    f"{place}: {self.root / path}: {cause}; a path is relative to the repository, "
                    "or absolute"
                ) from None
            except (SyntaxError, UnicodeDecodeError) as error:
                raise ParamsError(f"{place}: {path} is not valid Python: {error}") from None
        return self._files[path]

    def _device(self) -> dict[str, Any]:
        """Return where the jobs of cells are to run."""
        return {"device": self.params.device, "cells_per_gpu": self.params.cells_per_gpu}

    def _templates(self) -> tuple[str, ...]:
        found = (self.root / TEMPLATES).glob("*")
        return tuple(sorted(f"{TEMPLATES}/{p.name}" for p in found if p.is_file()))

    def _published(self) -> tuple[str, ...]:
        found = (path for folder in PUBLISHED for path in (self.root / folder).glob("*.yaml"))
        return tuple(sorted(path.relative_to(self.root).as_posix() for path in found))

    def _prepare(self, name: str) -> Node:
        if f"prepare:{name}" in self.nodes:
            return self.nodes[f"prepare:{name}"]
        entry = self.params.datasets[name]
        folder = f"data/prepared/{name}"
        splits = ("train", "validation", "test", "unlabelled")
        files = (*(f"{split}.arrow" for split in splits), "dataset.json")
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
        cells: list[Node] = []
        attacks: dict[str, list[Node]] = {}
        certificates: dict[str, list[Node]] = {}
        probes: dict[str, list[Node]] = {}
        for method in study.methods:
            threatened = needs_threat(self.params.methods[method].module)
            for epsilon in study.epsilons if threatened else (None,):
                for seed in study.seeds_at(epsilon):
                    cell = self._train(study, data, method, epsilon, seed)
                    cells.append(cell)
                    attacks[cell.name] = list(self._attacks(study, data, cell, epsilon))
                    certificates[cell.name] = list(
                        self._certificates(study, data, cell, method, epsilon)
                    )
                    probes[cell.name] = [self._probe(study, data, cell, epsilon)]
        collect = self._node(
            "collect",
            study.name,
            params={
                "cells": _evaluations(attacks),
                "certificates": _evaluations(certificates),
                "probes": _evaluations(probes),
            },
            roots=("pipeline/steps/collect.py",),
            folder=f"results/collect/{study.name}",
            outputs=tuple(f"results/collect/{study.name}/{one}.parquet" for one in COLLECTED),
            volatile=(f"results/collect/{study.name}/costs.parquet",),
            inputs=(
                data,
                *cells,
                *(
                    one
                    for made in (attacks, certificates, probes)
                    for of in made.values()
                    for one in of
                ),
            ),
        )
        self._rendered(study.name, _shown(study, self.params), (collect, data))

    def _reference(self, reference: Reference) -> None:
        """Add a reference run, whose rows are committed.

        It stands beside the study's own rows, or for them if the study is not run here. With names
        only, both count as wanted: another run may have made either.
        """
        folder = f"results/collect/{reference.name}"
        collect = self._node(
            "collect",
            reference.name,
            params={"folder": reference.folder, "files": dict(reference.files)},
            roots=("pipeline/steps/reference.py",),
            folder=folder,
            outputs=tuple(f"{folder}/{one}.parquet" for one in COLLECTED),
            step="reference",
        )
        if self.names_only or reference.study not in self.params.run:
            self._rendered(reference.name, self._shown_reference(reference), (collect,))

    def _shown_reference(self, reference: Reference) -> dict[str, Any]:
        shown = _shown(self.params.studies[reference.study], self.params)
        facts = {
            "reference": reference.words,
            "classes": reference.facts["classes"],
            "environment": reference.facts["environment"],
        }
        return shown | facts | {"name": reference.name}

    def _rendered(self, name: str, shown: Mapping[str, Any], inputs: tuple[Node, ...]) -> None:
        """Add the tables and figures of collected rows."""
        for stage, kinds, endings in (
            ("tables", TABLES, TABLE_FORMATS),
            ("figures", FIGURES, FIGURE_FORMATS),
        ):
            folder = f"reports/{stage}/{name}"
            outputs = tuple(f"{folder}/{kind}.{ending}" for kind in kinds for ending in endings)
            if stage == "tables":  # a reference run has no cells here, and no cards
                cells = inputs[0].params.get("cells", {})
                outputs += tuple(f"{folder}/cards/{cell}.md" for cell in cells)
            self._node(
                stage,
                name,
                params=shown,
                roots=(
                    f"pipeline/steps/{stage}.py",
                    *(self._published() if stage == "tables" else ()),
                ),
                folder=folder,
                outputs=outputs,
                volatile=tuple(one for one in outputs if Path(one).stem in TIMED),
                inputs=inputs,
            )

    def _train(
        self, study: Study, data: Node, method: str, epsilon: Epsilon | None, seed: int
    ) -> Node:
        """Add a cell, after the cells of the same seed and budget whose weights it uses."""
        params = self.params
        entry, model = params.methods[method], params.models[study.model]
        trained = is_trained(entry.module)
        recipe = params.recipes[study.recipes[method]] if trained else None
        threat = f"-{study.norm}-{epsilon.slug}" if epsilon else ""
        name = f"{study.name}/{method}{threat}-s{seed}"
        if f"train:{name}" in self.nodes:  # another cell of the study asked for it
            return self.nodes[f"train:{name}"]
        roles = {}
        for role, of in entry.upstream_methods.items():
            budget = epsilon if needs_threat(params.methods[of].module) else None
            roles[role] = self._train(study, data, of, budget, seed)
        used = {role: "last" if role in roles else of for role, of in entry.upstream.items()}
        folder, weights = f"results/train/{name}", f"checkpoints/{name}"
        files = ["history.parquet", "summary.json", "timing.json"]
        files += ["examples.parquet"] if per_example(entry.module) else []
        return self._node(
            "train",
            name,
            params={
                "dataset": study.dataset,
                "model": self._with_files("models", model),
                "method": self._with_files("methods", entry, epsilon),
                "threat": {"norm": study.norm, "epsilon": epsilon.value} if epsilon else None,
                "recipe": recipe and {"name": recipe.name, "parameters": _plain(recipe.parameters)},
                "seed": seed,
                "teacher": used.get("teacher"),
                "start": used.get("start"),
            },
            roots=(
                f"pipeline/steps/{'train' if trained else entry.module}.py",
                f"src/advtrain/methods/{entry.module}.py",
                f"src/advtrain/models/{model.module}.py",
            ),
            folder=folder,
            outputs=(
                *(f"{weights}/{which}.safetensors" for which in ("last", "best")),
                *(f"{folder}/{file}" for file in files),
            ),
            volatile=(f"{folder}/timing.json",),
            unkeyed={**self._device(), "raw_data": params.raw_data} if trained else {},
            inputs=(data, *{one.id: one for one in roles.values()}.values()),
            roles=roles,
            step="" if trained else entry.module,
        )

    def _attacks(
        self, study: Study, data: Node, cell: Node, epsilon: Epsilon | None
    ) -> Iterator[Node]:
        """Each attack at the cell's own budget (all of the study's if it has none), then the curve.

        An evaluation that both ask for is made once, and a transformation of the image, which has
        no budget, once for the cell. The curve is of the last weights, where the study attacks
        them.
        """
        own = (epsilon,) if epsilon else study.epsilons
        curve = "last" if "last" in study.weights else "best"
        # Weights that were given are both the last and the best.
        for weights in study.weights if cell.params["recipe"] else (curve,):
            attacks = [one for one in study.attacks if weights in study.attack_weights[one]]
            bound = [one for one in attacks if self._has_budget(one)]
            wanted: list[tuple[str, Epsilon | None]]
            wanted = [(attack, budget) for budget in own for attack in bound]
            wanted += [(attack, None) for attack in attacks if attack not in bound]
            if study.curve and weights == curve:
                wanted += [(study.curve.attack, budget) for budget in study.curve.epsilons]
            made: set[tuple[str, float | None]] = set()
            for attack, budget in wanted:
                place = (attack, budget.value if budget else None)
                if place not in made:
                    made.add(place)
                    yield self._attack(study, data, cell, attack, budget, weights)

    def _has_budget(self, attack: str) -> bool:
        """Say whether an attack stays in a ball, and is no transformation of the image."""
        return bool(set(norms("attacks", self.params.attacks[attack].module)) & set(BALLS))

    def _attack(
        self,
        study: Study,
        data: Node,
        cell: Node,
        attack: str,
        epsilon: Epsilon | None,
        weights: str,
    ) -> Node:
        entry = self.params.attacks[attack]
        norm = study.norm if epsilon else norms("attacks", entry.module)[0]
        chosen = "" if weights == "last" else f"-{weights}"
        roles = {}
        if "source" in entry.upstream:
            roles["source"] = self._source(study, data, cell, entry.upstream["source"])
        return self._evaluation(
            *(study, data, cell, "attack", entry, epsilon),
            name=f"{attack}-{norm}" + (f"-{epsilon.slug}" if epsilon else "") + chosen,
            norm=norm,
            weights=weights,
            examples=study.attack_examples.get(attack),
            rows="outcomes.parquet",
            further={
                "precision": study.attack_precision,
                "adversarial": study.adversarial.get(attack),
            },
            files=("adversarial.safetensors",) if attack in study.adversarial else (),
            roles=roles,
        )

    def _source(self, study: Study, data: Node, cell: Node, method: str) -> Node:
        """Return the cell of another method that an attack on this one is crafted on.

        It has the same seed, and the same training budget if both have one; a cell without a budget
        meets the other method's at the study's first.
        """
        budget = None
        if needs_threat(self.params.methods[method].module):
            own = cell.params["threat"]
            values = {one.value: one for one in study.epsilons}
            budget = values[own["epsilon"]] if own else study.epsilons[0]
        seeds = study.seeds_at(budget)
        seed = cell.params["seed"]
        return self._train(study, data, method, budget, seed if seed in seeds else seeds[0])

    def _probe(self, study: Study, data: Node, cell: Node, epsilon: Epsilon | None) -> Node:
        """Add the look at a cell's gradients, which the audits need, and at its loss around images.

        The loss is shown in units of the cell's budget; of the study's largest if it has none.
        """
        model = self.params.models[study.model]
        budget = epsilon.value if epsilon else max(one.value for one in study.epsilons)
        folder = f"results/probe/{cell.name}/gradients"
        return self._node(
            "probe",
            f"{cell.name}/gradients",
            params={
                "cell": cell.name.split("/")[1],
                "evaluation": "gradients",
                "model": self._with_files("models", model),
                "weights": "last",
                "examples": PROBED,
                "pictured": PICTURED,
                "threat": {"norm": study.norm, "epsilon": budget},
            },
            roots=("pipeline/steps/probe.py", f"src/advtrain/models/{model.module}.py"),
            folder=folder,
            outputs=tuple(
                f"{folder}/{file}"
                for file in ("probes.parquet", "landscapes.parquet", "timing.json")
            ),
            volatile=(f"{folder}/timing.json",),
            unkeyed={**self._device(), "batch_size": study.attack_batch_size},
            inputs=(cell, data),
        )

    def _certificates(
        self, study: Study, data: Node, cell: Node, method: str, epsilon: Epsilon | None
    ) -> Iterator[Node]:
        """Each certificate of the method at the cell's budgets, or once if it finds a radius."""
        for certificate, methods in study.certificates.items():
            if method in methods:
                own: tuple[Epsilon | None, ...] = (epsilon,) if epsilon else study.epsilons
                asked = takes_threat(self.params.certificates[certificate].module)
                for budget in own if asked else (None,):
                    yield self._certify(study, data, cell, certificate, budget)

    def _certify(
        self, study: Study, data: Node, cell: Node, certificate: str, epsilon: Epsilon | None
    ) -> Node:
        norm = study.norm if epsilon else OWN_RADIUS_NORM
        return self._evaluation(
            *(study, data, cell, "certificate", self.params.certificates[certificate], epsilon),
            name=f"{certificate}-{norm}" + (f"-{epsilon.slug}" if epsilon else ""),
            norm=norm,
            weights="last",
            examples=study.certify_examples,
            rows="certified.parquet",
        )

    def _evaluation(
        self,
        study: Study,
        data: Node,
        cell: Node,
        kind: Literal["attack", "certificate"],
        entry: Entry,
        epsilon: Epsilon | None,
        *,
        name: str,
        norm: str,
        weights: str,
        examples: int | None,
        rows: str,
        further: Mapping[str, Any] | None = None,
        files: tuple[str, ...] = (),
        roles: Mapping[str, Node] | None = None,
    ) -> Node:
        """Add what is run on a cell's weights, one row per example; no epsilon, no budget."""
        model = self.params.models[study.model]
        stage = "attack" if kind == "attack" else "certify"
        folder = f"results/{stage}/{cell.name}/{name}"
        return self._node(
            stage,
            f"{cell.name}/{name}",
            params={
                "cell": cell.name.split("/")[1],
                "evaluation": name,
                "model": self._with_files("models", model),
                kind: _resolved(f"{kind}s", entry, epsilon),
                "threat": {"norm": norm, "epsilon": epsilon.value if epsilon else None},
                "weights": weights,
                "examples": examples,
                "seed": cell.params["seed"],
                **(further or {}),
            },
            roots=(
                f"pipeline/steps/{stage}.py",
                f"src/advtrain/{kind}s/{entry.module}.py",
                f"src/advtrain/models/{model.module}.py",
            ),
            folder=folder,
            outputs=tuple(f"{folder}/{file}" for file in (rows, *files, "timing.json")),
            volatile=(f"{folder}/timing.json",),
            unkeyed={**self._device(), "batch_size": study.attack_batch_size},
            inputs=tuple({one.id: one for one in (cell, data, *(roles or {}).values())}.values()),
            roles=roles or {},
        )


def _evaluations(made: Mapping[str, list[Node]]) -> dict[str, list[str]]:
    """Return the names of the evaluations by cell."""
    return {
        cell.split("/")[1]: [one.name.rsplit("/", 1)[1] for one in nodes]
        for cell, nodes in made.items()
    }


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
    known = signature("training", "loop", "train")
    added = (
        *("averaging", "cutout", "extra_fraction", "label_smoothing", "policy", "precision"),
        *("determinism", "channels_last", "compile_mode", "micro_batch", "halve_on_out_of_memory"),
    )
    recipes = {
        m: params.recipes[study.recipes[m]].parameters if m in study.recipes else {}
        for m in study.methods
    }
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
        "method_updates": {
            m: recipe.get("update", known["update"].default) for m, recipe in recipes.items()
        },
        # What a recipe does besides the method, by which two methods of one kind can differ.
        "method_additions": {
            m: [
                f"{name} {recipe[name]}"
                for name in added
                if recipe.get(name, known[name].default) != known[name].default
            ]
            for m, recipe in recipes.items()
        },
        "method_upstream": {
            m: {role: params.methods[m].upstream.get(role) for role in ("teacher", "start")}
            for m in study.methods
        },
        "certificates": list(study.certificates),
        "attack_sources": {
            a: source for a in study.attacks if (source := params.attacks[a].upstream.get("source"))
        },
        "strict": study.strict,
        "data_set": _data_set(params.datasets[study.dataset]),
        "published": {m: list(names) for m, names in study.published.items()},
    }
