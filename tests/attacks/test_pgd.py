"""Which iterate is judged, and the runs towards targets: models made by hand, and a trained one."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from advtrain.attacks.ascent import ascend
from advtrain.attacks.attack import Attacked, predictions
from advtrain.attacks.cw import cw
from advtrain.attacks.judged_ascent import likely_wrong_classes
from advtrain.attacks.mifgsm import mifgsm
from advtrain.attacks.objectives import cross_entropy, margin
from advtrain.attacks.pgd import pgd
from advtrain.noise import Noise
from advtrain.threat import ThreatModel
from tests.attacks.test_attack_contracts import assert_equal, counted, noise_for, robust, rows_of

Examples = tuple[torch.Tensor, torch.Tensor]

attacks = pytest.mark.parametrize("attack", [pgd, cw, mifgsm])
norms = pytest.mark.parametrize("norm", ["linf", "l2"])

BUDGETS = {"linf": 0.14, "l2": 0.8}


class Table(nn.Module):
    """Class probabilities of an image of one pixel: given at multiples of 1/8, log-linear between.

    The label is class 0. From 1/2 in steps of 1/8 an ascent of the cross-entropy walks 1/2 (right),
    5/8 (wrong), 3/4 (right, and the largest cross-entropy), 5/8, 3/4 and so on.
    """

    PROBABILITIES = (
        *[(0.6, 0.3, 0.1)] * 5,
        (0.45, 0.5, 0.05),
        (0.38, 0.37, 0.25),
        *[(0.5, 0.3, 0.2)] * 2,
    )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        table = torch.tensor(self.PROBABILITIES).log()
        position = 8 * x.flatten()
        cell = position.detach().long().clamp(max=7)
        share = (position - cell)[:, None]
        return (1 - share) * table[cell] + share * table[cell + 1]


PIXEL, LABEL = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
FIRST, WRONG, LARGEST = (-math.log(p) for p in (0.6, 0.45, 0.38))


@pytest.mark.parametrize(
    ("iterate", "steps", "reached", "objective", "gain", "late_gain"),
    [
        # Iterates 1/2, 5/8, 3/4; the first three quarters end at iterate 1.
        ("final", 2, 0.75, LARGEST, LARGEST - FIRST, LARGEST - WRONG),
        ("best", 2, 0.75, LARGEST, LARGEST - FIRST, LARGEST - WRONG),
        ("any", 2, 0.625, WRONG, WRONG - FIRST, 0),
        # One step more leads back to 5/8; the first three quarters end at iterate 2.
        ("final", 3, 0.625, WRONG, WRONG - FIRST, WRONG - LARGEST),
        ("best", 3, 0.75, LARGEST, LARGEST - FIRST, 0),
        ("any", 3, 0.625, WRONG, WRONG - FIRST, 0),
        # The misclassified iterate is the last.
        ("any", 1, 0.625, WRONG, WRONG - FIRST, WRONG - FIRST),
    ],
)
def test_the_judged_iterate_by_hand(
    iterate: str, steps: int, reached: float, objective: float, gain: float, late_gain: float
) -> None:
    found = pgd(
        Table(),
        PIXEL,
        LABEL,
        ThreatModel("linf", 0.5),
        noise_for(1),
        steps=steps,
        step_size=1 / 8,
        random_start=False,
        iterate=iterate,
    )
    assert found.gain is not None
    assert found.late_gain is not None
    assert found.x_adv.item() == reached
    assert found.objective.item() == pytest.approx(objective)
    assert found.gain.item() == pytest.approx(gain, abs=1e-6)
    assert found.late_gain.item() == pytest.approx(late_gain, abs=1e-6)


@pytest.mark.parametrize(
    ("steps", "forwards", "backwards"), [(1, 2, 1), (2, 3, 2), (3, 2, 2), (20, 2, 2)]
)
def test_a_run_ends_at_the_first_stop_after_a_misclassified_iterate(
    steps: int, forwards: int, backwards: int
) -> None:
    """Iterate 1 is; the stops are after 1, 2, 4, 8 and every 8 steps."""
    model, rows = counted(Table())
    found = pgd(
        model,
        PIXEL,
        LABEL,
        ThreatModel("linf", 0.5),
        noise_for(1),
        steps=steps,
        step_size=1 / 8,
        random_start=False,
        iterate="any",
    )
    assert rows == {"forward": forwards, "backward": backwards}
    assert (found.forwards.item(), found.backwards.item()) == (forwards, backwards)


@attacks
@norms
def test_no_iterate_is_stronger_than_any(
    attack: Callable[..., Attacked], norm: str, trained: nn.Module, examples: Examples
) -> None:
    """From the same starts, example by example."""
    x, y = examples
    run = partial(attack, trained, x, y, ThreatModel(norm, BUDGETS[norm]), noise_for(len(x)))
    final, best, found = (
        run(steps=30, step_size="epsilon/2", random_start=True, iterate=iterate)
        for iterate in ("final", "best", "any")
    )
    right = {name: robust(trained, one, y) for name, one in (("final", final), ("best", best))}
    withstood = robust(trained, found, y)
    assert not (withstood & ~right["final"]).any()
    assert not (withstood & ~right["best"]).any()
    assert (best.objective >= final.objective).all()
    assert (best.objective > final.objective).any() or attack is mifgsm
    assert torch.equal(found.objective[withstood], best.objective[withstood])
    assert torch.equal(found.x_adv[withstood], best.x_adv[withstood])
    assert (found.backwards == 30)[withstood].all()
    assert (found.backwards < 30)[~withstood].any()
    assert 0 < withstood.sum() < len(y)


@attacks
@pytest.mark.parametrize("iterate", ["final", "best", "any"])
@pytest.mark.parametrize("targets", [0, 2])
def test_an_examples_result_does_not_depend_on_its_batch(
    attack: Callable[..., Attacked],
    iterate: str,
    targets: int,
    trained: nn.Module,
    examples: Examples,
) -> None:
    x, y = examples
    threat, noise = ThreatModel("linf", 0.14), noise_for(len(x))
    bound = partial(
        attack, steps=9, restarts=2, random_start=True, iterate=iterate, targets=targets
    )
    whole = bound(trained, x, y, threat, noise)
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:40]
    assert_equal(bound(trained, x[rows], y[rows], threat, noise.take(rows)), rows_of(whole, rows))
    for row in torch.arange(0, 96, 8).split(1):
        model, passes = counted(trained)
        bound(model, x[row], y[row], threat, noise.take(row))
        assert passes == {"forward": whole.forwards[row], "backward": whole.backwards[row]}


@norms
def test_any_is_the_first_misclassified_iterate(
    norm: str, trained: nn.Module, examples: Examples
) -> None:
    """Beside the iterates of ascents of 0, 1, 2, ... steps."""
    x, y = examples
    threat, noise, step = ThreatModel(norm, BUDGETS[norm]), noise_for(len(x)), BUDGETS[norm] / 4
    iterates = [
        ascend(
            trained,
            x,
            threat.random_start(x, noise),
            partial(cross_entropy, y=y),
            threat,
            steps=steps,
            step_size=step,
        )
        for steps in range(13)
    ]
    with torch.no_grad():
        logits = torch.stack([trained(x_adv) for x_adv in iterates])
    wrong = torch.stack([predictions(one) != y for one in logits])
    values = torch.stack([cross_entropy(one, y) for one in logits])
    chosen = torch.where(wrong.any(0), wrong.int().argmax(0), values.argmax(0))
    columns = torch.arange(len(x))

    found = pgd(trained, x, y, threat, noise, steps=12, step_size=step, iterate="any")
    assert found.gain is not None
    assert found.late_gain is not None
    assert torch.equal(found.x_adv, torch.stack(iterates)[chosen, columns])
    assert torch.equal(found.objective, values[chosen, columns])
    assert torch.equal(found.gain, values[chosen, columns] - values[0])
    early = torch.where(wrong[:10].any(0), wrong.int().argmax(0), values[:10].argmax(0))
    assert torch.equal(found.late_gain, (values[chosen, columns] - values[early, columns]))

    final = pgd(trained, x, y, threat, noise, steps=12, step_size=step)
    assert torch.equal(final.x_adv, iterates[12])
    assert final.gain is not None
    assert final.late_gain is not None
    assert torch.equal(final.gain, values[12] - values[0])
    assert torch.equal(final.late_gain, values[12] - values[9])


def test_the_most_likely_wrong_classes() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0, 0.0], [1.0, 5.0, 1.0, 2.0]])
    y = torch.tensor([0, 1])
    assert likely_wrong_classes(logits, y, 2).tolist() == [[2, 1], [3, 0]]
    assert likely_wrong_classes(logits, y, 9).tolist() == [[2, 1, 3], [3, 0, 2]]


TARGETED = {
    pgd: lambda logits, y, target: -cross_entropy(logits, target),
    cw: lambda logits, y, target: (
        (logits - logits.gather(1, y[:, None])).gather(1, target[:, None]).squeeze(1).clamp(max=0)
    ),
}


@pytest.mark.parametrize("attack", TARGETED)
@norms
def test_targets_are_runs_towards_the_likely_wrong_classes(
    attack: Callable[..., Attacked], norm: str, trained: nn.Module, examples: Examples
) -> None:
    """The same as each run on the whole batch, merged afterwards."""
    x, y = examples[0], examples[1].clone()
    y[::12] = (y[::12] + 1) % 4
    threat, noise, value = ThreatModel(norm, BUDGETS[norm]), noise_for(len(x)), TARGETED[attack]
    with torch.no_grad():
        clean = trained(x)
    classes = clean.scatter(1, y[:, None], -math.inf).argsort(1, descending=True)
    best, objective = x.clone(), value(clean, y, classes[:, 0])
    wrong, forwards = predictions(clean) != y, torch.ones_like(y)
    assert wrong.sum() == 8
    for run in range(4):
        target = classes[:, run % 2]
        forwards += 7 * ~wrong
        x_adv = ascend(
            trained,
            x,
            threat.random_start(x, noise, run),
            lambda logits, target=target: value(logits, y, target),
            threat,
            steps=6,
            step_size=BUDGETS[norm] / 4,
        )
        with torch.no_grad():
            logits = trained(x_adv)
        values, now = value(logits, y, target), predictions(logits) != y
        better = ~wrong & (now | (values > objective))
        best[better], objective[better] = x_adv[better], values[better]
        wrong |= now

    found = attack(trained, x, y, threat, noise, steps=6, restarts=2, targets=2)
    assert torch.equal(found.x_adv, best)
    assert torch.equal(found.objective, objective)
    assert torch.equal(found.forwards, forwards)
    assert set(forwards.tolist()) >= {1, 29}


def test_more_targets_than_wrong_classes_are_all_of_them(
    trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    attack = partial(pgd, trained, x, y, ThreatModel("linf", 0.14), noise_for(len(x)), steps=3)
    assert_equal(attack(targets=9), attack(targets=3))


def test_a_target_is_reached_where_the_label_is_left_for_it_alone() -> None:
    """Class 2 can be reached and no other; an untargeted ascent first turns to class 1."""

    class Corner(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pixel = x.flatten()
            # Class 1 saturates below the label's 1, class 2 grows in the other direction.
            near = 0.9 - (0.75 - pixel).relu()
            far = 1.6 - 2 * pixel
            return 30 * torch.stack([torch.ones_like(pixel), near, far], 1)

    x, y, threat = torch.full((1, 1, 1, 1), 0.55), torch.tensor([0]), ThreatModel("linf", 0.3)
    run = partial(pgd, Corner(), x, y, threat, noise_for(1), steps=10, random_start=False)
    assert robust(Corner(), run(), y).all()
    assert robust(Corner(), run(targets=1), y).all()
    assert not robust(Corner(), run(targets=2), y).any()


@attacks
@norms
def test_the_memory_format_changes_no_start(attack: Callable[..., Attacked], norm: str) -> None:
    """And the perturbed images have that of the images."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 3, 6, 6, generator=generator)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    for weight in model.parameters():
        nn.init.normal_(weight, generator=generator)
    y = predictions(model(x))
    run = partial(attack, steps=3, random_start=True, iterate="best")
    threat, noise = ThreatModel(norm, 0.05), noise_for(40)
    expected = run(model, x, y, threat, noise)
    last = x.to(memory_format=torch.channels_last)
    found = run(model.to(memory_format=torch.channels_last), last, y, threat, noise)
    assert found.x_adv.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.objective, expected.objective, rtol=1e-4, atol=1e-4)
    near = (found.x_adv - expected.x_adv).abs() < 1e-6
    assert near.float().mean() > 0.99


