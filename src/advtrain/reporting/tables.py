"""The tables of a study, computed from its rows alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advtrain.reporting import wording
from advtrain.reporting.costs import CostRow, cost_rows, costs_data
from advtrain.reporting.curve import CurvePoint, curve_data, curve_points
from advtrain.reporting.measure import Measured, Unit, measure, units
from advtrain.reporting.results import ResultRow, result_rows, results_data
from advtrain.reporting.sheet import Cell, Column, Sheet, comma_separated, latex, markdown
from advtrain.reporting.statistics import Estimate
from advtrain.reporting.study import StudyInfo, check_info
from advtrain.results.collect import Collected, read_collected
from advtrain.results.files import write_bytes, write_table


def write_tables(collected_folder: Path, study_info: Mapping[str, Any], out: Path) -> list[Path]:
    """Write a study's tables, each as Markdown, CSV, LaTeX and Parquet.

    Args:
        collected_folder: the study's collected rows.
        study_info: the study in words, as in `study.StudyInfo`.
        out: the folder that gets `results.*`, `costs.*` (measured times, so it alone differs
            between two runs of the same thing) and `curve.*`.

    Returns:
        The files.
    """
    info = check_info(study_info)
    written = []
    for name, sheet in sheets(read_collected(collected_folder), info).items():
        texts = {
            "md": markdown(sheet),
            "csv": comma_separated(sheet.data),
            "tex": latex(sheet),
        }
        for ending, text in texts.items():
            write_bytes(out / f"{name}.{ending}", text.encode())
            written.append(out / f"{name}.{ending}")
        write_table(out / f"{name}.parquet", sheet.data)
        written.append(out / f"{name}.parquet")
    return written


def sheets(collected: Collected, info: StudyInfo) -> dict[str, Sheet]:
    """Compute a study's tables: `results`, `costs` and `curve`."""
    grouped = units(measure(collected), info)
    return {
        "results": results_sheet(result_rows(grouped, info), info),
        "costs": costs_sheet(cost_rows(grouped, collected.costs), info),
        "curve": curve_sheet(curve_points(grouped, info), info),
    }


def results_sheet(rows: Sequence[ResultRow], info: StudyInfo) -> Sheet:
    """Lay out the results: one row per method, training budget and evaluation budget."""
    several_weights = len({row.weights for row in rows}) > 1
    several_norms = len({row.norm for row in rows if row.norm}) > 1
    columns = [Column("method", "name"), Column("trained at ε")]
    columns += [Column("norm", "name")] * several_norms + [Column("attacked at ε")]
    columns += [Column("weights", "name")] * several_weights
    columns += [Column("clean, %"), *(Column(f"{attack}, %") for attack in info["attacks"])]
    columns += [Column("worst case, %"), Column("examples"), Column("seeds")]
    columns += [Column("forward passes"), Column("backward passes"), Column("flags", "notes")]
    laid = []
    for row in rows:
        cells = [Cell(row.unit.method), Cell(wording.budget(row.unit.epsilon))]
        cells += [Cell(row.norm or wording.NOTHING)] * several_norms
        cells += [Cell(wording.budget(row.epsilon))]
        cells += [Cell(row.weights)] * several_weights
        cells += [_accuracy(row.unit, row.cells, row.clean)]
        cells += [_accuracy(row.unit, row.cells, row.robust[a]) for a in info["attacks"]]
        cells += [_accuracy(row.unit, row.cells, row.worst)]
        cells += [Cell(wording.NOTHING if row.examples is None else str(row.examples))]
        cells += [Cell(wording.seeds(len(row.cells), len(row.unit.seeds)))]
        cells += [Cell(wording.passes(row.forward)), Cell(wording.passes(row.backward))]
        cells += [Cell(notes=tuple(flag.words(wording.percent_words) for flag in row.flags))]
        laid.append(tuple(cells))
    norms = ", ".join(sorted({row.norm for row in rows if row.norm})) or "none"
    return Sheet(
        title=f"{info['title']}: accuracy on clean and on attacked images",
        reading=(
            f"Norm: {norms}; ε in pixel units of [0, 1]. An attack's column is the share of test "
            f"examples whose prediction at the point that the attack returned is the label; the "
            f"worst case counts an example only if its clean prediction and that of every attack "
            f"are. Mean over seeds ± sample standard deviation; in brackets the 95 % Wilson "
            f"interval with as many trials as distinct examples. Passes: of the whole training, "
            f"per training example."
        ),
        columns=tuple(columns),
        rows=tuple(laid),
        data=results_data(rows, info["attacks"]),
    )


