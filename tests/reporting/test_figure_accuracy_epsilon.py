from collections.abc import Sequence

import pytest

from advtrain.reporting import figure_accuracy_epsilon
from advtrain.reporting.figure_accuracy_epsilon import MOST_LINES
from advtrain.reporting.measure import Unit
from advtrain.reporting.shown import Shown
from advtrain.reporting.study import check_info
from advtrain.results.collect import collect
from tests.reporting.made import evaluated, measured
from tests.results import synthetic


def study(methods: int, budgets: Sequence[float]) -> Shown:
    """Make a study of natural training and further methods, all attacked at all budgets."""
    names = ["natural", *(f"m{place}" for place in range(1, methods))]
    attacks = [evaluated(f"pgd_20-linf-{budget}", 1 - budget / 2) for budget in budgets]
    units = [
        Unit(name, *threat, cells=(measured(f"{name}{ending}-s0", attacks),), absent=())
        for name in names
        for threat, ending in ([((None, None), "")] if name == "natural" else THREATS)
    ]
    info = check_info(synthetic.study_info(methods=names))
    return Shown(collect("fake", []), info, tuple(units))


THREATS = [(("linf", budget), f"-linf-{budget}") for budget in (0.1, 0.2)]


@pytest.mark.parametrize("methods", [2, 6, 9, 10, 25])
def test_every_line_is_in_one_panel_of_its_budget_and_natural_in_each(methods: int) -> None:
    figure = figure_accuracy_epsilon.draw(study(methods, (0.1, 0.2)))
    drawn: dict[str, list[str]] = {}
    for panel in figure.axes:
        labels = panel.get_legend_handles_labels()[1]
        assert len(labels) <= MOST_LINES
        assert labels.count("natural") == 1
        budget = panel.get_title().split(" (")[0]
        drawn.setdefault(budget, []).extend(label for label in labels if label != "natural")
    assert list(drawn) == ["trained at ε = 0.1", "trained at ε = 0.2"]
    for labels in drawn.values():
        assert labels == [f"m{place}" for place in range(1, methods)]


def test_of_too_many_panels_those_of_the_largest_budgets_are_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(figure_accuracy_epsilon, "MOST_PANELS", 1)
    shown = study(3, (0.1, 0.2))
    titles = [panel.get_title() for panel in figure_accuracy_epsilon.draw(shown).axes]
    assert titles == ["trained at ε = 0.2"]
    assert "Of 2 panels, the 1 of the largest budgets are drawn." in (
        figure_accuracy_epsilon.caption(shown).text
    )


def test_a_far_budget_stretches_the_axis_and_that_is_told() -> None:
    near, far = study(2, (0.1, 0.2, 0.3)), study(2, (0.1, 0.2, 0.3, 1.0))
    assert [panel.get_xscale() for panel in figure_accuracy_epsilon.draw(near).axes] == [
        "linear"
    ] * 2
    assert "square roots" not in figure_accuracy_epsilon.caption(near).text
    panel = figure_accuracy_epsilon.draw(far).axes[0]
    assert panel.get_xscale() == "function"
    assert [label.get_text() for label in panel.get_xticklabels()] == [
        "0",
        "0.1",
        "0.2",
        "0.3",
        "1",
    ]
    assert "square roots" in figure_accuracy_epsilon.caption(far).text


def test_the_caption_says_most_and_least_at_the_budget_of_the_training() -> None:
    text = figure_accuracy_epsilon.caption(study(2, (0.1, 0.2))).text
    assert "At the budget of the training: 95.0 % (m1) at 0.1; 90.0 % (m1) at 0.2." in text


def test_budgets_that_lie_on_one_another_are_not_all_marked() -> None:
    panel = figure_accuracy_epsilon.draw(study(2, (0.01, 0.1, 0.11, 0.2))).axes[0]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["0", "0.1", "0.2"]
