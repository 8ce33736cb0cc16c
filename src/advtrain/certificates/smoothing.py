"""Randomized smoothing: Cohen et al. 2019, "Certified adversarial robustness ..." (ICML)."""

import torch
import torch.nn.functional as F
from scipy.special import betaincinv, ndtri
from torch import Tensor, nn

from advtrain.attacks.attack import NO_PREDICTION, predictions
from advtrain.attacks.frozen import crafting
from advtrain.certificates.certificate import Certified
from advtrain.noise import Noise
from advtrain.params.quantities import Count, Positive, Share

# Streams of the noise: the class is guessed and judged on draws that do not know of each other.
SELECTION, ESTIMATION = 1, 2


def smoothing(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    noise: Noise,
    *,
    sigma: Positive = 0.25,
    selection: Count = 100,
    samples: Count = 1000,
    alpha: Share = 0.001,
    sample_batch: Count = 4,
) -> Certified:
    """Certify the smoothed classifier in l2 (Cohen et al. 2019, theorem 1 and function CERTIFY).

        g(x) = the class that f(x + N(0, sigma^2 I)) most likely is
        p = a lower bound of that class's probability, which holds with probability 1 - alpha
        radius = sigma * Phi^-1(p) if p > 1/2, else abstain

    The class is guessed from `selection` draws and its probability bounded from `samples` others
    (Clopper and Pearson). What is certified is g, not the network itself. Noisy images are not
    clamped to [0, 1]. The theorem is about exact arithmetic: noise and network are float32 here,
    and adversarially built networks can exploit that (Voracek and Hein 2023).

    The radius of an example is at most sigma * Phi^-1(alpha^(1 / samples)): 2.46 sigma for 1000
    samples, 3.81 sigma for the paper's 100 000.

    Args:
        model: images -> logits (N, K).
        x: (N, C, H, W) in [0, 1].
        y: not used: what is certified is the prediction.
        noise: for these examples; every draw has a number, so that neither the batch nor
            `sample_batch` changes it.
        sigma: standard deviation of the noise in pixel units; that of the training.
        selection: draws that guess the class, n_0 in the paper.
        samples: draws that bound its probability, n in the paper (there 100 000).
        alpha: probability that the certificate of an example is wrong, in (0, 1).
        sample_batch: draws of each example that are evaluated together; for speed and memory.

    Returns:
        The prediction of g, or -1 where it abstains, and the l2 radius.

    Raises:
        ValueError: for an alpha of 0 or 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"smoothing: alpha is a probability above 0 and below 1, got {alpha:g}")

    def counts(stream: int, draws: int) -> Tensor:
        drawn = noise.fold_in(stream)
        return _counts(model, x, drawn, sigma=sigma, draws=draws, at_once=sample_batch)

    with crafting(model), torch.no_grad():
        guess = counts(SELECTION, selection).argmax(1)
        successes = counts(ESTIMATION, samples).gather(1, guess[:, None]).squeeze(1)
    probability = lower_confidence_bound(successes, samples, alpha)
    sure = probability > 0.5
    radius = torch.from_numpy(ndtri(probability.numpy())).mul_(sigma)
    sure, radius = sure.to(x.device), radius.where(sure, 0.0).to(x.device)
    return Certified(
        prediction=guess.where(sure, NO_PREDICTION),
        radius=radius,
        forwards=torch.full_like(guess, selection + samples),
        backwards=torch.zeros_like(guess),
    )


def lower_confidence_bound(successes: Tensor, samples: int, alpha: float) -> Tensor:
    """The one-sided lower bound of a probability by Clopper and Pearson 1934.

    It is the p at which so many successes or more have probability alpha: 0 for no success,
    alpha^(1 / n) for n of n.

    Args:
        successes: (N,) int64 in [0, samples].
        samples: draws, 1 or more.
        alpha: probability that the bound is above the truth, in (0, 1).

    Returns:
        (N,) float64, on the CPU, where every device gets the same one.
    """
    some = successes.cpu().numpy()
    # The beta distribution begins at one success.
    bound = betaincinv(some.clip(min=1), samples - some.clip(min=1) + 1, alpha)
    return torch.from_numpy(bound).where(successes.cpu() > 0, 0.0)


def _counts(
    model: nn.Module, x: Tensor, noise: Noise, *, sigma: float, draws: int, at_once: int
) -> Tensor:
    """(N, K) int64: how often each class is predicted; logits that are not finite count for none.

    A draw has its own number, so that how many are evaluated together moves no number.
    """
    shape = tuple(x.shape[1:])
    found: list[Tensor] = []
    for first in range(0, draws, at_once):
        part = range(first, min(first + at_once, draws))
        noisy = torch.cat([x + sigma * noise.normal(shape, restart=draw) for draw in part])
        logits = model(noisy)
        classes = logits.shape[1]
        votes = F.one_hot(predictions(logits) + 1, classes + 1)[:, 1:]
        found.append(votes.view(len(part), len(x), classes).sum(0))
    return torch.stack(found).sum(0)
