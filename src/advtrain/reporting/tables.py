"""The tables of a study, computed from its rows alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advtrain.published.claims import read_claims
from advtrain.published.registry import Number, read_registry
from advtrain.reporting.audits import AuditError, failures
from advtrain.reporting.claims import claim_rows
from advtrain.reporting.comparisons import comparison_rows, pairs
from advtrain.reporting.latex import latex
from advtrain.reporting.layout import (
    audits_sheet,
    certified_sheet,
    claims_sheet,
    comparisons_sheet,
    costs_sheet,
    curve_sheet,
    methods_sheet,
    overlap_sheet,
    published_sheet,
    results_sheet,
    selection_sheet,
    transformed_sheet,
)
from advtrain.reporting.measure import Unit
from advtrain.reporting.methods import method_rows
from advtrain.reporting.overlap import overlap_rows
from advtrain.reporting.published import PublishedRow, published_rows
from advtrain.reporting.selection import selection_rows
from advtrain.reporting.sheet import Sheet, comma_separated, markdown
from advtrain.reporting.shown import Shown, select
from advtrain.reporting.study import StudyInfo, check_info
from advtrain.reporting.transformed import transformed_rows
from advtrain.results.collect import read_collected
from advtrain.results.files import write_bytes, write_table


def write_tables(collected_folder: Path, study_info: Mapping[str, Any], out: Path) -> list[Path]:
    """Write a study's tables, each as Markdown, CSV, LaTeX and Parquet.

    Args:
        collected_folder: the study's collected rows.
        study_info: the study in words, as in `study.StudyInfo`.
        out: the folder that gets `results.*`, `methods.*`, `selection.*`, `certified.*`,
            `comparisons.*`, `overlap.*`, `transformed.*`, `audits.*`, `published.*`, `claims.*`,
            `curve.*` and `costs.*` (measured times, so it alone differs between two runs of the
            same thing).

    Returns:
        The files.

    Raises:
        AuditError: if the study is strict and an audit failed; nothing is written then.
    """
    shown = select(read_collected(collected_folder), check_info(study_info))
    if shown.info["strict"] and (failed := failures(shown.audits)):
        raise AuditError("\n".join(failed))
    written = []
    for name, sheet in sheets(shown).items():
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


def sheets(shown: Shown) -> dict[str, Sheet]:
    """Compute a study's tables; one that has nothing to show has no rows, and says why."""
    info, grouped, results = shown.info, shown.units, shown.results
    cells = shown.collected.cells
    compared = pairs(grouped, results, info)
    claims, registry = read_claims(), read_registry()
    methods = method_rows(results, info, claims)
    # Natural training itself is no row of the methods.
    relative: dict[str, float | None] = {
        unit.name: 1.0 for unit in grouped if _is_natural(unit, info)
    }
    relative |= {row.unit.name: row.relative for row in methods}
    published = published_rows(grouped, cells, info, registry, relative)
    return {
        "results": results_sheet(results, info),
        "methods": methods_sheet(methods, info, claims.source),
        "selection": selection_sheet(selection_rows(grouped, results, info), info),
        "certified": certified_sheet(shown.certified, info),
        "comparisons": comparisons_sheet(comparison_rows(results, compared), compared, info),
        "overlap": overlap_sheet(overlap_rows(results, info["attacks"]), info),
        "transformed": transformed_sheet(transformed_rows(grouped), info),
        "audits": audits_sheet(shown.audits, info),
        "published": published_sheet(published, info),
        "claims": claims_sheet(claim_rows(results, cells, info, registry.ranges), info),
        "costs": costs_sheet(shown.costs, info, _minutes(published)),
        "curve": curve_sheet(shown.points, info),
    }


def _is_natural(unit: Unit, info: StudyInfo) -> bool:
    return info["method_modules"].get(unit.method) == "natural"


def _minutes(rows: Sequence[PublishedRow]) -> dict[str, list[Number]]:
    """Return the minutes that were published, by method."""
    found: dict[str, list[Number]] = {}
    for row in rows:
        if row.number.evaluation.quantity == "minutes":
            found.setdefault(row.method, []).append(row.number)
    return found
