"""The parameters of a plugin, read from its source without importing it.

A data set, model, attack or method is one file, and the parameters that `params.yaml` may give it
are those of its signature: the keyword-only parameters with a default of the function that is
named as the file, or the fields with a default of the class that is named as the file in
CamelCase. Reading the source costs a millisecond where importing it would cost seconds (torch),
so that every parameter is checked before anything runs.
"""

import ast
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advtrain.params import fitting, quantities

PACKAGE = Path(__file__).resolve().parent.parent

DEFAULT_NORMS = ("linf", "l2")

Value = bool | int | float | str | tuple[float, ...] | None

Choices = tuple[str | int, ...]
"""The values of a `Literal`."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a signature: its name, the quantity it is, and its default."""

    name: str
    quantity: str
    choices: Choices
    optional: bool
    default: Value

    def read(self, given: Any) -> Value:
        """Check a value of `params.yaml` and return it in its canonical type.

        Raises:
            ValueError: saying what was expected, to be prefixed with the place.
        """
        if given is None:
            if self.optional:
                return None
            raise ValueError(f"expected {self.expected()}, got nothing")
        return _READERS[self.quantity](self, given)

    def expected(self) -> str:
        """Say in words what a value of this parameter is."""
        words = _WORDS[self.quantity]
        if self.choices:
            words = "one of " + ", ".join(map(str, self.choices))
        return words + (" or null" if self.optional else "")


@functools.cache
def _parsed(path: Path, modified: int) -> ast.Module:
    """Read a source file, once for each time that it was written."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def camel_case(module: str) -> str:
    """Return the class name that a module's file name promises (`pgd_at` -> `PgdAt`)."""
    return "".join(word.capitalize() for word in module.split("_"))


def modules(kind: str) -> list[str]:
    """List the plugin modules of a kind (`data`, `models`, `attacks`, `methods`, `certificates`).

    A file of that folder is a plugin if it defines what its name promises: a function that takes
    what its kind is given, or (a method) a dataclass.
    """
    return sorted(
        path.stem for path in (PACKAGE / kind).glob("*.py") if _is_plugin(kind, path.stem)
    )


def _is_plugin(kind: str, module: str) -> bool:
    found = _definition(kind, module)
    if isinstance(found, ast.ClassDef):
        return any("dataclass" in ast.unparse(one) for one in found.decorator_list)
    if found is None or kind == "methods":
        return False
    given = {"data": "raw", "models": "channels", "attacks": "threat", "certificates": "noise"}
    return given[kind] in _arguments(found)


def _arguments(function: ast.FunctionDef) -> set[str]:
    return {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}


@functools.cache
def signature(kind: str, module: str, function: str | None = None) -> dict[str, Parameter]:
    """Read the parameters that a module takes from `params.yaml`.

    Args:
        kind: the folder of the package (`data`, `models`, `attacks`, `methods`, `certificates`,
            `training`).
        module: the file's name without `.py`.
        function: the function to read if it is not named as the file.

    Raises:
        FileNotFoundError: if there is no such file.
        TypeError: if the file does not define what its name promises, or annotates a parameter
            with a name that is not in `quantities`.
    """
    found = _definition(kind, module, function)
    where = f"src/advtrain/{kind}/{module}.py"
    if found is None:
        raise TypeError(f"{where} defines neither {function or module}() nor {camel_case(module)}")
    pairs: list[tuple[str, ast.expr | None, ast.expr]] = []
    if isinstance(found, ast.ClassDef):
        for item in found.body:
            if (
                isinstance(item, ast.AnnAssign)
                and isinstance(item.target, ast.Name)
                and item.value is not None
                and not _is_state(item)
            ):
                pairs.append((item.target.id, item.annotation, item.value))
    else:
        for argument, default in zip(found.args.kwonlyargs, found.args.kw_defaults, strict=True):
            if default is not None:
                pairs.append((argument.arg, argument.annotation, default))
    named = _named_choices(PACKAGE / kind / f"{module}.py")
    return {name: _parameter(where, name, kind_, value, named) for name, kind_, value in pairs}


def _definition(
    kind: str, module: str, function: str | None = None
) -> ast.FunctionDef | ast.ClassDef | None:
    path = PACKAGE / kind / f"{module}.py"
    for item in _parsed(path, path.stat().st_mtime_ns).body:
        if isinstance(item, ast.FunctionDef) and item.name == (function or module):
            return item
        if isinstance(item, ast.ClassDef) and kind == "methods" and item.name == camel_case(module):
            return item
    return None


def _is_state(item: ast.AnnAssign) -> bool:
    """Whether a field is state or belongs to the class: `field(...)`, ClassVar, private."""
    annotation = ast.unparse(item.annotation)
    return (
        isinstance(item.value, ast.Call)
        or annotation.startswith("ClassVar")
        or (isinstance(item.target, ast.Name) and item.target.id.startswith("_"))
    )


