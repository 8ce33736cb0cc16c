"""Weights that others saved: found in their file, and matched with the names of a model.

Repositories save a state dict as it is or inside a checkpoint, from within DataParallel,
torch.compile or a wrapper that normalises. None of that changes a weight, so none of it is asked
about: names are compared without what all of them begin with, and a file has to hold every weight
of the model and no other.
"""

import argparse
import codecs
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

WRAPPERS = ("module", "_orig_mod")
"""What DataParallel and torch.compile put into names."""
COUNTERS = ("num_batches_tracked", "n_averaged")
"""What older files lack and averages add; no output depends on it."""
MEANS, DEVIATIONS = ("mean", "mu", "new_mean"), ("std", "sigma", "new_std")
"""What the tables of normalising layers are called."""
SAME_TABLE = 1e-3
"""How far two tables may lie apart that round the same numbers."""
SHOWN = 3
"""How many names an error lists."""


class WeightsError(ValueError):
    """A file that does not hold the weights of the model; the message says why and what to do."""


def load_given(model: nn.Module, path: Path, part: str = "") -> str:
    """Load the weights of a file into a model, in place.

    Args:
        model: the model.
        path: safetensors, or what `torch.save` wrote: a state dict, or a checkpoint that holds one
            at any depth. It is read without running code of the file.
        part: the dotted name of the state dict in the checkpoint; needed if several fit.

    Returns:
        The name of the part that was loaded; empty if the file is the state dict.

    Raises:
        FileNotFoundError: if there is no such file.
        WeightsError: if it is damaged, holds a whole pickled module, no state dict or several that
            fit, or its weights are not those of the model: names the first that differ.
    """
    parts = dict(_state_dicts(_read(path)))
    if not parts:
        raise WeightsError(f"{path}: holds no state dict (names and tensors), nor does any part")
    if part:
        if part not in parts:
            known = _listed(sorted(parts, key=lambda name: _closeness(model, parts[name]))[::-1])
            raise WeightsError(f"{path}: has no part {part!r}; the state dicts in it: {known}")
        parts = {part: parts[part]}
    problems: dict[str, str] = {}
    fitting: dict[str, dict[str, Tensor]] = {}
    for name, found in parts.items():
        try:
            fitting[name] = _matched(model, found)
        except WeightsError as error:
            problems[name] = str(error)
    if not fitting:
        closest = max(parts, key=lambda name: _closeness(model, parts[name]))
        where = f"{path}: {closest}" if closest else str(path)
        raise WeightsError(f"{where}: {problems[closest]}")
    first, *others = fitting
    if any(not _equal(fitting[first], fitting[other]) for other in others):
        raise WeightsError(
            f"{path}: the state dicts {', '.join(fitting)} fit the model and differ; "
            f"say which it is: part: {first}"
        )
    model.load_state_dict(fitting[first])
    return first


def _read(path: Path) -> Any:
    """Read a file of tensors without running code that is in it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; name the file of the weights")
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except SafetensorError as error:
            raise WeightsError(f"{path}: not a whole safetensors file ({error})") from None
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or a foreign file makes its reader raise
        if classes := re.findall(r"GLOBAL ([\w.]+)", str(error)):
            raise WeightsError(
                f"{path}: holds objects of the class {classes[0]}, and to load them is to run "
                "code of the file; where the model was trained, save its weights alone: "
                'torch.save(model.state_dict(), "weights.pt")'
            ) from None
        first, _, _ = str(error).partition("\n")
        raise WeightsError(
            f"{path}: cannot be read ({type(error).__name__}: {first}); expected safetensors or "
            "the state dict that torch.save wrote"
        ) from None


_SCALAR, _ARRAY = np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]
# What checkpoints hold beside tensors (an accuracy, the arguments of the script), under the names
# of numpy 1 as well; none of it runs anything.
_HARMLESS: list[Any] = [
    *(argparse.Namespace, codecs.encode, np.dtype, np.ndarray),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_ARRAY, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *(type(np.dtype(one)) for one in ("f8", "f4", "i8", "i4", "bool")),
]


def _state_dicts(content: Any, place: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield every mapping of names to tensors, with where in the file it is."""
    if isinstance(content, nn.Module) or not isinstance(content, Mapping):
        return
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if tensors:
        yield place, tensors
    for name, inner in content.items():
        yield from _state_dicts(inner, f"{place}.{name}" if place else str(name))


