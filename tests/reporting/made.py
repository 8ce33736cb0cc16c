"""Cells and evaluations made in memory, for what the synthetic study does not have."""

from collections.abc import Sequence

import numpy as np

from advtrain.reporting.measure import Certified, Evaluated, Measured
from advtrain.results.names import parse_cell, parse_evaluation


def evaluated(
    name: str, robust: float, *, clean: float = 1.0, backwards: int = 20, examples: int = 100
) -> Evaluated:
    """Make an evaluation whose first examples are wrong."""
    found = parse_evaluation(name)
    assert found.epsilon is not None
    index = np.arange(examples)
    return Evaluated(
        name=name,
        attack=found.attack,
        norm=found.norm,
        epsilon=found.epsilon,
        weights=found.weights,
        example=index,
        clean=index >= round((1 - clean) * examples),
        robust=index >= round((1 - robust) * examples),
        backwards=backwards,
    )


def certified(
    name: str, radius: Sequence[float], *, wrong: Sequence[int] = (), abstains: Sequence[int] = ()
) -> Certified:
    """Make a certificate with a radius for each example."""
    found = parse_evaluation(name)
    index = np.arange(len(radius))
    return Certified(
        name=name,
        certificate=found.attack,
        norm=found.norm,
        epsilon=found.epsilon,
        example=index,
        clean=~np.isin(index, [*wrong, *abstains]),
        abstained=np.isin(index, abstains),
        radius=np.array(radius, dtype=np.float64),
    )


def measured(
    cell: str,
    evaluations: Sequence[Evaluated],
    certificates: Sequence[Certified] = (),
    *,
    status: str = "finished",
    cause: str = "",
    passes: float = 3.0,
    best_epoch: int | None = None,
) -> Measured:
    return Measured(
        cell=cell,
        name=parse_cell(cell),
        status=status,
        cause=cause,
        forward=passes,
        backward=passes,
        evaluations=tuple(evaluations),
        certificates=tuple(certificates),
        epochs=30,
        best_epoch=best_epoch,
    )
