from dataclasses import replace
from typing import Any

import pytest

from advtrain.published.registry import Range, read_registry
from advtrain.reporting.claims import ClaimRow, Evidence, claim_rows, claims_data, judge
from advtrain.reporting.layout import claims_sheet
from advtrain.reporting.measure import Measured, units
from advtrain.reporting.results import result_rows
from advtrain.reporting.study import StudyInfo
from tests.reporting.made import evaluated, measured
from tests.reporting.poster import cell_rows, poster_info

CLAIMS = read_registry().ranges
PGD = "pgd_20-linf-8_255"
TWO = {"natural": "natural", "pgd_at": "pgd_at"}


def claim(name: str) -> Range:
    return next(one for one in CLAIMS if f"{one.work}/{one.name}" == name)


def cell(
    method: str,
    robust: float,
    clean: float = 0.9,
    *,
    seed: int = 0,
    passes: float = 30.0,
    others: tuple[Any, ...] = (),
    **given: Any,
) -> Measured:
    """Make a cell of 30 epochs, so that 30 passes are one for each weight step."""
    name = f"natural-s{seed}" if method == "natural" else f"{method}-linf-8_255-s{seed}"
    one = evaluated(PGD, robust, clean=clean, examples=1000)
    return measured(name, [one, *others], passes=passes, **given)


def rows_of(cells: list[Measured], info: StudyInfo, **changes: Any) -> list[ClaimRow]:
    results = result_rows(units(cells, info), info)
    return claim_rows(results, cell_rows(cells, info, **changes), info, CLAIMS)


def says(rows: list[ClaimRow]) -> dict[str, str]:
    return {f"{row.claim.work}/{row.claim.name}": row.says for row in rows}


def test_the_claims_that_a_study_has_the_methods_for_are_shown() -> None:
    natural, robust = cell("natural", 0.0, 0.95), cell("pgd_at", 0.5, 0.87, passes=240)
    found = says(rows_of([natural, robust], poster_info(TWO)))
    assert found == {
        "bands/seed_deviation": "not comparable",  # of a ResNet-18
        "bands/pgd_at_last": "not comparable",
        "free/pgd_cost": "holds",
        "iaat/cifar10_drop": "holds",
        "lesson/natural_clean": "holds",
        "lesson/natural_robust": "holds",
        "lesson/adversarial_clean": "holds",
        "lesson/adversarial_robust": "holds",
        "lesson/cost": "holds",
        "survey/cifar10_natural": "holds",
        "survey/cifar10_adversarial": "holds",
        "survey/cost": "holds",
    }
    alone = says(rows_of([natural], poster_info({"natural": "natural"})))
    assert {*alone} == {"lesson/natural_clean", "lesson/natural_robust", "survey/cifar10_natural"}


def test_round_numbers_hold_up_to_the_noise() -> None:
    about = claim("lesson/adversarial_robust")  # 50 to 55
    for value, verdict in ((0.49, "holds"), (0.489, "does not hold"), (0.56, "holds")):
        assert judge(about, Evidence(value, 0.01)) == verdict
    assert judge(about, Evidence(0.561, 0.01)) == "does not hold"
    # Of a ratio, the noise is a share of the bound.
    cost = claim("lesson/cost")  # 3 to 10
    found = [judge(cost, Evidence(value, 0.1)) for value in (2.6, 2.7, 11.0, 11.1)]
    assert found == ["does not hold", "holds", "holds", "does not hold"]


def test_an_order_holds_beyond_the_noise_alone() -> None:
    more_accurate = claim("iaat/clean_gain")
    found = [judge(more_accurate, Evidence(value, 0.01)) for value in (-0.02, -0.01, 0.01, 0.02)]
    apart = "cannot be told apart"
    assert found == ["holds", apart, apart, "does not hold"]


def test_an_order_is_judged_on_any_data_and_a_number_on_its_own() -> None:
    digits = {"data_set": {"module": "digits", "parameters": {}, "split": {}}}
    methods = {**TWO, "iaat": "iaat"}
    cells = [
        cell("natural", 0.0, 0.95),
        cell("pgd_at", 0.5, 0.80, passes=240),
        cell("iaat", 0.45, 0.90, passes=330),
    ]
    found = says(rows_of(cells, poster_info(methods, **digits)))
    assert found["iaat/clean_gain"] == found["iaat/robust_loss"] == "holds"
    assert found["free/pgd_cost"] == "holds"
    assert not [name for name in found if name.startswith("lesson/adversarial")]
    turned = [cells[0], cell("pgd_at", 0.5, 0.9), cell("iaat", 0.55, 0.8)]
    found = says(rows_of(turned, poster_info(methods, **digits)))
    assert found["iaat/clean_gain"] == found["iaat/robust_loss"] == "does not hold"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"data_set": {"module": "cifar10", "split": {"train_examples": 3000}}},
            "dataset: cifar10 → cifar10, 3000 training images",
        ),
        ({"budget": "4_255"}, "epsilon: 8/255 → 4/255"),
    ],
)
def test_a_number_is_not_comparable_where_the_study_is_about_something_else(
    changes: dict[str, Any], said: str
) -> None:
    budget = changes.pop("budget", "8_255")
    one = evaluated(f"pgd_20-linf-{budget}", 0.5, clean=0.87, examples=1000)
    cells = [measured(f"pgd_at-linf-{budget}-s0", [one])]
    rows = rows_of(cells, poster_info({"pgd_at": "pgd_at"}, **changes))
    row = next(row for row in rows if row.claim.name == "adversarial_robust")
    assert row.says == "not comparable"
    assert [str(one) for one in row.departures] == [said]


