import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from advtrain.graph.nodes import COLLECTED
from advtrain.results.collect import (
    TABLES,
    CellRecord,
    Collected,
    MixedStampsError,
    collect,
    read_cell,
    read_collected,
    write_collected,
)
from advtrain.results.files import DamagedFileError, write_table
from advtrain.results.landscapes import LANDSCAPES
from advtrain.results.outcomes import read_outcomes
from advtrain.results.schema import PREFIX
from tests.results import synthetic
from tests.results.synthetic import STUDY, digest


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    synthetic.write_tree(root)
    return root


@pytest.fixture(scope="module")
def records(tree: Path) -> list[CellRecord]:
    return synthetic.read_records(tree)


@pytest.fixture(scope="module")
def collected(records: list[CellRecord]) -> Collected:
    return collect(STUDY, records)


def test_every_row_of_every_evaluation_is_there(collected: Collected) -> None:
    # 2 seeds: natural 3 + 3 + 1 + 1 evaluations, the others 3 + 1 + 1 + 1 at two budgets each.
    evaluations = 2 * (8 + 2 * 2 * 6)
    assert collected.outcomes.num_rows == evaluations * synthetic.EXAMPLES
    pairs = set(
        zip(
            collected.outcomes["cell"].to_pylist(),
            collected.outcomes["attack"].to_pylist(),
            strict=True,
        )
    )
    assert len(pairs) == evaluations


def test_a_cell_is_one_row_with_its_origin(collected: Collected) -> None:
    rows = {row["cell"]: row for row in collected.cells.to_pylist()}
    assert list(rows) == sorted(rows)
    assert len(rows) == 10
    row = rows["pgd_at-linf-0.2-s1"]
    assert (row["label"], row["method"], row["module"]) == ("pgd_at", "pgd_at", "pgd_at")
    assert (row["norm"], row["epsilon"], row["seed"]) == ("linf", 0.2, 1)
    assert row["key"] == digest("train pgd_at-linf-0.2-s1")[:16]
    assert row["checkpoint_hash"] == digest("last pgd_at-linf-0.2-s1")
    assert row["data_hash"] == digest("blobs")[:16]
    assert (row["status"], row["cause"], row["epochs"], row["best_epoch"]) == ("finished", "", 3, 2)
    assert (row["forward_passes"], row["examples"]) == (3300, 100)
    assert (row["mlflow_experiment"], row["mlflow_run_name"]) == (STUDY, "pgd_at-linf-0.2-s1")
    assert json.loads(row["params"])["method"]["parameters"] == {"steps": 7}
    assert json.loads(row["upstream"])["prepare:blobs"]["key"] == digest("data")[:16]
    evaluation = json.loads(row["evaluations"])["pgd_20-linf-0.2"]
    assert evaluation["checkpoint"] == row["checkpoint_hash"]
    natural = rows["natural-s0"]
    assert (natural["norm"], natural["epsilon"]) == (None, None)


def test_histories_and_costs_stand_below_one_another(collected: Collected) -> None:
    histories = collected.histories
    assert histories.column_names[:2] == ["cell", "epoch"]
    assert histories.num_rows == 10 * synthetic.EPOCHS
    natural = [r for r in histories.to_pylist() if r["cell"] == "natural-s0"]
    assert [row["epoch"] for row in natural] == [1, 2, 3]
    assert {row["validation_robust_accuracy"] for row in natural} == {None}
    costs = collected.costs.to_pylist()
    assert [row["seconds"] for row in costs if row["cell"] == "pgd_at-linf-0.1-s0"] == [
        *[110.0],
        *[0.5] * 6,
    ]
    # Nobody measured more than the whole.
    assert {row["attack_share"] for row in costs} == {None}
    assert {row["peak_memory_bytes"] for row in costs} == {None}


