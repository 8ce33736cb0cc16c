"""The figures of what a model looks like around images, and of what it learnt of them."""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from advtrain.reporting import (
    examples,
    figure_adapted_budgets,
    figure_adversarial_examples,
    figure_input_gradients,
    figure_loss_surface,
    landscapes,
)
from advtrain.reporting.landscapes import Landscape, Landscapes, number
from advtrain.reporting.shown import Shown, select
from advtrain.reporting.study import check_info
from advtrain.results.collect import Collected
from tests.results import synthetic

SVG = "{http://www.w3.org/2000/svg}"


def shown(collected: Collected, **changes: Any) -> Shown:
    return select(collected, check_info(synthetic.study_info(**changes)))


def chosen(collected: Collected, **changes: Any) -> Landscapes:
    found = landscapes.landscapes(shown(collected, **changes))
    assert found is not None
    return found


def changed(
    collected: Collected, change: Callable[[dict[str, Any]], dict[str, Any]], name: str
) -> Collected:
    table = getattr(collected, name)
    rows = [change(row) for row in table.to_pylist()]
    return replace(collected, **{name: pa.Table.from_pylist(rows, table.schema)})


def ended(collected: Collected, cell: str, status: str) -> Collected:
    def end(row: dict[str, Any]) -> dict[str, Any]:
        return row | {"status": status} if row["cell"] == cell else row

    return changed(collected, end, "cells")


def landscape(loss: np.ndarray, gradient: np.ndarray | None = None) -> Landscape:
    image = np.arange(4, dtype=np.float32).reshape(1, 2, 2)
    given = np.ones_like(image) if gradient is None else gradient
    return Landscape(7, "cross", image, given, loss.astype(np.float32), 2.0)


OFFSETS = np.linspace(-2, 2, 9)


def test_the_numbers_are_those_within_one_budget() -> None:
    plane = 3 + 2 * OFFSETS[None, :] + OFFSETS[:, None]
    # Beyond one budget, nothing counts.
    far = np.maximum(np.abs(OFFSETS[None, :]), np.abs(OFFSETS[:, None])) > 1
    found = landscape(plane + 100 * far)
    assert (found.start, found.highest) == (3, 6)
    assert found.unevenness == pytest.approx(0, abs=1e-6)
    # Of the five squares 1, 1/4, 0, 1/4, 1 the mean is 1/2, and the mean of their squares 17/40.
    bowl = landscape(plane + OFFSETS[:, None] ** 2)
    assert bowl.unevenness == pytest.approx(math.sqrt(17 / 40 - 1 / 4))


def test_a_gradient_has_a_length_and_a_likeness_to_the_image() -> None:
    flat = np.ones((9, 9))
    found = landscape(flat, np.array([[[3.0, 1.0], [-1.0, -3.0]]], np.float32))
    assert found.length == pytest.approx(math.sqrt(20))
    assert found.likeness == pytest.approx(1)  # the image falls where it rises
    across = landscape(flat, np.array([[[1.0, -1.0], [-1.0, 1.0]]], np.float32))
    assert across.likeness == pytest.approx(0)
    nothing = landscape(flat, np.zeros((1, 2, 2), np.float32))
    assert not nothing.has_gradient
    assert (nothing.length, number(nothing.likeness)) == (0, "–")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(13.6, "14"), (388.4, "388"), (0.0351, "0.035"), (2.0, "2.0"), (1e-4, "0.00010")],
        *[(3e-7, "< 0.0001"), (0, "0"), (math.nan, "–"), (math.inf, "–")],
    ],
)
def test_numbers_have_two_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_methods_at_the_largest_budget_or_without_one_are_shown(pictured: Collected) -> None:
    found = chosen(pictured)
    assert (found.epsilon, found.norm, found.methods, found.some) == (0.2, "linf", 3, "")
    assert [(row.name, row.cell.cell) for row in found.rows] == [
        ("natural", "natural-s0"),
        ("pgd_at, ε = 0.2", "pgd_at-linf-0.2-s0"),
        ("fgsm_mixed, ε = 0.2", "fgsm_mixed-linf-0.2-s0"),
    ]
    assert {tuple(one.example for one in row.found) for row in found.rows} == {(1000, 1019)}
    (first, _) = found.rows[1].found
    assert first.label == "circle"
    np.testing.assert_allclose(first.image, synthetic.pixels(0) / 255, rtol=1e-6)
    np.testing.assert_allclose(first.gradient, synthetic.pixels(0) / 255, atol=1e-3)
    # It begins at slope * 2, and rises by the slope and the parabola's 1.
    assert (first.start, first.highest) == (2, 4)


def test_a_collapsed_training_is_shown_as_one(pictured: Collected) -> None:
    found = chosen(ended(pictured, "pgd_at-linf-0.2-s0", "collapsed"))
    assert found.rows[1].name == "pgd_at, ε = 0.2, collapsed"
    study = shown(ended(pictured, "pgd_at-linf-0.2-s0", "collapsed"))
    for figure in (figure_loss_surface, figure_adapted_budgets, figure_adversarial_examples):
        assert "pgd_at, ε = 0.2, collapsed: " in figure.caption(study).alt


def test_what_does_not_fit_is_told(pictured: Collected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landscapes, "MOST_ROWS", 2)
    monkeypatch.setattr(examples, "MOST_PIXELS", 2)
    found = chosen(pictured)
    assert (len(found.rows), found.stride) == (2, 2)
    for figure in (figure_loss_surface, figure_input_gradients):
        text = figure.caption(shown(pictured)).text
        assert "Shown are the study's first 2 methods of 3." in text
    assert "Of each image, one pixel in 2 is drawn in each direction." in text


