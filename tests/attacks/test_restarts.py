import torch
from torch import nn

from advtrain.attacks.ascent import ascend
from advtrain.attacks.attack import Attacked, predictions
from advtrain.attacks.frozen import frozen
from advtrain.attacks.objectives import cross_entropy
from advtrain.attacks.pgd import pgd
from advtrain.attacks.restarts import SMALLEST_BATCH, best_of_restarts, filled
from advtrain.noise import Noise
from advtrain.threat import ThreatModel
from tests.attacks.test_attack_contracts import rows_of

Examples = tuple[torch.Tensor, torch.Tensor]

# Rows are examples, columns restarts: is it fooled, and which objective is reached.
FOOLED = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.bool)
OBJECTIVE = torch.tensor([[1.0, 3.0, 2.0], [1.0, 9.0, 9.0], [5.0, 1.0, 9.0], [5.0, 9.0, 1.0]])


def scripted(rows: torch.Tensor, restart: int) -> tuple[Attacked, torch.Tensor]:
    images = torch.full((len(rows), 1, 1, 1), float(restart))
    passes = torch.ones_like(rows)
    found = Attacked(images, OBJECTIVE[rows, restart], passes, 10 * passes)
    return found, FOOLED[rows, restart]


def test_misclassified_comes_first_then_the_larger_objective() -> None:
    best = best_of_restarts(scripted, torch.arange(4), restarts=3)
    assert best.x_adv.flatten().tolist() == [1, 0, 1, 2]
    assert best.objective.tolist() == [3, 1, 1, 1]


def test_the_gains_are_those_of_the_kept_restart() -> None:
    def attempt(rows: torch.Tensor, restart: int) -> tuple[Attacked, torch.Tensor]:
        found, fooled = scripted(rows, restart)
        return found._replace(gain=10 * found.objective, late_gain=-found.objective), fooled

    best = best_of_restarts(attempt, torch.arange(4), restarts=3)
    assert best.gain is not None
    assert best.late_gain is not None
    assert best.gain.tolist() == [30, 10, 10, 10]
    assert best.late_gain.tolist() == [-3, -1, -1, -1]
    without = best_of_restarts(scripted, torch.arange(4), restarts=3)
    assert without.gain is None
    assert without.late_gain is None


def test_a_fooled_example_takes_no_part_in_later_restarts() -> None:
    best = best_of_restarts(scripted, torch.arange(4), restarts=3)
    assert best.forwards.tolist() == [3, 1, 2, 3]
    assert best.backwards.tolist() == [30, 10, 20, 30]


def test_nothing_runs_once_all_are_fooled() -> None:
    calls = []

    def attempt(rows: torch.Tensor, restart: int) -> tuple[Attacked, torch.Tensor]:
        calls.append(restart)
        found, fooled = scripted(rows, restart)
        return found, torch.ones_like(fooled)

    best_of_restarts(attempt, torch.arange(4), restarts=3)
    assert calls == [0]


def test_dropping_fooled_examples_changes_no_result(trained: nn.Module, examples: Examples) -> None:
    """The same as each restart on the whole batch, merged afterwards."""
    x, y = examples
    threat, noise = ThreatModel("linf", 0.2), Noise(0, torch.arange(len(x)))

    def attempt(rows: torch.Tensor, restart: int) -> tuple[Attacked, torch.Tensor]:
        start = threat.random_start(x, noise, restart)
        with frozen(trained):
            x_adv = ascend(
                trained,
                x,
                start,
                lambda logits: cross_entropy(logits, y),
                threat,
                steps=3,
                step_size=0.05,
            )
            logits = trained(x_adv)
        found = Attacked(x_adv, cross_entropy(logits, y), torch.ones_like(y), torch.ones_like(y))
        return rows_of(found, rows), (predictions(logits) != y)[rows]

    expected = best_of_restarts(attempt, y, restarts=3)
    found = pgd(trained, x, y, threat, noise, steps=3, restarts=3)
    assert torch.equal(found.x_adv, expected.x_adv)
    assert torch.equal(found.objective, expected.objective)
    assert found.forwards.unique().tolist() == [4, 8, 12]


def test_filled_repeats_rows_up_to_the_least() -> None:
    rows = torch.tensor([4, 7, 9])
    assert filled(rows, 8).tolist() == [4, 7, 9, 4, 7, 9, 4, 7]
    assert filled(rows, 3).tolist() == filled(rows, 1).tolist() == [4, 7, 9]
    assert filled(rows[:0], 8).tolist() == []


def test_few_survivors_are_attacked_in_a_filled_batch() -> None:
    sizes = []

    def attempt(rows: torch.Tensor, restart: int) -> tuple[Attacked, torch.Tensor]:
        sizes.append(len(rows))
        count = torch.ones_like(rows)
        found = Attacked(torch.zeros(len(rows), 1, 1, 1), torch.zeros(len(rows)), count, count)
        return found, rows > 1

    best = best_of_restarts(attempt, torch.arange(40), restarts=3)
    assert sizes == [40, SMALLEST_BATCH, SMALLEST_BATCH]
    assert best.forwards.tolist() == [3, 3] + [1] * 38
