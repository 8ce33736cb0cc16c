import numpy as np
import pytest

from advtrain.reporting import figure_certified_radius
from advtrain.reporting.measure import Certified, Unit
from advtrain.reporting.shown import Shown, select
from advtrain.reporting.study import check_info
from advtrain.results.collect import Collected, collect
from tests.reporting.made import certified, evaluated, measured
from tests.results import synthetic

CERTIFICATES = ["ibp", "smoothing_025"]


def test_what_is_proven_stands_beside_what_attacks_leave(rich: Collected) -> None:
    shown = select(rich, check_info(synthetic.study_info(certificates=CERTIFICATES)))
    caption = figure_certified_radius.caption(shown)
    assert "pgd_at, ε = 0.1, 32.5 % certified at 0.1 (50.0 % under attack)" in caption.text
    assert "most is proven: 90.0 % at 0 (pgd_at, ε = 0.1), 75.0 % at 0.25" in caption.text
    pairs, curves = figure_certified_radius.draw(shown).axes
    assert pairs.get_title() == "ibp (linf)"
    assert [label.get_text() for label in pairs.get_yticklabels()] == ["pgd_at, ε = 0.1, at 0.1"]
    assert curves.get_title() == "smoothing_025 (l2), trained at ε = 0.1"


def study(norm: str, *found: tuple[str, float | None, list[Certified]]) -> Shown:
    """Make a study whose cells met PGD at 0.1 and have certificates."""
    units = []
    for method, epsilon, certificates in found:
        name = f"{method}-s0" if epsilon is None else f"{method}-{norm}-{epsilon}-s0"
        cell = measured(name, [evaluated(f"pgd_20-{norm}-0.1", 0.5, examples=20)], certificates)
        trained = None if epsilon is None else norm
        units.append(Unit(method, trained, epsilon, (cell,), ()))
    info = check_info(synthetic.study_info(certificates=CERTIFICATES))
    return Shown(collect("fake", []), info, tuple(units))


SMOOTHED = certified("smoothing_025-l2", [0.0] * 5 + [0.25] * 10 + [0.6] * 5)


def test_the_curve_falls_where_examples_are_no_longer_proven() -> None:
    (panel,) = figure_certified_radius.draw(study("linf", ("pgd_at", 0.1, [SMOOTHED]))).axes
    radii, shares = panel.lines[0].get_data()
    expected = np.where(radii <= 0, 1.0, np.where(radii <= 0.25, 0.75, 0.25))
    assert shares == pytest.approx(expected)


def test_the_attacked_curve_is_drawn_where_the_norms_agree() -> None:
    labels = {}
    for norm in ("linf", "l2"):
        shown = study(norm, ("pgd_at", 0.1, [SMOOTHED]))
        (panel,) = figure_certified_radius.draw(shown).axes
        labels[norm] = panel.get_legend_handles_labels()[1]
    assert labels == {"linf": ["pgd_at"], "l2": ["pgd_at", "pgd_at under pgd_20"]}
    assert "which is another predictor" in figure_certified_radius.caption(shown).text


def test_methods_of_two_budgets_are_not_drawn_over_one_another() -> None:
    found = [("natural", None, [SMOOTHED]), *(("pgd_at", e, [SMOOTHED]) for e in (0.1, 0.2))]
    figure = figure_certified_radius.draw(study("linf", *found))
    assert [panel.get_title() for panel in figure.axes] == [
        f"smoothing_025 (l2), trained at ε = {epsilon}" for epsilon in (0.1, 0.2)
    ]
    for panel in figure.axes:
        assert panel.get_legend_handles_labels()[1] == ["natural", "pgd_at"]


def test_a_refuted_certificate_is_marked() -> None:
    proven = certified("ibp-linf-0.1", [0.1] * 20)
    shown = study("linf", ("pgd_at", 0.1, [proven]))
    (panel,) = figure_certified_radius.draw(shown).axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["pgd_at, ε = 0.1, at 0.1†"]
    assert "† pgd_at, ε = 0.1, at 0.1: unsound" in figure_certified_radius.caption(shown).text


def test_without_a_certificate_there_is_nothing_to_draw(collected: Collected) -> None:
    shown = select(collected, check_info(synthetic.study_info()))
    caption = figure_certified_radius.caption(shown)
    assert caption.empty
    assert caption.text == "No certificate was computed in this study."
