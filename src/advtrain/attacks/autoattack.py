"""AutoAttack: four parameter-free attacks, each on what the earlier ones left right."""

from functools import partial
from typing import Literal

from torch import Tensor, nn

from advtrain.attacks.apgd import apgd
from advtrain.attacks.attack import Attacked, check_norm
from advtrain.attacks.ensemble import Ensemble
from advtrain.attacks.fab import fab
from advtrain.attacks.square import square
from advtrain.noise import Noise
from advtrain.threat import ThreatModel

NORMS = ("linf", "l2", "l1")

Version = Literal["standard", "plus", "rand"]


def autoattack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    noise: Noise,
    *,
    version: Version = "standard",
) -> Attacked:
    """AutoAttack (Croce and Hein 2020, section 6), with the published iterations and order.

    `standard`: APGD on the cross-entropy (100 steps), APGD on the targeted DLR loss (100 steps
    towards each of 9 classes), targeted FAB (the same), Square (5000 queries). `plus`: APGD on the
    cross-entropy and on the DLR loss with 5 restarts each, untargeted FAB with 5 restarts, Square,
    then targeted APGD and targeted FAB. `rand`, for randomised defences: both APGD with gradients
    averaged over 20 evaluations. For l1 (Croce and Hein 2021) the standard version's APGD starts in
    enlarged balls, with 5 restarts, and its targeted APGD takes 5 classes.

    Departs from the official code: the random numbers are keyed by example, so that the verdicts
    do not depend on the batch; with fewer than 10 classes, all wrong ones are targets.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits, K >= 4 (K >= 3 for `rand`).
        x: (N, C, H, W) in [0, 1].
        y: (N,) int64 labels.
        threat: the norm and epsilon.
        noise: for these N examples.
        version: of the ensemble.

    Returns:
        See `Ensemble`; about 9700 forward-equivalents for an example that stays right under the
        standard version with ten classes.

    Raises:
        ValueError: for another norm, or too few classes, which the DLR losses do not know.
    """
    check_norm("autoattack", threat, NORMS)
    return ensemble(threat, version=version)(model, x, y, threat, noise)


def ensemble(threat: ThreatModel, *, version: Version = "standard") -> Ensemble:
    """Return the stages of a version, in the published order.

    Raises:
        ValueError: for another version.
    """
    if version == "standard":
        l1 = threat.norm == "l1"
        stages = {
            "apgd-ce": partial(apgd, restarts=5 if l1 else 1, enlarged=l1),
            "apgd-t": partial(apgd, objective="dlr", targets=5 if l1 else 9, enlarged=l1),
            "fab-t": partial(fab, targets=9, minimise=False),
            "square": partial(square, reach="published"),
        }
    elif version == "plus":
        stages = {
            "apgd-ce": partial(apgd, restarts=5),
            "apgd-dlr": partial(apgd, objective="dlr", restarts=5),
            "fab": partial(fab, targets=0, restarts=5, minimise=False),
            "square": partial(square, reach="published"),
            "apgd-t": partial(apgd, objective="dlr", targets=9),
            "fab-t": partial(fab, targets=9, minimise=False),
        }
    elif version == "rand":
        stages = {
            "apgd-ce": partial(apgd, eot=20),
            "apgd-dlr": partial(apgd, objective="dlr", eot=20),
        }
    else:
        raise ValueError(f"AutoAttack has the versions standard, plus and rand, got {version!r}")
    return Ensemble(stages)