def test_the_order_of_the_cells_does_not_matter(
    tmp_path: Path, records: list[CellRecord], collected: Collected
) -> None:
    backwards = [
        replace(record, evaluations=tuple(reversed(record.evaluations)))
        for record in reversed(records)
    ]
    first = write_collected(collected, tmp_path / "a")
    second = write_collected(collect(STUDY, backwards), tmp_path / "b")
    assert [path.name for path in first] == [
        *("outcomes.parquet", "cells.parquet", "histories.parquet", "costs.parquet"),
        *("certified.parquet", "probes.parquet", "adversarial.parquet"),
        *("landscapes.parquet", "example_values.parquet", "extremes.parquet"),
    ]
    for ours, theirs in zip(first, second, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()


def test_the_graph_declares_every_table() -> None:
    assert COLLECTED == TABLES


def test_what_was_written_is_read(tmp_path: Path, collected: Collected) -> None:
    write_collected(collected, tmp_path)
    found = read_collected(tmp_path)
    assert found.outcomes.equals(collected.outcomes)
    assert found.histories.equals(collected.histories)
    # What the figures alone need may be left out, and nothing else.
    (tmp_path / "landscapes.parquet").unlink()
    assert read_collected(tmp_path).landscapes.equals(LANDSCAPES.empty_table())
    (tmp_path / "certified.parquet").rename(tmp_path / "hidden")
    with pytest.raises(FileNotFoundError, match="certified.parquet"):
        read_collected(tmp_path)
    (tmp_path / "hidden").rename(tmp_path / "certified.parquet")
    write_table(tmp_path / "cells.parquet", pa.table({"cell": ["a"]}))
    with pytest.raises(DamagedFileError, match=r"cells.parquet: expected the columns cell, label"):
        read_collected(tmp_path)


def test_a_study_without_cells_has_empty_tables() -> None:
    found = collect(STUDY, [])
    assert (found.outcomes.num_rows, found.cells.num_rows, found.costs.num_rows) == (0, 0, 0)
    assert (found.certified.num_rows, found.adversarial.num_rows) == (0, 0)


def test_both_weights_of_a_cell_stand_beside_one_another(tmp_path: Path) -> None:
    cell = "pgd_at-linf-0.1-s0"
    synthetic.write_training(tmp_path, STUDY, cell, "pgd_at", 0.1, 0)
    names = ["pgd_20-linf-0.1", "pgd_20-linf-0.1-best"]
    for name, weights in zip(names, ("last", "best"), strict=True):
        synthetic.write_evaluation(tmp_path, STUDY, cell, name, "pgd_at", 0.1, 0, weights)
    found = collect(STUDY, [read_cell(tmp_path, STUDY, cell, names)])
    (row,) = found.cells.to_pylist()
    described = json.loads(row["evaluations"])
    assert described[names[1]]["checkpoint"] == digest(f"best {cell}")
    only_best = collect(STUDY, [read_cell(tmp_path, STUDY, cell, names[1:])])
    assert only_best.cells["checkpoint_hash"].to_pylist() == [digest(f"best {cell}")]


CELL = "pgd_at-linf-0.1-s0"
ATTACK = "pgd_20-linf-0.1"


def stamped(record: CellRecord, name: str, value: str) -> CellRecord:
    """Put another stamp on the cell's first evaluation."""
    first, *others = record.evaluations
    changed = replace(first, stamps={**first.stamps, name: value})
    return replace(record, evaluations=(changed, *others))


def rows_changed(record: CellRecord, name: str, change: Callable[[Any], Any]) -> CellRecord:
    """Change a column of the cell's last evaluation."""
    *others, last = record.evaluations
    column = last.rows.schema.get_field_index(name)
    field = last.rows.schema.field(name)
    values = pa.array(change(last.rows[name].to_numpy())).cast(field.type)
    rows = last.rows.set_column(column, field, values)
    return replace(record, evaluations=(*others, replace(last, rows=rows)))


@pytest.fixture
def cell(records: list[CellRecord]) -> CellRecord:
    return next(record for record in records if record.cell == CELL)


@pytest.mark.parametrize("stamp", ["cell_key", "attack_key", "data", "checkpoint"])
def test_a_stamp_of_something_else_is_refused(cell: CellRecord, stamp: str) -> None:
    with pytest.raises(MixedStampsError) as caught:
        collect(STUDY, [stamped(cell, stamp, "another")])
    (line,) = str(caught.value).splitlines()
    name = cell.evaluations[0].name
    assert line.startswith(f"fake/{CELL}: {name} carries the {stamp} stamp another, expected ")
    assert line.endswith(f"delete {cell.evaluations[0].folder} and run snakemake again")


def test_every_disagreement_is_named(records: list[CellRecord]) -> None:
    mixed = [stamped(record, "checkpoint", "another") for record in records]
    with pytest.raises(MixedStampsError) as caught:
        collect(STUDY, mixed)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(records)
    assert {line.split(":")[0] for line in lines} == {f"fake/{one.cell}" for one in records}


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("example", lambda values: values + 1),
        ("label", lambda values: np.roll(values, 1)),
        ("clean_prediction", lambda values: np.where(np.arange(20) == 5, 3, values)),
    ],
)
def test_evaluations_that_saw_other_examples_are_refused(
    cell: CellRecord, column: str, change: Callable[[Any], Any]
) -> None:
    with pytest.raises(MixedStampsError, match=f"fake/{CELL}: .* differ in {column} "):
        collect(STUDY, [rows_changed(cell, column, change)])


def test_evaluations_over_fewer_examples_are_refused(cell: CellRecord) -> None:
    *others, last = cell.evaluations
    short = replace(last, rows=last.rows.slice(0, 19))
    with pytest.raises(MixedStampsError, match=f"{last.name} has 19 examples, expected 20; delete"):
        collect(STUDY, [replace(cell, evaluations=(*others, short))])