def test_costs_are_for_each_weight_step() -> None:
    # 8 replays make 30 epochs 240 weight steps for each image, at one pass each.
    natural, free = cell("natural", 0.0), cell("free_8", 0.4, passes=240)
    info = poster_info({"natural": "natural", "free_8": "free"})
    row = next(row for row in rows_of([natural, free], info) if row.claim.name == "free_cost")
    assert row.evidence is not None
    assert row.evidence.value == pytest.approx(1.0)
    assert row.evidence.words(str) == "counted, not timed; 8.0 × for the whole training"
    assert row.says == "holds"
    assert (
        "not from a clock; the seconds are in the table of costs"
        in claims_sheet([row], info).reading
    )


def test_every_cost_is_said_to_be_counted() -> None:
    cells = [cell("natural", 0.0), cell("pgd_at", 0.5, passes=240)]
    info = poster_info(TWO)
    costs = [row for row in rows_of(cells, info) if row.claim.quantity == "cost_ratio"]
    assert len(costs) == 3
    for row in costs:
        (line,) = claims_sheet([row], info).rows
        assert "counted, not timed" in line[-1].notes


def test_an_attack_on_half_of_the_images_is_not_the_tutorials() -> None:
    cells = [cell("natural", 0.0), cell("fgsm", 0.4, passes=60)]
    info = poster_info({"natural": "natural", "fgsm": "fgsm_mixed"})
    rows = rows_of(cells, info, own={"fgsm": {"clean_fraction": 0.5}})
    row = next(row for row in rows if row.claim.work == "jax_tutorial")
    assert row.evidence is not None
    assert row.evidence.value == pytest.approx(2.0)  # as is claimed, of another protocol
    assert row.says == "not comparable"
    assert [str(one) for one in row.departures] == [
        "attacked images: all, beside the clean ones → 50.0 % of them, in place of the clean ones"
    ]


def test_fewer_steps_than_claimed_are_not_meant() -> None:
    cells = [cell("natural", 0.0), cell("pgd_at", 0.4, passes=90)]
    found = rows_of(cells, poster_info(TWO), own={"pgd_at": {"steps": 2}})
    assert "survey/cost" not in says(found)
    assert says(found)["lesson/cost"] == "holds"  # 3 to 10, of however many steps
    assert says(found)["free/pgd_cost"] == "does not hold"  # 5 to 50


def replays(*accuracies: float) -> list[ClaimRow]:
    """Follow Free with m = 2, 4, 8 ..."""
    labels = [f"free_{2 * 2**k}" for k in range(len(accuracies))]
    cells = [cell(label, robust) for label, robust in zip(labels, accuracies, strict=True)]
    own = {label: {"replays": 2 * 2**k} for k, label in enumerate(labels)}
    rows = rows_of(cells, poster_info(dict.fromkeys(labels, "free")), own=own)
    return [row for row in rows if row.claim.name == "replays"]


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [
        ((0.33, 0.41, 0.46, 0.455), "holds"),
        ((0.33, 0.41, 0.46, 0.55), "does not hold"),  # no end of it
        ((0.41, 0.41, 0.412), "cannot be told apart"),
        ((0.46, 0.41, 0.35), "does not hold"),
    ],
)
def test_robustness_grows_with_the_replays_and_then_does_not(
    accuracies: tuple[float, ...], verdict: str
) -> None:
    (row,) = replays(*accuracies)
    assert row.says == verdict
    assert [unit.method for unit in row.units] == [
        f"free_{2 * 2**k}" for k in range(len(accuracies))
    ]
    assert row.evidence is not None
    assert row.evidence.words("{:.3f}".format).startswith(f"{accuracies[0]:.3f} with m = 2, ")


def test_two_numbers_of_replays_show_no_growth() -> None:
    assert replays(0.3, 0.4) == []


def one_step(*robust: float) -> ClaimRow:
    """Train with one step; it withstands that step."""
    cells = [
        cell(
            "fgsm", accuracy, seed=seed,
            others=(evaluated("fgsm-linf-8_255", 0.8, backwards=1, examples=1000),),
        )
        for seed, accuracy in enumerate(robust)
    ]  # fmt: skip
    info = poster_info({"fgsm": "fgsm_mixed"}, attacks=["fgsm", "pgd_20"])
    (row,) = [row for row in rows_of(cells, info) if row.claim.name == "overfitting"]
    return row


