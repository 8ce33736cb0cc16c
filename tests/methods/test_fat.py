from dataclasses import replace

import pytest
import torch
from torch import nn

from advtrain.attacks.ascent import ascend
from advtrain.attacks.objectives import cross_entropy
from advtrain.methods.fat import Fat
from advtrain.methods.method import Batch, Passes
from advtrain.methods.pgd_at import PgdAt
from advtrain.noise import Noise
from advtrain.params.signatures import DEFAULT_NORMS as NORMS
from advtrain.threat import ThreatModel
from tests.methods.conftest import batch_of
from tests.methods.pixel import Pixel, noise_of, pixels

EPSILON, BORDER, STEPS = 0.1, 0.55, 10
THREAT = ThreatModel("linf", EPSILON)


def friendly(x: float, start: float, label: int, tau: int) -> tuple[float, int]:
    """Algorithm 1 for one pixel: where it ends, and how many passes it takes to get there."""
    at, spent = start, 0
    for _ in range(STEPS):
        spent += 1
        if (0 if at >= BORDER else 1) != label:
            if tau == 0:
                break
            tau -= 1
        at += EPSILON / 4 if label == 1 else -EPSILON / 4
        at = min(max(at, x - EPSILON), x + EPSILON)
    return at, spent


@pytest.mark.parametrize("tau", [0, 1, 2, 3, STEPS])
def test_every_example_follows_algorithm_1(tau: int) -> None:
    values = [0.45 + 0.005 * i for i in range(40)]
    labels = [i % 2 for i in range(40)]
    batch, model = pixels(values, labels), Pixel(BORDER)
    method = Fat(tau=tau, tau_milestones=())
    x_adv = method.perturb(model, batch, THREAT, noise_of(batch)).flatten().tolist()

    starts = THREAT.random_start(batch.x, noise_of(batch)).flatten().tolist()
    walked = [friendly(x, at, y, tau) for x, at, y in zip(values, starts, labels, strict=True)]
    assert x_adv == pytest.approx([at for at, _ in walked], abs=1e-9)
    spent = sum(passes for _, passes in walked)
    assert (model.forwards, model.backwards) == (spent, spent)
    assert method.cost().crafting == Passes(spent / 40, spent / 40)
    if tau < STEPS:
        assert len({passes for _, passes in walked}) > 2


def test_what_is_misclassified_at_the_start_is_trained_on_there() -> None:
    batch, method = pixels([0.2, 0.9], [0, 1]), Fat()
    x_adv = method.perturb(Pixel(BORDER), batch, THREAT, noise_of(batch))
    assert torch.equal(x_adv, THREAT.random_start(batch.x, noise_of(batch)))
    assert method.cost().crafting == Passes(1, 1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("tau", [0, 1])
def test_dropping_rows_changes_no_image_in_eval_mode(norm: str, tau: int, model: nn.Module) -> None:
    # Without dropping: all iterates of all rows, of which each row keeps the one it stops at.
    threat, model = ThreatModel(norm, {"linf": 0.1, "l2": 0.5}[norm]), model.eval()
    batch = batch_of(64)
    batch = batch._replace(y=model(batch.x).argmax(1))
    noise = Noise(0, batch.example)
    iterates = [
        ascend(
            model,
            batch.x,
            threat.random_start(batch.x, noise),
            lambda logits: cross_entropy(logits, batch.y),
            threat,
            steps=steps,
            step_size=threat.epsilon / 4,
        )
        for steps in range(STEPS + 1)
    ]
    wrong = torch.stack([model(x).argmax(1) != batch.y for x in iterates[:-1]])
    # The first iterate that is preceded by `tau` wrong ones and is wrong itself, else the last.
    stops = ((wrong.long().cumsum(0) == tau + 1) & wrong).long()
    stop = torch.where(stops.any(0), stops.argmax(0), STEPS)
    assert 3 < (stop < STEPS).sum() < 61
    expected = torch.stack(iterates)[stop, torch.arange(64)]

    method = Fat(tau=tau, tau_milestones=())
    found = method.perturb(model.train(), batch, threat, noise)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    passes = (stop + 1).clamp(max=STEPS).double().mean().item()
    assert method.cost().crafting == Passes(passes, passes)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("crafting", ["eval", "train"])
def test_a_tau_of_all_steps_is_pgd_at(norm: str, crafting: str, model: nn.Module) -> None:
    batch, threat = batch_of(10), ThreatModel(norm, 0.1)
    noise = Noise(0, batch.example)
    method = Fat(tau=STEPS, crafting=crafting)
    x_adv = method.perturb(model, batch, threat, noise)
    assert torch.equal(x_adv, PgdAt(crafting=crafting).perturb(model, batch, threat, noise))
    assert method.cost() == PgdAt().cost()


# 391 minibatches of 128 images make an epoch of CIFAR-10.
@pytest.mark.parametrize(
    ("step", "tau"),
    [(0, 0), (50 * 391 - 1, 0), (50 * 391, 1), (90 * 391 - 1, 1), (90 * 391, 2), (46919, 2)],
)
def test_tau_grows_after_epochs_50_and_90_of_120(step: int, tau: int) -> None:
    values, labels = [0.5 + 0.005 * i for i in range(30)], [0] * 30
    batch = pixels(values, labels, progress=step / (120 * 391))
    found = Fat().perturb(Pixel(BORDER), batch, THREAT, noise_of(batch))
    images = [
        Fat(tau=other, tau_milestones=()).perturb(Pixel(BORDER), batch, THREAT, noise_of(batch))
        for other in range(3)
    ]
    assert [torch.equal(found, one) for one in images] == [other == tau for other in range(3)]


def test_before_the_first_step_the_cost_is_the_most_that_it_can_be() -> None:
    assert replace(Fat(), steps=7).cost().crafting == Passes(7, 7)


def test_logits_that_are_not_finite_stop_an_example() -> None:
    class Overflowed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :2] * torch.inf

    batch = Batch(torch.full((3, 1, 1, 2), 0.5), torch.tensor([0, 1, 0]), torch.arange(3))
    x_adv = Fat().perturb(Overflowed(), batch, THREAT, noise_of(batch))
    assert torch.equal(x_adv, THREAT.random_start(batch.x, noise_of(batch)))
