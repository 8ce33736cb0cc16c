from pathlib import Path

import pytest
import yaml

from advtrain.published.claims import CLAIMS, read_claims


def test_the_claims_are_those_of_the_surveys_table() -> None:
    # "Variants and Improvements": method, accuracy cost, robustness gain.
    assert {v.name: (v.cost, v.gain) for v in read_claims().variants} == {
        "PGD-AT": ("High", "High"),
        "TRADES": ("Medium", "High"),
        "MART": ("Medium", "High"),
        "Fast-AT": ("Low", "Moderate"),
        "AWP": ("Medium", "High"),
        "Consistency AT": ("Low", "Moderate"),
    }


def test_a_variant_is_a_method_and_an_update() -> None:
    found = {v.name: (v.module, v.update) for v in read_claims().variants}
    assert found["PGD-AT"] == ("pgd_at", "plain")
    assert found["AWP"] == ("pgd_at", "awp")
    assert found["Fast-AT"] == ("fgsm_rs", "plain")
    assert found["Consistency AT"] == ("consistency", "plain")


def test_the_words_order_the_variants() -> None:
    claims = read_claims()
    by_name = {variant.name: variant for variant in claims.variants}
    pgd, trades, fast = by_name["PGD-AT"], by_name["TRADES"], by_name["Fast-AT"]
    assert [claims.order("cost", pgd, other) for other in (pgd, trades, fast)] == [0, 1, 1]
    assert [claims.order("cost", fast, other) for other in (pgd, trades, fast)] == [-1, -1, 0]
    assert [claims.order("gain", pgd, other) for other in (pgd, trades, fast)] == [0, 0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cost": "Huge"}, "variant 2, TRADES: the cost is 'Huge', expected one of Low, Medium"),
        ({"gain": "Low"}, "variant 2, TRADES: the gain is 'Low', expected one of Moderate, High"),
        ({"price": "Low"}, r"variant 2: expected name, module.* unknown \['price'\]"),
        (
            {"module": "pgd_at"},
            "variant 2, TRADES: has the name or the module and update of PGD-AT",
        ),
        ({"name": "PGD-AT"}, "variant 2, PGD-AT: has the name or the module and update of PGD-AT"),
    ],
)
def test_a_claim_that_says_nothing_is_refused(
    tmp_path: Path, change: dict[str, str], message: str
) -> None:
    found = yaml.safe_load(CLAIMS.read_text())
    found["variants"][1] |= change
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(found))
    with pytest.raises(ValueError, match=message):
        read_claims(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "the file: expected source, scales, variants; missing"),
        (
            "source: x\nscales: {cost: [Low]}\nvariants: []",
            r"scales: expected .* missing \['gain'\]",
        ),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_claims(path)
