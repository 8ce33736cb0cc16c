from typing import Any

import pytest

from advtrain.reporting import examples
from advtrain.reporting.captions import Caption
from advtrain.reporting.figures import FIGURES, captions
from advtrain.reporting.shown import select
from advtrain.reporting.study import check_info
from advtrain.results.collect import Collected, collect
from tests.results import synthetic

PICTURES = ("loss_surface", "input_gradients", "adapted_budgets", "adversarial_examples")


def told(collected: Collected, **changes: Any) -> dict[str, Caption]:
    info = check_info(synthetic.study_info(**changes))
    return captions(select(collected, info))


def test_the_alternative_text_says_the_main_numbers(collected: Collected) -> None:
    found = told(collected)
    assert list(found) == list(FIGURES)
    empty = {name for name, caption in found.items() if caption.empty}
    assert empty == {"certified_radius", *PICTURES}
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
    assert "keep_adversarial" in nothing["adversarial_examples"].text


def test_the_attacked_images_are_told_in_words_and_numbers(pictured: Collected) -> None:
    found = told(pictured)["adversarial_examples"]
    assert not found.empty
    for text in (
        "Test images under pgd_20 (linf, ε = 0.2), one row per method, trained at ε = 0.2 or",
        "their difference, times 2.5, on a scale that is symmetric about grey",
        "first of the test split that most cells of the study classify right without an attack",
    ):
        assert text in found.text
    assert "of each image" not in found.text.lower()
    # Example 1000 is a circle that pgd_at takes for a cross with and without the attack.
    assert (
        "pgd_at, ε = 0.2: circle → cross (wrong before), line → line (right), "
        "circle → cross (fooled), line → line (right)."
    ) in found.alt
    assert "natural: circle → cross (fooled), line → circle (fooled)" in found.alt
    alone = told(pictured, methods=["natural"])["adversarial_examples"]
    assert "methods of" not in alone.text


def test_what_does_not_fit_is_told(pictured: Collected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "MOST_ROWS", 2)
    monkeypatch.setattr(examples, "MOST_PIXELS", 2)
    found = told(pictured)["adversarial_examples"]
    assert "Shown are the study's first 2 methods of 3." in found.text
    assert "Of each image, one pixel in 2 is drawn in each direction." in found.text
    assert "fgsm_mixed" not in found.alt