def test_one_training_that_overfits_to_one_step_shows_that_it_can() -> None:
    row = one_step(0.0, 0.6)
    assert row.says == "holds"
    assert row.evidence is not None
    assert row.evidence.words(str) == "1 of 2 trainings overfitted to one step"
    assert row.evidence.value == pytest.approx(0.5)
    assert one_step(0.6, 0.7).says == "not seen here"


def test_overfitting_to_one_step_is_read_on_the_examples_that_both_attacks_met() -> None:
    # PGD breaks 500 of 1000 examples; of the first 100, which FGSM met, it breaks all, FGSM 20.
    easy = evaluated("fgsm-linf-8_255", 0.8, backwards=1, examples=100)
    info = poster_info({"fgsm": "fgsm_mixed"}, attacks=["fgsm", "pgd_20"])
    rows = rows_of([cell("fgsm", 0.5, others=(easy,))], info)
    (row,) = [row for row in rows if row.claim.name == "overfitting"]
    assert row.evidence is not None
    assert row.evidence.value == pytest.approx(0.8)
    assert row.evidence.words(str) == (
        "1 of 1 trainings overfitted to one step, on the 100 examples that met both"
    )
    assert row.says == "holds"


def test_without_an_attack_of_one_step_it_is_not_measured() -> None:
    rows = rows_of([cell("fgsm", 0.4)], poster_info({"fgsm": "fgsm_mixed"}))
    assert says(rows)["lesson/overfitting"] == "not measured here"


def test_nothing_is_concluded_from_a_training_that_collapsed() -> None:
    collapsed = cell("pgd_at", 0.0, 0.1, status="collapsed", cause="loss is not a number")
    rows = rows_of([cell("natural", 0.0, 0.95), collapsed], poster_info(TWO))
    row = next(row for row in rows if row.claim.name == "adversarial_clean")
    assert row.says == "not measured here"
    assert [flag.kind for flag in row.flags] == ["collapsed"]


def test_a_method_with_additions_speaks_for_no_claim_but_theirs() -> None:
    methods = {"natural": "natural", "pgd_at": "pgd_at", "smoothed": "pgd_at"}
    added = {"smoothed": ["label_smoothing 0.1"], "pgd_at": ["precision bfloat16"]}
    both = (evaluated("autoattack-linf-8_255", 0.45, examples=1000),)
    more = (evaluated("autoattack-linf-8_255", 0.50, examples=1000),)
    cells = [
        cell("natural", 0.0, others=(evaluated("autoattack-linf-8_255", 0.0, examples=1000),)),
        cell("pgd_at", 0.5, others=both),
        cell("smoothed", 0.55, others=more),
    ]
    info = poster_info(methods, method_additions=added, attacks=["pgd_20", "autoattack"])
    rows = rows_of(cells, info)
    speakers = {
        f"{row.claim.work}/{row.claim.name}": [unit.method for unit in row.units] for row in rows
    }
    assert speakers["lesson/adversarial_robust"] == ["pgd_at"]
    assert speakers["bag_of_tricks/label_smoothing"] == ["smoothed"]
    (row,) = [row for row in rows if row.claim.name == "label_smoothing"]
    assert row.evidence is not None
    assert row.evidence.value == pytest.approx(0.05)
    assert row.says == "not comparable"  # of a ResNet-18
    assert replace(row, departures=()).says == "does not hold"  # .69 points


def test_the_sheet_quotes_the_source_and_the_files_hold_shares() -> None:
    info = poster_info(TWO)
    rows = rows_of([cell("natural", 0.0, 0.95), cell("pgd_at", 0.5, 0.80)], info)
    sheet = claims_sheet(rows, info)
    lines = [
        {column.title: one for column, one in zip(sheet.columns, row, strict=True)}
        for row in sheet.rows
    ]
    line = next(one for one in lines if one["source"].text == "iaat")
    assert line["claim"].text == "adversarial training: clean accuracy lost"
    assert line["claimed"].text == "at most 10 points"
    assert line["measured"].text == "15.0 points"
    assert line["verdict"].text == "does not hold"
    assert line["notes"].notes[0].startswith("“The drop in clean accuracy can be as high as 10%")
    assert {one["claimed"].text for one in lines} >= {
        "95 %",
        "50 to 55 %",
        "3 to 10 ×",
        "5 to 50 ×",
    }
    data = {row["claim"]: row for row in claims_data(rows).to_pylist()}
    assert data["cifar10_drop"]["measured"] == pytest.approx(0.15)
    assert data["cifar10_drop"]["against"] == "natural"
    assert claims_sheet([], info).rows == ()
