"""`make readme`: put the tables made here into the README and the docs, between their marks."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MARKED = re.compile(r"<!-- table:([\w.]+)(?:/(\w+))? -->.*?<!-- /table -->", re.DOTALL)


def main() -> int:
    """Replace each `<!-- table:STUDY/KIND -->` block whose table is on disk; KIND is `results`."""

    def table(match: re.Match[str]) -> str:
        study, kind = match[1], match[2] or "results"
        made = ROOT / "reports/tables" / study / f"{kind}.md"
        if not made.exists():
            print(f"{study}: no table {kind} here; run make reproduce STUDY={study}")
            return match[0]
        begin = match[0].partition("-->")[0]
        return f"{begin}-->\n{made.read_text(encoding='utf-8').strip()}\n<!-- /table -->"

    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = path.read_text(encoding="utf-8")
        path.write_text(MARKED.sub(table, text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
