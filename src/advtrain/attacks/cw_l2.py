"""Carlini and Wagner's own attack: the shortest perturbation by optimisation without a box."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from advtrain.attacks.attack import NO_PREDICTION, Attacked, check_norm, predictions
from advtrain.attacks.frozen import crafting
from advtrain.attacks.judged_ascent import likely_wrong_classes
from advtrain.attacks.minimum_norm import sure_margin, within_budget
from advtrain.attacks.objectives import Objective, margin
from advtrain.attacks.restarts import SMALLEST_BATCH, filled
from advtrain.noise import Noise
from advtrain.params.quantities import Count, NonNegative, Positive, Whole
from advtrain.threat import ThreatModel

NORMS = ("l2",)

# Adam's (Kingma and Ba 2015); the paper keeps them.
BETAS, ADAM_EPSILON = (0.9, 0.999), 1e-8

# The inverse of tanh is infinite at the ends of the box.
INSIDE = 1 - 1e-6

# Progress is checked ten times in a search step; less than a ten-thousandth ends it.
CHECKS, PROGRESS = 10, 0.9999


class _State(NamedTuple):
    """What the search knows of each example; all with N rows.

    Attributes:
        x: the clean image.
        y: the label.
        goal: the class to leave, or to reach if targeted.
        constant: c of this search step.
        w: the variable that is optimised; the image is (tanh(w) + 1) / 2.
        mean: Adam's first moment.
        square: Adam's second moment.
        loss: at the last check of progress.
        reached: whether an iterate of this search step was adversarial.
        found: the nearest adversarial image so far; without one, that of largest margin.
        squared: its squared distance from x; infinite without an adversarial one.
        objective: the margin there.
        forwards: passes so far.
        backwards: passes so far.
    """

    x: Tensor
    y: Tensor
    goal: Tensor
    constant: Tensor
    w: Tensor
    mean: Tensor
    square: Tensor
    loss: Tensor
    reached: Tensor
    found: Tensor
    squared: Tensor
    objective: Tensor
    forwards: Tensor
    backwards: Tensor


def cw_l2(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    noise: Noise,
    *,
    kappa: NonNegative = 0,
    steps: Count = 1000,
    learning_rate: Positive = 0.01,
    search_steps: Count = 9,
    initial_constant: Positive = 0.001,
    targets: Whole = 0,
    abort_early: bool = True,
) -> Attacked:
    """The L2 attack of Carlini and Wagner (2017, sections V-B and VI-A).

    Adam minimises ||x_adv - x||^2 + c * max(kappa - margin, 0) over w, with x_adv =
    (tanh(w) + 1) / 2 in the box whatever w is; the smallest c that succeeds is searched for, up by
    tens, then by bisection. The search knows no budget: with a large epsilon the point that is
    returned is the one found, and its distance is the attack's result. It draws no random number.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits.
        x: (N, C, H, W) in [0, 1].
        y: (N,) int64 labels.
        threat: l2 and epsilon.
        noise: not used.
        kappa: the confidence: the margin, in logits, that counts as adversarial.
        steps: Adam's steps for one value of c.
        learning_rate: Adam's, in units of w.
        search_steps: how many values of c are tried.
        initial_constant: the first of them.
        targets: 0 attacks towards any class; n towards each of the n wrong classes most likely at
            the clean image, one after the other, where an image counts that reaches its target.
        abort_early: whether a value of c is given up as soon as a tenth of the steps has lowered
            the loss by less than a ten-thousandth. Too soon where all pixels are black or white:
            they leave the ends of the box slowly.

    Returns:
        The nearest adversarial iterate where it is within the budget, and otherwise the point of
        the segment from x towards it at distance epsilon; where no iterate is adversarial, the same
        for the one of largest margin. The objective is the margin max_{i != y} z_i - z_y. An
        example spends one forward pass at the clean image, one for the margin at distance epsilon
        where it was drawn back, and per value of c and target at most `steps` + 1 forward and
        `steps` backward passes.

    Raises:
        ValueError: for another norm, more targets than wrong classes, or logits that do not depend
            on x.

    Departs from the official code: an example that is misclassified when clean is returned as it
    is. Early abortion looks at each example's own loss, not at the batch's sum, so that an
    example's result does not depend on its batch. The iterate after the last step counts as well.
    The margin has to exceed kappa by more than rounding, so that the verdict also holds in a batch
    of another size. With ten search steps or more, the last one is like the others and does not
    repeat the largest c.
    """
    check_norm("cw_l2", threat, NORMS)

    def shortfall(logits: Tensor, goal: Tensor) -> Tensor:
        """What the margin, or the target's lead, lacks of kappa; 0 or less once it suffices."""
        margins = margin(logits, goal)
        return kappa + sure_margin(logits) + (margins if targets else -margins)

    checks = range(0, steps, math.ceil(steps / CHECKS)) if abort_early else ()
    least = min(SMALLEST_BATCH, len(x))
    with crafting(model), torch.no_grad():
        logits = model(x)
        found = Attacked(x.clone(), margin(logits, y), torch.ones_like(y), torch.zeros_like(y))
        if targets >= logits.shape[1]:
            raise ValueError(
                f"cw_l2: targets={targets}, but {logits.shape[1]} classes leave "
                f"{logits.shape[1] - 1} wrong ones"
            )
        rows = (predictions(logits) == y).nonzero().squeeze(1)
        state = _begun(x[rows], y[rows], found.objective[rows])
        goals = likely_wrong_classes(logits, y, targets)[rows].unbind(1) if targets else [y[rows]]
        for goal in goals:
            state.goal.copy_(goal)
            state.constant.fill_(initial_constant)
            low, high = torch.zeros_like(state.constant), torch.full_like(state.constant, math.inf)
            for _ in range(search_steps):
                _minimise(model, state, shortfall, [*checks, steps], learning_rate, least)
                low = torch.where(state.reached, low, state.constant)
                high = torch.where(state.reached, state.constant, high)
                next_constant = torch.where(high.isinf(), 10 * state.constant, (low + high) / 2)
                state.constant.copy_(next_constant)
        found.x_adv[rows], found.objective[rows] = state.found, state.objective
        found.forwards[rows], found.backwards[rows] = state.forwards, state.backwards
        return within_budget(model, x, y, threat, found)


