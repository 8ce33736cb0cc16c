"""DeepFool: to the nearest boundary of the linearised classifier, again and again."""

import torch
from torch import Tensor, nn

from advtrain.attacks.attack import NO_PREDICTION, Attacked, check_norm, predictions
from advtrain.attacks.frozen import crafting
from advtrain.attacks.judged_ascent import likely_wrong_classes
from advtrain.attacks.minimum_norm import sure_margin, within_budget
from advtrain.attacks.objectives import margin
from advtrain.attacks.restarts import SMALLEST_BATCH, filled
from advtrain.noise import Noise
from advtrain.params.quantities import Count, NonNegative, Whole
from advtrain.threat import Ball, ThreatModel

NORMS = ("linf", "l2")

# A step aims at so many sure margins. At one of them a step that falls short by a share of the way
# would come close for ever; eight lengthen the perturbation by some 1e-4 of itself.
AIM = 8

# Pixel units. Where a gradient is all but zero, the linear boundary may lie beyond the largest
# float; the box ends the step long before.
FARTHEST = 1e12


def deepfool(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    noise: Noise,
    *,
    steps: Count = 50,
    overshoot: NonNegative = 0.02,
    candidates: Whole = 10,
) -> Attacked:
    """DeepFool (Moosavi-Dezfooli et al. 2016, algorithm 2; for linf, section 3.3).

    Each step is the shortest perturbation that carries the linearised classifier over one of its
    boundaries. The search knows no budget: with a large epsilon the point that is returned is the
    one found, and its distance is the attack's result. It draws no random number.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits.
        x: (N, C, H, W) in [0, 1].
        y: (N,) int64 labels.
        threat: the norm, linf or l2, and epsilon.
        noise: not used.
        steps: at most so many linearisations.
        overshoot: by which share each step goes beyond the linear boundary.
        candidates: how many classes are linearised, the example's own among them: those most
            likely at the clean image; 0 means all.

    Returns:
        The first misclassified iterate where it is within the budget, and otherwise the point of
        the segment from x towards it at distance epsilon; where no iterate is misclassified, the
        same for the one of largest margin. The objective is the margin max_{i != y} z_i - z_y. An
        example spends one forward pass at the clean image and one for the margin at distance
        epsilon where it was drawn back; each step costs it two, the gradients' and the verdict's,
        and `candidates` - 1 backward passes.

    Raises:
        ValueError: for another norm, a single candidate, or logits that do not depend on x.

    Departs from the official code: it starts from the label, not from the prediction (an example
    that is misclassified when clean is returned as it is). Iterates are clamped to [0, 1]. They aim
    not 1e-4 beyond the boundary, but at a margin that rounding cannot undo, and the search goes on
    until it is exceeded, so that the verdict also holds in a batch of another size. The verdict has
    a forward pass of its own, so that examples already decided are spared the backward passes.
    """
    check_norm("deepfool", threat, NORMS)
    if candidates == 1:
        raise ValueError(
            "deepfool: candidates=1 is the example's own class alone; set 2 or more, or 0 for all"
        )
    with crafting(model):
        with torch.no_grad():
            logits = model(x)
        objective = margin(logits, y)
        others = likely_wrong_classes(logits, y, (candidates or logits.shape[1]) - 1)
        forwards, backwards = torch.ones_like(y), torch.zeros_like(y)
        iterate, found = x.clone(), x.clone()
        rows = (predictions(logits) == y).nonzero().squeeze(1)
        for _ in range(steps):
            if len(rows) == 0:
                break
            batch = filled(rows, min(SMALLEST_BATCH, len(x)))
            step = _to_the_nearest(model, iterate[batch], y[batch], others[batch], threat)
            x_adv = iterate[batch].add_(step, alpha=1 + overshoot).clamp_(0, 1)
            with torch.no_grad():
                logits = model(x_adv)[: len(rows)]
            x_adv, value = x_adv[: len(rows)], margin(logits, y[rows])
            wrong = (value > sure_margin(logits)) | (predictions(logits) == NO_PREDICTION)
            better = wrong | (value > objective[rows])
            iterate[rows] = x_adv
            found[rows] = torch.where(better.view(-1, 1, 1, 1), x_adv, found[rows])
            objective[rows] = torch.where(better, value, objective[rows])
            forwards[rows] += 2
            backwards[rows] += others.shape[1]
            rows = rows[~wrong]
        return within_budget(model, x, y, threat, Attacked(found, objective, forwards, backwards))


def _to_the_nearest(
    model: nn.Module, x_adv: Tensor, y: Tensor, others: Tensor, threat: Ball
) -> Tensor:
    """The shortest step over a boundary of the linearised classifier (eqs. 8 and 9).

    Along the steepest direction the difference z_k - z_y grows by the dual norm of its gradient.

    Args:
        model: maps (N, C, H, W) to (N, K) logits; frozen.
        x_adv: (N, C, H, W), where it is linearised.
        y: (N,) the classes to leave.
        others: (N, M) the classes to reach.
        threat: the norm.

    Returns:
        (N, C, H, W); zero where no gradient points anywhere.
    """
    with torch.enable_grad():
        logits = model(x_adv.requires_grad_())
        differences = logits.gather(1, others) - logits.gather(1, y[:, None])
        if not differences.requires_grad:
            raise ValueError(
                "deepfool: the logits do not depend on the input: has the model detached it, or "
                "computed without gradients?"
            )
    aim = AIM * sure_margin(logits)
    shortest = torch.full_like(aim, torch.inf)
    direction = torch.zeros_like(x_adv)
    for k, difference in enumerate(differences.unbind(1), start=1):
        kept = k < others.shape[1]
        (gradient,) = torch.autograd.grad(difference.sum(), x_adv, retain_graph=kept)
        steepest = threat.steepest(gradient)
        dual_norm = (gradient * steepest).flatten(1).sum(1)
        distance = (aim - difference.detach()) / dual_norm
        nearer = distance < shortest
        shortest = torch.where(nearer, distance, shortest)
        direction = torch.where(nearer.view(-1, 1, 1, 1), steepest, direction)
    return direction.mul_(shortest.clamp_(max=FARTHEST).view(-1, 1, 1, 1))
