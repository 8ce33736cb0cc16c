import csv
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from advtrain.reporting.audits import AUDITS
from advtrain.reporting.shown import select
from advtrain.reporting.study import check_info
from advtrain.reporting.tables import sheets, write_tables
from advtrain.results.collect import Collected, collect, read_cell, write_collected
from tests.results import synthetic

NAMES = (
    *("results", "methods", "selection", "certified", "comparisons", "overlap", "transformed"),
    *("audits", "published", "claims", "costs", "curve"),
)


@pytest.fixture(scope="module")
def tables(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tables")
    written = write_tables(folder, synthetic.study_info(), out)
    names = {f"{name}.{ending}" for name in NAMES for ending in ("md", "csv", "tex", "parquet")}
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


def test_the_results_say_on_whose_network_an_attack_is_crafted(collected: Collected) -> None:
    def reading(**sources: str) -> str:
        info = check_info(synthetic.study_info(attack_sources=sources))
        return sheets(select(collected, info))["results"].reading

    assert "crafted on" not in reading()
    assert reading(cw_20="pgd_at").endswith(
        " cw_20: crafted on the network of pgd_at of the same seed; for pgd_at itself it is an "
        "attack on its own."
    )


def test_all_formats_hold_the_same_rows(tables: Path) -> None:
    expected = {"results": 6, "methods": 4, "comparisons": 6, "costs": 5, "curve": 25, "claims": 6}
    for name in set(NAMES) - {"overlap", "audits"}:
        check_formats(tables, name, expected.get(name, 0), expected.get(name, 0))
    # The data have a row for each attack, and for each cell and audit.
    check_formats(tables, "overlap", 6 * 3, 6)
    check_formats(tables, "audits", 10 * len(AUDITS), 5)


def check_formats(tables: Path, name: str, rows: int, shown: int) -> None:
    data = pq.read_table(tables / f"{name}.parquet")
    assert data.num_rows == rows
    with (tables / f"{name}.csv").open(newline="") as file:
        read = list(csv.reader(file))
    assert read[0] == data.column_names
    assert len(read) == rows + 1
    assert {len(row) for row in read} == {data.num_columns}
    lines = [
        line for line in (tables / f"{name}.md").read_text().splitlines() if line.startswith("|")
    ]
    assert len(lines) == shown + 2
    # A bar within a text is escaped.
    assert len({line.count("|") - line.count(r"\|") for line in lines}) == 1
    text = (tables / f"{name}.tex").read_text()
    for block in text.split(r"\toprule")[1:]:
        head, *body = [line for line in block.splitlines() if line.endswith((r"\\", r"\\*"))]
        widths = {line.replace(r"\&", "").count("&") for line in (head, *body)}
        assert len(widths) == 1
        assert len([line for line in body if not line.startswith(" &")]) == shown


def test_a_study_with_both_weights_and_certificates_fills_every_table(
    rich_folder: Path, tmp_path: Path
) -> None:
    info = synthetic.study_info(certificates=["ibp", "smoothing_025"])
    for folder in (tmp_path / "a", tmp_path / "b"):
        write_tables(rich_folder, info, folder)
    # One method has a row for the best weights too, which the page and Markdown leave out.
    check_formats(tmp_path / "a", "results", 7, 6)
    check_formats(tmp_path / "a", "methods", 4, 4)
    check_formats(tmp_path / "a", "selection", 1, 1)
    check_formats(tmp_path / "a", "certified", 5, 5)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_what_a_study_does_not_have_is_said_in_an_empty_table(tables: Path) -> None:
    assert "This study has no certificates." in (tables / "certified.md").read_text()
    assert "one kind of weights alone" in (tables / "selection.md").read_text()
    data = pq.read_table(tables / "certified.parquet")
    assert str(data.schema.field("certified_accuracy").type) == "double"
    assert str(data.schema.field("flags").type).startswith("list<")


def test_the_results_are_the_same_bytes_whatever_the_times(
    tables: Path, tmp_path: Path, collected: Collected
) -> None:
    slower = collected.costs.to_pylist()
    for row in slower:
        row["seconds"] = row["seconds"] * 1.7
    costs = collected.costs.from_pylist(slower, collected.costs.schema)
    changed = replace(collected, costs=costs)
    write_collected(changed, tmp_path / "collected")
    write_tables(tmp_path / "collected", synthetic.study_info(), tmp_path / "tables")
    for name in set(NAMES) - {"costs"}:
        for ending in ("md", "csv", "tex", "parquet"):
            ours, theirs = (root / f"{name}.{ending}" for root in (tables, tmp_path / "tables"))
            assert ours.read_bytes() == theirs.read_bytes()
    assert (tables / "costs.csv").read_bytes() != (tmp_path / "tables/costs.csv").read_bytes()


def test_of_several_weights_the_last_are_shown_and_all_are_in_the_data(tmp_path: Path) -> None:
    cell = "pgd_at-linf-0.1-s0"
    synthetic.write_training(tmp_path, "fake", cell, "pgd_at", 0.1, 0)
    names = ("pgd_20-linf-0.1", "pgd_20-linf-0.1-best")
    for name, weights in zip(names, ("last", "best"), strict=True):
        synthetic.write_evaluation(tmp_path, "fake", cell, name, "pgd_at", 0.1, 0, weights)
    record = read_cell(tmp_path, "fake", cell, names)
    info = check_info(synthetic.study_info())
    found = sheets(select(collect("fake", [record]), info))
    for name in ("results", "curve"):
        assert "weights" not in [column.title for column in found[name].columns]
        assert set(found[name].data["weights"].to_pylist()) == {"last", "best"}
        assert len(found[name].rows) == found[name].data.num_rows / 2
        assert "Shown are the weights of the last epoch" in found[name].reading
    only_best = read_cell(tmp_path, "fake", cell, names[1:])
    found = sheets(select(collect("fake", [only_best]), info))
    for name in ("results", "curve"):
        assert "those of the best epoch by validation" in found[name].reading
        assert found[name].rows


def test_a_number_knows_its_lineage(collected: Collected) -> None:
    info = check_info(synthetic.study_info())
    row = sheets(select(collected, info))["results"].rows[2]
    assert row[3].origin == "pgd_at-linf-0.1"
    assert row[3].title == "95 % interval 64.0 to 94.8 %, n = 20, seeds: 2"
    alone = collect("fake", [])
    assert sheets(select(alone, info))["results"].rows == ()


def test_an_empty_study_has_empty_tables(tmp_path: Path) -> None:
    write_collected(collect("fake", []), tmp_path / "collected")
    info = synthetic.study_info(curve_attack=None)
    write_tables(tmp_path / "collected", info, tmp_path / "tables")
    text = (tmp_path / "tables" / "curve.md").read_text()
    assert "The study names no attack for the accuracy against the budget." in text
