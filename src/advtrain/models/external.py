"""Anybody's network: a Python file with a function that builds it, looked at before it is used."""

import contextlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advtrain.models.normalisation import Normalisation, Normalize, normalize
from advtrain.params.files import File
from advtrain.params.quantities import Count, Shares

FACTS = {
    "channels": ("channels", "in_channels", "num_channels"),
    "size": ("size", "image_size", "img_size"),
    "classes": ("classes", "num_classes", "n_classes"),
}
"""What a building function may ask about the data, by the names that it may ask under."""
LOGITS = (torch.float32, torch.float64)


def external(
    *,
    channels: Count,
    size: Count,
    classes: Count,
    file: File = "",
    build: str = "build",
    normalisation: Normalisation = "none",
    mean: Shares = (),
    std: Shares = (),
) -> nn.Sequential:
    """Build a network by a function (or class) of a Python file.

    The file runs as a script would, with its folder first on the import path; it may import what
    lies beside it. The function is given those of the facts about the data that it has keyword
    parameters for (`FACTS`) and nothing else.

    Args:
        channels: of the images.
        size: height and width of the images in pixels.
        classes: number of logits.
        file: the Python file.
        build: name of the function, of an `nn.Module` class, or of a finished module in it.
        normalisation: table in front of the network; `none` if it normalises by itself.
        mean: per channel, in pixel units [0, 1]: a table of one's own instead.
        std: per channel, in pixel units, above 0; with `mean`.

    Returns:
        A network: images (N, channels, size, size) in [0, 1] -> logits (N, classes).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it has no such function, the function fails, or what it returns does not map
            such images to logits of that many classes.
    """
    if not file:
        raise ValueError("external: no file is given; name the Python file that builds the network")
    path = Path(file).absolute()
    if not path.is_file():
        raise FileNotFoundError(f"external: there is no file {path}")
    front = _front(channels, normalisation, mean, std)
    with _first_on_the_import_path(path.parent):
        network = _network(path, build, {"channels": channels, "size": size, "classes": classes})
    if not isinstance(front, nn.Identity) and any(_is_table(one) for one in network.modules()):
        raise ValueError(
            f"external: {build} of {file} makes a network with a normalisation of its own, so that "
            "images would be normalised twice; take out normalisation, mean and std"
        )
    model = nn.Sequential(front, network)
    _check(model, f"{build} of {file}", (2, channels, size, size), classes)
    return model


def _front(channels: int, normalisation: str, mean: Shares, std: Shares) -> nn.Module:
    if not mean and not std:
        return normalize(normalisation, channels)
    if normalisation != "none":
        raise ValueError(
            f"external: normalisation {normalisation} and mean, std are two tables; take one out"
        )
    for name, given in (("mean", mean), ("std", std)):
        if len(given) != channels:
            raise ValueError(
                f"external: expected {name} of {channels} channels, got {list(given)}; "
                "mean and std go together, one number per channel"
            )
    if min(std) <= 0:
        raise ValueError(f"external: std is above 0, got {list(std)}")
    return Normalize(tuple(mean), tuple(std))


@contextlib.contextmanager
def _first_on_the_import_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


def _network(path: Path, build: str, facts: dict[str, int]) -> nn.Module:
    """Run the file, call what builds the network, and return the network."""
    name = f"external_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"external: {path} is no Python file; expected one that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look a class up by its module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever somebody's file raises, say which file it was
        mend = ""
        if isinstance(error, ImportError):
            mend = (
                f"; install it in this environment, or put it beside {path.name}, which runs as "
                "a script and imports by names without a leading dot"
            )
        raise ValueError(f"external: {path} fails: {_told(error)}{mend}") from error
    builder = getattr(module, build, None)
    if builder is None:
        callables = [one for one, found in vars(module).items() if inspect.isfunction(found)]
        known = ", ".join(callables) or "none"
        raise ValueError(f"external: {path} has no {build}; the functions in it: {known}")
    if isinstance(builder, nn.Module):
        return builder.cpu()
    given = _asked_for(builder, facts, f"{build} of {path}")
    try:
        network = builder(**given)
    except Exception as error:
        called = f"{build}({', '.join(f'{k}={v}' for k, v in given.items())})"
        raise ValueError(f"external: {called} of {path} fails: {_told(error)}") from error
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"external: {build} of {path} returns {type(network).__name__}, expected an nn.Module"
        )
    return network.cpu()


def _asked_for(builder: Any, facts: dict[str, int], place: str) -> dict[str, int]:
    """Return those facts that a function has parameters for, by its own names for them."""
    if not callable(builder):
        raise ValueError(
            f"external: {place} is {type(builder).__name__}, expected a function that returns an "
            "nn.Module"
        )
    known = {alias: facts[fact] for fact, aliases in FACTS.items() for alias in aliases}
    given = {}
    for name, parameter in inspect.signature(builder).parameters.items():
        by_name = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if by_name and name in known:
            given[name] = known[name]
        elif parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            raise ValueError(
                f"external: {place} needs {name}, which nothing gives it (it may ask for "
                f"{', '.join(known)}); write a function without it that calls this one"
            )
    return given


def _is_table(module: nn.Module) -> bool:
    """Whether a layer has a mean and a deviation as buffers, as layers that normalise have."""
    own = dict(module.named_buffers(recurse=False))
    return {"mean", "std"} <= own.keys() or {"mu", "sigma"} <= own.keys()


def _check(model: nn.Module, place: str, shape: tuple[int, ...], classes: int) -> None:
    """Look at what the model makes of two images, and leave it as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            logits: Any = model(torch.linspace(0, 1, math.prod(shape)).reshape(shape))
    except Exception as error:
        raise ValueError(
            f"external: the network of {place} cannot map images {shape} in [0, 1] on the CPU: "
            f"{_told(error)}; is it made for this data set, and are its tensors parameters or "
            "registered buffers, which move with it?"
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"external: the network of {place} returns {type(logits).__name__}, expected a tensor "
            "of logits; wrap it in a module that returns the logits alone"
        )
    if logits.ndim != 2 or len(logits) != shape[0]:
        raise ValueError(
            f"external: the network of {place} maps images {shape} to {tuple(logits.shape)}, "
            f"expected logits ({shape[0]}, {classes})"
        )
    if logits.shape[1] != classes:
        raise ValueError(
            f"external: the network of {place} has {logits.shape[1]} classes, the data set has "
            f"{classes}; let {place.split()[0]} ask for classes, or choose another data set"
        )
    if logits.dtype not in LOGITS:
        raise ValueError(
            f"external: the network of {place} returns logits in {logits.dtype}, expected "
            "float32; call .float() on the network or on its logits"
        )


def _told(error: Exception) -> str:
    first, _, _ = f"{type(error).__name__}: {error}".strip().partition("\n")
    return first