def _matched(model: nn.Module, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the file's tensors under the model's names.

    Raises:
        WeightsError: if one is missing, is too much, or has another shape or no finite numbers.
    """
    own = {name: one for name, one in model.state_dict().items() if isinstance(one, Tensor)}
    ours, theirs = _aligned(own, found)
    _same_names(ours, theirs)
    pairs = {ours.weights[core]: theirs.weights[core] for core in ours.weights}
    _same_shapes(own, found, pairs)
    pairs |= _tables(own, found, ours, theirs)
    shared = ours.counters.keys() & theirs.counters.keys()
    pairs |= {ours.counters[core]: theirs.counters[core] for core in shared}
    for other in pairs.values():
        if found[other].is_quantized or found[other].is_sparse:
            raise WeightsError(f"{other} is quantised or sparse; save the dense float weights")
        if found[other].is_floating_point() and not found[other].isfinite().all():
            raise WeightsError(f"{other} holds numbers that are not finite")
    chosen = {name: found[other].reshape(own[name].shape) for name, other in pairs.items()}
    return {**own, **chosen}


class _Names:
    """The names of a state dict by what is left of them without wrappers and a common beginning.

    Attributes:
        weights: core -> name, of what makes the function.
        tables: core -> name, of normalising layers.
        counters: core -> name.
        beginnings: what many of the weights begin with, and what all of them do, the last first.
    """

    def __init__(self, tensors: Mapping[str, Tensor], cut: tuple[str, ...] | None = None) -> None:
        """Cut off a beginning where a name has it; None for what all of the weights have."""
        tables = set(_table_names(tensors))
        cores = {name: _core(name) for name in tensors}
        if len(set(cores.values())) < len(cores):  # with and without a wrapper, side by side
            cores = {name: tuple(name.split(".")) for name in tensors}
        counters = {name for name in tensors if cores[name][-1] in COUNTERS}
        weights = [name for name in tensors if name not in tables and name not in counters]
        common = _common([cores[name] for name in weights])
        heads = {cores[name][:depth] for name in weights for depth in (1, 2)}
        self.beginnings = [common, (), *sorted(heads - {common, ()})]
        beginning = common if cut is None else cut

        def rest(names: Iterable[str]) -> dict[str, str]:
            depth = len(beginning)
            return {
                ".".join(core[depth:] if core[:depth] == beginning else core): name
                for name in names
                for core in (cores[name],)
            }

        self.weights = rest(weights)
        self.tables = rest(name for name in tensors if name in tables)
        self.counters = rest(name for name in tensors if name in counters)


def _aligned(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> tuple[_Names, _Names]:
    """Align the names of a model and of a file.

    Returns:
        Both without what all of their weights begin with, if they agree; else as they agree best,
        which is what an error has to tell of.
    """
    ours, theirs = _Names(own), _Names(found)
    if ours.weights.keys() == theirs.weights.keys():
        return ours, theirs
    mine = [_Names(own, cut) for cut in ours.beginnings[:2]]
    others = [_Names(found, cut) for cut in theirs.beginnings]
    return max(itertools.product(mine, others), key=lambda pair: _agreement(*pair))


def _agreement(ours: _Names, theirs: _Names) -> int:
    return len(ours.weights.keys() & theirs.weights.keys())


def _core(name: str) -> tuple[str, ...]:
    """Split a name, and leave out what wrappers put into it."""
    parts = name.split(".")
    return (*(one for one in parts[:-1] if one not in WRAPPERS), parts[-1])


def _common(cores: list[tuple[str, ...]]) -> tuple[str, ...]:
    """Return what all names begin with, which leaves of each its last part at least."""
    shared: list[str] = []
    for parts in zip(*(core[:-1] for core in cores), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return tuple(shared)


def _table_names(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield the names of normalising tables: a mean and a deviation side by side, small ones."""
    for name in tensors:
        layer, _, last = name.rpartition(".")
        for mean, std in zip(MEANS, DEVIATIONS, strict=True):
            pair = [f"{layer}.{one}" if layer else one for one in (mean, std)]
            if last in (mean, std) and all(
                one in tensors and tensors[one].numel() <= 16 for one in pair
            ):
                yield name


def _same_names(ours: _Names, theirs: _Names) -> None:
    missing = [name for core, name in ours.weights.items() if core not in theirs.weights]
    unknown = [name for core, name in theirs.weights.items() if core not in ours.weights]
    if not missing and not unknown:
        return
    agree = len(ours.weights) - len(missing)
    told = [f"{agree} of the model's {len(ours.weights)} names agree"]
    if missing:
        told.append(f"the file lacks {_listed(missing)}")
    if unknown:
        told.append(f"the model lacks {_listed(unknown)}")
    mend = "the file is of another network: build the one that was trained (its depth, its width)"
    if agree and not missing:
        mend = "the model is a part of what was trained; build all of it, or save that part alone"
    elif agree and not unknown:
        mend = "the file is a part of the model; save the state dict of the whole network"
    raise WeightsError(f"{'; '.join(told)}; {mend}")


def _same_shapes(
    own: Mapping[str, Tensor], found: Mapping[str, Tensor], pairs: Mapping[str, str]
) -> None:
    other = [name for name, of in pairs.items() if own[name].shape != found[of].shape]
    if not other:
        return
    told = [
        f"{pairs[name]} is {tuple(found[pairs[name]].shape)} in the file and "
        f"{tuple(own[name].shape)} in the model"
        for name in other[:SHOWN]
    ]
    more = f" and {len(other) - SHOWN} more" if len(other) > SHOWN else ""
    first = own[other[0]].shape[1:] == found[pairs[other[0]]].shape[1:]
    mend = "build the network that was trained (its width, its channels)"
    if len(other) <= 2 and first:  # a head: its weight and its bias
        mend = "was it trained on a data set with other classes?"
    raise WeightsError(f"{', '.join(told)}{more}; {mend}")


def _tables(
    own: Mapping[str, Tensor], found: Mapping[str, Tensor], ours: _Names, theirs: _Names
) -> dict[str, str]:
    """Pair the normalising tables, and refuse a file whose table the model does not apply."""
    pairs = {
        name: theirs.tables[core]
        for core, name in ours.tables.items()
        if core in theirs.tables and own[name].numel() == found[theirs.tables[core]].numel()
    }
    for other in theirs.tables.values():
        if other in pairs.values():
            continue
        kind = MEANS if other.rpartition(".")[2] in MEANS else DEVIATIONS
        alike = [name for name in ours.tables.values() if name.rpartition(".")[2] in kind]
        told = f"{other} = {_numbers(found[other])}"
        if not alike:
            raise WeightsError(
                f"the file holds a normalisation ({told}) that the model does not have; give the "
                "model that mean and std, or, if it normalises by itself with numbers in its code, "
                "save the weights without them"
            )
        for name in alike:
            if not _same_table(own[name], found[other]):
                raise WeightsError(
                    f"the file was trained with {told}, the model normalises with {name} = "
                    f"{_numbers(own[name])}; give the model the file's mean and std"
                )
    return pairs


def _same_table(one: Tensor, other: Tensor) -> bool:
    """Whether two tables round the same numbers; a single number is that of every channel."""
    first, second = (table.flatten().double() for table in (one, other))
    if first.numel() != second.numel() and 1 not in (first.numel(), second.numel()):
        return False
    return bool(((first - second).abs() <= SAME_TABLE).all())


def _numbers(table: Tensor) -> str:
    return ",".join(f"{one:.4g}" for one in table.flatten().tolist())


def _closeness(model: nn.Module, found: Mapping[str, Tensor]) -> tuple[int, int]:
    return _agreement(*_aligned(model.state_dict(), found)), len(found)


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
