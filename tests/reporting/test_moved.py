"""What moved between two versions of a study, and what changed."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy.stats import binomtest, chi2_contingency

from advtrain.reporting.changes import Version
from advtrain.reporting.moved import MovedRow, moved, moved_data, moved_rows, moved_sheet
from advtrain.reporting.moved_page import page, terminal
from advtrain.reporting.sheet import markdown
from advtrain.reporting.study import check_info
from advtrain.results.collect import Collected
from tests.results import synthetic

INFO = check_info(synthetic.study_info())
CELL = "pgd_at-linf-0.1-s0"


def edited(
    collected: Collected, change: Callable[[dict[str, Any]], object], cell: str = ""
) -> Collected:
    """Change the rows of cells (of one, or of all), whose JSON comes read."""
    held = ("params", "upstream", "evaluations")
    rows = collected.cells.to_pylist()
    for row in rows:
        if row["cell"].startswith(cell):
            row |= {name: json.loads(row[name]) for name in held}
            change(row)
            row |= {name: json.dumps(row[name]) for name in held}
    return replace(collected, cells=pa.Table.from_pylist(rows, collected.cells.schema))


def broken(collected: Collected, cell: str, attack: str, count: int) -> Collected:
    """Let an attack break so many more examples of a cell: the last of those that are right."""
    rows = collected.outcomes.to_pylist()
    own = [row for row in rows if (row["cell"], row["attack"]) == (cell, attack)]
    right = [row for row in own if row["adversarial_prediction"] == row["label"]]
    for row in right[len(right) - count :]:
        row["adversarial_prediction"] = -1
    table = pa.Table.from_pylist(rows, collected.outcomes.schema)
    return replace(collected, outcomes=table)


def without(collected: Collected, table: str, column: str, value: str) -> Collected:
    rows = getattr(collected, table)
    kept = rows.filter(pc.not_equal(rows[column].cast(pa.string()), value))
    return replace(collected, **{table: kept.combine_chunks()})


def compare(before: Collected, after: Collected) -> list[MovedRow]:
    return moved_rows(Version("old", before), Version("new", after), INFO)


def find(rows: list[MovedRow], unit: str, what: str, epsilon: float | None = None) -> MovedRow:
    (row,) = (
        row
        for row in rows
        if row.unit.name == unit and row.number and row.number[2:4] == (epsilon, what)
    )
    return row


def test_a_version_is_the_same_as_itself(rich: Collected) -> None:
    rows = moved_rows(Version("old", rich), Version("new", rich), INFO)
    assert {row.word for row in rows} == {"same"}
    assert {row.number.what for row in rows if row.number} > {"clean", "worst case"}
    assert not any(row.changes for row in rows)
    sheet = moved_sheet(rows, "old", "new", INFO)
    assert sheet.rows == ()
    assert sheet.data.num_rows == len(rows)
    assert sheet.reading.startswith(f"Of {len(rows)} numbers: {len(rows)} same.")
    assert len(moved_sheet(rows, "old", "new", INFO, same=True).rows) == len(rows)


def test_a_number_moves_by_the_examples_that_moved(collected: Collected) -> None:
    one_seed = without(collected, "cells", "cell", "natural-s1")
    one_seed = without(one_seed, "outcomes", "cell", "natural-s1")
    after = broken(one_seed, "natural-s0", "fgsm-linf-0.1", 8)
    row = find(compare(one_seed, after), "natural", "fgsm", 0.1)
    assert row.before is not None
    assert row.after is not None
    assert row.gap is not None
    assert (row.before.mean, row.after.mean) == (0.5, pytest.approx(0.1))
    assert row.gap.mean == pytest.approx(-0.4)
    assert row.p == pytest.approx(binomtest(0, 8).pvalue)
    assert row.word == "beyond noise"


def test_few_examples_are_noise_and_what_did_not_move_is_the_same(collected: Collected) -> None:
    rows = compare(collected, broken(collected, CELL, "fgsm-linf-0.1", 2))
    assert find(rows, "pgd_at-linf-0.1", "fgsm", 0.1).word == "not beyond noise"
    assert find(rows, "pgd_at-linf-0.1", "pgd_20", 0.1).word == "same"
    assert find(rows, "pgd_at-linf-0.2", "fgsm", 0.2).word == "same"


def test_seeds_that_disagree_are_noise(collected: Collected) -> None:
    before = broken(collected, "natural-s0", "fgsm-linf-0.1", 10)
    after = broken(collected, "natural-s1", "fgsm-linf-0.1", 10)
    row = find(compare(before, after), "natural", "fgsm", 0.1)
    assert (row.p, row.word, row.seeds) == (1.0, "not beyond noise", 2)


def test_one_seed_that_moves_by_far_more_than_the_other_is_noise(collected: Collected) -> None:
    """10 and 8 of 20 are beyond chance in both seeds; 20 and 6 differ too much among seeds."""
    together = broken(collected, "natural-s0", "fgsm-linf-0.1", 10)
    together = broken(together, "natural-s1", "fgsm-linf-0.1", 8)
    assert find(compare(collected, together), "natural", "fgsm", 0.1).word == "beyond noise"
    apart = broken(collected, "natural-s0", "fgsm-linf-0.1", 10)
    row = find(compare(collected, apart), "natural", "fgsm", 0.1)
    assert row.word == "not beyond noise"


def test_the_worst_case_is_over_the_attacks_of_both(collected: Collected) -> None:
    after = without(collected, "outcomes", "attack", "cw_20-linf-0.1")
    rows = compare(collected, after)
    row = find(rows, "pgd_at-linf-0.1", "worst case", 0.1)
    # Without CW, whose one example more is in no version then.
    assert row.word == "same"
    assert row.before is not None
    assert row.before.mean == pytest.approx(0.55)
    gone = find(rows, "pgd_at-linf-0.1", "cw_20", 0.1)
    assert (gone.word, gone.after) == ("only before", None)


def test_what_one_version_alone_has_is_one_row(collected: Collected) -> None:
    after = collected
    for seed in synthetic.SEEDS:
        for table in ("cells", "outcomes"):
            after = without(after, table, "cell", f"natural-s{seed}")
    (row,) = (row for row in compare(collected, after) if row.unit.method == "natural")
    assert (row.number, row.word) == (None, "only before")
    (row,) = (row for row in compare(after, collected) if row.unit.method == "natural")
    assert row.word == "only after"


def test_other_data_is_compared_as_independent_shares(collected: Collected) -> None:
    after = edited(collected, lambda row: row.update(data_hash="f" * 16))
    after = broken(after, "natural-s0", "fgsm-linf-0.1", 10)
    after = broken(after, "natural-s1", "fgsm-linf-0.1", 10)
    rows = compare(collected, after)
    row = find(rows, "natural", "fgsm", 0.1)
    assert not row.paired
    assert row.p == pytest.approx(
        chi2_contingency(np.array([[10, 10], [0, 20]]), correction=False).pvalue
    )
    assert any(change.startswith("data: ") and "ffffffff" in change for change in row.changes)
    assert row.gap is not None
    # Newcombe's interval of 0/20 against 10/20, from Wilson's two by hand.
    assert (row.gap.low, row.gap.high) == (
        pytest.approx(-0.5 - 0.2007, abs=1e-3),
        pytest.approx(-0.5 + np.hypot(0.1611, 0.2007), abs=1e-3),
    )


def test_the_changes_are_named(collected: Collected) -> None:
    def change(row: dict[str, Any]) -> None:
        row["params"]["method"]["parameters"]["steps"] = 10
        row["upstream"]["train:fake/natural-s0"] = {"key": "0" * 16, "digest": "1" * 16}
        row |= {"status": "collapsed", "forward_passes": 6600.0}
        for one in row["evaluations"].values():
            one["params"]["precision"] = "bfloat16"

    rows = compare(collected, edited(collected, change, "pgd_at"))
    assert find(rows, "pgd_at-linf-0.1", "clean").changes == (
        "methods.pgd_at.steps: 7 → 10",
        "input: train:fake/natural-s0",
        "forward passes: 3300 → 6600",
        "training: finished → collapsed",
    )
    attacked = find(rows, "pgd_at-linf-0.1", "worst case", 0.1).changes
    assert attacked[-1] == "precision: float32 → bfloat16"
    assert find(rows, "natural", "clean").changes == ()


def test_code_is_named_by_file_where_the_manifests_are_known(collected: Collected) -> None:
    after = edited(collected, lambda row: row.update(code_digest="f" * 16))
    (said,) = find(compare(collected, after), "natural", "clean").changes
    assert said.startswith("code of the training: ")

    def version(digest: str, torch: str, rows: Collected) -> Version:
        manifest = {
            "code": {"src/a.py": "1", "src/b.py": digest},
            "environment": {"torch": torch, "python": "3.11"},
        }
        manifests: Mapping[str, Mapping[str, Any]] = {
            f"natural-s{seed}": manifest for seed in (0, 1)
        }
        return Version("x", rows, manifests)

    rows = moved_rows(version("2", "2.11", collected), version("3", "2.12", after), INFO)
    assert find(rows, "natural", "clean").changes == ("code: src/b.py", "torch: 2.11 → 2.12")


def test_the_network_that_a_transfer_is_crafted_on_is_named(collected: Collected) -> None:
    def version(digest: str) -> Version:
        inputs = {
            "train:fake/natural-s0": {"digest": digest},
            "train:fake/pgd_at-linf-0.1-s0": {"digest": "own"},
        }
        manifests = {f"{CELL}/fgsm-linf-0.1": {"inputs": inputs}}
        return Version("x", collected, manifests)

    rows = moved_rows(version("1"), version("2"), INFO)
    assert find(rows, "pgd_at-linf-0.1", "fgsm", 0.1).changes == ("input: train:fake/natural-s0",)
    assert find(rows, "pgd_at-linf-0.1", "pgd_20", 0.1).changes == ()


def test_other_weights_of_the_same_key_are_told(collected: Collected) -> None:
    after = edited(collected, lambda row: row.update(checkpoint_hash="f" * 64))
    assert find(compare(collected, after), "natural", "clean").changes == (
        "the same parameters and code gave other weights",
    )


def test_another_device_and_other_versions_are_told(collected: Collected) -> None:
    rows = [row | {"device": "GPU"} for row in collected.costs.to_pylist()]
    costs = pa.Table.from_pylist(rows, collected.costs.schema)
    old = Version("reference", replace(collected, costs=costs), environment={"torch": "1"})
    new = Version("here", collected, environment={"torch": "2", "python": "3"})
    changes = find(moved_rows(old, new, INFO), "natural", "clean").changes
    assert changes == ("device: GPU → cpu", "torch: 1 → 2")


def test_what_every_number_has_in_common_is_said_once(collected: Collected) -> None:
    after = broken(collected, CELL, "fgsm-linf-0.1", 2)
    after = broken(after, "natural-s0", "pgd_20-linf-0.05", 2)
    after = edited(after, lambda row: row["params"]["recipe"]["parameters"].update(epochs=9))
    sheet = moved(Version("old", collected), Version("new", after), INFO)
    assert "Changed for every number shown: recipes.short.epochs: 3 → 9." in sheet.reading
    assert len(sheet.rows) == 3  # the worst case with FGSM
    assert not any(cell.notes for row in sheet.rows for cell in row)
    assert {row[6].origin for row in sheet.rows} == {"natural", "pgd_at-linf-0.1"}
    assert "−" in markdown(sheet)


def test_the_data_are_shares(collected: Collected) -> None:
    rows = compare(collected, broken(collected, CELL, "fgsm-linf-0.1", 2))
    data = moved_data(rows).to_pylist()
    (row,) = (
        row for row in data if row["verdict"] == "not beyond noise" and row["number"] == "fgsm"
    )
    assert (row["before"], row["after"], row["moved"]) == (
        pytest.approx(0.65),
        pytest.approx(0.6),
        pytest.approx(-0.05),
    )
    assert (row["examples"], row["seeds"], row["paired"]) == (20, 2, True)


def test_the_terminal_says_the_same_notes_once(collected: Collected) -> None:
    after = broken(collected, CELL, "fgsm-linf-0.1", 2)
    after = edited(after, lambda row: row["params"]["method"]["parameters"].update(steps=9))
    after = broken(after, "natural-s0", "pgd_20-linf-0.05", 2)
    after = edited(after, lambda row: row.update(data_hash="f" * 16), "natural")
    sheet = moved(Version("old", collected), Version("new", after), INFO)
    text = terminal(sheet)
    (head,) = (line for line in text.splitlines() if line.startswith("method"))
    assert "old, %" in head
    assert text.count("methods.pgd_at.steps: 7 → 9") == 1
    html = page([sheet])
    assert "old, %" in html
    assert "://" not in html
