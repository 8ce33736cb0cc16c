"""Numbers as a reader sees them; the one place where a share becomes a percentage."""

from collections.abc import Sequence

from advtrain.reporting.statistics import Difference, Estimate
from advtrain.results.names import epsilon_text

NOTHING = "–"
"""What stands where there is no number."""

FINE = 10_000
"""From so many examples on, hundredths of a percent are shown."""


def percent(share: float, examples: int = 1) -> str:
    """Write a share in [0, 1] in percent, without the sign: 0.8134 -> `81.3`."""
    return f"{100 * share:.{2 if examples >= FINE else 1}f}"


def percent_words(share: float) -> str:
    """Write a share in [0, 1] in percent, with the sign: 0.8134 -> `81.3 %`."""
    return f"{percent(share)} %"


def accuracy(found: Estimate | None) -> str:
    """Write an accuracy, with the spread over seeds where there is one: `81.3 ± 0.4`."""
    if found is None:
        return NOTHING
    text = percent(found.mean, found.examples)
    if found.spread is not None:
        text += f" ± {percent(found.spread, found.examples)}"
    return text


def interval(found: Estimate | None) -> str:
    """Write an interval: `[77.2, 84.9]`."""
    if found is None:
        return ""
    low, high = (percent(end, found.examples) for end in (found.low, found.high))
    return f"[{low}, {high}]"


def points(share: float, examples: int = 1) -> str:
    """Write a difference of shares in points: -0.0314 -> `−3.1`."""
    text = percent(share, examples)
    # A difference that rounds to nothing has no sign.
    return text.replace("-", "−") if float(text) else text.removeprefix("-")


def gap(found: Difference | None) -> str:
    """Write a difference, with the spread over seeds where there is one: `−3.1 ± 0.4`."""
    if found is None:
        return NOTHING
    text = points(found.mean, found.examples)
    if found.spread is not None:
        text += f" ± {percent(found.spread, found.examples)}"
    return text


def gap_interval(found: Difference | None) -> str:
    """Write the interval of a difference: `[−5.2, −1.0]`."""
    if found is None:
        return ""
    return f"[{points(found.low, found.examples)}, {points(found.high, found.examples)}]"


def epochs(chosen: Sequence[int | None], all_of_them: Sequence[int | None]) -> str:
    """Write the best epoch of each seed: `31 of 50`, `31, 28 of 50`, `31 of 50, 12 of 14`."""
    if not chosen:
        return NOTHING
    best = [NOTHING if epoch is None else str(epoch) for epoch in chosen]
    total = [NOTHING if epoch is None else str(epoch) for epoch in all_of_them]
    if len(set(total)) == 1:
        return f"{', '.join(best)} of {total[0]}"
    return ", ".join(f"{one} of {of}" for one, of in zip(best, total, strict=True))


def seeds(found: int, planned: int) -> str:
    """Write over how many seeds a mean is: `3`, or `2 of 3` where some failed."""
    return str(planned) if found == planned else f"{found} of {planned}"


def budget(epsilon: float | None) -> str:
    """Write a budget: `8/255`, `0.2`."""
    return NOTHING if epsilon is None else epsilon_text(epsilon)


def budget_name(epsilon: float) -> str:
    """Write a budget as part of a name or an address: `8_255`, `0.2`."""
    return epsilon_text(epsilon).replace("/", "_")


def threat_name(norm: str, epsilon: float) -> str:
    """Write a norm and a budget likewise: `linf-8_255`."""
    return f"{norm}-{budget_name(epsilon)}"


def passes(count: float | None) -> str:
    """Write a number of passes: `30`, `312.5`."""
    return NOTHING if count is None else f"{count:.1f}".removesuffix(".0")


def seconds(count: float | None, spread: float | None = None) -> str:
    """Write a time: three digits below 100 s, whole seconds above; the spread to the same place."""
    if count is None:
        return NOTHING
    places = 0 if count >= 100 else 1 if count >= 10 else 2
    return f"{count:.{places}f}" + (f" ± {spread:.{places}f}" if spread is not None else "")


def ratio(value: float | None) -> str:
    """Write a ratio: `3.4`."""
    return NOTHING if value is None else f"{value:.1f}"


def share(value: float | None) -> str:
    """Write a share that may not be known, in percent, without the sign: 0.8134 -> `81.3`."""
    return NOTHING if value is None else percent(value)


def rate(value: float | None) -> str:
    """Write a number per second: three digits below 100, whole numbers above."""
    return seconds(value)


def mebibytes(count: int | None) -> str:
    """Write a size: `3217`."""
    return NOTHING if count is None else f"{count / (1 << 20):.0f}"
