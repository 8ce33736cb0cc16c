"""Numbers as they are written in `params.yaml`."""

import pytest

from advtrain.params.quantities import fraction, step_size


def test_a_fraction_is_the_nearest_float_however_it_is_written() -> None:
    assert fraction("8/255") == fraction("16 / 510") == 8 / 255
    assert fraction("0.2") == fraction(0.2) == fraction("1/5") == 0.2
    assert fraction("1.9/255") == 1.9 / 255
    assert fraction(1) == 1.0


@pytest.mark.parametrize("given", ["", "x", "1/0", "8/255/2", "8/", "/255", True])
def test_what_is_no_number_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match="not a number|neither a number nor a fraction"):
        fraction(given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("epsilon", 0.2),
        ("epsilon/4", 0.05),
        (".5*epsilon", 0.1),
        ("1.25*epsilon", 0.25),
        ("2.5 * epsilon / 10", 0.05),
        ("2/255", 2 / 255),
        (0.01, 0.01),
    ],
)
def test_a_step_is_absolute_or_relative(given: str | float, read: float) -> None:
    assert step_size(given, 0.2) == pytest.approx(read, rel=1e-12)


def test_a_step_that_is_neither_is_refused() -> None:
    with pytest.raises(ValueError, match="neither pixel units"):
        step_size("epsilon^2", 0.2)
