"""Projected ascents from several starts or towards several classes, judged at one iterate each."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from advtrain.attacks.ascent import ascend
from advtrain.attacks.attack import Attacked, predictions
from advtrain.attacks.frozen import crafting
from advtrain.attacks.objectives import Objective, cross_entropy
from advtrain.attacks.restarts import SMALLEST_BATCH, best_of_restarts, filled
from advtrain.noise import Noise
from advtrain.threat import ThreatModel

Iterate = Literal["final", "best", "any"]
"""The iterate of a run that is judged: the last; the one of the largest objective; or the first
that is misclassified, else the one of the largest objective."""

TargetedObjective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits (N, K), labels (N,), targets (N,)) -> (N,) values, which rise towards the targets."""


class RowsObjective(Protocol):
    """An objective that is told which rows of a run its logits are of."""

    def __call__(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Return (M,) values of (M, K) logits; rows: (M,) int64."""


class Direction(Protocol):
    """The step of unit norm for a gradient, with a memory of the example's earlier gradients."""

    def __call__(self, gradient: Tensor) -> Tensor:
        """Return a new tensor of the shape of the gradient, (N, C, H, W)."""

    def take(self, rows: Tensor) -> "Direction":
        """Return the same for a subset of the batch."""


def towards(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """The logarithm of the target's probability, whatever the label: log softmax(z)_t."""
    return -cross_entropy(logits, target)


def restarted_ascent(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    noise: Noise,
    objective: Objective,
    *,
    steps: int,
    step_size: float,
    restarts: int,
    random_start: bool,
    iterate: Iterate = "final",
    targets: int = 0,
    targeted: TargetedObjective = towards,
    direction: Callable[[], Direction] | None = None,
) -> Attacked:
    """The best of several projected ascents, each judged at one of its iterates.

    A run spends `steps` + 1 forward passes (the last one is the verdict) and `steps` backward
    passes, with `iterate` "any" fewer on an example that is misclassified on the way. With targets
    there is one forward pass more, of the clean image.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits.
        x: (N, C, H, W) in [0, 1].
        y: (N,) int64 labels.
        threat: the norm and epsilon.
        noise: for these N examples; each run has a start of its own.
        objective: what is raised where there is no target.
        steps: of a run.
        step_size: pixel units.
        restarts: runs per example and target; those already fooled are dropped.
        random_start: uniform in the ball; otherwise the clean image.
        iterate: which one is judged.
        targets: 0, or how many classes to aim at in turn: the wrong ones that are the most likely
            at the clean image, fewer if there are fewer. An image that is misclassified without an
            attack is returned as it is.
        targeted: what is raised where there is a target.
        direction: makes the memory of one run; without it the steps are the steepest ones.

    Returns:
        The best results, of several runs the misclassified one, then the one of larger objective.
        The gains are those of the judged iterate: over the first one, and over the one that would
        have been judged after 3/4 of the steps.

    Raises:
        ValueError: for another iterate, or several restarts from one and the same start.
    """
    if iterate not in ("final", "best", "any"):
        raise ValueError(f"the judged iterate is 'final', 'best' or 'any', got {iterate!r}")
    if restarts > 1 and not random_start:
        raise ValueError(
            f"restarts={restarts} without a random start repeats one run; "
            "set random_start to true, or restarts to 1"
        )

    def run(rows: Tensor, number: int, target: Tensor | None = None) -> tuple[Attacked, Tensor]:
        centre, labels = x[rows], y[rows]

        def raised(logits: Tensor, rows: Tensor) -> Tensor:
            if target is None:
                return objective(logits, labels[rows])
            return targeted(logits, labels[rows], target[rows])

        return _judged_run(
            model,
            centre,
            labels,
            threat.random_start(centre, noise.take(rows), number) if random_start else centre,
            raised,
            threat,
            steps=steps,
            step_size=step_size,
            iterate=iterate,
            direction=None if direction is None else direction(),
        )

    with crafting(model):
        if targets == 0:
            return best_of_restarts(run, y, restarts)
        logits = model(x)
        classes = likely_wrong_classes(logits, y, targets)
        value, spent = targeted(logits, y, classes[:, 0]), torch.ones_like(y)
        none = torch.zeros_like(value)
        clean = Attacked(x, value, spent, torch.zeros_like(spent), none, none)

        def clean_first(rows: Tensor, number: int) -> tuple[Attacked, Tensor]:
            if number == 0:
                return clean, predictions(logits) != y
            return run(rows, number - 1, classes[rows, (number - 1) % classes.shape[1]])

        return best_of_restarts(clean_first, y, 1 + restarts * classes.shape[1])


def likely_wrong_classes(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """The wrong classes of the largest logits; of equal ones the first.

    Args:
        logits: (N, K), K >= 2.
        y: (N,) int64 labels.
        count: 1 or more.

    Returns:
        (N, min(count, K - 1)) int64, the most likely first.

    Raises:
        ValueError: with a single class.
    """
    if logits.shape[1] < 2:
        raise ValueError(f"a target needs 2 classes or more, the model has {logits.shape[1]}")
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.argsort(dim=1, descending=True, stable=True)[:, : min(count, logits.shape[1] - 1)]


def _judged_run(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    start: Tensor,
    objective: RowsObjective,
    threat: ThreatModel,
    *,
    steps: int,
    step_size: float,
    iterate: Iterate,
    direction: Direction | None,
) -> tuple[Attacked, Tensor]:
    """One ascent and the verdict on it, which with "any" ends for an example once it is fooled."""
    run, x_adv, done = _Run(iterate, y, steps), start, 0
    for stop in _stops(steps) if iterate == "any" else [steps]:
        x_adv = ascend(
            model,
            x[run.rows],
            x_adv,
            partial(objective, rows=run.rows),
            threat,
            steps=stop - done,
            step_size=step_size,
            direction=direction,
            watch=partial(run.meet, done),
        )
        done = stop
        if done < steps:
            staying = run.drop(done)
            x_adv = x_adv[staying]
            direction = None if direction is None else direction.take(staying)
            if len(staying) == 0:
                return run.found()
    logits = model(x_adv)
    run.meet(steps, 0, x_adv, logits, objective(logits, run.rows))
    run.drop(steps, everyone=True)
    return run.found()


def _stops(steps: int) -> list[int]:
    """The steps after which decided examples leave a run, 1, 2, 4, 8, 16, 24 and so on.

    Most examples fall early. Each stop waits for the device, and what an example costs must not
    depend on its batch, so that the stops are always the same.
    """
    stops = [1]
    while stops[-1] < steps:
        stops.append(stops[-1] + min(stops[-1], 8))
    return [*stops[:-1], steps]


class _Judged(NamedTuple):
    """Rows of a run, (M, ...): the iterate that is judged so far and its objective.

    `first` is the objective of the first iterate, `late` of the one judged after 3/4 of the steps.
    """

    rows: Tensor
    x_adv: Tensor
    value: Tensor
    wrong: Tensor
    first: Tensor
    late: Tensor

    def take(self, places: Tensor) -> "_Judged":
        return _Judged._make(column[places] for column in self)

    def after(self, iterate: Iterate, x_adv: Tensor, value: Tensor, wrong: Tensor) -> "_Judged":
        """What is judged once there is one more iterate."""
        if iterate == "final":
            return self._replace(x_adv=x_adv, value=value, wrong=wrong)
        better = value > self.value
        if iterate == "any":
            better = (better | wrong) & ~self.wrong
        pixels = better.view(-1, *(1,) * (x_adv.dim() - 1))
        return self._replace(
            x_adv=torch.where(pixels, x_adv, self.x_adv),
            value=torch.where(better, value, self.value),
            wrong=torch.where(better, wrong, self.wrong),
        )


class _Run:
    """The verdicts on one run, of which an example that is decided can be dropped.

    Attributes:
        rows: (M,) int64, the examples still in the run; beyond the first `count` they are
            repetitions that fill a small batch.
    """

    def __init__(self, iterate: Iterate, y: Tensor, steps: int) -> None:
        self.iterate, self.y, self.steps = iterate, y, steps
        self.rows, self.count = torch.arange(len(y), device=y.device), len(y)
        self.judged: _Judged | None = None
        self.dropped: list[tuple[_Judged, int]] = []

    def meet(self, done: int, step: int, x_adv: Tensor, logits: Tensor, value: Tensor) -> None:
        """See iterate `done` + `step` of the rows."""
        step += done
        quarter = 3 * self.steps // 4
        # Where the final iterate is judged, only two objectives are asked of the others.
        if self.iterate == "final" and step not in (0, quarter, self.steps):
            return
        wrong = predictions(logits) != self.y[self.rows]
        if self.judged is None:
            self.judged = _Judged(self.rows, x_adv.clone(), value, wrong, value, value)
        else:
            self.judged = self.judged.after(self.iterate, x_adv, value, wrong)
        if step <= quarter:
            self.judged = self.judged._replace(late=self.judged.value)

    def drop(self, done: int, *, everyone: bool = False) -> Tensor:
        """Drop the misclassified examples, or everyone, after so many steps.

        Returns:
            The positions of the new rows among the old ones.
        """
        assert self.judged is not None
        going = self.judged.wrong[: self.count] | everyone
        self.dropped.append((self.judged.take(going.nonzero().squeeze(1)), done))
        staying = (~going).nonzero().squeeze(1)
        self.count = len(staying)
        staying = filled(staying, min(SMALLEST_BATCH, len(self.y)))
        self.rows, self.judged = self.rows[staying], self.judged.take(staying)
        return staying

    def found(self) -> tuple[Attacked, Tensor]:
        """Return the results and who is misclassified, in order, once all are dropped."""
        judged = _Judged(*map(torch.cat, zip(*(part for part, _ in self.dropped), strict=True)))
        steps = torch.cat([torch.full_like(part.rows, done) for part, done in self.dropped])
        order = judged.rows.argsort()
        judged, steps = judged.take(order), steps[order]
        # Who took all the steps was judged once more at their end.
        found = Attacked(
            judged.x_adv,
            judged.value,
            steps + (steps == self.steps),
            steps,
            judged.value - judged.first,
            judged.value - judged.late,
        )
        return found, judged.wrong
