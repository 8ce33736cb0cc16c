import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from advtrain.params.signatures import modules
from advtrain.published.registry import REGISTRY, Number, read_registry

KNOWN = read_registry()

# The poster, in its own words: percent, and minutes.
POSTER = {
    "CIFAR-10": """
        Natural 95.01 0.00 0.00 0.00 0.00 780
        Free m = 4 87.83 41.15 40.35 41.96 40.73 800
        Free m = 8 85.96 46.82 46.19 46.60 46.33 785
        Free m = 10 83.94 46.31 45.79 45.86 45.94 785
        Madry et al. (7-PGD trained) 87.25 45.84 45.29 46.52 45.53 5418""",
    "CIFAR-100": """
        Natural 78.84 0.00 0.00 811
        Free m = 4 65.28 20.64 20.15 767
        Free m = 6 64.87 23.68 23.18 791
        Free m = 8 62.13 25.88 25.58 780
        Free m = 10 59.27 25.15 24.88 776
        Madry et al. (7-PGD trained) 59.87 22.76 22.52 5157""",
    "ImageNet": """
        ResNet-50, Free m = 4 60.206 32.768 31.878 31.816 3016
        ResNet-101, Free m = 4 63.340 35.388 34.402 34.328 5122
        ResNet-152, Free m = 4 64.446 36.992 36.044 35.994 7526
        ResNet-50, 2-PGD trained 64.134 37.172 36.352 36.316 10435""",
}
COLUMNS = {
    "CIFAR-10": ("clean", "PGD-20", "PGD-100", "CW-100", "10xPGD-20"),
    "CIFAR-100": ("clean", "PGD-20", "PGD-100"),
    "ImageNet": ("imagenet_clean", "imagenet_PGD-10", "imagenet_PGD-50", "imagenet_PGD-100"),
}

# Clean and robust accuracies that are remembered of papers' tables and were read in no source.
REMEMBERED = [
    (0.9134, 0.4853),
    (0.8307, 0.5557),
    (0.9403, 0.0),
    (0.8516, 0.0002),
    (0.8432, 0.4510),
    (0.8100, 0.4758),
    (0.7792, 0.4590),
    (0.8215, 0.4843),
    (0.8188, 0.5004),
    (0.8518, 0.0),
    (0.8602, 0.4237),
    (0.8532, 0.4401),
    (0.7093, 0.4038),
]


def numbers(work: str, table: str) -> list[Number]:
    return [one for one in KNOWN.numbers if (one.work, one.table) == (work, table)]


@pytest.mark.parametrize("table", POSTER)
def test_the_tables_of_the_poster_are_there_whole(table: str) -> None:
    columns = (*COLUMNS[table], "minutes")
    expected = {}
    for line in POSTER[table].strip().splitlines():
        label, *values = line.strip().rsplit(" ", len(columns))
        for column, value in zip(columns, values, strict=True):
            share = 1 if column == "minutes" else 100
            expected[label, column] = pytest.approx(float(value) / share, abs=1e-12)
    assert {(one.row, one.column): one.value for one in numbers("free", table)} == expected
    assert {one.grade for one in numbers("free", table)} == {"S"}


def test_what_is_remembered_has_no_grade_and_is_not_here() -> None:
    for path in REGISTRY.glob("*.yaml"):
        assert "grade: M" not in path.read_text(), path.name
    pairs: dict[tuple[str, str, str], dict[str, float]] = {}
    for one in KNOWN.numbers:
        kind = "clean" if one.evaluation.quantity == "clean_accuracy" else one.column
        pairs.setdefault((one.work, one.table, one.row), {})[kind] = one.value
    found = {
        (values["clean"], value)
        for values in pairs.values()
        if "clean" in values
        for column, value in values.items()
        if column != "clean"
    }
    assert found.isdisjoint(REMEMBERED)
    assert not [one for one in KNOWN.numbers if one.training.method == "iaat"]


def test_each_number_says_of_what_and_where_it_was_read() -> None:
    for one in KNOWN.numbers:
        assert one.source, one
        assert one.training.dataset, one
        if one.evaluation.quantity in ("robust_accuracy", "certified_accuracy"):
            assert one.evaluation.attack or one.evaluation.epsilon is not None, one
    assert set(Counter(one.grade for one in KNOWN.numbers)) == {"R", "S", "I", "2"}


def test_what_a_source_does_not_say_is_none() -> None:
    two_steps = KNOWN.trainings["free/cifar100_pgd_at_2"]
    assert (two_steps.steps, two_steps.step_size, two_steps.hardware) == (2, None, None)
    assert KNOWN.trainings["iaat/pgd_at"].start is None
    assert KNOWN.evaluations["free/CW-100"].kappa == 0
    assert KNOWN.evaluations["free/PGD-100"].kappa is None


def test_lengths_are_in_pixel_units() -> None:
    free = KNOWN.trainings["free/free_8"]
    assert (free.epsilon, free.step_size, free.parameters["replays"]) == (8 / 255, 8 / 255, 8)
    assert KNOWN.trainings["trades/trades"].epsilon == 0.031 != 8 / 255
    assert KNOWN.evaluations["free/imagenet_PGD-50"].step_size == 1 / 255


