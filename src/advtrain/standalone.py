"""A model's code as one file of plain PyTorch, which needs no advtrain."""

import ast
import re
from pathlib import Path

MODELS = "src/advtrain/models"
QUANTITIES = {"Count": "int", "Shares": "tuple[float, ...]", "File": "str"}
"""What the names of quantities are for Python, in the annotations of models."""


def files(root: Path, module: str) -> tuple[str, ...]:
    """List the files that a model is made of, each after those that it imports.

    Args:
        root: the repository's top folder.
        module: the model's file, `preact_resnet`.
    """
    found: dict[str, None] = {}

    def visit(name: str) -> None:
        path = f"{MODELS}/{name}.py"
        tree = ast.parse((root / path).read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and (of := node.module or "").startswith(
                "advtrain.models."
            ):
                visit(of.rsplit(".", 1)[1])
        found.setdefault(path)

    visit(module)
    return tuple(found)


def standalone(root: Path, module: str) -> str:
    """Write the code of a model as one file: imports of other packages, then the definitions.

    Comments and docstrings are kept, and the names of quantities replaced by types.
    """
    plain: set[str] = set()
    names: dict[str, set[str]] = {}
    bodies = []
    for path in files(root, module):
        source = (root / path).read_text(encoding="utf-8")
        imports = [n for n in ast.parse(source).body if isinstance(n, ast.Import | ast.ImportFrom)]
        for node in imports:
            if isinstance(node, ast.Import):
                plain.add(ast.unparse(node))
            elif not (of := node.module or "").startswith("advtrain."):
                names.setdefault(of, set()).update(ast.unparse(alias) for alias in node.names)
        bodies.append(_definitions(source))
    code = "\n\n\n".join(bodies)
    for name, kind in QUANTITIES.items():
        code = re.sub(rf"\b{name}\b", kind, code)
    taken = [f"from {of} import {', '.join(sorted(found))}" for of, found in sorted(names.items())]
    return "\n".join([*sorted(plain), *taken]) + f"\n\n{code}\n"


def _definitions(source: str) -> str:
    """Return a file without its docstring and imports."""
    tree, lines = ast.parse(source), source.splitlines()
    dropped: set[int] = set()
    for place, node in enumerate(tree.body):
        docstring = place == 0 and ast.get_docstring(tree) is not None
        if docstring or isinstance(node, ast.Import | ast.ImportFrom):
            dropped |= set(range(node.lineno - 1, node.end_lineno or node.lineno))
    return "\n".join(line for place, line in enumerate(lines) if place not in dropped).strip()