def test_the_objective_of_a_target_is_the_margin_to_it() -> None:
    """Where there are two classes, it is the untargeted one; not so the cross-entropy."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(5, 1, 4, 4, generator=generator)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    y = predictions(model(x))
    run = partial(cw, model, x, y, ThreatModel("linf", 0.01), noise_for(5), steps=4, kappa=9.0)
    one, other = run(), run(targets=1)
    assert torch.equal(one.x_adv, other.x_adv)
    assert torch.equal(one.objective, other.objective)
    assert torch.equal(one.objective, margin(model(one.x_adv), y).detach())


def test_a_start_that_is_not_finite_is_misclassified() -> None:
    """Nothing exceeds a value that is no number; the example counts all the same."""

    class Overflowed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x.flatten(), x.flatten() * math.nan], 1)

    for iterate in ("final", "best", "any"):
        found = pgd(
            Overflowed(), PIXEL, LABEL, ThreatModel("linf", 0.1), noise_for(1), iterate=iterate
        )
        assert isinstance(found, Attacked)
        assert found.x_adv.isfinite().all()
        assert not robust(Overflowed(), found, LABEL).any()


def test_noise_of_runs_differs() -> None:
    """Towards each target, from another start."""
    starts = []

    class Seen(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            starts.append(x.detach().clone())
            return torch.stack([x.flatten(), *(0 * x.flatten() - 1 for _ in range(3))], 1)

    threat, noise = ThreatModel("linf", 0.1), Noise(0, torch.arange(1))
    pgd(Seen(), PIXEL, LABEL, threat, noise, steps=1, restarts=2, targets=2)
    # The clean image; then a start and its end for each of four runs.
    expected = [threat.random_start(PIXEL, noise, run) for run in range(4)]
    assert len(starts) == 9
    assert all(torch.equal(*pair) for pair in zip(starts[1::2], expected, strict=True))
