"""Model cards: what a card says of a cell, and that it says the bad news first."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from advtrain.reporting.card import Card, card_text, read_cards, write_cards
from advtrain.reporting.study import check_info
from advtrain.results.collect import Collected
from tests.results import synthetic

INFO = check_info(synthetic.study_info())


@pytest.fixture(scope="module")
def cards(rich: Collected) -> dict[str, Card]:
    return read_cards(rich, INFO)


def section(text: str, head: str) -> str:
    return text.split(f"## {head}\n", 1)[1].split("\n## ", 1)[0]


def test_every_cell_has_one(cards: dict[str, Card], rich_folder: Path, tmp_path: Path) -> None:
    written = write_cards(rich_folder, synthetic.study_info(), tmp_path)
    assert [path.stem for path in written] == list(cards)
    assert set(cards) == {name for name, *_ in synthetic.cells()}
    assert written[0].read_text() == card_text(cards[written[0].stem])


def test_numbers_stand_with_interval_and_protocol(cards: dict[str, Card]) -> None:
    text = section(card_text(cards["pgd_at-linf-0.1-s0"]), "Evaluation")
    # 8 of 20 examples are broken by PGD, 2 by the best weights' one; CW adds an example.
    assert "| pgd_20, linf 0.1 | last | 60.0 [38.7, 78.1] | 20 | pgd_20 at 0.1 |" in text
    assert "| pgd_20, linf 0.1 | best | 90.0 " in text
    assert "| clean images | last | 90.0 " in text
    assert "| worst case, linf 0.1 | last | 55.0 " in text


def test_what_is_proven_is_told_or_that_nothing_is(cards: dict[str, Card]) -> None:
    proven = card_text(cards["pgd_at-linf-0.1-s0"])
    assert "| ibp | linf 0.1 | 35.0 " in section(proven, "Certified")
    assert "Nothing about it is proven." not in proven
    other = card_text(cards["natural-s0"])
    assert "## Certified" not in other
    assert "- Nothing about it is proven." in section(other, "Limits")


def test_the_training_and_its_lineage(cards: dict[str, Card]) -> None:
    card = cards["pgd_at-linf-0.1-s1"]
    text = card_text(card)
    assert "| `methods.pgd_at.steps` | `7` |" in section(text, "Training")
    assert "| `recipes.short.epochs` | `3` |" in section(text, "Training")
    lineage = section(text, "Lineage")
    for which in ("last", "best"):
        found = synthetic.digest(f"{which} pgd_at-linf-0.1-s1")
        assert f"- {which} weights (SHA-256): `{found}`" in lineage
    for fact in (card.row["key"], ".pipeline/fresh/train/fake/"):
        assert fact in lineage
    assert "`prepare:blobs`" in lineage


def test_a_collapse_is_the_first_thing_said(rich: Collected) -> None:
    rows = rich.cells.to_pylist()
    rows[0] |= {"status": "collapsed", "cause": "loss is not finite at epoch 2"}
    cells = pa.Table.from_pylist(rows, rich.cells.schema)
    card = read_cards(replace(rich, cells=cells), INFO)[rows[0]["cell"]]
    assert card.collapsed
    text = card_text(card)
    assert "> **collapsed: loss is not finite at epoch 2**" in text
    assert text.index("collapsed") < text.index("## Intended use")


def test_overfitting_to_one_step_is_told(cards: dict[str, Card]) -> None:
    overfitted, sound = cards["fgsm_mixed-linf-0.2-s1"], cards["fgsm_mixed-linf-0.2-s0"]
    assert [flag.kind for flag in overfitted.flags] == ["catastrophic overfitting"]
    assert sound.flags == ()
    assert "Failed: catastrophic overfitting" in section(card_text(overfitted), "Audits")


def test_an_attack_on_few_examples_is_a_limit(rich: Collected) -> None:
    rows = rich.outcomes.to_pylist()
    kept = [r for r in rows if not r["attack"].startswith("cw_20") or r["example"] < 1012]
    outcomes = pa.Table.from_pylist(kept, rich.outcomes.schema)
    card = read_cards(replace(rich, outcomes=outcomes), INFO)["pgd_at-linf-0.1-s0"]
    assert "cw_20 met 12 or more of 20" in section(card_text(card), "Limits")


def test_how_to_load_stands_where_there_is_something_to_load(cards: dict[str, Card]) -> None:
    card = cards["natural-s0"]
    assert "## Loading\n\nlike this\n" in card_text(card, "like this")
    assert "## Loading" not in card_text(card)
