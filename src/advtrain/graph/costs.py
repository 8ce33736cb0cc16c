"""Costs: what a node is likely to take, from what the likes of it took here before."""

import functools
import itertools
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advtrain.graph.nodes import CELL_STAGES, Node
from advtrain.graph.passes import evaluation_passes
from advtrain.graph.processes import processes
from advtrain.graph.records import Manifest, read_manifest
from advtrain.graph.store import Store
from advtrain.graph.timings import measured_epochs, peak_memory
from advtrain.params.signatures import signature

OVERHEAD = 1.0
"""Seconds that the job of a cell spends outside its step, if a warm process has imported torch."""

OTHERS = 3.0
"""Seconds of a job that belongs to no cell."""

FAST = ("batch_size", "micro_batch", "precision", "channels_last", "compile_mode", "determinism")
"""What a recipe says that moves the speed and not the passes."""

CostModel = Callable[[Mapping[str, Any]], float | None]
"""From the resolved parameters of a training to its forward passes per training image, a gradient
of the input counted as one and of the weights as another; None where it cannot be told."""


@dataclass(frozen=True)
class Sample:
    """A finished run with its measured time.

    Attributes:
        params: the resolved parameters.
        seconds: that it took.
        start: seconds of them that come once, whatever the epochs.
        stepping: seconds of them in which images were attacked and weights updated; None where
            nobody looked (and for what is no training).
        epochs: passes over its data; 0 for what is no training, or where nobody wrote them down.
        device: where.
        processes: that did it together, each on a device of its own.
        finished: when, Unix seconds.
        examples: of the test split that were evaluated; None where it is not known.
        memory: the most bytes in use at once; None where nobody looked.
    """

    params: Mapping[str, Any]
    seconds: float
    start: float
    stepping: float | None
    epochs: int
    device: str
    processes: int
    finished: float
    examples: int | None
    memory: int | None


@dataclass(frozen=True)
class Prediction:
    """What a node is likely to take.

    Attributes:
        seconds: of wall-clock time.
        device: where it was measured, and is expected to run.
        processes: that are to do it together, each on a device of its own.
        timed_with: the other numbers of processes that the times are of, which nothing scales;
            empty where they are of the same number.
        scaled_from: the methods, attacks or certificates whose times were scaled by the passes;
            empty where the same work was measured.
        memory: the most bytes that the likes of it had in use at once; None where nobody looked.
    """

    seconds: float
    device: str
    scaled_from: tuple[str, ...] = ()
    memory: int | None = None
    processes: int = 1
    timed_with: tuple[int, ...] = ()


class Rates:
    """The measured times of finished cells, by how alike the work is.

    Args:
        root: the repository's top folder.
        samples: each with the names of its work, from the most to the least alike.
        model: tells the passes of a training; without it trainings are scaled by epochs alone.
        processes: that are to train a cell together.
    """

    def __init__(
        self,
        root: Path,
        samples: Sequence[tuple[Sample, Sequence[Hashable]]] = (),
        model: CostModel | None = None,
        processes: int = 1,
    ) -> None:
        self.root = root
        self.processes = processes
        self.alike: dict[Hashable, list[Sample]] = defaultdict(list)
        for sample, names in samples:
            for name in names:
                self.alike[name].append(sample)
        self.model = model
        self.predicted: dict[str, Prediction | None] = {}
        self._newest = sorted((one for one, _ in samples), key=lambda one: one.finished)
        self._passes: dict[str, float | None] = {}

    @classmethod
    def measured(cls, root: Path, store: Store, model: CostModel | None = None) -> "Rates":
        """Gather the times of all finished cells, those on disk and those in the store.

        Raises:
            ParamsError: if the environment asks for a number of processes that is none.
        """
        tested = functools.cache(functools.partial(_tested, root))
        found = []
        for manifest, timing in _timings(root, store):
            params, data = manifest["params"], _data(manifest["inputs"])
            sample = _sample(params, timing, params.get("examples") or tested(data))
            found.append((sample, list(_likenesses(params, data))))
        return cls(root, found, model, processes())

    def device(self, wanted: str, *, training: bool) -> str | None:
        """Return where a job will run: where the like was done last; None if it never was.

        Args:
            wanted: `cpu`, `cuda`, or `auto` for either.
            training: whether the job trains, or evaluates.
        """
        for sample in reversed(self._newest):
            fits = wanted == "auto" or (sample.device == "cpu") == (wanted == "cpu")
            if fits and (_kind(sample.params) == "train") == training:
                return sample.device
        return None

    def passes(self, params: Mapping[str, Any]) -> float | None:
        """Return the forward passes of a training per image, which many cells have in common."""
        assert self.model is not None
        key = json.dumps([params["method"], params["recipe"]], sort_keys=True)
        if key not in self._passes:
            self._passes[key] = self.model(params)
        return self._passes[key]


