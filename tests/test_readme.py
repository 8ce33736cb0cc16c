"""The tables of the README are those of the committed rows."""

from pathlib import Path

import pytest

from benchmarks.readme import MARKED, PAGES, ROOT, made

TABLES = [
    pytest.param(path, match[1], match[2] or "results", match[0], id=f"{path.name}:{match[1]}")
    for path in PAGES
    for match in MARKED.finditer(path.read_text(encoding="utf-8"))
    if "@" in match[1]
]


def test_the_readme_has_tables_of_reference_runs() -> None:
    shown = {name for path, name, _, _ in (one.values for one in TABLES) if path == PAGES[0]}
    assert shown == {"digits@cpu", "cifar10_cpu@cpu"}


@pytest.mark.parametrize(("path", "name", "kind", "block"), TABLES)
def test_a_table_is_that_of_the_rows(path: Path, name: str, kind: str, block: str) -> None:
    found = made(name, kind)
    assert found is not None
    assert block.partition("-->\n")[2] == f"{found.strip()}\n<!-- /table -->", (
        f"{path.relative_to(ROOT)}: the table {name}/{kind} is not that of the committed rows; "
        "`make readme` writes it"
    )
