"""Files that parameters name: the bytes of a user's model and weights, as part of a key."""

import ast
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from advtrain.graph.records import write_json
from advtrain.provenance import hash_file

DIGESTS = ".pipeline/digests.json"
REMEMBERED = 1 << 22
"""From this size on, a file is not read again while its times, size and inode stay as they are."""


def file_digests(root: Path, path: str) -> dict[str, str]:
    """Hash a file and, if it is Python, the files beside and below it that it imports.

    Args:
        root: the repository's top folder.
        path: of the file, relative to the root or absolute.

    Returns:
        The SHA-256 of each by its path, written as `path` is.

    Raises:
        FileNotFoundError: if it is not there.
        SyntaxError: if it is Python that cannot be read.
    """
    file = root / path
    if not file.is_file():
        raise FileNotFoundError(path)
    found = imported_beside(file) if file.suffix == ".py" else (file,)
    folder = Path(path).parent
    return {(folder / one.relative_to(file.parent)).as_posix(): _digest(root, one) for one in found}


def imported_beside(file: Path) -> tuple[Path, ...]:
    """List a Python file and those of its folder and below that it imports, directly or not.

    They are what an import finds first while the file runs as a script does. What is installed is
    not among them.

    Raises:
        SyntaxError: if one of them cannot be read.
    """
    found: set[Path] = set()
    waiting = [file]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            for module in _imported(file.parent, one):
                waiting += _sources(file.parent, module)
    return tuple(sorted(found))


def _imported(folder: Path, file: Path) -> Iterator[tuple[str, ...]]:
    """Yield the parts of each name that a file may import, seen from the folder."""
    package = file.relative_to(folder).parts[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = (*above, *(node.module.split(".") if node.module else ()))
            yield base
            for alias in node.names:  # a module of the package, or what one of its files defines
                yield (*base, alias.name)


def _sources(folder: Path, module: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files that importing a module runs: itself and its packages."""
    for depth in range(1, len(module) + 1):
        base = folder.joinpath(*module[:depth])
        for candidate in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
            if candidate.is_file():
                yield candidate


def _digest(root: Path, file: Path) -> str:
    """Hash a file, or remember what was found when a large one was last read."""
    found = file.stat()
    if found.st_size < REMEMBERED:
        return hash_file(file)
    path = root / DIGESTS
    stamp = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
    name = os.fspath(file.absolute())
    known = _read(path)
    if name not in known or known[name].get("stamp") != stamp:
        digest = hash_file(file)
        known = {**_read(path), name: {"stamp": stamp, "sha256": digest}}
        write_json(path, known)
    return str(known[name]["sha256"])


def _read(path: Path) -> Mapping[str, Mapping[str, object]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