def estimate(node: Node, rates: Rates) -> float | None:
    """Return the likely seconds of a node, or None where nothing like it was ever measured."""
    found = predict(node, rates)
    return found.seconds if found else None


def predict(node: Node, rates: Rates) -> Prediction | None:
    """Predict what a node takes.

    The same work counts as measured, whatever the number of epochs. Else the times of the most
    similar work on the same data and network are scaled: a training's attack and update by its
    forward passes, the rest of it by the epochs; an evaluation by its passes and examples, as if
    every example withstood it. Of trainings, those by as many processes come first.

    Args:
        node: of any stage.
        rates: what was measured.

    Returns:
        The prediction; None where nothing like it was measured on the device that it will use.
    """
    if node.stage not in CELL_STAGES:
        return Prediction(OTHERS, "cpu")
    data = _data(one.id for one in node.inputs)
    wanted = node.unkeyed.get("device", "cpu")
    # Cells of other seeds, and evaluations of other cells, are the same work.
    asked = {name: node.params.get(name) for name in ("model", "recipe", "examples", "precision")}
    key = json.dumps([_kind(node.params), data, wanted, _work(node.params), asked], sort_keys=True)
    if key not in rates.predicted:
        device = rates.device(wanted, training=_kind(node.params) == "train")
        rates.predicted[key] = _predict(node.params, data, device, rates)
    return rates.predicted[key]


def _predict(
    params: Mapping[str, Any], data: str, device: str | None, rates: Rates
) -> Prediction | None:
    examples = params.get("examples") or _tested(rates.root, data)
    count = rates.processes if _kind(params) == "train" else 1
    likenesses = list(enumerate(_likenesses(params, data)))
    for as_many, (place, likeness) in itertools.product((True, False), likenesses):
        known = []
        for sample in rates.alike.get(likeness, ()):
            if sample.device == device and (sample.processes == count) == as_many:
                seconds = _scaled(sample, params, examples, rates, same=place == 0)
                known += [] if seconds is None else [(sample, seconds)]
        if known:
            names = sorted({str(_work(sample.params)["name"]) for sample, _ in known})
            return Prediction(
                statistics.median(seconds for _, seconds in known) + OVERHEAD,
                known[0][0].device,
                tuple(names) if place else (),
                max((one.memory for one, _ in known if one.memory is not None), default=None),
                count,
                tuple(sorted({one.processes for one, _ in known} - {count})),
            )
    return None


def _scaled(
    sample: Sample, params: Mapping[str, Any], examples: int | None, rates: Rates, *, same: bool
) -> float | None:
    """Return the seconds of work that is like a sample's; None if they cannot be told."""
    if _kind(params) == "train":
        return _scaled_training(sample, params, rates, same=same)
    if same:
        return sample.seconds
    more = passes_spent(params) / passes_spent(sample.params)
    if sample.examples and examples:
        more *= examples / sample.examples
    return sample.seconds * more


def _scaled_training(
    sample: Sample, params: Mapping[str, Any], rates: Rates, *, same: bool
) -> float | None:
    planned = _epochs(sample.params)
    done = sample.epochs or planned  # a collapsed training did not come to its end
    repeated = sample.seconds - sample.start
    if same or rates.model is None:
        return sample.start + repeated / done * _epochs(params)
    asked, of_sample = rates.passes(params), rates.passes(sample.params)
    if asked is None or of_sample is None:
        return None
    more = asked / (of_sample * done / planned)
    stepping = repeated if sample.stepping is None else min(sample.stepping, repeated)
    rest = (repeated - stepping) / done * _epochs(params)
    return sample.start + stepping * more + rest


def _timings(root: Path, store: Store) -> Iterator[tuple[Manifest, Mapping[str, Any]]]:
    for stage in CELL_STAGES:
        for path in (root / "results" / stage).rglob("manifest.json"):
            manifest = read_manifest(path)
            if manifest and (timing := _timing(path.with_name("timing.json"))):
                yield manifest, timing
    for entry, manifest in store.entries():
        for path in manifest["volatile"]:
            if timing := _timing(entry / "files" / path):
                yield manifest, timing


