"""Counter-based random numbers: the value of an example depends on nothing but its keys.

A generator with hidden state gives an example another start whenever the batch size, the order or
the memory format changes. Here every number is a hash of (seed, example, restart, element), so a
batch can be split, shuffled, compacted or resumed and each example still meets the same noise.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014;
# the increment is 2^64 divided by the golden ratio, the factors are Stafford's variant 13.
INCREMENT = 0x9E3779B97F4A7C15
FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
SHIFTS = (30, 27, 31)

# One stream per kind of draw: a normal start must not share bits with a uniform one.
UNIFORM, NORMAL = 1, 2


@dataclass(frozen=True)
class Noise:
    """A stream of random numbers for the examples of one batch.

    Args:
        seed: the stream; any integer. `fold_in` mixes in an epoch, a step or a purpose.
        examples: (N,) int64, the stable ids of the examples, on the device of the draws.
    """

    seed: int
    examples: Tensor

    def fold_in(self, value: int) -> "Noise":
        """Another stream for the same examples, e.g. one per epoch or per purpose."""
        # The finaliser maps 0 to 0: without the added increments, 0 folded into seed 0 is seed 0.
        stream = _mix_number(self.seed + INCREMENT) + (value + 1) * INCREMENT
        return Noise(_mix_number(stream), self.examples)

    def take(self, rows: Tensor) -> "Noise":
        """The same noise for a subset of the batch.

        Args:
            rows: (N,) bool or (M,) int64 positions in the batch.
        """
        return Noise(self.seed, self.examples[rows])

    def uniform(self, shape: tuple[int, ...], *, restart: int = 0) -> Tensor:
        """Uniform numbers, the multiples of 2^-24 in [0, 1).

        Args:
            shape: of one example, e.g. (C, H, W).
            restart: which of several draws for the same examples.

        Returns:
            (N, *shape) float32, contiguous.
        """
        bits = self._bits(UNIFORM, restart, math.prod(shape))
        # 24 bits are what a float32 holds exactly: no rounding, so never 1.0.
        drawn = _shifted(bits, 40).to(torch.float32).mul_(2.0**-24)
        return drawn.view(len(self.examples), *shape)

    def normal(self, shape: tuple[int, ...], *, restart: int = 0) -> Tensor:
        """Standard normal numbers by Box and Muller's transform.

        It is computed in float64 and rounded to float32, so that the last bits in which the
        logarithms and cosines of two devices differ are rounded away.

        Args:
            shape: of one example, e.g. (C, H, W).
            restart: which of several draws for the same examples.

        Returns:
            (N, *shape) float32, contiguous.
        """
        size = math.prod(shape)
        bits = _shifted(self._bits(NORMAL, restart, 2 * size), 11).to(torch.float64)
        # (0, 1] for the radius, whose logarithm must be finite; [0, 1) for the angle.
        radius = bits[:, :size].add(1).mul_(2.0**-53).log_().mul_(-2).sqrt_()
        angle = bits[:, size:].mul(2.0**-53 * 2 * math.pi).cos_()
        drawn = radius.mul_(angle).to(torch.float32)
        return drawn.view(len(self.examples), *shape)

    def _bits(self, kind: int, restart: int, size: int) -> Tensor:
        """(N, size) int64 of random bits: SplitMix64 with one start per example and restart."""
        stream = self.fold_in(kind).seed
        keys = _mix(self.examples * _signed(INCREMENT) + _signed(stream))
        keys = _mix(keys.add_(_signed((restart + 1) * INCREMENT)))
        counter = torch.arange(1, size + 1, device=keys.device) * _signed(INCREMENT)
        return _mix(keys[:, None] + counter)


def _mix(bits: Tensor) -> Tensor:
    """SplitMix64's finaliser, in place on int64 (whose products wrap round like unsigned ones)."""
    for shift, factor in zip(SHIFTS[:2], FACTORS, strict=True):
        bits.bitwise_xor_(_shifted(bits, shift)).mul_(_signed(factor))
    return bits.bitwise_xor_(_shifted(bits, SHIFTS[2]))


def _mix_number(value: int) -> int:
    """The same finaliser on one Python integer, taken modulo 2^64."""
    value %= 2**64
    for shift, factor in zip(SHIFTS[:2], FACTORS, strict=True):
        value = (value ^ (value >> shift)) * factor % 2**64
    return value ^ (value >> SHIFTS[2])


def _shifted(bits: Tensor, by: int) -> Tensor:
    """A logical shift to the right: torch's own keeps the sign of an int64."""
    return (bits >> by).bitwise_and_(2 ** (64 - by) - 1)


def _signed(value: int) -> int:
    """The int64 with the same 64 bits."""
    value %= 2**64
    return value - 2**64 if value >= 2**63 else value
