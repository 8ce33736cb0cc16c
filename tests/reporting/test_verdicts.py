import pytest

from advtrain.published.claims import Claims, Quantity, Variant, read_claims
from advtrain.reporting.statistics import Difference
from advtrain.reporting.verdicts import RULE, Comparison, judge, noise
from advtrain.reporting.wording import points

CLAIMS = read_claims()
VARIANTS = {variant.name: variant for variant in CLAIMS.variants}


def difference(mean: float, half: float = 0.0, spread: float | None = None) -> Difference:
    return Difference(mean, mean - half, mean + half, spread, 100)


def judged(name: str, quantity: str, **more: float | Difference) -> tuple[str, str]:
    """Judge a variant by how much more it has than others, whose names are given without blanks."""
    found = {
        other: one if isinstance(one, Difference) else difference(one)
        for other, one in more.items()
    }
    assert quantity in ("cost", "gain")
    verdict = judge(
        CLAIMS,
        VARIANTS[name],
        "cost" if quantity == "cost" else "gain",
        lambda other: found.get(other.name.replace("-", "_").replace(" ", "_")),
    )
    return verdict.says, verdict.evidence(points)


def test_the_noise_is_the_largest_of_three() -> None:
    assert noise(difference(0.0)) == 0.01
    assert noise(difference(0.0, half=0.04)) == pytest.approx(0.04)
    assert noise(difference(0.0, half=0.04, spread=0.03)) == pytest.approx(0.06)


@pytest.mark.parametrize(
    ("claimed", "measured", "outcome"),
    [(1, 0.03, 1), (1, -0.03, -1), (-1, -0.03, 1), (-1, 0.03, -1), (1, 0.01, 0), (-1, 0.01, 0)],
)
def test_a_difference_is_as_claimed_or_against_it_or_within_the_noise(
    claimed: int, measured: float, outcome: int
) -> None:
    assert Comparison("TRADES", "Medium", claimed, measured, 0.01).outcome == outcome


def test_a_word_holds_if_nothing_is_against_it_and_each_other_word_has_a_difference() -> None:
    more = {"TRADES": 0.05, "MART": 0.005, "AWP": 0.0, "Fast_AT": 0.1, "Consistency_AT": 0.12}
    assert judged("PGD-AT", "cost", **more) == (
        "holds",
        "For it: TRADES +5.0 (noise 1.0), Fast-AT +10.0 (noise 1.0), "
        "Consistency AT +12.0 (noise 1.0). "
        "Within the noise: MART +0.5 (noise 1.0), AWP 0.0 (noise 1.0)",
    )


def test_one_difference_the_other_way_round_is_enough_to_refute_a_word() -> None:
    more = {"TRADES": -0.05, "MART": 0.05, "AWP": 0.05, "Fast_AT": 0.1, "Consistency_AT": 0.1}
    says, evidence = judged("PGD-AT", "cost", **more)
    assert says == "does not hold"
    assert evidence.startswith("Against it: TRADES −5.0 (noise 1.0). For it: MART")


def test_a_difference_within_its_own_noise_refutes_nothing() -> None:
    noisy = difference(-0.05, half=0.06)
    says, _ = judged("PGD-AT", "cost", TRADES=noisy, MART=0.05, Fast_AT=0.1, Consistency_AT=0.1)
    assert says == "holds"
    seeds = difference(-0.05, spread=0.03)
    says, _ = judged("PGD-AT", "cost", TRADES=seeds, MART=0.05, Fast_AT=0.1, Consistency_AT=0.1)
    assert says == "holds"


def test_a_variant_that_a_lower_word_reaches_is_not_decided() -> None:
    # More than both Low ones, but not more than any Medium one.
    more = {"TRADES": 0.0, "MART": 0.01, "AWP": -0.01, "Fast_AT": 0.1, "Consistency_AT": 0.1}
    assert judged("PGD-AT", "cost", **more)[0] == "not decided"


def test_a_word_whose_variants_are_missing_is_not_decided() -> None:
    assert judged("PGD-AT", "cost", Fast_AT=0.1) == (
        "not decided",
        "For it: Fast-AT +10.0 (noise 1.0). Not compared: TRADES, MART, AWP, Consistency AT",
    )
    assert judged("TRADES", "gain", Fast_AT=0.02)[0] == "holds"
    assert judged("TRADES", "gain") == ("not decided", "Not compared: Fast-AT, Consistency AT")


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (difference(0.05, half=0.04), "holds"),
        (difference(0.05, half=0.05), "not decided"),  # the interval contains 0
        (difference(-0.2, half=0.05), "not decided"),
        (None, "holds"),  # there was no natural training
    ],
)
def test_a_word_for_the_gain_needs_a_gain(own: Difference | None, says: str) -> None:
    def judge_by(more: float, quantity: str = "gain") -> tuple[str, tuple[str, ...]]:
        assert quantity in ("cost", "gain")
        what: Quantity = "cost" if quantity == "cost" else "gain"
        variant = VARIANTS["TRADES" if quantity == "gain" else "Fast-AT"]
        found = judge(CLAIMS, variant, what, lambda _: difference(more), own=own, notes=["Noted"])
        return found.says, found.notes

    said = ("Noted", "No gain over natural beyond the noise")
    assert judge_by(0.1) == (says, said if says == "not decided" else said[:1])
    # What goes against a word is against it whatever the gain, and the cost is another word.
    assert judge_by(-0.1) == ("does not hold", said[:1])
    assert judge_by(-0.1, "cost") == ("holds", said[:1])
    assert "contains 0 or lies below" in RULE


def test_variants_of_the_same_word_are_not_compared() -> None:
    says, evidence = judged("TRADES", "gain", PGD_AT=-0.3, MART=-0.3, Fast_AT=0.0)
    assert says == "not decided"
    assert "PGD-AT" not in evidence


def test_a_scale_of_one_word_decides_nothing() -> None:
    alone = Claims(
        "x", {"cost": ("Low",), "gain": ("High",)}, (Variant("A", "a", "plain", "Low", "High"),)
    )
    verdict = judge(alone, alone.variants[0], "cost", lambda other: None)
    assert verdict.words(points) == "cost Low: not decided"
