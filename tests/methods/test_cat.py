import pytest
import torch
from torch import nn

from advtrain.methods.cat import Cat
from advtrain.methods.method import Batch, Passes
from advtrain.methods.pgd_at import PgdAt
from advtrain.noise import Noise
from advtrain.params.signatures import DEFAULT_NORMS as NORMS
from advtrain.threat import ThreatModel
from tests.methods.conftest import batch_of
from tests.methods.pixel import Pixel, noise_of, pixels

THREAT = ThreatModel("linf", 0.1)


def at_strength(strength: int, method: Cat | None = None) -> Cat:
    method = method or Cat()
    method.load_state_dict({"strength": torch.tensor(strength)})
    return method


def epoch(method: Cat, *, train: float = 1.0, **row: float) -> float:
    """One epoch's row; the strength of the next epoch."""
    batch = batch_of(2)
    cause = method.after_epoch(
        nn.Identity(), batch, {"train_accuracy": train, **row}, THREAT, noise_of(batch)
    )
    assert cause == ""
    return method.measures()["strength"]


def validated(method: Cat, clean: float, robust: float, train: float = 1.0) -> float:
    return epoch(
        method, train=train, validation_clean_accuracy=clean, validation_robust_accuracy=robust
    )


def test_the_first_lesson_is_natural_training() -> None:
    batch, model, method = pixels([0.3, 0.6], [0, 0]), Pixel(), Cat()
    assert method.cost().crafting == Passes(0, 0)
    assert torch.equal(method.perturb(model, batch, THREAT, noise_of(batch)), batch.x)
    assert method.cost().crafting == Passes(0, 0)
    assert model.forwards == 0


def test_a_minibatch_is_shared_among_the_strengths_by_hand() -> None:
    # Strengths 2, 1, 0, 2, 1, 0, 2: 7 rows, 3 of 2 steps of path / 2 and 2 of 1 step of the path.
    batch, model = pixels([0.8] * 7, [0] * 7), Pixel()
    method = at_strength(2, Cat(path=0.04))
    x_adv = method.perturb(model, batch, THREAT, noise_of(batch)).flatten().tolist()
    starts = THREAT.random_start(batch.x, noise_of(batch)).flatten().tolist()
    ends = [max(start - 0.04, 0.7) for start in starts]
    expected = [0.8 if row in (2, 5) else ends[row] for row in range(7)]
    assert x_adv == pytest.approx(expected, abs=1e-9)
    assert (model.forwards, model.backwards) == (8, 8)
    assert method.cost().crafting == Passes(8 / 7, 8 / 7)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("crafting", ["eval", "train"])
def test_each_part_is_pgd_at_of_its_own_strength(
    norm: str, crafting: str, model: nn.Module
) -> None:
    batch, threat = batch_of(30), ThreatModel(norm, 0.1)
    noise = Noise(0, batch.example)
    method = at_strength(3, Cat(crafting=crafting))
    x_adv = method.perturb(model, batch, threat, noise)
    for part, steps in enumerate((3, 2, 1)):
        rows = torch.arange(part, 30, 4)
        own = Batch(batch.x[rows], batch.y[rows], batch.example[rows])
        pgd_at = PgdAt(steps=steps, step_size=2 * threat.epsilon / steps, crafting=crafting)
        assert torch.equal(x_adv[rows], pgd_at.perturb(model, own, threat, noise.take(rows)))
    assert torch.equal(x_adv[3::4], batch.x[3::4])
    # 30 rows in 4 parts: 8 of 3 steps, 8 of 2 and 7 of 1.
    assert method.cost().crafting == Passes(47 / 30, 47 / 30)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("crafting", ["eval", "train"])
def test_the_last_lesson_without_mixing_is_pgd_at(
    norm: str, crafting: str, model: nn.Module
) -> None:
    batch, threat = batch_of(10), ThreatModel(norm, 0.1)
    noise = Noise(0, batch.example)
    method = at_strength(7, Cat(mixing=False, crafting=crafting))
    pgd_at = PgdAt(steps=7, step_size=2 * threat.epsilon / 7, crafting=crafting)
    expected = pgd_at.perturb(model, batch, threat, noise)
    assert torch.equal(method.perturb(model, batch, threat, noise), expected)
    assert method.cost() == pgd_at.cost()


