"""The fast adaptive boundary attack: the smallest adversarial perturbation, not the worst one."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from advtrain.attacks.attack import NO_PREDICTION, Attacked, check_norm, predictions
from advtrain.attacks.frozen import crafting
from advtrain.attacks.hyperplane import smallest_step
from advtrain.attacks.judged_ascent import likely_wrong_classes
from advtrain.attacks.minimum_norm import sure_margin
from advtrain.attacks.objectives import margin
from advtrain.attacks.restarts import SMALLEST_BATCH, filled
from advtrain.noise import Noise
from advtrain.params.quantities import Count, Positive, Share, Whole
from advtrain.threat import PerExampleBall, ThreatModel

NORMS = ("linf", "l2", "l1")
DUAL = {"linf": 1.0, "l2": 2.0, "l1": math.inf}

# Steps between two looks at which examples are decided: each look waits for the device.
PERIOD = 5


def fab(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    noise: Noise,
    *,
    targets: Whole = 9,
    steps: Count = 100,
    restarts: Count = 1,
    alpha_max: Share = 0.1,
    eta: Positive = 1.05,
    beta: Share = 0.9,
    minimise: bool = True,
) -> Attacked:
    """The fast adaptive boundary attack (Croce and Hein 2020, algorithm 1).

    A step linearises z_k - z_y at the iterate and goes a little beyond the nearest point of that
    hyperplane in the box, with weight alpha from x instead of from the iterate; an iterate that is
    adversarial is drawn back towards x. The defaults are FAB-T of AutoAttack: one run for each of
    the 9 most likely wrong classes k. With targets=0, k is at every step the class whose hyperplane
    is nearest.

    The first restart begins at x, the later ones at random in the ball of half the radius
    min(length of the smallest perturbation found, epsilon).

    Departs from the official code: a restart runs over all targets before the next one begins, so
    that more restarts never find less; they begin in that ball, not on its sphere; `smallest_step`
    differs where gradients are tiny; a point is found once its margin exceeds what rounding moves
    (`sure_margin`); the points at distance epsilon are looked at too. As in the version of
    AutoAttack, there is no final search between x and the result.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits, K >= 2.
        x: (N, C, H, W) in [0, 1].
        y: (N,) int64 labels.
        threat: the norm and epsilon.
        noise: for these N examples; where the later restarts begin.
        targets: wrong classes to run towards, the most likely at x first; no more than K - 1. With
            0 the attack is untargeted.
        steps: of one run.
        restarts: runs per example and target.
        alpha_max: the largest weight of the step from x.
        eta: the length of a step, where 1 ends on the hyperplane.
        beta: the share of an adversarial perturbation that the next step begins with.
        minimise: look for the smallest perturbation to the end. Otherwise an example is dropped
            once it is fooled within epsilon, 5 steps later at most, which changes no verdict.

    Returns:
        The smallest adversarial perturbation found, if it is in the set; otherwise the point at
        distance epsilon on the way to it (to the iterate of the largest margin, if none was found),
        of several restarts the one of the largest margin. The objective is the margin there. It
        spends 1 forward pass; per step 2 forward passes and 1 backward pass, K - 1 where
        untargeted; and 1 forward pass for the point at distance epsilon of each restart.

    Raises:
        ValueError: for a norm that it does not know, a single class, or logits that do not depend
            on the input.
    """
    check_norm("fab", threat, NORMS)
    epsilon = threat.epsilon
    with crafting(model), torch.no_grad():
        logits = model(x)
        x_adv, objective = x.clone(), margin(logits, y)
        fooled = predictions(logits) != y
        forwards, backwards = torch.ones_like(y), torch.zeros_like(y)
        nearest = _Nearest(
            x.clone(),
            torch.where(fooled, 0.0, torch.inf),
            objective.where(fooled, -torch.inf),
        )
        likely = likely_wrong_classes(logits, y, targets or logits.shape[1])
        runs = likely.tensor_split(likely.shape[1] if targets else 1, 1)
        rows, least = (~fooled).nonzero().squeeze(1), min(SMALLEST_BATCH, len(x))

        for restart in range(restarts):
            for number, classes in enumerate(runs):
                x_t = x.clone()
                if restart > 0:
                    half = PerExampleBall(threat.norm, nearest.distance.clamp(max=epsilon) / 2)
                    x_t = half.random_start(x, noise.fold_in(number), restart)
                for step in range(0, steps, PERIOD):
                    if not minimise:
                        rows = rows[nearest.distance[rows] > epsilon]
                    if len(rows) == 0:
                        break
                    count, batch = min(PERIOD, steps - step), filled(rows, least)
                    part = nearest.take(batch)
                    x_t[batch] = _run(
                        model,
                        x[batch],
                        y[batch],
                        x_t[batch],
                        classes[batch],
                        threat,
                        part,
                        steps=count,
                        alpha_max=alpha_max,
                        eta=eta,
                        beta=beta,
                    )
                    nearest.put(rows, part)
                    forwards[rows] += 2 * count
                    backwards[rows] += count * classes.shape[1]
            far = rows[nearest.distance[rows] > epsilon]
            if len(far) == 0:
                continue
            batch = filled(far, least)
            part = nearest.take(batch)
            edge = part.at_most(epsilon, x[batch], threat)
            logits = model(edge)
            part.offer(edge, logits, y[batch], threat.distance(edge, x[batch]).clamp(max=epsilon))
            nearest.put(far, part)
            forwards[far] += 1
            reached = margin(logits, y[batch])[: len(far)]
            better = (reached > objective[far]) | (restart == 0)
            x_adv[far[better]] = edge[: len(far)][better]
            objective[far[better]] = reached[better]

        inside = nearest.distance <= epsilon
        x_adv = torch.where(inside.view(-1, 1, 1, 1), nearest.x_adv, x_adv)
        objective = torch.where(inside, nearest.margin, objective)
        return Attacked(x_adv, objective, forwards, backwards)


@dataclass
class _Nearest:
    """The nearest adversarial image of each example so far.

    Attributes:
        x_adv: (N, C, H, W); where none was found, the iterate of the largest margin.
        distance: (N,) float32, from x; infinity, where none was found.
        margin: (N,), at x_adv.
    """

    x_adv: Tensor
    distance: Tensor
    margin: Tensor

    def take(self, rows: Tensor) -> "_Nearest":
        return _Nearest(self.x_adv[rows], self.distance[rows], self.margin[rows])

    def put(self, rows: Tensor, part: "_Nearest") -> None:
        """The reverse of `take`, without the rows that fill its batch."""
        count = len(rows)
        self.x_adv[rows] = part.x_adv[:count]
        self.distance[rows] = part.distance[:count]
        self.margin[rows] = part.margin[:count]

    def offer(self, x_adv: Tensor, logits: Tensor, y: Tensor, distance: Tensor) -> Tensor:
        """Keep the images that are surely adversarial and nearer; return which are adversarial."""
        classes, value = predictions(logits), margin(logits, y)
        sure = (value > sure_margin(logits)) | (classes == NO_PREDICTION)
        nearer = sure & (distance < self.distance)
        instead = nearer | (self.distance.isinf() & (value > self.margin))
        self.x_adv = torch.where(instead.view(-1, 1, 1, 1), x_adv, self.x_adv)
        self.distance = torch.where(nearer, distance, self.distance)
        self.margin = torch.where(instead, value, self.margin)
        return classes != y

    def at_most(self, epsilon: float, x: Tensor, threat: ThreatModel) -> Tensor:
        """The images, or where they are farther, the points at distance epsilon on the way."""
        tiny = torch.finfo(x.dtype).tiny
        share = epsilon / threat.distance(self.x_adv, x).to(x.dtype).clamp(min=tiny)
        return threat.project(torch.lerp(x, self.x_adv, share.clamp(max=1).view(-1, 1, 1, 1)), x)


def _run(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    x_t: Tensor,
    classes: Tensor,
    threat: ThreatModel,
    nearest: _Nearest,
    *,
    steps: int,
    alpha_max: float,
    eta: float,
    beta: float,
) -> Tensor:
    """Some steps from the iterate x_t; returns the next one, what is found goes into `nearest`."""
    tiny = torch.finfo(x.dtype).tiny
    for _ in range(steps):
        gap, w = _boundary(model, x_t, y, classes, DUAL[threat.norm])
        # The affine function gap + <w, z - x_t> at z = x_t and at z = x.
        residual = torch.stack([gap, gap + (w * (x - x_t)).flatten(1).sum(1)])
        both = torch.stack([x_t, x])
        d = smallest_step(both.flatten(2), w.flatten(1), residual, threat.norm)
        near, far = torch.linalg.vector_norm(d, ord=threat.order, dim=2)
        alpha = (near / (near + far).clamp_(min=tiny)).clamp_(max=alpha_max)
        moved, from_x = both.add_(d.view_as(both), alpha=eta)
        x_t = torch.lerp(moved, from_x, alpha.view(-1, 1, 1, 1)).clamp_(0, 1)
        adversarial = nearest.offer(x_t, model(x_t), y, threat.distance(x_t, x))
        x_t = torch.where(adversarial.view(-1, 1, 1, 1), torch.lerp(x, x_t, beta), x_t)
    return x_t


def _boundary(
    model: nn.Module, x_t: Tensor, y: Tensor, classes: Tensor, dual: float
) -> tuple[Tensor, Tensor]:
    """The values and gradients of z_k - z_y for the class k of the nearest hyperplane.

    The distance to a hyperplane is |z_k - z_y| over the dual norm of the gradient.

    Args:
        model: maps (N, C, H, W) to (N, K) logits.
        x_t: (N, C, H, W).
        y: (N,) labels.
        classes: (N, T) int64, those to choose from.
        dual: the p of the dual norm.

    Returns:
        (N,) and (N, C, H, W).
    """
    with torch.enable_grad():
        x_t = x_t.detach().requires_grad_()
        logits = model(x_t)
        gaps = logits.gather(1, classes) - logits.gather(1, y[:, None])
        totals = gaps.sum(0).unbind()
    if not logits.requires_grad:
        raise ValueError(
            "fab: the logits do not depend on the input: has the model detached it, or computed "
            "without gradients?"
        )
    for k, total in enumerate(totals):
        (slope,) = torch.autograd.grad(total, x_t, retain_graph=k + 1 < len(totals))
        # An overflowed example has no hyperplane; it stays where it is.
        slope, value = slope.nan_to_num(0, 0, 0), gaps[:, k].detach().nan_to_num(0, 0, 0)
        length = torch.linalg.vector_norm(slope.flatten(1), ord=dual, dim=1)
        away = value.abs() / length.clamp_(min=torch.finfo(x_t.dtype).tiny)
        if k == 0:
            gap, w, nearest = value, slope, away
            continue
        closer = away < nearest
        gap, nearest = torch.where(closer, value, gap), torch.where(closer, away, nearest)
        w = torch.where(closer.view(-1, 1, 1, 1), slope, w)
    return gap, w
