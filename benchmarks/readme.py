"""`make readme`: put the tables that were made here into the README, between their marks."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Replace each `<!-- table:STUDY -->` block whose table is on disk."""
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")

    def table(match: re.Match[str]) -> str:
        made = ROOT / "reports/tables" / match[1] / "results.md"
        if not made.exists():
            print(f"{match[1]}: no table here; run make reproduce STUDY={match[1]}")
            return match[0]
        return f"<!-- table:{match[1]} -->\n{made.read_text().strip()}\n<!-- /table -->"

    changed = re.sub(r"<!-- table:([\w.]+) -->.*?<!-- /table -->", table, text, flags=re.DOTALL)
    path.write_text(changed, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
