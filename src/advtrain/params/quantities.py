"""The quantities that a parameter can be: annotation names that carry a range and a unit.

A plugin's signature annotates each parameter with one of these names. For Python they are plain
`int` and `float`; the parameter reader recognises the *names* in the source and checks the values
of `params.yaml` against their ranges before anything runs.
"""

import re
from fractions import Fraction

Count = int
"""A whole number, 1 or more: steps, restarts, epochs, widths."""

Whole = int
"""A whole number, 0 or more."""

NonNegative = float
"""A number, 0 or more."""

Positive = float
"""A number above 0."""

Share = float
"""A number in [0, 1]: fractions, probabilities, momentum."""

Shares = tuple[float, ...]
"""Numbers in [0, 1], in ascending order: the milestones of a schedule."""

Pixels = float
"""A length in [0, 1] pixel units; written as a fraction (`8/255`) or a decimal."""

StepSize = float | str
"""A step in pixel units, or relative to the budget: `epsilon/4`, `1.25*epsilon`, `epsilon`."""

RELATIVE = re.compile(
    r"(?:(?P<factor>\d+\.?\d*|\.\d+)\s*\*\s*)?epsilon(?:\s*/\s*(?P<divisor>\d+\.?\d*|\.\d+))?"
)


def fraction(text: str | int | float) -> float:
    """Read a number that may be written as a fraction.

    Args:
        text: `"8/255"`, `"1.9/255"`, `"0.2"`, `0.2` or `1`.

    Returns:
        The nearest float; `8/255` and `16/510` give the same one.

    Raises:
        ValueError: if it is neither a number nor a fraction of two numbers.
    """
    if isinstance(text, bool):
        raise ValueError(f"{text!r} is not a number")
    if isinstance(text, int | float):
        return float(text)
    try:
        if "_" in text:  # Python's own digit groups: `1_0` would be ten
            raise ValueError
        above, *below = map(Fraction, text.replace(" ", "").split("/"))
        if len(below) > 1:
            raise ValueError
        return float(above / below[0] if below else above)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ValueError(f"{text!r} is neither a number nor a fraction such as 8/255") from None


def step_size(value: StepSize, epsilon: float) -> float:
    """Resolve a step size against the budget.

    Args:
        value: pixel units (`2/255`, `0.01`), or relative (`epsilon/4`, `1.25*epsilon`).
        epsilon: the budget in pixel units.

    Returns:
        The step in pixel units.

    Raises:
        ValueError: if it is neither.
    """
    if isinstance(value, str) and (match := RELATIVE.fullmatch(value.strip())):
        divisor = float(match["divisor"] or 1)
        if divisor == 0:
            raise ValueError(f"step size {value!r} divides by zero")
        return float(match["factor"] or 1) * epsilon / divisor
    try:
        return fraction(value)
    except ValueError:
        raise ValueError(
            f"step size {value!r} is neither pixel units (2/255) nor relative (epsilon/4)"
        ) from None
