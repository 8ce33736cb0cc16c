r"""The numbers of a study's accuracies under names, for prose that repeats no number by hand.

`\val{digits/results/trades@0.2/0.2/clean_accuracy}` prints a number of the results table: that of
TRADES trained at 0.2 and attacked at 0.2. A name that no number has stops LaTeX with an error.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from advtrain.reporting import wording
from advtrain.reporting.latex import latex_text
from advtrain.reporting.sheet import Sheet

NAMED = {
    "results": ("epsilon", "weights"),
    "methods": ("epsilon", "weights"),
    "selection": ("epsilon",),
    "certified": ("certificate", "epsilon", "radius"),
    "curve": ("attack", "epsilon", "weights"),
    "transformed": (),
}
"""The tables whose numbers have names, and what tells the rows of one trained method apart."""

KEYS = ("method", "norm", "training_norm", "training_epsilon", "epsilon", "radius", "weights")
"""Columns that are part of a row's name, or plain from it."""

POINTS = ("accuracy_cost", "robustness_gain", "gap")
"""Columns of differences, in points; the other columns of fractions are shares, or counts."""

PASSES = ("forward_passes", "backward_passes")

Numbers = dict[str, str]
"""Texts of numbers, as a reader sees them, by name."""

HEAD = r"""% Numbers of the study {study}, by name: written from its rows, not to be edited.
% \input{{numbers/{study}.tex}}, then \val{{name}} prints one.
\providecommand{{\val}}[1]{{\ifcsname advtrain:#1\endcsname\csname advtrain:#1\endcsname
  \else\errmessage{{There is no number #1 in numbers/}}\fi}}
\providecommand{{\defval}}[2]{{\expandafter\def\csname advtrain:#1\endcsname{{#2}}}}
"""


def table_numbers(laid: Mapping[str, Sheet]) -> Numbers:
    """Name the numbers of a study's tables in `NAMED`: `results/trades@0.2/0.2/clean_accuracy`.

    A number over several weights says which: `results/trades@0.2/0.2/best/clean_accuracy` is of the
    best epoch's; those of the last epoch do not. Measured times have no name, since they would
    differ between two runs of the same thing.
    """
    found: Numbers = {}
    for table, keys in NAMED.items():
        if table in laid:
            for row in laid[table].data.to_pylist():
                place = "/".join((table, trained(row), *_parts(row, keys)))
                found |= {f"{place}/{column}": text for column, text in _texts(row)}
    return found


def trained(row: Mapping[str, Any]) -> str:
    """Name a method with its training budget: `trades@8_255`, `natural`."""
    epsilon = row["training_epsilon"]
    return row["method"] if epsilon is None else f"{row['method']}@{wording.budget_name(epsilon)}"


def row_name(table: str, row: Mapping[str, Any]) -> str:
    """Return what the names of a row's numbers begin with."""
    return "/".join((table, trained(row), *_parts(row, NAMED[table])))


def numbers_file(study: str, numbers: Numbers) -> str:
    r"""Write the numbers of a study as LaTeX, each as `\defval{study/name}{text}`."""
    lines = [rf"\defval{{{study}/{name}}}{{{latex_text(numbers[name])}}}" for name in numbers]
    return HEAD.format(study=study) + "\n".join([*lines, ""])


def _parts(row: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[str]:
    for key in keys:
        value = row[key]
        if key in ("epsilon", "radius"):
            if value is not None:
                yield wording.budget_name(value)
        elif value != "last":
            yield value


def _texts(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Say each number of a row, as its table does."""
    examples = row.get("examples") or 1
    for column, value in row.items():
        if column in KEYS or value is None or isinstance(value, str | list):
            continue
        if isinstance(value, int):
            yield column, str(value)
        elif column in PASSES:
            yield column, wording.passes(value)
        elif column == "passes_over_natural":
            yield column, wording.ratio(value)
        elif column.startswith(POINTS) and not column.endswith("_spread"):
            yield column, wording.points(value, examples)
        else:
            yield column, wording.percent(value, examples)