def test_an_evaluation_may_ask_for_fewer_examples(cell: CellRecord) -> None:
    *others, last = cell.evaluations
    params = {**last.manifest["params"], "examples": 12}
    short = replace(last, rows=last.rows.slice(0, 12), manifest={**last.manifest, "params": params})
    collected = collect(STUDY, [replace(cell, evaluations=(*others, short))])
    assert collected.outcomes.num_rows == 20 * len(others) + 12


def test_rows_of_another_budget_are_refused(cell: CellRecord) -> None:
    with pytest.raises(MixedStampsError, match=r"the column epsilon of .* holds \[0.4\]"):
        collect(STUDY, [rows_changed(cell, "epsilon", lambda values: np.full(20, 0.4))])


def test_a_cell_on_other_data_is_refused(records: list[CellRecord]) -> None:
    first, second, *_ = records
    inputs = {"prepare:other": {"key": "k", "digest": "other"}}
    changed = replace(second, manifest={**second.manifest, "inputs": inputs}, evaluations=())
    with pytest.raises(MixedStampsError, match=rf"{second.cell}: was trained on the data other, "):
        collect(STUDY, [first, changed])


def test_what_is_given_twice_is_refused(cell: CellRecord) -> None:
    with pytest.raises(MixedStampsError, match=f"fake/{CELL}: given twice"):
        collect(STUDY, [cell, cell])
    doubled = replace(cell, evaluations=(*cell.evaluations, cell.evaluations[0]))
    with pytest.raises(MixedStampsError, match=r"the evaluation .* is given twice"):
        collect(STUDY, [doubled])


def test_a_cell_of_another_study_is_refused(cell: CellRecord) -> None:
    with pytest.raises(MixedStampsError, match="is a cell of the study fake, expected other"):
        collect("other", [cell])


@pytest.mark.parametrize("file", ["manifest.json", "summary.json", "timing.json"])
def test_a_damaged_file_is_named(tmp_path: Path, tree: Path, file: str) -> None:
    folder = tmp_path / "results" / "train" / STUDY / CELL
    shutil.copytree(tree / "results" / "train" / STUDY / CELL, folder)
    (folder / file).write_text("{")
    with pytest.raises(DamagedFileError, match=rf"{file}: damaged, .*; delete it and run"):
        read_cell(tmp_path, STUDY, CELL, [])
    (folder / file).write_text("[]")
    with pytest.raises(DamagedFileError, match=rf"{file}: expected a JSON object, got list"):
        read_cell(tmp_path, STUDY, CELL, [])


