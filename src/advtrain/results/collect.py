"""Collect: the rows of a study's cells in one table, if they belong together.

A table over rows of other weights, other data or other examples than it says would be wrong without
looking wrong; so nothing is collected until every file's stamps agree with the manifests.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from advtrain.graph.timings import (
    SECTIONS,
    images_per_second,
    measured_epochs,
    peak_memory,
    shares,
)
from advtrain.results.adversarial import FILE, Kept, adversarial_rows
from advtrain.results.certified import read_certified
from advtrain.results.example_values import (
    EXAMPLE_VALUES,
    EXTREMES,
    distribution_rows,
    extreme_rows,
    read_values,
)
from advtrain.results.example_values import FILE as VALUES_FILE
from advtrain.results.files import DamagedFileError, read_table, write_table
from advtrain.results.history import Row, history_table, read_history
from advtrain.results.images import prepared_split
from advtrain.results.landscapes import LANDSCAPES, read_landscapes
from advtrain.results.names import parse_cell
from advtrain.results.outcomes import read_outcomes, table_stamps
from advtrain.results.probes import read_probes
from advtrain.results.schema import ADVERSARIAL, CELLS, CERTIFIED, COSTS, OUTCOMES, PROBES

AGREE = ("label", "clean_prediction")
ROWS = ("outcomes", "cells", "histories", "costs", "certified", "probes")
PICTURES = {
    "adversarial": ADVERSARIAL,
    "landscapes": LANDSCAPES,
    "example_values": EXAMPLE_VALUES,
    "extremes": EXTREMES,
}
"""What the figures alone are drawn from: rows that are kept without them lack those figures."""
TABLES = (*ROWS, *PICTURES)


class MixedStampsError(ValueError):
    """Rows that do not belong together; one line for each disagreement."""


@dataclass(frozen=True)
class Evaluation:
    """One attack or certificate on one cell, as found on disk.

    Attributes:
        name: the evaluation, `pgd_20-linf-0.2` or `smoothing_025-l2`.
        folder: where it lies.
        manifest: what was computed from what.
        timing: the measured times; empty where the volatile file is gone.
        rows: one per example, with the stamps in the schema's metadata.
        stamps: the same stamps.
    """

    name: str
    folder: Path
    manifest: Mapping[str, Any]
    timing: Mapping[str, Any]
    rows: pa.Table
    stamps: Mapping[str, str]


@dataclass(frozen=True)
class CellRecord:
    """One trained cell and what was evaluated on it, as found on disk.

    Attributes:
        study: the study's name.
        cell: the cell's name, `trades-linf-0.2-s0`.
        folder: where the training's results lie.
        manifest: what was computed from what.
        summary: status, cause, epochs, passes.
        history: one row per epoch.
        timing: the measured times; empty where the volatile file is gone.
        evaluations: the attacks on it.
        certificates: the certificates on it.
        probes: what was looked at of its gradients: one, or none.
        landscapes: the loss around some examples, of the same looks.
        values: the file of what the method learnt of each training example; None if it learns none.
    """

    study: str
    cell: str
    folder: Path
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any]
    history: Sequence[Row]
    timing: Mapping[str, Any]
    evaluations: tuple[Evaluation, ...]
    certificates: tuple[Evaluation, ...] = ()
    probes: tuple[Evaluation, ...] = ()
    landscapes: tuple[Evaluation, ...] = ()
    values: Path | None = None


@dataclass(frozen=True)
class Collected:
    """The tables of one study; `costs` is measured time, the rest depends on the keys alone."""

    outcomes: pa.Table
    cells: pa.Table
    histories: pa.Table
    costs: pa.Table
    certified: pa.Table
    probes: pa.Table
    adversarial: pa.Table
    landscapes: pa.Table = field(default_factory=LANDSCAPES.empty_table)
    example_values: pa.Table = field(default_factory=EXAMPLE_VALUES.empty_table)
    extremes: pa.Table = field(default_factory=EXTREMES.empty_table)


def read_cell(
    root: Path,
    study: str,
    cell: str,
    evaluations: Iterable[str],
    certificates: Iterable[str] = (),
    probes: Iterable[str] = (),
) -> CellRecord:
    """Read a cell's files.

    Args:
        root: the repository's top folder.
        study: the study's name.
        cell: the cell's name.
        evaluations: the names of the attacks' evaluations to read.
        certificates: the names of the certificates' evaluations to read.
        probes: the names of the probes to read.

    Raises:
        FileNotFoundError: if one is not there.
        DamagedFileError: if one is damaged.
    """
    folder = root / "results" / "train" / study / cell
    looked = root / "results" / "probe" / study / cell
    manifest = _read_json(folder / "manifest.json")
    learnt = any(path.endswith(f"/{VALUES_FILE}") for path in manifest["outputs"])
    return CellRecord(
        study=study,
        cell=cell,
        folder=folder,
        manifest=manifest,
        summary=_read_json(folder / "summary.json"),
        history=read_history(folder / "history.parquet"),
        timing=_read_timing(folder),
        evaluations=tuple(
            _read_evaluation(
                root / "results" / "attack" / study / cell / name, "outcomes", read_outcomes
            )
            for name in evaluations
        ),
        certificates=tuple(
            _read_evaluation(
                root / "results" / "certify" / study / cell / name, "certified", read_certified
            )
            for name in certificates
        ),
        probes=tuple(_read_evaluation(looked / name, "probes", read_probes) for name in probes),
        landscapes=tuple(
            _read_evaluation(looked / name, "landscapes", read_landscapes) for name in probes
        ),
        values=folder / VALUES_FILE if learnt else None,
    )


def collect(
    study: str,
    cells: Sequence[CellRecord],
    *,
    experiment: str | None = None,
    prepared: Path | None = None,
) -> Collected:
    """Bring a study's cells together.

    Args:
        study: the study's name.
        cells: its cells, in any order; the tables are sorted by name.
        experiment: the MLflow experiment that shows the cells; the study's name if not given. A
            run has the name of its cell.
        prepared: the folder of the prepared data set, with the clean images of those that attacks
            kept, and those of the training; without it none are shown.

    Returns:
        The tables, whose rows do not depend on the order of `cells`.

    Raises:
        MixedStampsError: if the attacks or certificates of a cell were made with other weights,
            other data or another training than its manifest says, two cells stand on different
            data, or a cell or an evaluation comes twice; one line for each, naming the cells and
            what differs.
        FileNotFoundError: if kept images, or the clean ones, are not there.
        DamagedFileError: if they are damaged.
    """
    records = sorted(cells, key=lambda record: record.cell)
    problems = [*_duplicates(records), *_data_problems(records)]
    for record in records:
        problems += _cell_problems(study, record)
    if problems:
        raise MixedStampsError("\n".join(problems))
    return Collected(
        outcomes=_stacked(OUTCOMES, [record.evaluations for record in records]),
        cells=pa.Table.from_pylist(
            [_cell_row(record, experiment or study) for record in records], CELLS
        ),
        histories=_histories(records),
        costs=pa.Table.from_pylist([row for r in records for row in _cost_rows(r)], COSTS),
        certified=_stacked(CERTIFIED, [record.certificates for record in records]),
        probes=_stacked(PROBES, [record.probes for record in records]),
        adversarial=adversarial_rows(_kept(records), prepared),
        landscapes=_stacked(LANDSCAPES, [record.landscapes for record in records]),
        **_learnt(records, prepared),
    )


def write_collected(collected: Collected, folder: Path) -> list[Path]:
    """Write the tables as `outcomes.parquet`, `cells.parquet` ...; returns the files."""
    paths = [folder / f"{name}.parquet" for name in TABLES]
    for name, path in zip(TABLES, paths, strict=True):
        write_table(path, getattr(collected, name))
    return paths


def read_collected(folder: Path) -> Collected:
    """Read the tables of a study; one of `PICTURES` that is not there has no rows.

    Raises:
        FileNotFoundError: if another one is not there.
        DamagedFileError: if one is damaged or holds other columns.
    """
    paths = {name: folder / f"{name}.parquet" for name in TABLES}
    found = {
        name: read_table(path) if name in ROWS or path.exists() else PICTURES[name].empty_table()
        for name, path in paths.items()
    }
    schemas = {
        "outcomes": OUTCOMES,
        "cells": CELLS,
        "costs": COSTS,
        "certified": CERTIFIED,
        "probes": PROBES,
        **PICTURES,
    }
    for name, schema in schemas.items():
        if not found[name].schema.equals(schema):
            raise DamagedFileError(
                f"{folder / name}.parquet: expected the columns {', '.join(schema.names)}, "
                f"got {', '.join(found[name].schema.names)} or other types; "
                f"delete it and run snakemake again"
            )
    return Collected(**found)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} is not there; `dvc pull` fetches it, `snakemake --cores all` makes it"
        ) from None
    except ValueError as error:
        raise DamagedFileError(
            f"{path}: damaged, {error}; delete it and run `dvc checkout` or snakemake again"
        ) from error
    if not isinstance(found, dict):
        raise DamagedFileError(f"{path}: expected a JSON object, got {type(found).__name__}")
    return found


def _read_timing(folder: Path) -> dict[str, Any]:
    path = folder / "timing.json"
    return _read_json(path) if path.exists() else {}


def _read_evaluation(folder: Path, kind: str, read: Callable[[Path], pa.Table]) -> Evaluation:
    path = folder / f"{kind}.parquet"
    rows = read(path)
    return Evaluation(
        name=folder.name,
        folder=folder,
        manifest=_read_json(folder / "manifest.json"),
        timing=_read_timing(folder),
        rows=rows,
        stamps=table_stamps(rows, path),
    )


def _duplicates(records: Sequence[CellRecord]) -> list[str]:
    problems = []
    for before, record in itertools.pairwise(records):
        if before.cell == record.cell:
            problems.append(
                f"{record.study}/{record.cell}: given twice ({before.folder} and {record.folder}); "
                f"its rows would count twice; give it once"
            )
    for record in records:
        names = [one.name for one in (*record.evaluations, *record.certificates)]
        problems += [
            f"{record.study}/{record.cell}: the evaluation {name} is given twice; "
            f"its rows would count twice; give it once"
            for name in sorted({name for name in names if names.count(name) > 1})
        ]
    return problems


def _data_problems(records: Sequence[CellRecord]) -> list[str]:
    if not records:
        return []
    first = records[0]
    return [
        f"{record.study}/{record.cell}: was trained on the data {_data(record)}, "
        f"{first.cell} on {_data(first)}; a study stands on one data set: "
        f"run `snakemake --cores all` to train what is stale"
        for record in records
        if _data(record) != _data(first)
    ]


def _cell_problems(study: str, record: CellRecord) -> list[str]:
    place = f"{record.study}/{record.cell}"
    problems = []
    if record.study != study:
        problems.append(f"{place}: is a cell of the study {record.study}, expected {study}")
    attacks = [("attack", one) for one in record.evaluations]
    certificates = [("certificate", one) for one in record.certificates]
    probes = [("probe", one) for one in (*record.probes, *record.landscapes)]
    for kind, evaluation in (*attacks, *certificates, *probes):
        weights = _weights(evaluation)
        expected = {
            "cell_key": (str(record.manifest["key"]), "the manifest of the training"),
            "attack_key": (str(evaluation.manifest["key"]), "the manifest of the evaluation"),
            "data": (_data(record), "the manifest of the training"),
            "checkpoint": (
                _checkpoint(record, weights),
                f"{weights}.safetensors in the manifest of the training",
            ),
        }
        problems += [
            f"{place}: {evaluation.name} carries the {name} stamp {evaluation.stamps[name]}, "
            f"expected {text} from {source}; its rows come from something else: "
            f"delete {evaluation.folder} and run snakemake again"
            for name, (text, source) in expected.items()
            if evaluation.stamps[name] != text
        ]
        problems += _column_problems(place, record, evaluation, kind)
    return problems + _disagreements(place, record) + _label_problems(place, record)


def _column_problems(
    place: str, record: CellRecord, evaluation: Evaluation, kind: str
) -> list[str]:
    problems = []
    expected: dict[str, Any] = {"cell": record.cell}
    if kind != "probe":
        threat = evaluation.manifest["params"]["threat"]
        expected |= {kind: evaluation.name, "norm": threat["norm"], "epsilon": threat["epsilon"]}
    for name, value in expected.items():
        found = evaluation.rows[name].unique().to_pylist()
        if found != [value]:
            problems.append(
                f"{place}: the column {name} of {evaluation.name} holds {found}, "
                f"expected {value!r} alone; delete {evaluation.folder} and run snakemake again"
            )
    return problems


def _disagreements(place: str, record: CellRecord) -> list[str]:
    """Compare what all attacks on the same weights must have seen the same, where they met."""
    problems = []
    first: dict[str, Evaluation] = {}
    # The attack on the most examples is what the others are compared with.
    for evaluation in sorted(record.evaluations, key=lambda one: -len(one.rows)):
        reference = first.setdefault(_weights(evaluation), evaluation)
        common, ours, theirs = np.intersect1d(
            evaluation.rows["example"].to_numpy(),
            reference.rows["example"].to_numpy(),
            return_indices=True,
        )
        asked = evaluation.manifest["params"].get("examples") or len(reference.rows)
        if len(evaluation.rows) != asked:
            problems.append(
                f"{place}: {evaluation.name} has {len(evaluation.rows)} examples, expected "
                f"{asked}; delete {evaluation.folder} and run snakemake again"
            )
            continue
        if len(common) < len(evaluation.rows):
            problems.append(
                f"{place}: {evaluation.name} and {reference.name} differ in example "
                f"({len(common)} of {len(evaluation.rows)} are among the other's "
                f"{len(reference.rows)}); attacks on the same weights see the same test split: "
                f"delete one of the two and run snakemake again"
            )
            continue
        for name in AGREE:
            differ = (
                evaluation.rows[name].to_numpy()[ours] != reference.rows[name].to_numpy()[theirs]
            )
            if differ.any():
                problems.append(
                    f"{place}: {evaluation.name} and {reference.name} differ in {name} "
                    f"({np.count_nonzero(differ)} of {len(common)} rows); "
                    f"attacks on the same weights see the same examples: "
                    f"delete one of the two and run snakemake again"
                )
                break
    return problems


def _label_problems(place: str, record: CellRecord) -> list[str]:
    """Compare the labels of the certified examples with those of the attacked ones."""
    if not record.evaluations:
        return []
    attacked = record.evaluations[0]
    labels = dict(
        zip(*(attacked.rows[name].to_pylist() for name in ("example", "label")), strict=True)
    )
    problems = []
    for one in (*record.certificates, *record.probes, *record.landscapes):
        columns = (one.rows[name].to_pylist() for name in ("example", "label"))
        others = sum(
            labels.get(example, label) != label for example, label in zip(*columns, strict=True)
        )
        if others:
            problems.append(
                f"{place}: {one.name} and {attacked.name} differ in label ({others} rows); "
                f"a cell is evaluated on one test split: "
                f"delete one of the two and run snakemake again"
            )
    return problems


def _weights(evaluation: Evaluation) -> str:
    return str(evaluation.manifest["params"].get("weights", "last"))


def _data(record: CellRecord) -> str:
    found = [v for name, v in record.manifest["inputs"].items() if name.startswith("prepare:")]
    return str(found[0]["digest"]) if found else "unknown"


def _checkpoint(record: CellRecord, weights: str) -> str:
    for path, found in record.manifest["outputs"].items():
        if path.endswith(f"/{weights}.safetensors"):
            return str(found["sha256"])
    return "unknown"


def _cell_row(record: CellRecord, experiment: str) -> dict[str, Any]:
    manifest, summary = record.manifest, record.summary
    params = manifest["params"]
    threat = params["threat"] or {}
    name = parse_cell(record.cell)
    evaluated = (*record.evaluations, *record.certificates)
    used = {_weights(evaluation) for evaluation in evaluated}
    return {
        "cell": record.cell,
        "label": name.label,
        "method": params["method"]["name"],
        "module": params["method"]["module"],
        "norm": threat.get("norm"),
        "epsilon": threat.get("epsilon"),
        "seed": params["seed"],
        "key": manifest["key"],
        "status": summary["status"],
        "cause": summary.get("cause") or "",
        "params": _json(params),
        "data_hash": _data(record),
        "checkpoint_hash": _checkpoint(record, "best" if used == {"best"} else "last"),
        "code_digest": manifest["code_digest"],
        "epochs": summary.get("epochs"),
        "examples": summary.get("examples"),
        "forward_passes": summary.get("forward_passes"),
        "backward_passes": summary.get("backward_passes"),
        "best_epoch": summary.get("best_epoch"),
        "mlflow_experiment": experiment,
        "mlflow_run_name": record.cell,
        "upstream": _json(manifest["inputs"]),
        "evaluations": _json({one.name: _evaluation_row(one) for one in evaluated}),
    }


def _evaluation_row(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "key": evaluation.manifest["key"],
        "weights": _weights(evaluation),
        "checkpoint": evaluation.stamps["checkpoint"],
        "code_digest": evaluation.manifest["code_digest"],
        "protocol": evaluation.stamps["protocol"],
        "params": evaluation.manifest["params"],
    }


def _cost_rows(record: CellRecord) -> list[dict[str, Any]]:
    measured: list[tuple[str, str | None, Mapping[str, Any]]] = [("train", None, record.timing)]
    kinds = (
        ("attack", record.evaluations),
        ("certify", record.certificates),
        ("probe", record.probes),
    )
    for stage, found in kinds:
        measured += [(stage, one.name, one.timing) for one in _by_name(found)]
    return [
        {
            "cell": record.cell,
            "stage": stage,
            "evaluation": evaluation,
            "seconds": timing.get("seconds"),
            "device": timing.get("device"),
            **_measured(timing),
        }
        for stage, evaluation, timing in measured
    ]


def _measured(timing: Mapping[str, Any]) -> dict[str, float | None]:
    """Sum up what was measured of a run's epochs; None for what was not."""
    epochs = measured_epochs(timing)
    found = shares(epochs)
    return {
        **{f"{section}_share": found.get(section) for section in SECTIONS},
        "images_per_second": images_per_second(epochs),
        "peak_memory_bytes": peak_memory(timing),
    }


