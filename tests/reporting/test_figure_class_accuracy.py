from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.axes import Axes

from advtrain.reporting import figure_class_accuracy
from advtrain.reporting.shown import Shown, select
from advtrain.reporting.study import check_info
from advtrain.results.collect import Collected, collect
from tests.results import synthetic


@pytest.fixture
def shown(collected: Collected) -> Shown:
    return select(collected, check_info(synthetic.study_info()))


def squares(panel: Axes) -> np.ndarray:
    return np.ma.filled(panel.collections[0].get_array(), np.nan).round(6)


def test_each_method_has_its_worst_case_accuracy_by_class(shown: Shown) -> None:
    above = figure_class_accuracy.draw(shown).axes[0]
    names = [label.get_text() for label in above.get_yticklabels()]
    assert names == ["natural", "pgd_at, ε = 0.2", "fgsm_mixed, ε = 0.2†"]
    # Examples 10 to 18 withstand everything in seed 0, and 12 to 18 in seed 1, of 5 of each class.
    assert squares(above)[1].tolist() == [0.4, 0.4, 0.5, 0.3]
    assert squares(above)[0].tolist() == [0, 0, 0, 0]


def test_the_confusions_are_of_the_method_that_withstood_most_and_least(shown: Shown) -> None:
    most, least = figure_class_accuracy.draw(shown).axes[1:]
    assert most.get_title() == "pgd_at, ε = 0.2, under pgd_20"
    assert least.get_title() == "fgsm_mixed, ε = 0.2, under cw_20"
    # Three of five examples of class 0 are among the first 10 and among the first 12.
    found = squares(most)
    assert found.shape == (4, 4)
    assert found[0].tolist() == pytest.approx([0.4, 0.6, np.nan, np.nan], nan_ok=True)
    assert np.nansum(found, axis=1).tolist() == pytest.approx([1, 1, 1, 1])


def test_the_caption_names_the_hardest_class_and_the_most_frequent_mistake(shown: Shown) -> None:
    caption = figure_class_accuracy.caption(shown)
    assert "is lowest for class 3 (25.0 %) and highest for class 2 (40.0 %)." in caption.text
    assert "pgd_at, ε = 0.2, under pgd_20, takes 60.0 % of class 0 for 1." in caption.text
    assert "5 examples of a class" in caption.text
    assert "pgd_at, ε = 0.2: lowest 30.0 % (class 3), highest 50.0 % (class 2)." in caption.alt


def test_of_too_many_classes_the_hardest_are_shown(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figure_class_accuracy, "MOST_CLASSES", 2)
    above, most, _ = figure_class_accuracy.draw(shown).axes
    assert [label.get_text() for label in above.get_xticklabels()] == ["0", "3"]
    assert [label.get_text() for label in most.get_xticklabels()] == ["0", "3", "other"]
    # Class 0 is taken for class 1, which is not shown.
    assert squares(most)[0].tolist() == pytest.approx([0.4, np.nan, 0.6], nan_ok=True)
    assert (
        "Of the 4 classes, the 2 with the lowest mean" in figure_class_accuracy.caption(shown).text
    )


def test_a_prediction_that_is_no_class_is_drawn_as_another(collected: Collected) -> None:
    rows = collected.outcomes
    place = rows.schema.get_field_index("adversarial_prediction")
    said = np.where(rows["label"].to_numpy() == 0, -1, rows["adversarial_prediction"].to_numpy())
    changed = rows.set_column(place, rows.schema.field(place), pa.array(said, pa.int16()))
    info = check_info(synthetic.study_info())
    shown = select(replace(collected, outcomes=changed), info)
    _, most, _ = figure_class_accuracy.draw(shown).axes
    assert [label.get_text() for label in most.get_xticklabels()] == ["0", "1", "2", "3", "other"]
    assert squares(most)[0].tolist() == pytest.approx([np.nan] * 4 + [1.0], nan_ok=True)

    assert "“Other” is a class that is not shown, or none." in (
        figure_class_accuracy.caption(shown).text
    )


def test_without_an_attack_there_is_nothing_to_draw() -> None:
    shown = select(collect("fake", []), check_info(synthetic.study_info()))
    assert figure_class_accuracy.caption(shown).empty
    with pytest.raises(ValueError, match="no cell has a worst-case accuracy"):
        figure_class_accuracy.draw(shown)
