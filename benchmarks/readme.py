"""`make readme`: put tables into the README and the docs, between their marks.

`<!-- table:digits@cpu -->` is the results table of a reference run, from its committed rows;
`<!-- table:digits@cpu/costs -->` another table of it. Without a device it is the table that was
made here last.
"""

import re
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from advtrain.graph.nodes import Graph  # noqa: E402
from advtrain.params.reader import read  # noqa: E402
from advtrain.reporting.sheet import Sheet, markdown  # noqa: E402
from advtrain.reporting.shown import select  # noqa: E402
from advtrain.reporting.study import check_info  # noqa: E402
from advtrain.reporting.tables import sheets  # noqa: E402
from advtrain.results.collect import read_collected  # noqa: E402
from pipeline.study_info import study_info  # noqa: E402

MARKED = re.compile(r"<!-- table:([\w.@-]+)(?:/(\w+))? -->.*?<!-- /table -->", re.DOTALL)
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def main() -> int:
    """Replace each block whose rows or table are here."""

    def table(match: re.Match[str]) -> str:
        found = made(match[1], match[2] or "results")
        if found is None:
            print(f"{match[1]}: no table here; run make reproduce STUDY={match[1]}")
            return match[0]
        begin = match[0].partition("-->")[0]
        return f"{begin}-->\n{found.strip()}\n<!-- /table -->"

    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        path.write_text(MARKED.sub(table, text), encoding="utf-8")
    return 0


def made(name: str, kind: str) -> str | None:
    """Return a table as Markdown: from the rows of a reference run, or as it lies here."""
    if "@" in name:
        return markdown(reference_sheets(name)[kind])
    path = ROOT / "reports/tables" / name / f"{kind}.md"
    return path.read_text(encoding="utf-8") if path.exists() else None


@cache
def reference_sheets(name: str) -> dict[str, Sheet]:
    """Compute the tables of a reference run."""
    params = replace(read(ROOT / "params.yaml"), run=())
    known = {one["name"]: one for one in Graph(params, ROOT).report.params["references"]}
    info = check_info(study_info(known[name], ROOT))
    return sheets(select(read_collected(ROOT / "reports/reference" / name), info))


if __name__ == "__main__":
    sys.exit(main())
