"""Auto-PGD: projected gradient ascent that chooses its step sizes itself."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from advtrain.attacks.attack import Attacked, check_norm, predictions
from advtrain.attacks.frozen import crafting
from advtrain.attacks.judged_ascent import likely_wrong_classes, towards
from advtrain.attacks.objectives import cross_entropy, dlr, targeted_dlr
from advtrain.attacks.restarts import SMALLEST_BATCH, best_of_restarts, filled
from advtrain.noise import Noise
from advtrain.params.quantities import Count, Share, Whole
from advtrain.threat import ThreatModel

NORMS = ("linf", "l2", "l1")

MOMENTUM = 0.75
# The first interval between two checkpoints, by how much each is shorter than the one before it,
# and the shortest, as shares of the steps.
FIRST, SHORTER, SHORTEST = 0.22, 0.03, 0.06
# For l1: the interval, always the same, and the share of the entries that the first steps change.
L1_INTERVAL, L1_SHARE = 0.04, 0.2
# By what the changed entries are divided, and the step size, which falls to a tenth at most.
L1_SPARSER, L1_SLOWER, L1_SLOWEST = 1.5, 1.5, 10.0
# A best point with less than this share of the entries that the last one changed is gone back to.
L1_BACK = 0.95
# A difference that is none: the projection can leave an entry beside its clean value.
L1_ROUNDING = 1e-6
# The first two radii of the enlarged search, in epsilons, and the share of the steps of each.
ENLARGED, ENLARGED_SHARE = (3.0, 2.0), 0.3

Goal = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits (M, K), labels (M,), targets (M,)) -> (M,) values to raise."""


def apgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    noise: Noise,
    *,
    objective: Literal["cross_entropy", "dlr"] = "cross_entropy",
    targets: Whole = 0,
    steps: Count = 100,
    restarts: Count = 1,
    rho: Share = 0.75,
    eot: Count = 1,
    enlarged: bool = False,
) -> Attacked:
    """Auto-PGD (Croce and Hein 2020, "Reliable evaluation ...", algorithm 1).

    Steepest ascent with momentum, from a random start and with steps of 2 epsilon; where a
    checkpoint finds too little progress, the step is halved and the best point gone back to. For l1
    it is the variant of Croce and Hein 2021 ("Mind the box"): no momentum, first steps of epsilon,
    and each step changes only the entries of the largest slopes.

    An example is misclassified if any iterate is, the start included. It is dropped at one of a
    fixed series of steps, so that what it costs does not depend on the rest of its batch.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits.
        x: (N, C, H, W) in [0, 1].
        y: (N,) int64 labels.
        threat: the norm (linf, l2 or l1) and epsilon.
        noise: for these N examples; the random starts.
        objective: what is raised; dlr needs 3 classes, with targets 4.
        targets: 0 raises the objective of the true class. n takes in turn the n wrong classes that
            are the most likely at the clean image, fewer if there are fewer, and raises the
            targeted difference of logits ratio, or the logarithm of the target's probability.
        steps: gradient steps of one run; there is a run for each target and restart.
        restarts: random starts for each target; examples already fooled are dropped.
        rho: the step is halved unless more than this share of the steps since the last checkpoint
            raised the objective; not used for l1.
        eot: evaluations of a randomised model at each iterate; gradient, objective and logits are
            their means.
        enlarged: for l1, first search at 3 epsilon for 0.3 of the steps and from there at 2 epsilon
            for 0.3. The rest, at epsilon, alone decides, and has the gain.

    Returns:
        The first misclassified iterate of each example, or the one of the largest objective over
        its runs. It spends 1 forward pass on the clean image and, for each run that an example
        withstands, eot * (steps + 1) forward passes, with `enlarged` eot * 2 more, and eot * steps
        backward passes. An example that needs no attack is returned as it is.

    Raises:
        ValueError: for another norm or objective, too few classes, or `enlarged` with another norm
            than l1 or fewer than 5 steps.

    Departs from the official code: the first interval compares its first iterate with the start,
    as in the paper, not with 0. The gradient after the last step is not computed. With eot, the
    official code takes logits and objective of the last evaluation. For l1, an entry that differs
    by a rounding error is not counted as changed, and the enlarged search starts in the ball around
    x, where the official code first projects into one around another point.
    """
    check_norm("apgd", threat, NORMS)
    goal = _goal(objective, targeted=targets > 0)
    stages = _stages(threat, steps, enlarged)

    def attempt(rows: Tensor, number: int) -> tuple[Attacked, Tensor]:
        if number == 0:
            return clean
        aim, restart = divmod(number - 1, restarts)
        centre, labels, aims = x[rows], y[rows], targeted[rows, aim]
        x_adv = _start(stages[0][0], centre, noise.fold_in(aim).take(rows), restart)
        spent = torch.zeros(2, len(rows), dtype=torch.int64, device=x.device)
        for stage, length in stages:
            run = _Run.started(centre, labels, aims, x_adv, stage, length, sparse=enlarged)
            run = _ascend(model, run, goal, stage, rho=rho, eot=eot, decides=stage is threat)
            x_adv = run.best
            spent += torch.stack([run.forwards, run.backwards])
        return run.found(*spent), run.fooled

    with crafting(model), torch.no_grad():
        logits = model(x)
        targeted = likely_wrong_classes(logits, y, targets) if targets else y[:, None]
        clean = _unattacked(x, y, logits, goal(logits, y, targeted[:, 0]))
        return best_of_restarts(attempt, y, 1 + targeted.shape[1] * restarts)


