"""AutoAttack: four parameter-free attacks, each on what the earlier ones left right."""

from functools import partial
from typing import Literal

from torch import Tensor, nn

from advtrain.attacks.apgd import apgd
from advtrain.attacks.attack import Attack, Attacked
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
    averaged over 20 evaluations. For l1 (Croce and Hein 2021) APGD has 5 restarts and starts in
    enlarged balls, and the targeted attacks take 5 classes.

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
        ValueError: for too few classes, which the DLR losses do not know.
    """
    return ensemble(threat, version=version)(model, x, y, threat, noise)


def ensemble(threat: ThreatModel, *, version: Version = "standard") -> Ensemble:
    """Return the stages of a version, in the published order."""
    l1 = threat.norm == "l1"
    several = 5 if l1 else 1
    targets = 5 if l1 else 9
    if version == "plus":
        several = 5
    common = partial(apgd, enlarged=l1)
    ce = partial(common, objective="cross_entropy", restarts=several)
    dlr = partial(common, objective="dlr", restarts=several)
    targeted = partial(common, objective="dlr", targets=targets, restarts=5 if l1 else 1)
    fab_targeted = partial(fab, targets=targets, minimise=False)
    stages: dict[str, Attack] = {"apgd-ce": ce}
    if version == "standard":
        stages |= {"apgd-t": targeted, "fab-t": fab_targeted, "square": square}
    elif version == "plus":
        fab_untargeted = partial(fab, targets=0, restarts=5, minimise=False)
        stages |= {"apgd-dlr": dlr, "fab": fab_untargeted, "square": square}
        stages |= {"apgd-t": targeted, "fab-t": fab_targeted}
    else:
        averaged = {"eot": 20, "restarts": 1}
        stages = {"apgd-ce": partial(ce, **averaged), "apgd-dlr": partial(dlr, **averaged)}
    return Ensemble(stages)