def _timing(path: Path) -> dict[str, Any] | None:
    """Read a file of times; None where it is not there or says nothing."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found if float(found["seconds"]) > 0 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sample(params: Mapping[str, Any], timing: Mapping[str, Any], examples: int | None) -> Sample:
    epochs = timing.get("epochs", ())
    sections = measured_epochs(timing)
    whole = sections and len(sections) == len(epochs)
    count, device = _counted(str(timing.get("device", "cpu")))
    return Sample(
        params=params,
        seconds=float(timing["seconds"]),
        start=_start([float(one["seconds"]) for one in epochs]),
        stepping=sum(one["attack"] + one["update"] for one in sections) if whole else None,
        epochs=len(epochs),
        device=device,
        processes=count,
        finished=float(timing.get("finished", 0.0)),
        examples=examples,
        memory=peak_memory(timing),
    )


def _counted(device: str) -> tuple[int, str]:
    """Return how many processes worked on which device: `2 x NVIDIA H200`, or its name alone."""
    count, _, name = device.partition(" x ")
    return (int(count), name) if name and count.isdecimal() else (1, device)


def _start(epochs: Sequence[float]) -> float:
    """Return by how much the first epoch, with the loading of all there is, outlasts the others."""
    return max(epochs[0] - statistics.median(epochs[1:]), 0.0) if len(epochs) > 2 else 0.0


def _kind(params: Mapping[str, Any]) -> str:
    """Say what is done: given weights are no training, and an attack no certificate."""
    if "method" in params:
        return "train" if params["recipe"] else "given"
    return next((one for one in ("attack", "certificate") if one in params), "probe")


def _work(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the method, attack or certificate, with its parameters."""
    kind = next((one for one in ("method", "attack", "certificate") if one in params), "probe")
    found: Mapping[str, Any] = params.get(kind, {"name": kind, "module": kind, "parameters": {}})
    return found


def _data(inputs: Iterable[str]) -> str:
    """Return the name of the prepared data among a node's inputs."""
    return next((id.partition(":")[2] for id in inputs if id.startswith("prepare:")), "")


def _tested(root: Path, data: str) -> int | None:
    """Return how many test examples the prepared data hold; None if they are not there."""
    try:
        text = (root / "data/prepared" / data / "dataset.json").read_text(encoding="utf-8")
        return int(json.loads(text)["counts"]["test"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _likenesses(params: Mapping[str, Any], data: str) -> Iterator[Hashable]:
    """Name the work from the most to the least alike.

    The first is the same work: whatever the epochs, and the numbers that are no counts (step sizes,
    weights of terms, rates), which move no time; but for the share of extra data.
    """
    place = (_kind(params), data, json.dumps(params["model"], sort_keys=True))
    work, recipe = _work(params), _recipe(params)
    precision = params.get("precision") or "float32"  # older results do not say it
    counted = _without_floats({name: value for name, value in recipe.items() if name != "epochs"})
    own = [work["name"], work["module"], _without_floats(work["parameters"])]
    asked = [params.get("examples"), precision, recipe.get("extra_fraction")]
    fast = json.dumps([precision, *(recipe.get(name) for name in FAST)])
    yield "same", *place, json.dumps([own, counted, asked], sort_keys=True)
    yield "module at this speed", *place, work["module"], fast
    yield "kind at this speed", *place, fast
    yield "module", *place, work["module"]
    yield "kind", *place


def _recipe(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe of a training, with what was the only way before it could be chosen."""
    if not params.get("recipe"):
        return {}
    known = signature("training", "loop", "train")
    given: Mapping[str, Any] = params["recipe"]["parameters"]
    return {**{name: one.default for name, one in known.items()}, **given}


def _without_floats(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if not isinstance(value, float)}


def _epochs(params: Mapping[str, Any]) -> int:
    """Return how often a training passes over its data."""
    replays: int = params["method"]["parameters"].get("replays", 1)
    epochs: int = params["recipe"]["parameters"]["epochs"]
    return math.ceil(epochs / replays)


def passes_spent(params: Mapping[str, Any]) -> float:
    """Return the passes of an example that withstands an evaluation."""
    work, norm = _work(params), (params.get("threat") or {}).get("norm", "")
    return evaluation_passes(work["module"], work["parameters"], norm)
