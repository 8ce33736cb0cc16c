from collections.abc import Sequence
from typing import Any

import pytest

from advtrain.reporting import figure_attack_overlap
from advtrain.reporting.measure import Unit
from advtrain.reporting.shown import Shown
from advtrain.reporting.study import check_info
from advtrain.results.collect import collect
from tests.reporting.made import evaluated, measured
from tests.results import synthetic


def study(broken: dict[str, Sequence[int]], epsilon: float | None = 0.2, **changes: Any) -> Shown:
    """Make a study of one method; of its 20 examples, each attack breaks some."""
    attacks = [
        evaluated(f"{attack}-linf-0.2", 0, broken=places, examples=20)
        for attack, places in broken.items()
    ]
    cell = measured("pgd_at-s0" if epsilon is None else f"pgd_at-linf-{epsilon}-s0", attacks)
    norm = None if epsilon is None else "linf"
    info = check_info(synthetic.study_info(attacks=list(broken), **changes))
    return Shown(collect("fake", []), info, (Unit("pgd_at", norm, epsilon, (cell,), ()),))


def test_every_set_of_attacks_is_counted_once() -> None:
    caption = figure_attack_overlap.caption(
        study({"fgsm": [0, 1], "pgd_20": [0, 1, 2, 3, 4, 5], "cw_20": [1, 2, 6]})
    )
    assert caption.alt.endswith(
        "Broken by pgd_20: 15.0 %; cw_20: 5.0 %; pgd_20 and cw_20: 5.0 %; fgsm and pgd_20: 5.0 %; "
        "all attacks: 5.0 %."
    )
    assert "over the 20 examples" in caption.text
    assert "At least one attack broke 35.0 %" in caption.text
    assert "fgsm 10.0 % (0.0 % alone), pgd_20 30.0 % (15.0 % alone)" in caption.text


def test_the_bars_are_the_shares_and_the_dots_their_attacks() -> None:
    figure = figure_attack_overlap.draw(study({"fgsm": [0], "pgd_20": [0, 1, 2, 3]}))
    bars, dots, wide = figure.axes[:3]
    assert [bar.get_height() for bar in bars.patches] == pytest.approx([0.15, 0.05])
    inside = [line.get_ydata() for line in dots.lines if line.get_linestyle() == "-"]
    assert [list(places) for places in inside] == [[1], [0, 1]]
    assert [bar.get_width() for bar in wide.patches] == pytest.approx([0.05, 0.2, 0.15])


def test_sets_that_do_not_fit_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure_attack_overlap, "MOST_SETS", 1)
    shown = study({"fgsm": [0], "pgd_20": [1, 2, 3]})
    assert "1 further sets, of 5.0 % together, are not drawn." in (
        figure_attack_overlap.caption(shown).text
    )
    assert len(figure_attack_overlap.draw(shown).axes[0].patches) == 1


def test_attacks_that_break_nothing_are_drawn_too() -> None:
    shown = study({"fgsm": [], "pgd_20": []})
    assert "Broken by none." in figure_attack_overlap.caption(shown).alt
    figure_attack_overlap.draw(shown)


def test_methods_without_a_budget_are_shown_where_there_are_no_others() -> None:
    assert "over the 20 examples" in (
        figure_attack_overlap.caption(study({"fgsm": [0], "pgd_20": [1]}, epsilon=None)).text
    )


def test_one_attack_alone_has_no_overlap() -> None:
    shown = study({"pgd_20": [0]})
    assert figure_attack_overlap.caption(shown).empty
    with pytest.raises(ValueError, match="no budget has two attacks; draw the caption instead"):
        figure_attack_overlap.draw(shown)