def test_the_caption_of_the_surfaces_says_their_numbers(pictured: Collected) -> None:
    found = figure_loss_surface.caption(shown(pictured))
    for text in (found.text, found.alt):
        # Slopes of 4, 1 and 2; of the parabola's 1, 0, 1 the root of 2/9 is left over.
        assert (
            "natural: 8.0 → 13, 0.47; pgd_at, ε = 0.2: 2.0 → 4.0, 0.47; "
            "fgsm_mixed, ε = 0.2: 4.0 → 7.0, 0.47"
        ) in text
    assert "where ε = 0.2, g is the direction of unit linf norm" in found.text
    assert "(no gradient: fgsm_mixed, ε = 0.2), there is no g" in found.text


def test_losses_that_are_no_numbers_are_told_as_such(pictured: Collected) -> None:
    def lost(row: dict[str, Any]) -> dict[str, Any]:
        loss = np.full((synthetic.SIDE, synthetic.SIDE), np.nan, "<f4")
        return row | {"loss": loss.tobytes()} if row["cell"].startswith("natural") else row

    study = shown(changed(pictured, lost, "landscapes"))
    assert "natural: – → –, –;" in figure_loss_surface.caption(study).text
    figure_loss_surface.draw(study)


def test_the_caption_of_the_gradients_says_their_numbers(pictured: Collected) -> None:
    found = figure_input_gradients.caption(shown(pictured))
    length = np.mean([np.linalg.norm(synthetic.pixels(place) / 255) for place in (0, 19)])
    row, *_ = chosen(pictured).rows
    assert row.mean("length") == pytest.approx(4 * length, rel=1e-3)
    # Of fgsm_mixed's two images one has a gradient.
    assert "pgd_at, ε = 0.2: 1.4, 1.00; fgsm_mixed, ε = 0.2: 0.62, 1.00." in found.alt
    assert "trained at ε = 0.2, or without a budget" in found.text


def test_a_study_that_nobody_looked_at_says_so(collected: Collected) -> None:
    for figure in (figure_loss_surface, figure_input_gradients, figure_adapted_budgets):
        caption = figure.caption(shown(collected))
        assert caption.empty
        assert caption.text == caption.alt != ""


def texts(path: Path) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.parse(path).iter(f"{SVG}text")]


def pictures(path: Path) -> int:
    return len(list(ElementTree.parse(path).iter(f"{SVG}image")))


def test_each_image_stands_above_its_surfaces_and_gradients(pictured_drawn: Path) -> None:
    surfaces, gradients = (
        pictured_drawn / f"{name}.svg" for name in ("loss_surface", "input_gradients")
    )
    assert (pictures(surfaces), pictures(gradients)) == (2, 2 * (1 + 3))
    words = texts(surfaces)
    assert words.count("8.0 → 13") == 2
    assert words.count("4.0 → 7.0, no gradient") == 1
    assert {"1000", "circle", "1019", "line", "natural", "10"} <= set(words)
    assert texts(gradients).count("no gradient") == 1


def surface(study: Shown) -> list[np.ndarray]:
    """Return the thin lines of the first surface, without what is hidden."""
    (paper,) = figure_loss_surface.draw(study).axes
    y = np.asarray(next(one for one in paper.lines if one.get_linewidth() == 0.5).get_ydata())
    return [line[np.isfinite(line)] for line in np.split(y, synthetic.SIDE)]


def test_a_surface_is_hidden_by_what_stands_before_it_and_by_nothing_else(
    pictured: Collected,
) -> None:
    rising = surface(shown(pictured))
    points = 3 * (synthetic.SIDE - 1) + 1
    # The parabola falls behind its front, and rises again to the back.
    assert len(rising[0]) == points
    assert len(rising[1]) < points

    def wall(row: dict[str, Any]) -> dict[str, Any]:
        loss = np.zeros((synthetic.SIDE, synthetic.SIDE), "<f4")
        loss[0] = 50
        return row | {"loss": loss.tobytes()}

    walled = surface(shown(changed(pictured, wall, "landscapes")))
    # What stands behind a wall is seen where it reaches beyond it, to the left.
    assert [len(line) for line in walled] == [points, 1, 2, 3, 4]


def test_learnt_budgets_are_told_in_multiples_of_the_given_one(pictured: Collected) -> None:
    found = figure_adapted_budgets.caption(shown(pictured))
    assert (
        "pgd_at, ε = 0.2: median 1.50 ε, mean 1.50 ε, nine in ten within 0.15 ε and 2.85 ε, "
        "largest 3.00 ε; 4.8 % of 21 examples have 0."
    ) in found.alt
    assert "the training images of the smallest and the largest budgets" in found.text
    assert "methods of" not in found.text


def test_learnt_budgets_stand_beside_their_examples(pictured_drawn: Path) -> None:
    path = pictured_drawn / "adapted_budgets.svg"
    assert pictures(path) == 2 * 6
    words = texts(path)
    assert {"smallest budgets", "largest budgets", "0.00 ε", "2.85 ε", "pgd_at, ε = 0.2"} <= set(
        words
    )
    assert not any("fgsm_mixed" in word for word in words)


def test_without_pixels_the_budgets_stand_alone(
    pictured: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = shown(replace(pictured, extremes=pictured.extremes.slice(0, 0)))
    assert "images" not in figure_adapted_budgets.caption(alone).text
    paper, _ = figure_adapted_budgets.draw(alone).axes
    assert not paper.images
    monkeypatch.setattr(figure_adapted_budgets, "MOST_BLOCKS", 0)
    assert figure_adapted_budgets.caption(alone).empty