def _histories(records: Sequence[CellRecord]) -> pa.Table:
    """Put the epochs of all cells below one another: `cell`, `epoch`, then every metric by name."""
    rows = [dict(row) for record in records for row in record.history]
    metrics = sorted({name for row in rows for name in row} - {"epoch"})
    table = history_table(rows)
    if metrics:
        table = table.select(["epoch", *metrics])
    cells = [record.cell for record in records for _ in record.history]
    return table.add_column(0, "cell", pa.array(cells, pa.string()))


def _kept(records: Sequence[CellRecord]) -> list[Kept]:
    """List the attacks on the last weights that kept their images."""
    return [
        Kept(record.cell, one.name, one.folder / FILE, one.rows)
        for record in records
        for one in _by_name(record.evaluations)
        if one.manifest["params"].get("adversarial") and _weights(one) == "last"
    ]


def _learnt(records: Sequence[CellRecord], prepared: Path | None) -> dict[str, pa.Table]:
    """Sum up what the methods learnt of the training examples, and show the extreme ones."""
    learnt = [(record.cell, record.values) for record in records if record.values]
    train = prepared_split(prepared, "train") if learnt and prepared else None
    distributions, extremes = [EXAMPLE_VALUES.empty_table()], [EXTREMES.empty_table()]
    for cell, path in learnt:
        values = read_values(path)
        distributions.append(distribution_rows(cell, values))
        extremes.append(extreme_rows(cell, values, train))
    return {
        "example_values": pa.concat_tables(distributions).combine_chunks(),
        "extremes": pa.concat_tables(extremes).combine_chunks(),
    }


def _by_name(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    return sorted(evaluations, key=lambda found: found.name)


def _stacked(schema: pa.Schema, evaluations: Iterable[Iterable[Evaluation]]) -> pa.Table:
    """Put the rows of all cells below one another, those of a cell by the evaluation's name."""
    rows = [one.rows.replace_schema_metadata(None) for of in evaluations for one in _by_name(of)]
    return _one_dictionary(pa.concat_tables([schema.empty_table(), *rows]))


def _one_dictionary(table: pa.Table) -> pa.Table:
    """Give each text column one dictionary in the order of appearance, so that bytes repeat."""
    return table.unify_dictionaries().combine_chunks()


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