def _minimise(
    model: nn.Module,
    state: _State,
    shortfall: Objective,
    ends: list[int],
    learning_rate: float,
    least: int,
) -> None:
    """Adam from the clean image with one c per example; what it finds is written into the state.

    Args:
        model: maps (N, C, H, W) to (N, K) logits; frozen.
        state: of N examples.
        shortfall: what is multiplied by c, where it is positive.
        ends: the iterates, in ascending order, after which examples without progress are dropped;
            the last one is the last iterate.
        learning_rate: Adam's.
        least: the rows of a small batch, filled by repetition.
    """
    state.w.copy_(torch.atanh((2 * state.x - 1) * INSIDE))
    for column in (state.mean, state.square, state.reached):
        column.zero_()
    state.loss.fill_(math.inf)
    rows = torch.arange(len(state.y), device=state.y.device)
    begin = 0
    for end in ends:
        if len(rows) == 0:
            break
        part = _State._make(column[filled(rows, least)] for column in state)
        part.w.requires_grad_()
        for step in range(begin, end + 1):
            loss = _loss(model, part, shortfall)
            if step < ends[-1]:
                _adam(part, loss, step + 1, learning_rate)
        progressed = loss.detach() <= PROGRESS * part.loss
        part.loss.copy_(loss.detach())
        for column, news in zip(state, part, strict=True):
            column[rows] = news[: len(rows)]
        rows = rows[progressed[: len(rows)]]
        begin = end + 1


def _loss(model: nn.Module, state: _State, shortfall: Objective) -> Tensor:
    """The squared distance plus c times what the margin lacks, with the graph to w.

    The image is kept where it is the nearest adversarial one so far, and while there is none, where
    its margin is the largest.
    """
    with torch.enable_grad():
        x_adv = (torch.tanh(state.w) + 1) / 2
        logits = model(x_adv)
        squared = (x_adv - state.x).square().flatten(1).sum(1)
        lack = shortfall(logits, state.goal)
        if not lack.requires_grad:
            raise ValueError(
                "cw_l2: the logits do not depend on the input: has the model detached it, or "
                "computed without gradients?"
            )
        loss: Tensor = squared + state.constant * lack.clamp(min=0)
    margins = margin(logits, state.y)
    adversarial = (lack <= 0) | (predictions(logits) == NO_PREDICTION)
    none_so_far = state.squared.isinf() & ~adversarial
    nearer = adversarial & (squared < state.squared)
    kept = nearer | (none_so_far & (margins > state.objective))
    state.found.copy_(torch.where(kept.view(-1, 1, 1, 1), x_adv, state.found))
    state.objective.copy_(torch.where(kept, margins, state.objective))
    state.squared.copy_(torch.where(nearer, squared, state.squared))
    state.reached.logical_or_(adversarial)
    state.forwards.add_(1)
    return loss


def _adam(state: _State, loss: Tensor, step: int, learning_rate: float) -> None:
    """One step of Adam on w; `step` counts from 1."""
    (gradient,) = torch.autograd.grad(loss, state.w, torch.ones_like(loss))
    # An overflowed example has no direction; it cannot poison the image.
    gradient = gradient.nan_to_num()
    first, second = BETAS
    state.mean.lerp_(gradient, 1 - first)
    state.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
    size = state.square.div(1 - second**step).sqrt_().add_(ADAM_EPSILON)
    state.w.addcdiv_(state.mean, size, value=-learning_rate / (1 - first**step))
    state.backwards.add_(1)


def _begun(x: Tensor, y: Tensor, objective: Tensor) -> _State:
    """The state before the search: nothing found but the clean image."""
    return _State(
        x=x,
        y=y,
        goal=y.clone(),
        constant=torch.zeros_like(objective),
        w=torch.zeros_like(x),
        mean=torch.zeros_like(x),
        square=torch.zeros_like(x),
        loss=torch.zeros_like(objective),
        reached=torch.zeros_like(y, dtype=torch.bool),
        found=x.clone(),
        squared=torch.full_like(objective, math.inf),
        objective=objective,
        forwards=torch.ones_like(y),
        backwards=torch.zeros_like(y),
    )
