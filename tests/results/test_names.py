import pytest

from advtrain.results.names import (
    CellName,
    EvaluationName,
    epsilon_text,
    parse_cell,
    parse_evaluation,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("trades-linf-0.2-s0", CellName("trades", "linf", 0.2, 0)),
        ("free_8-linf-8_255-s12", CellName("free_8", "linf", 8 / 255, 12)),
        ("pgd_at-l2-128_255-s1", CellName("pgd_at", "l2", 128 / 255, 1)),
        ("natural-s3", CellName("natural", None, None, 3)),
    ],
)
def test_a_cell_name_is_read_into_its_parts(name: str, expected: CellName) -> None:
    assert parse_cell(name) == expected


@pytest.mark.parametrize("name", ["", "natural", "trades-linf-0.2", "trades-lpips-1-s0", "a-b-s0"])
def test_another_text_is_refused_as_a_cell(name: str) -> None:
    with pytest.raises(ValueError, match="is not the name of a cell; expected one such as"):
        parse_cell(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pgd_20-linf-0.2", EvaluationName("pgd_20", "linf", 0.2, "last")),
        ("pgd_20-linf-8_255-best", EvaluationName("pgd_20", "linf", 8 / 255, "best")),
        ("cw-l2-0", EvaluationName("cw", "l2", 0.0, "last")),
        ("pgd-linf-1e-05", EvaluationName("pgd", "linf", 1e-05, "last")),
        ("smoothing_025-l2", EvaluationName("smoothing_025", "l2", None, "last")),
        ("ibp-linf-8_255", EvaluationName("ibp", "linf", 8 / 255, "last")),
    ],
)
def test_an_evaluation_name_is_read_into_its_parts(name: str, expected: EvaluationName) -> None:
    assert parse_evaluation(name) == expected


@pytest.mark.parametrize("name", ["pgd_20", "pgd_20-0.2", "pgd_20-linf-", "pgd_20-linf-x", "-l2"])
def test_another_text_is_refused_as_an_evaluation(name: str) -> None:
    with pytest.raises(ValueError, match="neither a number nor|is not the name of an evaluation"):
        parse_evaluation(name)


@pytest.mark.parametrize(
    ("epsilon", "text"),
    [(0.2, "0.2"), (8 / 255, "8/255"), (0.031, "0.031"), (0.0, "0"), (1.0, "1"), (0.5, "0.5")],
)
def test_a_budget_is_written_as_it_is_spoken_of(epsilon: float, text: str) -> None:
    assert epsilon_text(epsilon) == text
