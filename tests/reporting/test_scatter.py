from dataclasses import replace

import pytest
from matplotlib.colors import to_hex

from advtrain.reporting import figure_cost_passes, figure_cost_time, figure_trade_off, scatter
from advtrain.reporting.panels import PAPER
from advtrain.reporting.scatter import points, undominated
from advtrain.reporting.shown import Shown, select
from advtrain.reporting.study import check_info
from advtrain.results.collect import Collected
from tests.results import synthetic


@pytest.fixture
def shown(collected: Collected) -> Shown:
    return select(collected, check_info(synthetic.study_info()))


def test_on_the_front_is_what_nothing_exceeds() -> None:
    places = [(0.9, 0.5), (0.8, 0.6), (0.8, 0.5), (0.9, 0.4), (0.8, 0.6)]
    assert undominated(places) == [True, True, False, False, True]


def test_where_less_is_better_the_front_is_on_the_other_side(shown: Shown) -> None:
    rows = [row for row in shown.rows if row.epsilon == 0.1]
    assert [row.unit.method for row in rows] == ["natural", "pgd_at", "fgsm_mixed"]
    assert [row.worst.mean for row in rows if row.worst] == [0.05, 0.5, 0.65]
    found = [(row, x, None) for row, x in zip(rows, (1.0, 2.0, 3.0), strict=True)]
    for less, on_front in ((True, [True, True, True]), (False, [False, False, True])):
        (there,) = points(found, less=less).values()
        assert [point.front for point in there] == on_front


def test_the_front_of_clean_and_worst_case_accuracy_is_told(shown: Shown) -> None:
    text = figure_trade_off.caption(shown).text
    assert "On the front at linf, ε = 0.1: fgsm_mixed (100.0 %, 65.0 %)" in text
    assert "at linf, ε = 0.2: pgd_at (85.0 %, 40.0 %), fgsm_mixed (100.0 %, 22.5 %)." in text


def test_what_is_not_on_the_front_is_hollow(shown: Shown) -> None:
    first, second = figure_trade_off.draw(shown).axes
    assert hollow(first) == ["natural", "pgd_at"]
    assert hollow(second) == ["natural"]


def hollow(panel: object) -> list[str]:
    """Name the methods of hollow markers; the points stand in the order of their legend."""
    lines = [line for line in panel.lines if line.get_marker() not in ("None", "|", "_")]  # type: ignore[attr-defined]
    names = [line.get_label() for line in lines if not len(line.get_xdata())]
    drawn = [line for line in lines if len(line.get_xdata()) == 1]
    return [
        name
        for name, line in zip(names, drawn, strict=True)
        if to_hex(line.get_markerfacecolor()) == PAPER
    ]


def test_a_flagged_row_has_a_dagger_that_is_told(shown: Shown) -> None:
    first, second = figure_trade_off.draw(shown).axes
    assert [text.get_text() for text in first.texts] == []
    assert [text.get_text() for text in second.texts] == ["†"]
    assert "† fgsm_mixed, ε = 0.2, at 0.2: catastrophic overfitting: robust accuracy 90.0 %" in (
        figure_trade_off.caption(shown).text
    )


def test_of_too_many_budgets_the_largest_are_drawn(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scatter, "MOST_PANELS", 1)
    titles = [panel.get_title() for panel in figure_trade_off.draw(shown).axes]
    assert titles == ["linf, ε = 0.2"]
    assert "Of 2 budgets, the 1 largest are drawn." in figure_trade_off.caption(shown).text


def test_the_cost_is_counted_over_the_whole_training(shown: Shown) -> None:
    caption = figure_cost_passes.caption(shown)
    # 3 epochs of 11 forward and 11 backward passes.
    assert "pgd_at, ε = 0.1, attacked at 0.1: 66 passes, worst case 50.0 %." in caption.alt
    assert "at linf, ε = 0.1: natural (6, 5.0 %), fgsm_mixed (12, 65.0 %)" in caption.text


def test_the_cost_in_time_is_the_mean_over_seeds_and_its_device_is_told(shown: Shown) -> None:
    caption = figure_cost_time.caption(shown)
    assert "pgd_at, ε = 0.2, attacked at 0.2: 121 s, worst case 40.0 %." in caption.alt
    assert "measured seconds of training (cpu; logarithmic)" in caption.text


def test_without_times_there_is_no_cost_in_time_to_draw(collected: Collected) -> None:
    untimed = replace(collected, costs=collected.costs.slice(0, 0))
    caption = figure_cost_time.caption(select(untimed, check_info(synthetic.study_info())))
    assert caption.empty
    assert "measured time" in caption.text
