"""Provenance: what code, what bytes and what environment a result comes from.

The code digest of a step is the hash of the syntax trees of the files that it imports, without
comments, docstrings and layout: an edit of a comment costs no retraining, an edit of a formula
retrains exactly what imports it.
"""

import ast
import contextlib
import functools
import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

SOURCES = (("advtrain", "src/advtrain"), ("pipeline", "pipeline"))
RECORDED = ("torch", "torchvision", "numpy", "pyarrow", "scikit-learn")


def hash_json(value: Any) -> str:
    """Hash a JSON value, whatever the order of its keys; 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def closure(root: Path, files: Iterable[str]) -> tuple[str, ...]:
    """List the project's files that some files import, directly or not, with themselves.

    Args:
        root: the repository's top folder.
        files: where to start; a file that is not Python stands for itself (a template).

    Returns:
        Paths relative to the root, sorted. Imports inside functions count, those under
        `if TYPE_CHECKING:` do not; plugins that are loaded by name have to be among `files`.
    """
    found: set[str] = set()
    waiting = list(files)
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            if file.endswith(".py"):
                waiting += _imports(root, file)
    return tuple(sorted(found))


def digest_files(root: Path, files: Iterable[str]) -> dict[str, str]:
    """Hash files by what they do: the syntax tree for Python, the bytes for the rest."""
    return {file: _read(root / file).digest for file in files}


def code_digest(digests: Mapping[str, str]) -> str:
    """Fold the digests of a step's files into one."""
    return hash_json(dict(digests))


def canonical(node: ast.AST | list[Any] | object) -> Any:
    """Turn a syntax tree into a JSON value that is the same for every supported Python.

    Docstrings, comments, positions and empty fields are left out (`ast.dump` prints the last
    in some versions and not in others).
    """
    if isinstance(node, list):
        return [canonical(one) for one in node]
    if not isinstance(node, ast.AST):
        return node if isinstance(node, str | int | bool | type(None)) else repr(node)
    fields = {}
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(value, list):
            value = _without_docstring(node, value)
        if isinstance(node, ast.JoinedStr):  # Python 3.12 adds empty texts to a format
            value = [one for one in value if getattr(one, "value", None) != ""]
        if name != "kind" and value is not None and value != []:
            fields[name] = canonical(value)
    return [type(node).__name__, fields]


def environment() -> dict[str, str]:
    """Return the versions that can change a number: recorded with each result, not keyed."""
    versions = {"python": platform.python_version(), "machine": platform.machine()}
    for package in RECORDED:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return versions


def git_commit(root: Path) -> str:
    """Return the commit of the work tree, with `+` if tracked files differ; `unknown` outside."""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "diff", "--quiet", "HEAD", "--", "src", "pipeline", "params.yaml"],
            cwd=root,
            capture_output=True,
            check=False,
        ).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if dirty else "")


@dataclass(frozen=True)
class _File:
    """What is remembered of a file while its inode, time and size stay as they are."""

    digest: str
    modules: tuple[str, ...]


_FILES: dict[str, _File] = {}

_RECALLED: set[str] = set()

MEMO = ".pipeline/code.json"
SETTLED = 2.0
"""Seconds after which a file's time tells a later edit apart, on the coarsest file systems."""
MOST = 2000


def recall(root: Path) -> None:
    """Take over what an earlier process found in files that have not changed since.

    Reading and hashing all syntax trees takes a second, which every command would pay.
    """
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        kept = json.loads((root / MEMO).read_text(encoding="utf-8"))
        if kept["by"] == hash_file(Path(__file__)):
            for stamp, (digest, modules) in kept["files"].items():
                _FILES.setdefault(stamp, _File(digest, tuple(modules)))
            _RECALLED.update(kept["files"])


def keep(root: Path) -> None:
    """Leave what was found for the next process; a folder that cannot be written is no matter."""
    if _RECALLED.issuperset(_FILES):
        return
    latest = (time.time() - SETTLED) * 1e9
    files = {
        stamp: [found.digest, found.modules]
        for stamp, found in [*_FILES.items()][-MOST:]
        if int(stamp.split(":")[-2]) < latest
    }
    memo = root / MEMO
    with contextlib.suppress(OSError):
        memo.parent.mkdir(exist_ok=True)
        partial = memo.with_name(f".{memo.name}.{os.getpid()}")
        partial.write_text(json.dumps({"by": hash_file(Path(__file__)), "files": files}))
        os.replace(partial, memo)


def _read(path: Path) -> _File:
    found = path.stat()
    stamp = f"{found.st_dev}:{found.st_ino}:{found.st_mtime_ns}:{found.st_size}"
    if stamp not in _FILES:
        if path.suffix == ".py":
            tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
            _FILES[stamp] = _File(hash_json(canonical(tree)), tuple(sorted(_modules(tree))))
        else:
            _FILES[stamp] = _File(hash_file(path)[:16], ())
    return _FILES[stamp]


def _modules(tree: ast.Module) -> set[str]:
    """Return the names that a module may import, those of attributes among them."""
    found: set[str] = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        waiting += ast.iter_child_nodes(node)
    return found


def _imports(root: Path, file: str) -> set[str]:
    modules = _read(root / file).modules
    return {found for module in modules for found in _files(root, module)}


def _without_docstring(node: ast.AST, body: list[ast.stmt]) -> list[ast.stmt]:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    if (
        isinstance(node, documented)
        and body
        and isinstance(body[0], ast.Expr)
        and isinstance(body[0].value, ast.Constant)
        and isinstance(body[0].value.value, str)
    ):
        return body[1:]
    return body


@functools.cache
def _files(root: Path, module: str) -> frozenset[str]:
    """Return the files that importing a module of the project runs: itself and its packages."""
    package, *rest = module.split(".")
    folder = dict(SOURCES).get(package)
    if folder is None:
        return frozenset()
    found = set()
    for depth in range(len(rest) + 1):
        base = "/".join((folder, *rest[:depth]))
        for candidate in (f"{base}.py", f"{base}/__init__.py"):
            if (root / candidate).is_file():
                found.add(candidate)
    return frozenset(found)
