from typing import Any

from advtrain.reporting.captions import Caption, captions, select
from advtrain.reporting.study import check_info
from advtrain.results.collect import Collected, collect
from tests.results import synthetic


def told(collected: Collected, **changes: Any) -> dict[str, Caption]:
    info = check_info(synthetic.study_info(**changes))
    return {caption.name: caption for caption in captions(select(collected, info), info)}


def test_the_alternative_text_says_the_main_numbers(collected: Collected) -> None:
    found = told(collected)
    assert list(found) == ["accuracy_epsilon", "training_curves", "trade_off"]
    assert not any(caption.empty for caption in found.values())
    assert (
        "pgd_at, ε = 0.1: 85.0 % at 0, 77.5 % at 0.05, 55.0 % at 0.1, 15.0 % at 0.2, 0.0 % at 0.3."
    ) in found["accuracy_epsilon"].alt
    assert ("pgd_at, ε = 0.2, attacked at 0.2: clean 85.0 %, worst case 40.0 %.") in found[
        "trade_off"
    ].alt
    assert "pgd_at, ε = 0.2, at the end: clean 80.0 %, under attack 45.0 %." in (
        found["training_curves"].alt
    )


def test_the_best_epoch_is_the_summarys(collected: Collected) -> None:
    shown = select(collected, check_info(synthetic.study_info()))
    courses = {unit.name: courses for unit, courses in shown.courses}
    assert [course.best for course in courses["pgd_at-linf-0.1"]] == [(2, 0.5)] * 2
    # Natural training is chosen by its clean accuracy.
    assert [course.best for course in courses["natural"]] == [(2, 0.7)] * 2


def test_a_figure_without_anything_to_show_says_so(collected: Collected) -> None:
    found = told(collected, curve_attack=None)
    assert found["accuracy_epsilon"].empty
    assert "no attack" in found["accuracy_epsilon"].text
    nothing = told(collect("fake", []))
    assert all(caption.empty for caption in nothing.values())
