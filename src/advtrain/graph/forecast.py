"""The forecast: what a study is likely to cost before it runs, and what that rests on."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from advtrain.graph.arithmetic import ASSUMED, FlopModel, arithmetic_hours, counted_once
from advtrain.graph.costs import Rates, predict
from advtrain.graph.nodes import CELL_STAGES, Node


@dataclass
class Forecast:
    """What the cells of a study and their evaluations are likely to cost.

    Attributes:
        study: its name.
        hours: on each device, by stage; an hour of a job of two processes is two hours.
        measured: how many nodes are work that was measured before.
        scaled: how many are scaled from other work.
        sources: of each stage, the methods, attacks or certificates that was.
        assumed: hours on one H200 by arithmetic, by stage, of the nodes that are like nothing that
            was measured.
        unknown: of each stage, how many nodes are neither measured nor counted; they are in no
            figure.
        other_counts: how many are taken as they were timed by each other number of processes.
        memory: the most bytes that one job is likely to have in use, on each device; without those
            of which nobody knows.
    """

    study: str
    hours: dict[str, dict[str, float]] = field(default_factory=dict)
    measured: int = 0
    scaled: int = 0
    sources: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    assumed: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    unknown: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    other_counts: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    memory: dict[str, int] = field(default_factory=dict)


def forecasts(
    nodes: Iterable[Node], rates: Rates, flops: FlopModel | None = None
) -> list[Forecast]:
    """Add up what was predicted of nodes, study by study.

    Args:
        nodes: what is to be computed; those that belong to no cell are left out.
        rates: what was measured.
        flops: tells the operations of a network; without it nothing is told by arithmetic.

    Returns:
        One for each study that has something to compute, in the order of the nodes.
    """
    found: dict[str, Forecast] = {}
    flops = flops and counted_once(flops)
    for node in nodes:
        if node.stage in CELL_STAGES:
            study = node.name.split("/")[0]
            _add(found.setdefault(study, Forecast(study)), node, rates, flops)
    return list(found.values())


def _add(forecast: Forecast, node: Node, rates: Rates, flops: FlopModel | None) -> None:
    likely = predict(node, rates)
    if likely is None:
        counted = flops and rates.model and arithmetic_hours(node, rates.passes, flops)
        if counted is None:
            forecast.unknown[node.stage] += 1
        else:
            forecast.assumed[node.stage] += counted
        return
    stages = forecast.hours.setdefault(likely.device, defaultdict(float))
    stages[node.stage] += likely.processes * likely.seconds / 3600
    for count in likely.timed_with:
        forecast.other_counts[count] += 1
    if likely.scaled_from:
        forecast.scaled += 1
        forecast.sources[node.stage].update(likely.scaled_from)
    else:
        forecast.measured += 1
    if likely.memory is not None:
        known = forecast.memory.get(likely.device, 0)
        forecast.memory[likely.device] = max(known, likely.memory)


def hours_line(forecast: Forecast) -> str:
    """Write the cost for a person: `about 2.1 GPU hours on NVIDIA H200 (train 1.2, attack 0.9)`."""
    parts = []
    for device, stages in forecast.hours.items():
        kind = "CPU hours" if device == "cpu" else f"GPU hours on {device}"
        peak = forecast.memory.get(device)
        memory = f", at most {peak / (1 << 30):.1f} GiB a job" if peak and device != "cpu" else ""
        parts.append(_staged(stages, kind) + memory)
    if forecast.assumed:
        counted = _staged(forecast.assumed, "GPU hours on one H200")
        parts.append(f"by arithmetic, unmeasured: {counted}")
    return "; ".join(parts) or "of unknown cost"


def basis_line(forecast: Forecast) -> str:
    """Write what the cost rests on, for a person."""
    parts = [f"{forecast.measured} measured before"] if forecast.measured else []
    if forecast.scaled:
        sources = "; ".join(
            f"{stage} from {', '.join(sorted(names))}" for stage, names in forecast.sources.items()
        )
        parts.append(f"{forecast.scaled} scaled by the passes ({sources})")
    for count, jobs in sorted(forecast.other_counts.items()):
        many = "1 process" if count == 1 else f"{count} processes"
        parts.append(f"{jobs} as long as with {many}, for want of times with as many as are set")
    if forecast.assumed:
        rates = ", ".join(f"{1e-12 * rate:g} in {name}" for name, rate in ASSUMED.items())
        parts.append(f"by arithmetic (too little for small networks), at TFLOP/s of {rates}")
    if forecast.unknown:
        stages = ", ".join(f"{count} {stage}" for stage, count in forecast.unknown.items())
        parts.append(f"not in it, as nothing like them was measured: {stages}")
    return f"jobs: {'; '.join(parts)}"


def _staged(stages: Mapping[str, float], unit: str) -> str:
    """Write hours with those of each stage: `2.1 CPU hours (train 1.2, attack 0.9)`."""
    detail = ", ".join(f"{stage} {_hours(spent)}" for stage, spent in stages.items())
    return f"about {_hours(sum(stages.values()))} {unit} ({detail})"


def _hours(hours: float) -> str:
    return f"{hours:.0f}" if hours >= 100 else f"{hours:.2g}"
