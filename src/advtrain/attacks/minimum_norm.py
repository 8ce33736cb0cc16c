"""What the searches for a smallest perturbation share: a sure verdict, and the way to the budget.

The point they look for lies on the boundary, where rounding decides the class.
"""

import torch
from torch import Tensor, nn

from advtrain.attacks.attack import Attacked
from advtrain.attacks.objectives import margin
from advtrain.attacks.restarts import SMALLEST_BATCH, filled
from advtrain.threat import ThreatModel

# In units in the last place of the largest logit: 8e-6 of it in float32, a few times what the
# kernels for other batch sizes move a logit by. Coarser logits than float32 are judged like those:
# their own unit is as large as a margin.
ROUNDING, COARSEST = 64, torch.finfo(torch.float32).eps


def sure_margin(logits: Tensor) -> Tensor:
    """The margin above which another forward pass gives the same verdict, whatever its batch.

    Args:
        logits: (N, K).

    Returns:
        (N,) values, 0 or more.
    """
    unit = min(torch.finfo(logits.dtype).eps, COARSEST)
    return logits.detach().abs().amax(1).mul_(ROUNDING * unit)


@torch.no_grad()
def within_budget(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, found: Attacked
) -> Attacked:
    """The found points within the budget, and those beyond it drawn towards x until they are.

    A point that is drawn back lies on the segment from x to the found one, at distance epsilon; it
    costs a forward pass for the margin there.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits; in eval mode.
        x: (N, C, H, W) in [0, 1].
        y: (N,) int64 labels.
        threat: the norm and epsilon.
        found: images in [0, 1], the margins there, and the passes so far.

    Returns:
        The same with images in the threat set; points within the budget are left bit for bit.
    """
    distance = threat.distance(found.x_adv, x)
    beyond = (distance > threat.epsilon).nonzero().squeeze(1)
    if len(beyond) == 0:
        return found
    rows = filled(beyond, min(SMALLEST_BATCH, len(x)))
    share = (threat.epsilon / distance[rows]).to(x.dtype).view(-1, 1, 1, 1)
    drawn = threat.project(torch.lerp(x[rows], found.x_adv[rows], share), x[rows])
    objective = margin(model(drawn), y[rows])
    return found._replace(
        x_adv=found.x_adv.index_copy(0, beyond, drawn[: len(beyond)]),
        objective=found.objective.index_copy(0, beyond, objective[: len(beyond)]),
        forwards=found.forwards.index_add(0, beyond, torch.ones_like(beyond)),
    )
