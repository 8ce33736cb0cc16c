from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from advtrain.reporting import examples
from advtrain.reporting.examples import Gallery, gallery
from advtrain.reporting.measure import measure, units
from advtrain.reporting.study import check_info
from advtrain.results.collect import Collected
from advtrain.results.names import EvaluationName
from advtrain.results.schema import ADVERSARIAL
from tests.results import synthetic


def chosen(collected: Collected, **changes: Any) -> Gallery | None:
    info = check_info(synthetic.study_info(**changes))
    return gallery(collected, units(measure(collected), info), info)


def changed(collected: Collected, change: Any) -> Collected:
    """Pass the rows of the images through a function that may drop some."""
    rows = [change(row) for row in collected.adversarial.to_pylist()]
    kept = [row for row in rows if row]
    return replace(collected, adversarial=pa.Table.from_pylist(kept, ADVERSARIAL))


def test_each_method_is_shown_at_the_largest_budget_that_it_was_trained_at(
    pictured: Collected,
) -> None:
    found = chosen(pictured)
    assert found is not None
    # The accuracy was measured up to 0.3, where nothing was trained.
    assert found.attack == EvaluationName("pgd_20", "linf", 0.2, "last")
    assert found.budget == 0.2
    names = [unit.name for unit, _ in found.rows]
    assert names == ["natural", "pgd_at-linf-0.2", "fgsm_mixed-linf-0.2"]
    assert {tuple(one.example for one in row) for _, row in found.rows} == {
        (1000, 1019, 1008, 1011)
    }
    assert found.magnification == pytest.approx(2.5)
    assert (found.methods, found.stride) == (3, 1)


def test_the_lowest_seed_is_shown_with_what_the_model_says(pictured: Collected) -> None:
    found = chosen(pictured)
    assert found is not None
    # The second seed of fgsm_mixed errs on 19 of 20, and of pgd_at on 12.
    assert [[one.verdict for one in row] for _, row in found.rows] == [
        ["fooled"] * 4,
        ["wrong before", "right", "fooled", "right"],
        ["fooled", "right", "fooled", "right"],
    ]
    one = found.rows[1][1][2]
    assert (one.label, one.said) == ("circle", "cross")
    assert (one.clean == (synthetic.pixels(8) / 255).astype(np.float32)).all()
    assert np.abs(one.x_adv - one.clean).max() == pytest.approx(0.2)


def test_a_seed_without_images_gives_way_to_the_next(pictured: Collected) -> None:
    found = chosen(changed(pictured, lambda row: row if row["cell"].endswith("s1") else None))
    assert found is not None
    assert [one.verdict for one in found.rows[2][1]] == ["fooled", "right", "fooled", "fooled"]


def test_a_method_without_images_has_no_row(pictured: Collected) -> None:
    found = chosen(changed(pictured, lambda row: row if "natural" not in row["cell"] else None))
    assert found is not None
    assert [unit.method for unit, _ in found.rows] == ["pgd_at", "fgsm_mixed"]


def test_where_nothing_is_trained_at_a_budget_the_smallest_attack_is_shown(
    pictured: Collected,
) -> None:
    found = chosen(changed(pictured, lambda row: row if "natural" in row["cell"] else None))
    assert found is not None
    assert (found.budget, found.attack.epsilon) == (None, 0.05)
    assert [unit.name for unit, _ in found.rows] == ["natural"]


def test_the_studys_first_attack_with_images_is_shown(pictured: Collected) -> None:
    def renamed(row: dict[str, Any]) -> dict[str, Any]:
        names = {"pgd_20-linf-0.1": "cw_20-linf-0.1", "pgd_20-linf-0.3": "turned-spatial"}
        return row | {"attack": names.get(row["attack"], row["attack"])}

    several = changed(pictured, renamed)
    texts = {
        "cw_20": "cw_20 (linf, ε = 0.1)",
        "pgd_20": "pgd_20 (linf, ε = 0.2)",
        "turned": "turned",
    }
    for first, text in texts.items():
        found = chosen(several, attacks=["fgsm", first])
        assert found is not None
        assert found.attack_text == text
        # A transformation has no budget: each method is shown at its largest.
        assert found.budget == (0.1 if first == "cw_20" else 0.2)
        assert len(found.rows) == 3


def test_the_first_methods_are_shown_where_there_are_many(
    pictured: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples, "MOST_ROWS", 2)
    found = chosen(pictured, methods=["fgsm_mixed", "natural", "pgd_at"])
    assert found is not None
    assert [unit.method for unit, _ in found.rows] == ["fgsm_mixed", "natural"]
    assert found.methods == 3


def test_images_that_nothing_happened_to_are_not_magnified(pictured: Collected) -> None:
    found = chosen(changed(pictured, lambda row: row | {"x_adv": row["clean"]}))
    assert found is not None
    assert found.magnification == 1


def test_large_images_are_thinned(pictured: Collected) -> None:
    size = 2 * examples.MOST_PIXELS + 1
    blank = np.zeros((1, size, size), "<f4").tobytes()
    shape = {"height": size, "width": size, "clean": blank, "x_adv": blank}
    found = chosen(changed(pictured, lambda row: row | shape))
    assert found is not None
    assert found.stride == 3


def test_a_study_without_images_shows_none(collected: Collected) -> None:
    assert chosen(collected) is None
