import csv
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from advtrain.reporting.study import check_info
from advtrain.reporting.tables import sheets, write_tables
from advtrain.results.collect import Collected, collect, read_cell, write_collected
from tests.results import synthetic


@pytest.fixture(scope="module")
def tables(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tables")
    written = write_tables(folder, synthetic.study_info(), out)
    names = {
        f"{n}.{e}" for n in ("results", "costs", "curve") for e in ("md", "csv", "tex", "parquet")
    }
    assert {path.relative_to(out).as_posix() for path in written} == names
    return out


def test_percent_are_in_the_rendered_table_alone(tables: Path) -> None:
    line = next(
        line
        for line in (tables / "results.md").read_text().splitlines()
        if line.startswith("| pgd_at | 0.1")
    )
    assert line == (
        "| pgd_at | 0.1 | 0.1 | 85.0 ± 7.1 [64.0, 94.8] | 65.0 ± 7.1 [43.3, 81.9] "
        "| 55.0 ± 7.1 [34.2, 74.2] | 55.0 ± 7.1 [34.2, 74.2] | 50.0 ± 7.1 [29.9, 70.1] "
        "| 20 | 2 | 33 | 33 |  |"
    )
    with (tables / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    accuracies = [float(row[name]) for row in rows for name in row if "accuracy" in name]
    assert max(accuracies) == 1.0
    assert rows[2]["training_epsilon"] == "0.1"
    assert rows[0]["training_epsilon"] == ""


def test_all_formats_hold_the_same_rows(tables: Path) -> None:
    for name, rows in (("results", 6), ("costs", 5), ("curve", 25)):
        data = pq.read_table(tables / f"{name}.parquet")
        assert data.num_rows == rows
        assert len((tables / f"{name}.csv").read_text().splitlines()) == rows + 1
        lines = (tables / f"{name}.md").read_text().splitlines()
        assert len([line for line in lines if line.startswith("|")]) == rows + 2


def test_the_results_are_the_same_bytes_whatever_the_times(
    tables: Path, tmp_path: Path, collected: Collected
) -> None:
    slower = collected.costs.to_pylist()
    for row in slower:
        row["seconds"] = row["seconds"] * 1.7
    changed = Collected(
        collected.outcomes,
        collected.cells,
        collected.histories,
        collected.costs.from_pylist(slower, collected.costs.schema),
    )
    write_collected(changed, tmp_path / "collected")
    write_tables(tmp_path / "collected", synthetic.study_info(), tmp_path / "tables")
    for name in ("results", "curve"):
        for ending in ("md", "csv", "tex", "parquet"):
            ours, theirs = (root / f"{name}.{ending}" for root in (tables, tmp_path / "tables"))
            assert ours.read_bytes() == theirs.read_bytes()
    assert (tables / "costs.csv").read_bytes() != (tmp_path / "tables/costs.csv").read_bytes()


def test_several_weights_get_a_column(tmp_path: Path) -> None:
    cell = "pgd_at-linf-0.1-s0"
    synthetic.write_training(tmp_path, "fake", cell, "pgd_at", 0.1, 0)
    names = ("pgd_20-linf-0.1", "pgd_20-linf-0.1-best")
    for name, weights in zip(names, ("last", "best"), strict=True):
        synthetic.write_evaluation(tmp_path, "fake", cell, name, "pgd_at", 0.1, 0, weights)
    record = read_cell(tmp_path, "fake", cell, names)
    info = check_info(synthetic.study_info())
    found = sheets(collect("fake", [record]), info)
    for name in ("results", "curve"):
        place = [column.title for column in found[name].columns].index("weights")
        assert {row[place].text for row in found[name].rows} == {"last", "best"}


def test_a_number_knows_its_lineage(collected: Collected) -> None:
    info = check_info(synthetic.study_info())
    row = sheets(collected, info)["results"].rows[2]
    assert row[3].origin == "pgd_at-linf-0.1"
    assert row[3].title == "95 % interval 64.0 to 94.8 %, n = 20, seeds: 2"
    alone = collect("fake", [])
    assert sheets(alone, info)["results"].rows == ()


def test_an_empty_study_has_empty_tables(tmp_path: Path) -> None:
    write_collected(collect("fake", []), tmp_path / "collected")
    info = synthetic.study_info(curve_attack=None)
    write_tables(tmp_path / "collected", info, tmp_path / "tables")
    text = (tmp_path / "tables" / "curve.md").read_text()
    assert "The study names no attack for the accuracy against the budget." in text