def _named_choices(path: Path) -> dict[str, Choices]:
    """Return the `Name = Literal[...]` that a file defines, or imports from the package."""
    found: dict[str, Choices] = {}
    for item in _parsed(path, path.stat().st_mtime_ns).body:
        if isinstance(item, ast.ImportFrom) and (item.module or "").startswith("advtrain."):
            other = PACKAGE.joinpath(*(item.module or "").split(".")[1:]).with_suffix(".py")
            if other.is_file() and other != path:
                choices = _named_choices(other)
                found |= {n.name: choices[n.name] for n in item.names if n.name in choices}
        elif (
            isinstance(item, ast.Assign)
            and isinstance(item.value, ast.Subscript)
            and ast.unparse(item.value.value).endswith("Literal")
        ):
            names = [ast.unparse(target) for target in item.targets]
            found |= dict.fromkeys(names, _literal_choices(item.value))
    return found


def _parameter(
    where: str,
    name: str,
    annotation: ast.expr | None,
    default: ast.expr,
    named: Mapping[str, Choices],
) -> Parameter:
    optional, quantity = False, ""
    choices: Choices = ()
    parts = [annotation] if annotation is not None else []
    while parts:
        part = parts.pop()
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.BitOr):
            parts += [part.left, part.right]
        elif isinstance(part, ast.Constant) and part.value is None:
            optional = True
        elif isinstance(part, ast.Subscript) and ast.unparse(part.value).endswith("Literal"):
            quantity = "Literal"
            choices = _literal_choices(part)
        else:
            quantity = ast.unparse(part).rsplit(".", 1)[-1]
            if quantity in named:
                quantity, choices = "Literal", named[quantity]
    if quantity not in _READERS:
        raise TypeError(
            f"{where}: parameter {name} is annotated {quantity or 'not at all'}; "
            f"expected one of {', '.join(sorted(_READERS))}"
        )
    try:
        value = ast.literal_eval(default)
    except ValueError:
        raise TypeError(f"{where}: the default of {name} is not a literal") from None
    parameter = Parameter(name, quantity, choices, optional, None)
    try:
        return Parameter(name, quantity, choices, optional, parameter.read(value))
    except ValueError as error:
        raise TypeError(f"{where}: the default of {name}: {error}") from None


def _literal_choices(part: ast.Subscript) -> Choices:
    items = part.slice.elts if isinstance(part.slice, ast.Tuple) else [part.slice]
    return tuple(ast.literal_eval(item) for item in items)


def _whole(parameter: Parameter, given: Any) -> int:
    least = 1 if parameter.quantity == "Count" else 0
    if isinstance(given, str) and given.strip().isdigit():
        given = int(given)
    if isinstance(given, bool) or not isinstance(given, int) or given < least:
        raise ValueError(f"expected {parameter.expected()}, got {given!r}")
    return given


def _number(parameter: Parameter, given: Any) -> float:
    try:
        value = quantities.fraction(given)
    except (ValueError, AttributeError, TypeError):
        raise ValueError(f"expected {parameter.expected()}, got {given!r}") from None
    low, high = _RANGES[parameter.quantity]
    if not math.isfinite(value):
        raise ValueError(f"expected {parameter.expected()}, got {given!r}")
    above = value > 0 if parameter.quantity == "Positive" else value >= low
    if not (above and value <= high):
        mend = ""
        if parameter.quantity == "Pixels" and 1 < value <= 255:
            mend = f"; did you mean {value:g}/255?"
        raise ValueError(f"expected {parameter.expected()}, got {given!r}{mend}")
    return value


def _step_size(parameter: Parameter, given: Any) -> str | float:
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise ValueError(f"expected {parameter.expected()}, got {given!r}")
    if isinstance(given, str) and quantities.RELATIVE.fullmatch(given.strip()):
        quantities.step_size(given, epsilon=0.0)
        return given.strip()
    value = quantities.step_size(given, epsilon=0.0)
    if not 0 <= value <= 1:
        mend = f"; did you mean {value:g}/255?" if 1 < value <= 255 else ""
        raise ValueError(f"expected {parameter.expected()}, got {given!r}{mend}")
    return value


def _shares(parameter: Parameter, given: Any) -> tuple[float, ...]:
    if not isinstance(given, list | tuple):
        raise ValueError(f"expected {parameter.expected()}, got {given!r}")
    item = Parameter(parameter.name, "Share", (), False, None)
    return tuple(_number(item, one) for one in given)


