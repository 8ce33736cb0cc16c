from dataclasses import replace

from advtrain.reporting.settings import attacks_sheet, digest, keys_sheet, methods_sheet
from advtrain.reporting.sheet import Sheet
from advtrain.reporting.study import check_info
from advtrain.results.collect import Collected
from tests.results import synthetic


def texts(sheet: Sheet) -> list[list[str]]:
    return [[cell.text for cell in row] for row in sheet.rows]


def test_methods_come_in_the_study_s_order_with_their_recipe(collected: Collected) -> None:
    info = synthetic.study_info(method_additions={"pgd_at": ["averaging ema", "cutout 2"]})
    sheet = methods_sheet(collected, check_info(info))
    assert [row[:3] for row in texts(sheet)] == [
        ["natural", "steps 7", "3"],
        ["pgd_at", "steps 7", "3"],
        ["fgsm_mixed", "steps 7", "3"],
    ]
    assert [row[-1] for row in texts(sheet)] == ["–", "averaging ema, cutout 2", "–"]


def test_attacks_say_their_parameters_weights_and_examples(rich: Collected) -> None:
    found = texts(attacks_sheet(rich, check_info(synthetic.study_info())))
    assert found[0] == ["fgsm", "–", "last or best", "all", "float32"]
    assert found[1] == ["pgd_20", "restarts 1, steps 20", "last or best", "all", "float32"]


def test_a_step_that_is_a_share_of_each_budget_is_said_as_one(collected: Collected) -> None:
    rows = collected.cells.to_pylist()
    for row in rows:
        if row["label"] == "pgd_at":
            row["params"] = row["params"].replace('"steps":7', f'"step_size":{row["epsilon"] / 4}')
    changed = replace(collected, cells=collected.cells.from_pylist(rows, collected.cells.schema))
    assert texts(methods_sheet(changed, check_info(synthetic.study_info())))[1][1] == (
        "step_size 0.25 ε"
    )


def test_the_digest_is_of_the_keys_alone(collected: Collected, rich: Collected) -> None:
    info = check_info(synthetic.study_info())
    assert digest(collected) == digest(collected)
    assert digest(collected) != digest(rich)
    row = next(row for row in texts(keys_sheet(collected, info)) if row[0] == "natural-s0")
    assert row[1:] == [
        synthetic.digest("train natural-s0")[:16],
        synthetic.digest("blobs")[:16],
        synthetic.digest("last natural-s0")[:16],
    ]
