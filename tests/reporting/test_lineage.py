import json
from dataclasses import replace

import pyarrow as pa

from advtrain.published.registry import read_registry
from advtrain.reporting.lineage import Input, Lineages, Parameter, Protocol, lineages
from advtrain.reporting.measure import measure, units
from advtrain.reporting.study import check_info
from advtrain.results.collect import Collected
from tests.results import synthetic
from tests.results.synthetic import digest

CELL = "pgd_at-linf-0.1-s0"
THREAT = ("threat.epsilon", "threat.norm")


def traced(collected: Collected, *, kept: bool = False, **told: object) -> Lineages:
    info = check_info(synthetic.study_info(**told))
    grouped = units(measure(collected), info)
    return lineages(info, grouped, collected, read_registry(), kept=kept)


def changed(collected: Collected, cell: str, column: str, **values: object) -> Collected:
    """Change what is said of one cell; `values` replace those of the JSON in the column."""
    rows = collected.cells.to_pylist()
    for row in rows:
        if row["cell"] == cell:
            row[column] = json.dumps({**json.loads(row[column]), **values})
    return replace(collected, cells=pa.Table.from_pylist(rows, collected.cells.schema))


def test_what_all_cells_share_is_said_once(collected: Collected) -> None:
    found = traced(collected)
    shared = {one.name for one in found.params}
    assert {"dataset", "model.name", "recipe.parameters.epochs"} <= shared
    own = [cell for group in found.groups for cell in group.cells]
    for cell in own:
        assert {one.name for one in cell.params} == {
            *("method.module", "method.name", "seed"),
            *(("threat",) if cell.cell.startswith("natural") else THREAT),
        }
    assert found.upstream == (Input("prepare:blobs", digest("data")[:16], digest("blobs")[:16]),)
    assert {cell.upstream for cell in own} == {()}


def test_a_cell_shows_what_it_alone_has(collected: Collected) -> None:
    found = traced(changed(collected, CELL, "params", dataset="others"))
    values = {
        cell.cell: [one.value for one in cell.params if one.name == "dataset"]
        for group in found.groups
        for cell in group.cells
    }
    assert values.pop(CELL) == ["others"]
    assert set(map(tuple, values.values())) == {("blobs",)}
    assert Parameter("dataset", "blobs") not in found.params


def test_a_study_of_one_cell_shows_its_parameters_with_it(collected: Collected) -> None:
    keep = pa.compute.equal(collected.cells["cell"], CELL)
    rows = pa.compute.equal(collected.outcomes["cell"], CELL)
    alone = replace(
        collected, cells=collected.cells.filter(keep), outcomes=collected.outcomes.filter(rows)
    )
    found = traced(alone)
    assert found.params == ()
    assert Parameter("dataset", "blobs") in found.groups[0].cells[0].params


def test_a_protocol_that_differs_between_cells_stands_with_each(collected: Collected) -> None:
    name = "pgd_20-linf-0.1"
    row = next(one for one in collected.cells.to_pylist() if one["cell"] == CELL)
    described = json.loads(row["evaluations"])[name] | {"protocol": "another one"}
    before, after = (
        traced(collected),
        traced(changed(collected, CELL, "evaluations", **{name: described})),
    )
    assert before.protocols[name] == Protocol("pgd_20 at 0.1", digest("attack code")[:16])
    assert name not in after.protocols
    said = {
        cell.cell: attack.protocol.text
        for group in after.groups
        for cell in group.cells
        for attack in cell.attacks
        if attack.name == name and attack.protocol
    }
    assert said.pop(CELL) == "another one"
    assert set(said.values()) == {"pgd_20 at 0.1"}


def test_both_weights_have_their_hash_where_both_were_attacked(rich: Collected) -> None:
    cells = {cell.cell: cell for group in traced(rich).groups for cell in group.cells}
    facts = dict(fact[:2] for fact in cells[CELL].facts)
    assert facts["checkpoint hash, last"] == digest(f"last {CELL}")
    assert facts["checkpoint hash, best"] == digest(f"best {CELL}")
    assert dict(fact[:2] for fact in cells["natural-s0"].facts)["checkpoint hash"] == digest(
        "last natural-s0"
    )


def test_the_paper_is_departed_from_in_fields_that_it_states(collected: Collected) -> None:
    found = traced(collected, published={"pgd_at": ["free/pgd_at"]})
    beside = {group.name: group.beside for group in found.groups}
    assert beside["natural"] == ()
    (one,) = beside["pgd_at-linf-0.1"]
    assert one.name == "free/pgd_at"
    departures = {departure.field: departure for departure in one.departures}
    assert (departures["epsilon"].theirs, departures["epsilon"].ours) == ("8/255", "0.1")
    assert "steps" not in departures


def test_a_kept_run_leads_to_no_run_and_is_computed_again_as_its_study(
    collected: Collected,
) -> None:
    for kept in (False, True):
        found = traced(collected, kept=kept, name="fake@cpu" if kept else "fake")
        cell = found.groups[0].cells[0]
        assert any(fact.href for fact in cell.facts) == (not kept)
        assert cell.command.endswith("/train/fake/natural-s0")
        assert "/attack/fake/natural-s0/" in cell.attacks[0].command
