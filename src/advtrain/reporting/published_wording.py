"""Published numbers and claims as a reader sees them; apart from the words of our own numbers."""

from advtrain.published.registry import Number, Range
from advtrain.reporting import wording

QUANTITIES = {
    "clean_accuracy": "clean accuracy",
    "robust_accuracy": "robust accuracy",
    "clean_accuracy_drop": "clean accuracy lost",
    "robust_accuracy_drop": "robust accuracy lost",
    "robust_accuracy_gain": "robust accuracy gained",
    "seed_deviation": "deviation over seeds",
    "cost_ratio": "cost",
    "robust_accuracy_growth": "robust accuracy gained with m",
    "step_gap": "robustness to one step only",
}
"""What a claim is of."""

CLAIMED: dict[tuple[str, float | None, float | None], str] = {
    ("clean_accuracy_drop", None, 0): "more accurate",
    ("robust_accuracy_drop", 0, None): "less robust",
    ("robust_accuracy_growth", 0, None): "grows, then saturates",
    ("step_gap", 0, None): "can happen",
}
"""Claims of an order, by quantity, low and high."""


def published(number: Number, value: float) -> str:
    """Write a published number with the digits that it was published with: 0.9501 -> `95.01`."""
    accuracy = number.evaluation.quantity.endswith("accuracy")
    return f"{100 * value if accuracy else value:.6g}"


def quantity(number: Number) -> str:
    """Name what a published number is of: `clean accuracy, %`, `PGD-20, %`, `minutes`."""
    if number.evaluation.quantity == "clean_accuracy":
        return "clean, %"
    accuracy = number.evaluation.quantity.endswith("accuracy")
    return f"{number.column}, %" if accuracy else number.evaluation.quantity.replace("_", " ")


def claimed(claim: Range) -> str:
    """Write what is claimed: `3 to 10 ×`, `95 %`, `at most 10 points`, `more accurate`."""
    order = CLAIMED.get((claim.quantity, claim.low, claim.high))
    if order:
        return order
    low, high = (_in_unit(claim, end) for end in (claim.low, claim.high))
    if claim.low is None or claim.high is None:
        text = f"at most {high}" if claim.low is None else f"at least {low}"
    else:
        text = low if low == high else f"{low} to {high}"
    return f"{text} {_unit(claim)}"


def measured(claim: Range, value: float | None) -> str:
    """Write what was measured for a claim, in the claim's unit."""
    if value is None:
        return wording.NOTHING
    if claim.quantity == "cost_ratio":
        return f"{wording.ratio(value)} ×"
    return f"{wording.points(value)} {_unit(claim)}"


def noise(claim: Range, value: float | None) -> str:
    """Write up to which a number may lie outside of a claim; of a ratio it is a share of it."""
    if value is not None and claim.quantity == "cost_ratio":
        return f"{100 * value:.6g} %"
    return measured(claim, value)


def _in_unit(claim: Range, end: float | None) -> str:
    if end is None:
        return ""
    return f"{end if claim.quantity == 'cost_ratio' else 100 * end:.6g}"


def _unit(claim: Range) -> str:
    if claim.quantity == "cost_ratio":
        return "×"
    return "%" if claim.quantity in ("clean_accuracy", "robust_accuracy") else "points"