def _boolean(parameter: Parameter, given: Any) -> bool:
    if not isinstance(given, bool):
        raise ValueError(f"expected true or false, got {given!r}")
    return given


def _text(parameter: Parameter, given: Any) -> str:
    if not isinstance(given, str):
        raise ValueError(f"expected {parameter.expected()}, got {given!r}")
    return given


def _choice(parameter: Parameter, given: Any) -> str | int:
    known = {str(choice): choice for choice in parameter.choices}
    if str(given) not in known:
        raise ValueError(f"expected {parameter.expected()}, got {given!r}")
    return known[str(given)]


_RANGES = {
    "NonNegative": (0.0, float("inf")),
    "Positive": (0.0, float("inf")),
    "Share": (0.0, 1.0),
    "Pixels": (0.0, 1.0),
}
_READERS = {
    "Count": _whole,
    "Whole": _whole,
    "NonNegative": _number,
    "Positive": _number,
    "Share": _number,
    "Pixels": _number,
    "StepSize": _step_size,
    "Shares": _shares,
    "bool": _boolean,
    "str": _text,
    "File": _text,
    "Literal": _choice,
}
_WORDS = {
    "Count": "a whole number, 1 or more",
    "Whole": "a whole number, 0 or more",
    "NonNegative": "a number, 0 or more",
    "Positive": "a number above 0",
    "Share": "a number in [0, 1]",
    "Pixels": "a length in [0, 1] pixel units, such as 8/255",
    "StepSize": "pixel units (2/255) or a multiple of the budget (epsilon/4, 1.25*epsilon)",
    "Shares": "a list of numbers in [0, 1]",
    "bool": "true or false",
    "str": "a text",
    "File": "the path of a file, relative to the repository",
    "Literal": "a choice",
}


def needs_threat(method: str) -> bool:
    """Whether a training method depends on the threat model.

    A method whose class says `needs_threat = False` (natural training) has one cell, whatever
    budgets the study lists, and that cell is attacked at all of them.
    """
    return bool(_class_value(method, "needs_threat", True))


def is_trained(method: str) -> bool:
    """Whether a method trains; one whose class says `trained = False` brings finished weights."""
    return bool(_class_value(method, "trained", True))


def per_example(method: str) -> tuple[str, ...]:
    """Return the names of the values that a training method learns for each example."""
    return tuple(_class_value(method, "per_example", ()))


def unfit(method: str, recipe: Mapping[str, Value]) -> str:
    """Say which option of a recipe a training method cannot be trained with; empty if none.

    Args:
        method: its module.
        recipe: parameters of the training loop; what is not given has its default.
    """
    if problem := fitting.unfit(method, functools.partial(_class_value, method), recipe):
        return problem
    entangled = [_class_value(method, "by_place", False), _class_value(method, "row_state", ())]
    if any([*entangled, per_example(method)]):
        for option in ("micro_batch", "halve_on_out_of_memory"):
            if recipe.get(option):
                return f"{option}: its step is not the mean of its rows' steps; take it out"
    return ""


@functools.cache
def norms(kind: str, module: str) -> tuple[str, ...]:
    """Return the norms that an attack or a training method knows; linf and l2 if it says nothing.

    An attack's file says `NORMS = (...)`, a method's class `norms = (...)`.
    """
    if kind == "methods":
        return tuple(_class_value(module, "norms", DEFAULT_NORMS))
    path = PACKAGE / kind / f"{module}.py"
    for item in _parsed(path, path.stat().st_mtime_ns).body:
        if isinstance(item, ast.Assign) and "NORMS" in map(ast.unparse, item.targets):
            return tuple(ast.literal_eval(item.value))
    return DEFAULT_NORMS


@functools.cache
def needs_source(attack: str) -> bool:
    """Whether an attack is crafted on the network of another cell (`transfer`)."""
    found = _definition("attacks", attack)
    return isinstance(found, ast.FunctionDef) and "source" in _arguments(found)


@functools.cache
def takes_threat(certificate: str) -> bool:
    """Whether a certificate is asked for a budget, or finds a radius of its own."""
    found = _definition("certificates", certificate)
    return isinstance(found, ast.FunctionDef) and "threat" in _arguments(found)


@functools.cache
def _class_value(method: str, name: str, default: Any) -> Any:
    """Return what the class of a method sets a variable to, which is a literal."""
    found = _definition("methods", method)
    for item in found.body if isinstance(found, ast.ClassDef) else []:
        targets: list[ast.expr] = []
        if isinstance(item, ast.Assign):
            targets = item.targets
        elif isinstance(item, ast.AnnAssign):
            targets = [item.target]
        if name in map(ast.unparse, targets):
            assert isinstance(item, ast.Assign | ast.AnnAssign)
            return default if item.value is None else ast.literal_eval(item.value)
    return default