def checkpoints(steps: int, norm: str) -> dict[int, int]:
    """The steps after which progress is judged (Croce and Hein 2020, section 3.1).

    Args:
        steps: of the whole run.
        norm: for l1 all intervals are alike ("Mind the box").

    Returns:
        Each checkpoint, and the number of steps since the one before it.
    """
    first, shortest = (L1_INTERVAL, L1_INTERVAL) if norm == "l1" else (FIRST, SHORTEST)
    interval, least = max(int(first * steps), 1), max(int(shortest * steps), 1)
    checks, at = {}, interval
    while at < steps:  # after the last step there is nothing to change
        checks[at] = interval
        interval = max(interval - max(int(SHORTER * steps), 1), least)
        at += interval
    return checks


class _Run(NamedTuple):
    """Where the run of each example stands; each field has one row for each."""

    place: Tensor  # among the examples that started
    x: Tensor
    y: Tensor
    target: Tensor
    x_adv: Tensor
    previous: Tensor  # the iterate before x_adv
    gradient: Tensor  # at x_adv
    best: Tensor  # the first misclassified iterate, otherwise the one of the largest value
    best_gradient: Tensor
    best_value: Tensor
    fooled: Tensor  # whether best is misclassified
    values: Tensor  # (M, steps + 1), at each iterate; -inf ahead
    step_size: Tensor  # (M, 1, 1, 1)
    halved: Tensor  # whether the last checkpoint halved the step
    changed: Tensor  # l1: how many entries the best point had changed at the last checkpoint
    allowed: Tensor  # l1: how many entries the next step changes
    forwards: Tensor
    backwards: Tensor

    @classmethod
    def started(
        cls,
        x: Tensor,
        y: Tensor,
        target: Tensor,
        x_adv: Tensor,
        threat: ThreatModel,
        steps: int,
        *,
        sparse: bool,
    ) -> "_Run":
        """At x_adv, brought into the set; if `sparse`, as sparse as it is there."""
        x_adv = threat.project(x_adv, x)
        changed = _changed(x_adv, x) if sparse else torch.full_like(y, x[0].numel())
        allowed = changed / L1_SPARSER if sparse else changed * L1_SHARE
        values = x.new_full((len(y), steps + 1), -math.inf)
        return cls(
            place=torch.arange(len(y), device=y.device),
            x=x,
            y=y,
            target=target,
            x_adv=x_adv,
            previous=x_adv,
            gradient=torch.zeros_like(x),
            best=x_adv,
            best_gradient=torch.zeros_like(x),
            best_value=values[:, 0].clone(),
            fooled=torch.zeros_like(y, dtype=torch.bool),
            values=values,
            step_size=x.new_full((len(y), 1, 1, 1), _first_step_size(threat)),
            # The first checkpoint has no earlier one to compare the best value with.
            halved=torch.ones_like(y, dtype=torch.bool),
            changed=changed,
            allowed=allowed.ceil().long(),
            forwards=torch.zeros_like(y),
            backwards=torch.zeros_like(y),
        )

    def rows(self, chosen: Tensor) -> "_Run":
        return _Run._make(part[chosen] for part in self)

    def found(self, forwards: Tensor, backwards: Tensor) -> Attacked:
        """What the finished runs have found, with the passes of all that they took."""
        steps = self.values.shape[1] - 1
        before = self.values[:, : steps - steps // 4 + 1].amax(1)
        gain = self.best_value - self.values[:, 0]
        late = (self.best_value - before).clamp_(min=0)
        return Attacked(self.best, self.best_value, forwards, backwards, gain, late)


def _ascend(
    model: nn.Module,
    run: _Run,
    goal: Goal,
    threat: ThreatModel,
    *,
    rho: float,
    eot: int,
    decides: bool,
) -> _Run:
    """Algorithm 1, until each example is misclassified (if that `decides`) or has all its steps."""
    steps, least = run.values.shape[1] - 1, min(SMALLEST_BATCH, len(run.y))
    checks, project = checkpoints(steps, threat.norm), threat.projection(run.x)
    done, real = [], len(run.y)  # rows after the first `real` only fill the batch
    for step in range(steps + 1):
        if step > 0:
            x_adv = _stepped(run, threat, project, MOMENTUM if step > 1 else 1.0)
            run = run._replace(x_adv=x_adv, previous=run.x_adv)
        logits, value, gradient = _evaluated(model, run, goal, eot, climbing=step < steps)
        wrong = (predictions(logits) != run.y) & decides
        run = _noted(run, step, value, gradient, wrong)
        run.forwards.add_(eot)
        run.backwards.add_(eot if step < steps else 0)
        if step in checks:
            run = _checked(run, threat, step, checks[step], rho)
        if step == steps or (decides and _drops_after(step)):
            over = run.fooled[:real] | (step == steps)
            done.append(run.rows(over.nonzero().squeeze(1)))
            left = (~over).nonzero().squeeze(1)
            if len(left) == 0:
                break
            if len(left) < real:
                run, real = run.rows(filled(left, least)), len(left)
                project = threat.projection(run.x)
    finished = _Run._make(torch.cat(parts) for parts in zip(*done, strict=True))
    return finished.rows(finished.place.argsort())


def _drops_after(step: int) -> bool:
    """Often at first, when an undefended network falls; each time stalls a device once."""
    return step % 8 == 0 or step in (1, 2, 4)


def _stepped(
    run: _Run, threat: ThreatModel, project: Callable[[Tensor], Tensor], weight: float
) -> Tensor:
    """P(x_adv + weight (z - x_adv) + (1 - weight) m) with z = P(x_adv + step_size * direction).

    m is the movement that led to x_adv; after a checkpoint went back to the best point, the way
    from the iterate before, as in the official code.
    """
    if threat.norm == "l1":
        return project(_sparse_sign(run).mul_(run.step_size).add_(run.x_adv))
    z = project(threat.steepest(run.gradient).mul_(run.step_size).add_(run.x_adv))
    moved = z.sub_(run.x_adv).mul_(weight).add_(run.x_adv - run.previous, alpha=1 - weight)
    return project(moved.add_(run.x_adv))


def _sparse_sign(run: _Run) -> Tensor:
    """The signs of the `allowed` largest entries of the gradient, scaled to length 1 in l1.

    Entries as large as the smallest of these are taken too.
    """
    size = run.gradient.flatten(1).abs()
    place = (size.shape[1] - run.allowed).clamp(0, size.shape[1] - 1)
    least = size.sort(1).values.gather(1, place[:, None])
    signs = run.gradient.flatten(1).sign().mul_(size >= least)
    return signs.div_(signs.abs().sum(1, keepdim=True).clamp_(min=1)).view_as(run.x)


def _evaluated(
    model: nn.Module, run: _Run, goal: Goal, eot: int, *, climbing: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The means over `eot` evaluations: logits, values, and their gradient if it is needed."""
    every = []
    for _ in range(eot):
        x_adv, gradient = run.x_adv.detach().requires_grad_(climbing), run.gradient
        with torch.set_grad_enabled(climbing):
            logits = model(x_adv)
            value = goal(logits, run.y, run.target)
            if climbing and not value.requires_grad:
                raise ValueError(
                    "apgd: the objective does not depend on the input: has the model detached it, "
                    "or computed without gradients?"
                )
            if climbing:
                (gradient,) = torch.autograd.grad(value.sum(), x_adv)
        every.append((logits.detach(), value.detach().to(x_adv.dtype), gradient))
    logits, value, gradient = (sum(parts) / eot for parts in zip(*every, strict=True))
    # An overflowed example has no direction, and must not poison the image.
    return logits, value, gradient.nan_to_num_()


def _noted(run: _Run, step: int, value: Tensor, gradient: Tensor, wrong: Tensor) -> _Run:
    """The iterate has been evaluated: its gradient and value, and whether it is the best."""
    better = (wrong | (value > run.best_value)) & ~run.fooled
    image = better.view(-1, 1, 1, 1)
    run.values[:, step] = value
    return run._replace(
        gradient=gradient,
        best=torch.where(image, run.x_adv, run.best),
        best_gradient=torch.where(image, gradient, run.best_gradient),
        best_value=torch.where(better, value, run.best_value),
        fooled=run.fooled | wrong,
    )


def _checked(run: _Run, threat: ThreatModel, step: int, interval: int, rho: float) -> _Run:
    """Smaller steps, and back to the best point, where the last `interval` steps gained too little.

    For l1 instead ("Mind the box"): fewer entries, and back to the best point with the
    first step size where its changed entries have become fewer; elsewhere smaller steps.
    """
    if threat.norm == "l1":
        first, changed = _first_step_size(threat), _changed(run.best, run.x)
        back = changed < L1_BACK * run.changed
        smaller = (run.step_size / L1_SLOWER).clamp_(min=first / L1_SLOWEST)
        new = smaller.masked_fill_(back.view(-1, 1, 1, 1), first)
        allowed = (changed / L1_SPARSER).ceil().long()
        run = run._replace(step_size=new, changed=changed, allowed=allowed)
    else:
        since = run.values[:, step - interval : step + 1]
        # At most the share, as in the official code; the paper halves where they are fewer.
        few = (since.diff(dim=1) > 0).sum(1) <= rho * interval
        stuck = run.values[:, : step - interval + 1].amax(1) >= run.best_value
        back = few | (stuck & ~run.halved)
        new = torch.where(back.view(-1, 1, 1, 1), run.step_size / 2, run.step_size)
        run = run._replace(step_size=new, halved=back)
    image = back.view(-1, 1, 1, 1)
    return run._replace(
        x_adv=torch.where(image, run.best, run.x_adv),
        gradient=torch.where(image, run.best_gradient, run.gradient),
    )


def _first_step_size(threat: ThreatModel) -> float:
    return threat.epsilon if threat.norm == "l1" else 2 * threat.epsilon


def _changed(x_adv: Tensor, x: Tensor) -> Tensor:
    """(M,) how many entries differ, by more than rounding."""
    return ((x_adv - x).abs() > L1_ROUNDING).flatten(1).sum(1)


def _start(threat: ThreatModel, x: Tensor, noise: Noise, restart: int) -> Tensor:
    """A random point on the boundary of the ball, before it is brought into the box.

    For linf its largest entry has length epsilon, for l2 it is uniform on the sphere, for l1 it is
    the projection of standard normal noise.
    """
    shape = tuple(x.shape[1:])
    if threat.norm == "linf":
        direction = noise.uniform(shape, restart=restart).mul_(2).sub_(1)
        largest = direction.abs().amax((1, 2, 3), keepdim=True)
        return x + direction.div_(largest.clamp_(min=2.0**-24)).mul_(threat.epsilon)
    direction = noise.normal(shape, restart=restart)
    if threat.norm == "l2":
        return x + threat.steepest(direction).mul_(threat.epsilon)
    return threat.project(x + direction, x)


def _stages(threat: ThreatModel, steps: int, enlarged: bool) -> list[tuple[ThreatModel, int]]:
    """The sets that are searched in turn, and the steps in each."""
    if not enlarged:
        return [(threat, steps)]
    if threat.norm != "l1" or steps < 5:
        raise ValueError(
            f"apgd: enlarged is for l1 and 5 steps or more, got {threat.norm} and {steps}; "
            "set enlarged to false"
        )
    each = math.ceil(ENLARGED_SHARE * steps)
    larger = [(replace(threat, epsilon=factor * threat.epsilon), each) for factor in ENLARGED]
    return [*larger, (threat, steps - each * len(larger))]


def _goal(objective: str, *, targeted: bool) -> Goal:
    """What is raised, as a function of the logits, the labels and the targets."""
    goals: dict[tuple[str, bool], Goal] = {
        ("cross_entropy", False): lambda logits, y, target: cross_entropy(logits, y),
        ("cross_entropy", True): towards,
        ("dlr", False): lambda logits, y, target: dlr(logits, y),
        ("dlr", True): targeted_dlr,
    }
    if (objective, targeted) not in goals:
        raise ValueError(f"apgd raises the cross_entropy or the dlr, got {objective!r}")
    return goals[objective, targeted]


def _unattacked(x: Tensor, y: Tensor, logits: Tensor, value: Tensor) -> tuple[Attacked, Tensor]:
    """The clean images, misclassified or not; where not, whatever a run finds is better."""
    fooled = predictions(logits) != y
    value = value.to(x.dtype).masked_fill(~fooled, -math.inf)
    none = torch.zeros_like(value)
    spent = torch.ones_like(y)
    return Attacked(x, value, spent, spent - 1, none, none), fooled