@pytest.mark.parametrize("count", [1, 3])
def test_a_minibatch_smaller_than_the_parts_gets_the_strongest_attacks(count: int) -> None:
    method = at_strength(7)
    batch = pixels([0.8] * count, [0] * count)
    method.perturb(Pixel(), batch, THREAT, noise_of(batch))
    spent = sum((7, 6, 5)[:count]) / count
    assert method.cost().crafting == Passes(spent, spent)


def test_a_lesson_ends_when_validation_has_not_improved_for_so_many_epochs() -> None:
    method = Cat(patience=3)
    accuracies = [0.5, 0.6, 0.6, 0.55, 0.6]
    assert [validated(method, clean, 0.0) for clean in accuracies] == [0, 0, 0, 0, 1]
    # The best of the lesson before does not count: 0.2 is the first of this one.
    assert [validated(method, 0.9, 0.2) for _ in range(4)] == [1, 1, 1, 2]


def test_a_new_best_starts_the_wait_again() -> None:
    method = Cat(patience=2)
    accuracies = [0.5, 0.4, 0.6, 0.5, 0.7, 0.7, 0.7]
    assert [validated(method, clean, 0.0) for clean in accuracies] == [0, 0, 0, 0, 0, 0, 1]


def test_the_first_lesson_goes_by_the_clean_accuracy_and_the_others_by_the_robust_one() -> None:
    method = Cat(patience=2)
    # Robust accuracy stays at 0 in the first lesson, whose accuracy keeps growing.
    assert [validated(method, clean / 10, 0.0) for clean in range(1, 6)] == [0] * 5
    method = at_strength(1, Cat(patience=2))
    assert [validated(method, 0.5, robust / 10) for robust in range(1, 6)] == [1] * 5
    assert [validated(method, clean / 10, 0.5) for clean in (6, 7)] == [1, 2]


def test_without_a_robust_accuracy_every_lesson_goes_by_the_clean_one() -> None:
    method = at_strength(1, Cat(patience=2))
    found = [epoch(method, validation_clean_accuracy=0.5) for _ in range(3)]
    assert found == [1, 1, 2]


def test_a_lesson_waits_for_the_training_accuracy() -> None:
    method = Cat(patience=2, least_train_accuracy=0.9)
    trained = [0.5, 0.5, 0.5, 0.9, 0.91]
    assert [validated(method, 0.5, 0.0, train) for train in trained] == [0, 0, 0, 0, 1]


def test_the_strength_does_not_pass_the_last_lesson() -> None:
    method = at_strength(2, Cat(steps=2, patience=1))
    assert [validated(method, 0.5, 0.5) for _ in range(4)] == [2] * 4


def test_epochs_without_validation_count_but_end_no_lesson() -> None:
    method = Cat(patience=2)
    assert validated(method, 0.5, 0.0) == 0
    assert [epoch(method) for _ in range(3)] == [0, 0, 0]
    assert validated(method, 0.5, 0.0) == 1
    # The wait of the next lesson begins with it.
    assert epoch(method) == 1


def test_a_curriculum_without_validation_is_refused() -> None:
    method = Cat(patience=3)
    assert [epoch(method) for _ in range(2)] == [0, 0]
    with pytest.raises(ValueError, match="cat: no validation accuracy in 3 epochs at strength 0"):
        epoch(method)


def test_the_last_lesson_needs_no_validation() -> None:
    method = at_strength(2, Cat(steps=2, patience=1))
    assert [epoch(method) for _ in range(3)] == [2] * 3


def test_a_resumed_lesson_ends_in_the_same_epoch(model: nn.Module) -> None:
    method = at_strength(1, Cat(patience=3))
    for robust in (0.3, 0.4, 0.4):
        validated(method, 0.5, robust)
    state = method.state_dict()
    assert all(isinstance(part, torch.Tensor) for part in state.values())
    resumed = Cat(patience=3)
    resumed.load_state_dict({name: part.clone() for name, part in state.items()})
    for robust in (0.4, 0.4, 0.1, 0.2):
        assert validated(resumed, 0.5, robust) == validated(method, 0.5, robust)
    assert method.measures() == {"strength": 2.0}
    batch = batch_of(10)
    noise = Noise(0, batch.example)
    expected = method.perturb(model, batch, THREAT, noise)
    assert torch.equal(resumed.perturb(model, batch, THREAT, noise), expected)
    assert resumed.state_dict() == method.state_dict()
