"""Cells and evaluations made in memory, for what the synthetic study does not have."""

from collections.abc import Mapping, Sequence

import numpy as np

from advtrain.reporting.measure import Certified, Evaluated, Measured, Probe
from advtrain.results.names import parse_cell, parse_evaluation


def evaluated(
    name: str,
    robust: float,
    *,
    clean: float = 1.0,
    backwards: int = 20,
    examples: int = 100,
    module: str | None = None,
    parameters: Mapping[str, object] | None = None,
    broken: Sequence[int] | None = None,
    stages: Mapping[str, Sequence[int]] | None = None,
    claims: Mapping[str, Sequence[int]] | None = None,
    late: float | None = None,
) -> Evaluated:
    """Make an evaluation whose first examples are wrong, or those that are `broken`.

    Args:
        name: of the evaluation.
        robust: the share that is right under attack, if `broken` is not given.
        clean: the share that is right without.
        backwards: passes on each example, with one forward pass more.
        examples: how many.
        module: the attack's; the first part of its name if not given.
        parameters: the attack's.
        broken: the places that are wrong under attack.
        stages: the places that each stage broke.
        claims: the places of each kind of claim; the others are confirmed where broken.
        late: the share of the gain that came late, which each example has; None for no gain.
    """
    found = parse_evaluation(name)
    index = np.arange(examples)
    right = index >= round((1 - robust) * examples)
    if broken is not None:
        right = ~np.isin(index, broken)
    stage = np.full(examples, "", dtype=object)
    for text, places in (stages or {}).items():
        stage[list(places)] = text
    claim = np.where(right, "none", "confirmed").astype(object)
    for text, places in (claims or {}).items():
        claim[list(places)] = text
    gain = np.full(examples, np.nan if late is None else 2.0)
    return Evaluated(
        name=name,
        attack=found.attack,
        norm=found.norm,
        epsilon=found.epsilon,
        weights=found.weights,
        module=found.attack.split("_")[0] if module is None else module,
        parameters=parameters or {},
        precision="float32",
        example=index,
        clean=index >= round((1 - clean) * examples),
        robust=right,
        backwards=backwards,
        passes=np.full(examples, 2 * backwards + 1),
        stage=stage,
        claim=claim,
        gain=gain,
        late_gain=gain * (late or 0.0),
    )


def probe(examples: int = 100, **changes: Sequence[float]) -> Probe:
    """Make gradients that an attack can follow; of each change, the first examples are given."""
    columns = {
        "loss": np.full(examples, 0.1),
        "gradient": np.full(examples, 0.5),
        "margin_gradient": np.full(examples, 5.0),
        "zero_share": np.zeros(examples),
        "logit_change": np.zeros(examples),
        "gradient_cosine": np.ones(examples),
        "probabilities": np.zeros(examples, dtype=np.bool_),
    }
    for name, values in changes.items():
        columns[name][: len(values)] = values
    index = np.arange(examples)
    return Probe(example=index, clean=np.ones(examples, dtype=np.bool_), **columns)


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
    probe: Probe | None = None,
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
        probe=probe,
    )
