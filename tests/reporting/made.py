"""Cells and evaluations made in memory, for what the synthetic study does not have."""

from collections.abc import Sequence

import numpy as np

from advtrain.reporting.measure import Evaluated, Measured
from advtrain.results.names import parse_cell, parse_evaluation


def evaluated(
    name: str, robust: float, *, clean: float = 1.0, backwards: int = 20, examples: int = 100
) -> Evaluated:
    """Make an evaluation whose first examples are wrong."""
    found = parse_evaluation(name)
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


def measured(
    cell: str, evaluations: Sequence[Evaluated], *, status: str = "finished", cause: str = ""
) -> Measured:
    return Measured(cell, parse_cell(cell), status, cause, 3.0, 3.0, tuple(evaluations))
