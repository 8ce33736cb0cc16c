"""The tables of a study, computed from its rows alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advtrain.published.claims import read_claims
from advtrain.reporting.certified import certified_rows
from advtrain.reporting.costs import cost_rows
from advtrain.reporting.curve import curve_points
from advtrain.reporting.layout import (
    certified_sheet,
    costs_sheet,
    curve_sheet,
    methods_sheet,
    results_sheet,
    selection_sheet,
)
from advtrain.reporting.measure import measure, units
from advtrain.reporting.methods import method_rows
from advtrain.reporting.results import result_rows
from advtrain.reporting.selection import selection_rows
from advtrain.reporting.sheet import Sheet, comma_separated, latex, markdown
from advtrain.reporting.study import StudyInfo, check_info
from advtrain.results.collect import Collected, read_collected
from advtrain.results.files import write_bytes, write_table


def write_tables(collected_folder: Path, study_info: Mapping[str, Any], out: Path) -> list[Path]:
    """Write a study's tables, each as Markdown, CSV, LaTeX and Parquet.

    Args:
        collected_folder: the study's collected rows.
        study_info: the study in words, as in `study.StudyInfo`.
        out: the folder that gets `results.*`, `methods.*`, `selection.*`, `certified.*`, `costs.*`
            (measured times, so it alone differs between two runs of the same thing) and `curve.*`.

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
    """Compute a study's tables; one that has nothing to show has no rows, and says why."""
    grouped = units(measure(collected), info)
    results = result_rows(grouped, info)
    claims = read_claims()
    return {
        "results": results_sheet(results, info),
        "methods": methods_sheet(method_rows(results, info, claims), info, claims.source),
        "selection": selection_sheet(selection_rows(grouped, results, info), info),
        "certified": certified_sheet(certified_rows(grouped, info), info),
        "costs": costs_sheet(cost_rows(grouped, collected.costs), info),
        "curve": curve_sheet(curve_points(grouped, info), info),
    }