def test_last_and_best_weights_are_told_apart() -> None:
    found = {one.row: one.training.selection for one in numbers("robust_overfitting", "logs")}
    assert found["PreActResNet-18, best"] == "best_test"
    assert found["PreActResNet-18, last"] == "last"
    assert found["PreActResNet-18, best on held-out images"] == "best_validation"


def test_a_mean_over_seeds_has_its_spread() -> None:
    at, consistency = numbers("consistency", "last weights over seeds")
    assert (at.value, at.spread, at.seeds, at.grade) == (0.4071, 0.0028, 5, "2")
    assert (consistency.value, consistency.spread) == (0.4887, 0.0014)


def test_claims_speak_of_methods_and_attacks_that_there_are() -> None:
    for one in KNOWN.ranges:
        assert {*one.methods, *one.references} <= {*modules("methods")}, one.name
        assert one.attack is None or one.attack in modules("attacks")
        # A comparison is against something, and nothing else is.
        compared = one.quantity.endswith(("_drop", "_gain", "_ratio"))
        assert bool(one.references) == compared, one.name


def test_a_list_of_methods_is_a_list_of_names(tmp_path: Path) -> None:
    text = (REGISTRY / "lesson.yaml").read_text().replace("methods: [natural]", "methods: [1]")
    (tmp_path / "lesson.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"natural_clean.methods: expected a list of names, got"):
        read_registry(tmp_path)


def test_a_number_knows_the_training_that_it_is_of() -> None:
    for one in KNOWN.numbers:
        known = KNOWN.trainings[one.trained]
        assert replace(one.training, selection=known.selection) == known
        assert one.trained.startswith(f"{one.work}/")


def test_the_documents_claims_are_ranges() -> None:
    found = {f"{one.work}/{one.name}": (one.low, one.high) for one in KNOWN.ranges}
    assert found["lesson/natural_clean"] == (0.95, 0.95)
    assert found["lesson/natural_robust"] == (0, 0)
    assert found["lesson/adversarial_clean"] == (0.87, 0.87)
    assert found["lesson/adversarial_robust"] == (0.50, 0.55)
    assert found["lesson/cost"] == (3, 10)
    assert found["survey/imagenet_natural"] == (0.80, 0.80)
    assert found["survey/imagenet_adversarial"] == (0.60, 0.65)
    assert found["survey/cost"] == (7, 20)
    assert found["free/pgd_cost"] == (5, 50)
    assert found["iaat/cifar10_drop"] == (None, 0.10)
    for one in KNOWN.ranges:
        assert one.quote, one
        assert one.low is None or one.high is None or one.low <= one.high, one


GOOD = """
title: A paper
trainings:
  ours: { dataset: cifar10, method: pgd_at, norm: linf, epsilon: 8/255 }
evaluations:
  clean: { quantity: clean_accuracy }
tables:
  - name: one
    source: paper.txt
    grade: S
    rows:
      - training: ours
        values: { clean: 0.87 }
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "clean: 0.87",
            "clean: 87",
            "tables.one, row 1.clean: an accuracy is a fraction in [0, 1]",
        ),
        ("clean: 0.87", "clean: 87", "got 87; did you mean 0.87?"),
        ("clean: 0.87", "clean: high", "expected a number, got 'high'"),
        ("clean: 0.87", "PGD: 0.87", "there is no evaluation 'PGD'"),
        ("training: ours", "training: our", "no training 'our'; did you mean 'ours'?"),
        ("grade: S", "grade: M", "tables.one.grade: expected one of R, S, I, 2, got 'M'"),
        ("8/255 }", "8 }", "trainings.ours.epsilon: linf lengths are in [0, 1] pixel units, got 8"),
        ("8/255 }", "8/255, step: 7 }", "trainings.ours.step is not a field; did you mean 'steps'"),
        ("8/255 }", "8/255, steps: 7.5 }", "ours.steps: expected a whole number, got 7.5"),
        ("8/255 }", "8/255, crafting: test }", "ours.crafting: expected one of train, eval, got"),
        ("8/255 }", "8/255, milestones: 40 }", "expected a list of numbers, got 40"),
        ("method: pgd_at, ", "", "trainings.ours.method is missing"),
        ("    source: paper.txt\n", "", "tables.source is missing"),
        ("title: A paper\n", "title: A paper\ntitle: Another\n", "'title' is given twice"),
        (
            "values: { clean: 0.87 }",
            "values: { clean: 0.87 }\n      - training: ours\n        values: { clean: 0.5 }",
            "row 2: ours has clean already; give the row a `label`",
        ),
    ],
)
def test_a_row_that_cannot_be_right_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in GOOD
    (tmp_path / "paper.yaml").write_text(GOOD)
    assert read_registry(tmp_path).numbers[0].value == 0.87
    (tmp_path / "paper.yaml").write_text(GOOD.replace(old, new))
    with pytest.raises(ValueError, match=r"^paper\.yaml: ") as caught:
        read_registry(tmp_path)
    assert message in str(caught.value)


def test_an_empty_registry_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no published work"):
        read_registry(tmp_path)


def test_the_files_are_plain_yaml() -> None:
    for path in REGISTRY.glob("*.yaml"):
        assert yaml.safe_load(path.read_text(encoding="utf-8"))["title"], path.name


def test_reading_it_takes_no_torch() -> None:
    script = "import advtrain.published.registry as r, sys; r.read_registry(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
    )
    assert "torch" not in {name.split(".")[0] for name in done.stdout.split()}
