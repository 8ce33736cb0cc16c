from dataclasses import replace

import pytest

from advtrain.reporting import figure_training_curves
from advtrain.reporting.shown import Shown, select
from advtrain.reporting.study import check_info
from advtrain.results.collect import Collected
from tests.results import synthetic


@pytest.fixture
def shown(collected: Collected) -> Shown:
    return select(collected, check_info(synthetic.study_info()))


def test_the_best_and_the_last_epoch_of_every_seed_are_marked(shown: Shown) -> None:
    panel = figure_training_curves.draw(shown).axes[1]
    assert panel.get_title() == "pgd_at, ε = 0.1"
    marked = [
        (line.get_label(), *line.get_xydata()[0].tolist())
        for line in panel.lines
        if len(line.get_xdata()) == 1
    ]
    assert marked == 2 * [("best epoch", 2.0, 0.5), ("last epoch", 3.0, 0.45)]


def test_the_largest_fall_after_the_best_epoch_is_told(shown: Shown) -> None:
    text = figure_training_curves.caption(shown).text
    assert "The largest fall after the best epoch is that of pgd_at, ε = 0.1 (seed 0)" in text
    assert "50.0 % at epoch 2, 45.0 % at epoch 3." in text


def test_what_never_fell_is_not_called_a_fall(collected: Collected) -> None:
    rows = collected.histories
    rows = rows.filter([epoch <= 2 for epoch in rows["epoch"].to_pylist()])
    shown = select(replace(collected, histories=rows), check_info(synthetic.study_info()))
    assert "fall" not in figure_training_curves.caption(shown).text


def test_of_too_many_those_of_the_largest_budget_are_drawn(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figure_training_curves, "MOST_PANELS", 3)
    titles = [panel.get_title() for panel in figure_training_curves.draw(shown).axes]
    assert titles == ["natural", "pgd_at, ε = 0.2", "fgsm_mixed, ε = 0.2"]
    assert "Shown are 3 of 5" in figure_training_curves.caption(shown).text
