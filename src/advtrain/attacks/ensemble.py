"""Attacks in a row: each is run on what the earlier ones left right."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from advtrain.attacks.attack import Attack, Attacked, predictions
from advtrain.attacks.frozen import crafting
from advtrain.attacks.objectives import cross_entropy
from advtrain.attacks.restarts import SMALLEST_BATCH, filled
from advtrain.noise import Noise
from advtrain.threat import ThreatModel


@dataclass(frozen=True)
class Ensemble:
    """Several attacks as one, with the contract of an attack.

    An example that is misclassified without an attack is not attacked; one that a stage has fooled
    is not shown to the later stages, which changes no verdict.

    Attributes:
        stages: by name, in the order of their turns.
    """

    stages: Mapping[str, Attack]

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, noise: Noise
    ) -> Attacked:
        """Attack one batch.

        Args:
            model: maps (N, C, H, W) in [0, 1] to (N, K) logits.
            x: (N, C, H, W) in [0, 1].
            y: (N,) int64 labels.
            threat: the norm and epsilon.
            noise: for these N examples; each stage has a stream of its own.

        Returns:
            For each example what the stage that fooled it found; where none did, what the first
            stage found; for a misclassified image, itself and its cross-entropy. The passes are
            those of all stages that the example met, and a forward pass to judge the clean image
            and each stage's result.
        """
        with crafting(model):
            with torch.no_grad():
                logits = model(x)
            right = predictions(logits) == y
            spent = torch.ones_like(y)
            best = Attacked(x.clone(), cross_entropy(logits, y), spent, torch.zeros_like(y))
            for place, (name, attack) in enumerate(self.stages.items()):
                rows = right.nonzero().squeeze(1)
                if len(rows) == 0:
                    break
                chosen = filled(rows, min(SMALLEST_BATCH, len(x)))
                found = attack(model, x[chosen], y[chosen], threat, self.noise(noise, name, chosen))
                with torch.no_grad():
                    fooled = predictions(model(found.x_adv)) != y[chosen]
                found = Attacked(*(part[: len(rows)] for part in found[:4]))
                fooled = fooled[: len(rows)]
                better = fooled if place else torch.ones_like(fooled)
                best.x_adv[rows[better]] = found.x_adv[better]
                best.objective[rows[better]] = found.objective[better]
                best.forwards[rows] += found.forwards + 1
                best.backwards[rows] += found.backwards
                right[rows] = ~fooled
        return best

    def noise(self, noise: Noise, stage: str, rows: Tensor | None = None) -> Noise:
        """Return the noise of one stage, for some rows of the batch or for all."""
        own = noise.fold_in(list(self.stages).index(stage))
        return own if rows is None else own.take(rows)