def costs_sheet(rows: Sequence[CostRow], info: StudyInfo) -> Sheet:
    """Lay out the costs: one row per method and training budget."""
    columns = (
        *(Column("method", "name"), Column("trained at ε"), Column("training, s")),
        *(Column("× natural"), Column("forward passes"), Column("backward passes")),
        *(Column("all attacks, s"), Column("seeds"), Column("device", "name")),
        Column("flags", "notes"),
    )
    laid = tuple(
        (
            Cell(row.unit.method),
            Cell(wording.budget(row.unit.epsilon)),
            Cell(wording.seconds(row.seconds, row.spread)),
            Cell(wording.ratio(row.ratio)),
            Cell(wording.passes(row.forward)),
            Cell(wording.passes(row.backward)),
            Cell(wording.seconds(row.attack)),
            Cell(wording.seeds(row.seeds, len(row.unit.seeds))),
            Cell(", ".join(row.devices) or wording.NOTHING),
            Cell(notes=row.causes),
        )
        for row in rows
    )
    return Sheet(
        title=f"{info['title']}: costs",
        reading=(
            "Wall-clock seconds as measured on the device named, with whatever ran beside: they "
            "differ between runs. Training seconds include the validation after each epoch and the "
            "start of the first. Mean over seeds ± sample standard deviation; the attacks' "
            "seconds are the sum over all evaluations of a cell. Passes: of the whole training, "
            "per training example; they do not depend on the device."
        ),
        columns=columns,
        rows=laid,
        data=costs_data(rows),
    )


def curve_sheet(points: Sequence[CurvePoint], info: StudyInfo) -> Sheet:
    """Lay out the accuracy against the budget: one row per point."""
    attack = info["curve_attack"]
    several_weights = len({point.weights for point in points}) > 1
    columns = (
        *(Column("method", "name"), Column("trained at ε"), Column("attacked at ε")),
        *([Column("weights", "name")] * several_weights),
        *(Column(f"accuracy under {attack or 'no attack'}, %"), Column("seeds")),
        Column("flags", "notes"),
    )
    laid = tuple(
        (
            Cell(point.unit.method),
            Cell(wording.budget(point.unit.epsilon)),
            Cell(wording.budget(point.epsilon)),
            *([Cell(point.weights)] * several_weights),
            _accuracy(point.unit, point.unit.cells, point.accuracy),
            Cell(
                wording.seeds(point.accuracy.seeds if point.accuracy else 0, len(point.unit.seeds))
            ),
            Cell(notes=point.causes),
        )
        for point in points
    )
    reading = (
        f"Accuracy at the points that {attack} returned; at ε = 0, on clean images. Mean over "
        f"seeds ± sample standard deviation; in brackets the 95 % Wilson interval."
        if attack
        else "The study names no attack for the accuracy against the budget."
    )
    return Sheet(
        title=f"{info['title']}: accuracy against the budget",
        reading=reading,
        columns=columns,
        rows=laid,
        data=curve_data(points, attack),
    )


def _accuracy(unit: Unit, cells: Sequence[Measured], found: Estimate | None) -> Cell:
    if found is None:
        return Cell(wording.NOTHING)
    low, high = (wording.percent(end, found.examples) for end in (found.low, found.high))
    title = f"95 % interval {low} to {high} %, n = {found.examples}, "
    title += f"seeds: {wording.seeds(found.seeds, len(unit.seeds))}"
    detail = wording.interval(found)
    if found.seeds < len(cells):
        detail += f" {wording.seeds(found.seeds, len(unit.seeds))} seeds"
    return Cell(
        text=wording.accuracy(found),
        detail=detail,
        title=title,
        origin=cells[0].cell if len(cells) == 1 else unit.name,
    )
