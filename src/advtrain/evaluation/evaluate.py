"""A model under one attack, example by example; the rows that every table is computed from."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from advtrain.attacks.attack import Attack, Attacked, predictions
from advtrain.attacks.ensemble import Ensemble
from advtrain.attacks.frozen import crafting
from advtrain.attacks.objectives import cross_entropy
from advtrain.attacks.restarts import SMALLEST_BATCH, filled
from advtrain.data.store import Split
from advtrain.evaluation.precision import AttackPrecision
from advtrain.evaluation.rows import Columns, batches, images_of, name_of
from advtrain.noise import Noise
from advtrain.threat import ThreatModel, Transformation
from advtrain.training.precision import computing

Images = npt.NDArray[np.float32] | npt.NDArray[np.float16]

NUMBERS = {
    "example": np.int64,
    "label": np.int16,
    "clean_prediction": np.int16,
    "adversarial_prediction": np.int16,
    "distance": np.float32,
    "objective": np.float32,
    "forward": np.int32,
    "backward": np.int32,
    "gain": np.float32,
    "late_gain": np.float32,
}

COLUMNS = (*NUMBERS, "stage", "claim")

NONE, CONFIRMED, RIGHT, OUTSIDE = range(4)
CLAIMS = ("none", "confirmed", "not misclassified", "outside the set")
"""What the check of a claimed adversarial example found; see `results.schema.CLAIMS`."""

# What rounding alone can add to a distance within the budget: in proportion, from float32 sums,
# and absolutely, from storing x + delta for a pixel near 1.
RELATIVE_ROUNDING, PIXEL_ROUNDING = 1e-6, 2.0**-23


def evaluate(
    model: nn.Module,
    attack: Attack | None,
    threat: ThreatModel | Transformation | None,
    split: Split,
    seed: int,
    device: torch.device,
    batch_size: int,
    on_batch: Callable[[int], None] | None = None,
    *,
    precision: AttackPrecision = "float32",
    unfinished: Path | None = None,
    adversarial: Images | None = None,
) -> Columns:
    """One row per example: what the model says of it, clean and attacked, and at what cost.

    The model is in eval mode throughout and is left as it was found. What the attack returns is
    not believed: where the model errs on it, a second forward pass, in float32 without TF32 and at
    another batch size, has to find it in the threat set and misclassified, or it does not count;
    `claim` says what was found.

    An `Ensemble` is run stage by stage over all examples, so that the examples that are left fill
    whole batches. An ensemble does not attack what is misclassified without it.

    An example's row does not depend on the batch it was in, on the other examples of the split, or
    on interruptions: its noise is keyed by (seed, example), and a batch of fewer than
    `SMALLEST_BATCH` rows is filled by repeating some, because there torch's CPU kernels take other
    paths. Beyond that torch promises no equal bits across batch sizes (cuDNN may choose another
    algorithm for another shape): objectives can then differ in their last digits, and a prediction
    can where two logits are as close as that. For equal bytes on a GPU keep the batch size.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits, on `device`.
        attack: bound to its parameters; None for the clean images, where the adversarial
            prediction is the clean one, the objective the cross-entropy and the cost nothing.
        threat: the norm and epsilon, or the kind of transformation; None only without an attack.
        split: the examples.
        seed: of the attack's noise.
        device: where the model is.
        batch_size: examples per batch.
        on_batch: called after every batch with the number of examples done so far; a stage of an
            ensemble counts as its share of them.
        precision: of the attack's forward and backward passes; the verdicts are float32's.
        unfinished: a file to keep the rows in after every batch, and to go on from after a kill.
        adversarial: (N, C, H, W) that gets the attacked images, as float32 or float16. They are
            rounded to it, towards the clean image, before they are judged (of what an ensemble does
            not attack, the clean image is kept).

    Returns:
        The columns, in the order of the split: `example` (int64 id); `label`, `clean_prediction`
        and `adversarial_prediction` (int16; -1 where a logit is not finite, which no label is; of a
        claim that was refuted, the label, and the clean prediction if the image was not allowed);
        `distance` in the threat's norm and `objective` reached (float32); `forward` and `backward`
        (int32 passes that the attack spent); `gain` and `late_gain` (float32, NaN where the attack
        has none); `stage` (the stage of an ensemble that fooled the example, or "") and `claim`.

    Raises:
        ValueError: if the attack returns images of another shape or type, or there is an attack and
            no threat model.
    """
    if attack is not None and threat is None:
        raise ValueError(f"{name_of(attack)} needs a threat model, got None")
    run = _Run(model, threat, split, seed, device, batch_size, precision, adversarial)
    stages: Mapping[str, Attack | None] = {"": attack}
    if isinstance(attack, Ensemble):
        stages = {"": None, **attack.stages}
    run.looks = len(stages) > 1
    run.load(unfinished)
    done = 0
    with crafting(model), computing("float32"):
        for place, (name, one) in enumerate(stages.items()):
            noise = attack.noise if isinstance(attack, Ensemble) and one else _as_it_is
            rows = run.left(place)
            for some, batch in batches(split, rows[run.cursor(place) :], device, batch_size):
                run.attack(place, name, one, some, batch, noise)
                run.save(unfinished, place, len(some))
                done = int((place + run.cursor(place) / len(rows)) / len(stages) * len(split))
                if on_batch is not None:
                    on_batch(done)
        if on_batch is not None and done < len(split):
            on_batch(len(split))
    return run.columns(tuple(stages))


class _Run:
    """The rows of one evaluation while they are made."""

    def __init__(
        self,
        model: nn.Module,
        threat: ThreatModel | Transformation | None,
        split: Split,
        seed: int,
        device: torch.device,
        batch_size: int,
        precision: AttackPrecision,
        adversarial: Images | None,
    ) -> None:
        self.model, self.threat, self.seed = model, threat, seed
        self.device, self.precision, self.adversarial = device, precision, adversarial
        # Another size than the batch's, so that a claim does not hang on one shape's kernels.
        half = batch_size // 2
        self.check_size = half if half >= SMALLEST_BATCH else 2 * SMALLEST_BATCH
        self.looks = False
        count = len(split)
        self.rows: dict[str, npt.NDArray[Any]] = {
            name: np.zeros(count, kind) for name, kind in NUMBERS.items()
        }
        self.rows |= {name: np.full(count, np.nan, np.float32) for name in ("gain", "late_gain")}
        self.rows["claim"] = np.zeros(count, np.int8)
        # The stage that fooled the example; -1 while none has.
        self.rows["fooled"] = np.full(count, -1, np.int8)
        self.rows["at"] = np.zeros(2, np.int64)  # the stage, and how many of its rows are done

    def cursor(self, place: int) -> int:
        """Return how many rows of a stage are done."""
        at, done = self.rows["at"].tolist()
        return done if at == place else 0

    def left(self, place: int) -> Tensor:
        """Return the rows that a stage is run on: those that no earlier one has fooled."""
        if place < int(self.rows["at"][0]):
            return torch.empty(0, dtype=torch.int64)
        fooled = self.rows["fooled"]
        return torch.from_numpy(np.flatnonzero((fooled < 0) | (fooled >= place)))

    def load(self, path: Path | None) -> None:
        """Go on from where an interrupted evaluation stopped."""
        if path is not None and path.exists():
            with np.load(path) as found:
                self.rows = {name: found[name] for name in self.rows}

    def save(self, path: Path | None, place: int, more: int) -> None:
        """Note that a batch is done, and keep the rows over a kill."""
        self.rows["at"][:] = (place, self.cursor(place) + more)
        if path is not None:
            temporary = path.with_name(f".{path.name}.tmp")
            with temporary.open("wb") as file:
                np.savez(file, **self.rows)  # type: ignore[arg-type]
            os.replace(temporary, path)

    def attack(
        self,
        place: int,
        name: str,
        attack: Attack | None,
        rows: Tensor,
        batch: Split,
        noise: Callable[[Noise, str], Noise],
    ) -> None:
        """Run one stage on one batch, whose first rows are `rows` of the split."""
        x, y = images_of(batch), batch.labels
        logits = self.model(x)
        clean = predictions(logits)
        if attack is None or self.threat is None:
            nothing = torch.zeros_like(y)
            # An ensemble begins with a look at the clean image, and counts it.
            looked = torch.full_like(y, int(self.looks))
            found, claimed = Attacked(x, cross_entropy(logits, y), looked, nothing), clean
        else:
            with computing(self.precision, self.model, self.device):
                found = attack(
                    self.model, x, y, self.threat, noise(Noise(self.seed, batch.example), name)
                )
                _check_shape(name or name_of(attack), found.x_adv, x)
                if self.adversarial is not None:
                    found = found._replace(x_adv=_rounded(found.x_adv, x, self.adversarial.dtype))
                claimed = predictions(self.model(found.x_adv))
        count = len(rows)
        prediction, claim, distance = self._judged(
            *(part[:count] for part in (x, y, clean, found.x_adv, claimed))
        )
        fooled = prediction != y[:count]
        nothing_known = torch.full_like(found.objective, torch.nan)
        values = {
            "adversarial_prediction": prediction,
            "distance": distance,
            "objective": found.objective[:count],
            "gain": (nothing_known if found.gain is None else found.gain)[:count],
            "late_gain": (nothing_known if found.late_gain is None else found.late_gain)[:count],
        }
        # An ensemble's later stage speaks for the examples that it fooled, and of what it refuted.
        speaks = (fooled if place > 1 else torch.ones_like(fooled)).cpu().numpy()
        at = rows.numpy()
        for column, value in values.items():
            self.rows[column][at[speaks]] = value.cpu().numpy()[speaks]
        before, claims = self.rows["claim"][at], claim.cpu().numpy()
        # A later stage's claim counts in place of an earlier one, but not of an image that was
        # not allowed: that is a bug, to be seen.
        kept = (claims == NONE) | (before == OUTSIDE)
        self.rows["claim"][at] = np.where(kept, before, claims)
        for column, spent in (("forward", found.forwards), ("backward", found.backwards)):
            self.rows[column][at] += spent[:count].cpu().numpy().astype(np.int32)
        self.rows["fooled"][at[fooled.cpu().numpy()]] = place
        if place == 0:
            for column, value in zip(
                ("example", "label", "clean_prediction"), (batch.example, y, clean), strict=True
            ):
                self.rows[column][at] = value[:count].cpu().numpy()
        if self.adversarial is not None:
            self.adversarial[at[speaks]] = found.x_adv[:count].cpu().numpy()[speaks]

    def _judged(
        self, x: Tensor, y: Tensor, clean: Tensor, x_adv: Tensor, claimed: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Check what is claimed to be misclassified; returns predictions, claims and distances."""
        # Stated so that a NaN, of which no comparison holds, is outside.
        allowed = ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(1)
        distance = torch.zeros(len(y), device=x.device)
        if self.threat is not None:
            distance = self.threat.distance(x_adv, x)
            if isinstance(self.threat, ThreatModel):
                bound = self.threat.epsilon * (1 + RELATIVE_ROUNDING) + PIXEL_ROUNDING
                allowed &= distance <= bound
        rows = (claimed != y).nonzero().squeeze(1)
        checked = claimed.clone()
        for some in torch.split(rows, self.check_size) if len(rows) else ():
            with computing("float32"):
                again = predictions(self.model(x_adv[filled(some, self.check_size)]))
            checked[some] = again[: len(some)]
        claim = torch.full_like(y, NONE)
        claim[claimed != y] = CONFIRMED
        claim[(claimed != y) & (checked == y)] = RIGHT
        claim[~allowed] = OUTSIDE
        return torch.where(allowed, checked, clean), claim, distance

    def columns(self, stages: tuple[str, ...]) -> Columns:
        """Return the finished rows, with the stages and the claims in words."""
        names = np.array([*stages, ""])  # of -1, the last
        return {
            **{name: self.rows[name] for name in NUMBERS},
            "stage": names[self.rows["fooled"].astype(np.int64)],
            "claim": np.array(CLAIMS)[self.rows["claim"].astype(np.int64)],
        }


def _as_it_is(noise: Noise, stage: str) -> Noise:
    return noise


def _check_shape(attack: str, x_adv: Tensor, x: Tensor) -> None:
    if x_adv.shape != x.shape or x_adv.dtype != x.dtype:
        raise ValueError(
            f"{attack} returned {x_adv.dtype} {tuple(x_adv.shape)}, "
            f"expected images like its input, {x.dtype} {tuple(x.shape)}"
        )


def _rounded(x_adv: Tensor, x: Tensor, kind: npt.DTypeLike) -> Tensor:
    """Return the images as they are stored, rounded towards x so that they stay in the set."""
    if np.dtype(kind) == np.float32:
        return x_adv
    half = x_adv.half()
    # Of the two neighbours, the one that is not farther from x than the image was.
    beyond = (half.float() - x).abs() > (x_adv - x).abs()
    return torch.where(beyond, torch.nextafter(half, x.half()), half).float()
