"""Robust self-training: pseudo-labels from a teacher, and batches that mix in extra examples.

Carmon et al. 2019 train a standard network on the labelled examples, let it label the unlabelled
ones, and minimise the robust loss on both (robust self-training, their meta-algorithm 1).
"""

import math

import torch
from torch import Tensor, nn

from advtrain.attacks.attack import NO_PREDICTION, predictions
from advtrain.attacks.frozen import crafting
from advtrain.attacks.restarts import SMALLEST_BATCH, filled
from advtrain.data.store import Split
from advtrain.noise import Noise
from advtrain.training.precision import computing

EXTRA_ORDER = 16
"""Stream of random numbers; apart from those of the training loop."""


def pseudo_label(model: nn.Module, split: Split, device: torch.device, batch_size: int) -> Split:
    """Label examples with the predictions of a teacher (Carmon et al. 2019, meta-algorithm 1).

    The teacher is in eval mode and is left as it was found. A label does not depend on the batch
    that its example is in, as far as `evaluate` promises that of a prediction.

    Args:
        model: the teacher, on `device`; maps (N, C, H, W) in [0, 1] to (N, K) logits.
        split: the examples; labels that they have are not looked at.
        device: where the teacher is.
        batch_size: examples per batch.

    Returns:
        The same images and examples (shared, not copied), labelled.

    Raises:
        ValueError: if a logit is not finite.
    """
    labels = torch.empty_like(split.labels)
    with crafting(model), torch.no_grad(), computing("float32"):
        for rows in torch.split(torch.arange(len(split)), batch_size):
            images = split.images[filled(rows, SMALLEST_BATCH)].to(device)
            logits = model(images.float().div_(255))
            labels[rows] = predictions(logits)[: len(rows)].to(labels.device)
    unknown = (labels == NO_PREDICTION).nonzero().flatten()
    if len(unknown):
        raise ValueError(
            f"the teacher's logits are not finite on {len(unknown)} of {len(split)} examples, "
            f"the first of them {int(split.example[unknown[0]])}: the teacher has collapsed; "
            "train it with a lower learning rate, or take another teacher"
        )
    return Split(split.images, labels, split.example)


def shares(batch_size: int, fraction: float) -> tuple[int, int]:
    """Divide a batch into labelled and extra examples, the extra ones rounded down.

    The fraction is also the weight of the extra examples in the loss, which is the mean over the
    batch (Carmon et al. 2019 take 1/2).

    Args:
        batch_size: examples in a batch.
        fraction: share of them that is extra, in [0, 1).

    Returns:
        How many are labelled, 1 or more, and how many are extra.

    Raises:
        ValueError: if no example would be labelled, or none extra though some should be.
    """
    if not 0 <= fraction < 1:
        raise ValueError(
            f"extra_fraction is in [0, 1), got {fraction:g}; a batch needs labelled examples"
        )
    # To nine digits first, so that 0.29 of 100, which floats put below 29, is 29.
    extra = min(math.floor(round(batch_size * fraction, 9)), batch_size - 1)
    if fraction and not extra:
        raise ValueError(
            f"extra_fraction {fraction:g} of batch_size {batch_size} is less than one example; "
            "raise one of the two"
        )
    return batch_size - extra, extra


def extra_rows(examples: Tensor, seed: int, epoch: int, steps: int, count: int) -> list[Tensor]:
    """Choose the extra examples of every step of an epoch.

    They are consecutive pieces of one endless row of random permutations, which goes on from step
    to step and from epoch to epoch: after any step the numbers of times that two examples were
    used differ by one at most. A step in which a permutation ends can hold an example twice.

    Departs from the official code, whose sampler draws extra examples with replacement.

    Args:
        examples: (N,) int64, the ids of the extra examples.
        seed: of the permutations.
        epoch: number of the epoch, from 1; the others need not be known.
        steps: batches in each epoch, the same in all of them.
        count: extra examples in a batch.

    Returns:
        For each step (count,) int64 positions in [0, N), on the device of `examples`.

    Raises:
        ValueError: if there are no extra examples, or none is asked for.
    """
    if not len(examples) or count < 1:
        raise ValueError(
            f"got {len(examples)} extra examples and {count} of them per batch, expected 1 or "
            "more of both; does the data set have a split 'unlabelled' that is not empty?"
        )
    start, stop = (epoch - 1) * steps * count, epoch * steps * count
    if start == stop:
        return []
    first, last = start // len(examples), -(-stop // len(examples))
    row = torch.cat([_order(examples, seed, number) for number in range(first, last)])
    ahead = first * len(examples)
    return list(torch.split(row[start - ahead : stop - ahead], count))


def _order(examples: Tensor, seed: int, number: int) -> Tensor:
    keys = Noise(seed, examples).fold_in(EXTRA_ORDER).fold_in(number).uniform((1,))
    return keys.flatten().argsort(stable=True)