def test_a_missing_file_is_named_and_a_missing_time_is_none(tmp_path: Path, tree: Path) -> None:
    folder = tmp_path / "results" / "train" / STUDY / CELL
    shutil.copytree(tree / "results" / "train" / STUDY / CELL, folder)
    (folder / "timing.json").unlink()
    found = collect(STUDY, [read_cell(tmp_path, STUDY, CELL, [])])
    assert found.costs["seconds"].to_pylist() == [None]
    (folder / "summary.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"summary.json is not there; `dvc pull`"):
        read_cell(tmp_path, STUDY, CELL, [])


def test_what_was_measured_of_the_epochs_is_among_the_costs(tmp_path: Path, tree: Path) -> None:
    folder = tmp_path / "results" / "train" / STUDY / CELL
    shutil.copytree(tree / "results" / "train" / STUDY / CELL, folder)
    seconds = {"data": 1.0, "attack": 6.0, "update": 3.0, "validation": 10.0}
    measured = {**seconds, "images_per_second": 50.0, "peak_memory_bytes": 4096.0}
    timing = {"seconds": 21.0, "epochs": [{"epoch": 1, "measured": measured}]}
    (folder / "timing.json").write_text(json.dumps(timing))
    (row,) = collect(STUDY, [read_cell(tmp_path, STUDY, CELL, [])]).costs.to_pylist()
    assert (row["data_share"], row["attack_share"]) == (0.05, 0.3)
    assert (row["update_share"], row["validation_share"]) == (0.15, 0.5)
    assert (row["images_per_second"], row["peak_memory_bytes"]) == (50.0, 4096)


def test_the_stamps_are_in_the_schema_under_their_prefix(tree: Path) -> None:
    path = tree / "results" / "attack" / STUDY / CELL / ATTACK / "outcomes.parquet"
    metadata = read_outcomes(path).schema.metadata
    assert metadata[f"{PREFIX}protocol".encode()] == b"pgd_20 at 0.1"


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> list[CellRecord]:
    root = tmp_path_factory.mktemp("rich")
    synthetic.write_rich_tree(root)
    return synthetic.read_rich_records(root)


@pytest.fixture
def certified_cell(rich: list[CellRecord]) -> CellRecord:
    return next(record for record in rich if record.cell == CELL)


def certificate_changed(record: CellRecord, place: int, **changes: Any) -> CellRecord:
    certificates = list(record.certificates)
    certificates[place] = replace(certificates[place], **changes)
    return replace(record, certificates=tuple(certificates))


def test_every_certified_row_is_there_with_its_cost_and_its_origin(rich: list[CellRecord]) -> None:
    found = collect(STUDY, rich)
    rows = found.certified.to_pylist()
    assert len(rows) == 2 * 2 * synthetic.EXAMPLES
    assert [row["certificate"] for row in rows[::20]] == [*synthetic.CERTIFICATES] * 2
    assert {row["cell"] for row in rows} == {"pgd_at-linf-0.1-s0", "pgd_at-linf-0.1-s1"}
    assert rows[12] == {
        "cell": CELL,
        "certificate": "ibp-linf-0.1",
        "norm": "linf",
        "epsilon": 0.1,
        "example": 1012,
        "label": 0,
        "prediction": 0,
        "radius": 0.1,
        "forward": 2,
        "backward": 0,
    }
    assert (rows[25]["epsilon"], rows[25]["radius"], rows[21]["prediction"]) == (None, 0.25, -1)
    costs = [row for row in found.costs.to_pylist() if row["stage"] == "certify"]
    assert [(row["cell"], row["evaluation"], row["seconds"]) for row in costs] == [
        (f"pgd_at-linf-0.1-s{seed}", name, 0.25)
        for seed in (0, 1)
        for name in synthetic.CERTIFICATES
    ]
    (cell,) = (row for row in found.cells.to_pylist() if row["cell"] == CELL)
    described = json.loads(cell["evaluations"])["smoothing_025-l2"]
    assert described["weights"] == "last"
    assert described["key"] == digest(f"certify {CELL} smoothing_025-l2")[:16]
    assert cell["checkpoint_hash"] == digest(f"last {CELL}")


def test_certified_rows_are_the_same_bytes_in_any_order_and_are_read_again(
    tmp_path: Path, rich: list[CellRecord]
) -> None:
    backwards = [
        replace(one, certificates=tuple(reversed(one.certificates))) for one in reversed(rich)
    ]
    for records, folder in ((rich, tmp_path / "a"), (backwards, tmp_path / "b")):
        write_collected(collect(STUDY, records), folder)
    ours, theirs = (tmp_path / name / "certified.parquet" for name in ("a", "b"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert read_collected(tmp_path / "a").certified.num_rows == 80
    write_table(ours, pa.table({"cell": ["a"]}))
    with pytest.raises(DamagedFileError, match=r"certified.parquet: expected the columns cell, "):
        read_collected(tmp_path / "a")


@pytest.mark.parametrize("stamp", ["cell_key", "attack_key", "data", "checkpoint"])
@pytest.mark.parametrize("place", [0, 1])
def test_certified_rows_of_something_else_are_refused(
    certified_cell: CellRecord, stamp: str, place: int
) -> None:
    stamps = {**certified_cell.certificates[place].stamps, stamp: "another"}
    with pytest.raises(MixedStampsError) as caught:
        collect(STUDY, [certificate_changed(certified_cell, place, stamps=stamps)])
    (line,) = str(caught.value).splitlines()
    name = synthetic.CERTIFICATES[place]
    assert line.startswith(f"fake/{CELL}: {name} carries the {stamp} stamp another, expected ")


def test_certified_rows_of_another_budget_or_with_other_labels_are_refused(
    certified_cell: CellRecord,
) -> None:
    rows = certified_cell.certificates[0].rows
    column = rows.schema.get_field_index("epsilon")
    other = rows.set_column(column, rows.schema.field(column), pa.array(np.full(20, 0.4)))
    with pytest.raises(MixedStampsError, match=r"the column epsilon of ibp.* holds \[0.4\]"):
        collect(STUDY, [certificate_changed(certified_cell, 0, rows=other)])
    column = rows.schema.get_field_index("label")
    labels = pa.array(np.roll(rows["label"].to_numpy(), 1), pa.int16())
    other = rows.set_column(column, rows.schema.field(column), labels)
    with pytest.raises(MixedStampsError, match=r"ibp-linf-0.1 and .* differ in label \(20 rows\)"):
        collect(STUDY, [certificate_changed(certified_cell, 0, rows=other)])


def test_a_certificate_given_twice_is_refused(certified_cell: CellRecord) -> None:
    one = certified_cell.certificates[0]
    doubled = replace(certified_cell, certificates=(one, one))
    with pytest.raises(MixedStampsError, match="the evaluation ibp-linf-0.1 is given twice"):
        collect(STUDY, [doubled])
