"""The options that change how a training computes, and nothing of what it computes."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from advtrain.threat import ThreatModel
from advtrain.training.compiling import compiled
from advtrain.training.loop import Trained, train
from tests.training.tiny import METHODS, made, network, tiny_data

CPU = torch.device("cpu")

# What a GPU has to be waited for: a value or a shape that the host has to know.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "is_nonzero", "equal")


def run(
    workspace: Path, name: str = "pgd_at", model: nn.Module | None = None, **recipe: Any
) -> Trained:
    method = made(name)
    threat = ThreatModel("linf", 0.1) if method.needs_threat else None
    # Bounds are known for plain layers only, which a dropout is not.
    model = model or nn.Sequential(*(m for m in network() if not isinstance(m, nn.Dropout)))
    return train(
        *(model, method, threat, tiny_data(), 0, workspace, lambda row: None, CPU),
        **{"epochs": 2, "batch_size": 8, "learning_rate": 0.05, "validation_steps": 2, **recipe},
    )


class Watched(TorchDispatchMode):
    """Notes the operations that a GPU would have to be waited for, by the number of the pass."""

    def __init__(self) -> None:
        super().__init__()
        self.passes, self.waited = 0, list[tuple[int, str]]()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.overloadpacket.__name__
        masked = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if masked or name in WAITING:
            self.waited.append((self.passes, name))
        return func(*args, **(kwargs or {}))


class Passing(nn.Module):
    """Counts training passes, so that what happens between two of them can be told apart."""

    def __init__(self, watched: Watched) -> None:
        super().__init__()
        self.inner, self.watched = nn.Sequential(*list(network())[:4], network()[5]), watched

    def forward(self, x: Tensor) -> Tensor:
        self.watched.passes += torch.is_grad_enabled()
        found: Tensor = self.inner(x)
        return found


@pytest.mark.parametrize("options", [{}, {"update": "awp"}, {"averaging": "ema"}], ids=str)
def test_an_epoch_never_waits_for_the_device(options: dict[str, Any], tmp_path: Path) -> None:
    """Three steps of 11 passes, then three of the validation; then the epoch is read."""
    assert waits(tmp_path, "pgd_at", **options) == []


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("fat", "ibp")])
def test_no_method_waits_for_the_device_within_an_epoch(name: str, tmp_path: Path) -> None:
    """FAT looks whether every example is fooled; IBP bounds plain layers only."""
    assert waits(tmp_path, name) == []


def waits(workspace: Path, name: str, **options: Any) -> list[tuple[int, str]]:
    """What was waited for between the first and the last pass of the weights in the first epoch."""
    watched = Watched()
    first, last = [0], [0]

    class Seen(Passing):
        def forward(self, x: Tensor) -> Tensor:
            if self.training and torch.is_grad_enabled() and self.inner[0].weight.requires_grad:
                first[0] = first[0] or self.watched.passes + 1
                last[0] = self.watched.passes + 1
            return super().forward(x)

    recipe = {"epochs": 1, "validation_steps": 0, **options}
    if name == "free":
        recipe["epochs"] = made(name).replays
    with watched:
        run(workspace, name, Seen(watched), **recipe)
    assert last[0] > first[0] > 0
    return [one for one in watched.waited if first[0] <= one[0] < last[0]]


def test_the_watch_sees_what_waits() -> None:
    with Watched() as watched:
        torch.ones(3).sum().item()
        torch.ones(3).nonzero()
        _ = torch.ones(3)[torch.tensor([True, False, True])]
    assert [name for _, name in watched.waited] == ["_local_scalar_dense", "nonzero", "index"]


def test_channels_last_is_the_same_training_up_to_rounding(tmp_path: Path) -> None:
    plain, last = run(tmp_path / "plain"), run(tmp_path / "last", channels_last=True)
    for name, weight in plain.last.items():
        torch.testing.assert_close(last.last[name], weight, rtol=1e-3, atol=1e-4)


def test_channels_last_reaches_weights_and_images(tmp_path: Path) -> None:
    """Channels of one, and images of one column, would be in both layouts at once."""
    layouts = []

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spread, self.inner = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 4, 3, padding=1)
            self.head = nn.Linear(64, 3)

        def forward(self, x: Tensor) -> Tensor:
            inside = self.inner(self.spread(x))
            for one in (inside, self.inner.weight):
                layouts.append(
                    (one.is_contiguous(), one.is_contiguous(memory_format=torch.channels_last))
                )
            found: Tensor = self.head(inside.relu().flatten(1))
            return found

    run(tmp_path / "plain", model=Wide())
    assert set(layouts) == {(True, False)}
    layouts.clear()
    run(tmp_path / "last", model=Wide(), channels_last=True)
    assert {last for _, last in layouts} == {True}


@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")  # of Python 3.13.0
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
def test_a_compiled_training_is_the_same_up_to_rounding(tmp_path: Path) -> None:
    """Of TRADES, which reads two forward passes at once."""
    eager = run(tmp_path / "eager", "trades", batch_size=11)
    fused = run(tmp_path / "fused", "trades", batch_size=11, compile_mode="default")
    for name, weight in eager.last.items():
        torch.testing.assert_close(fused.last[name], weight, rtol=1e-3, atol=1e-4)
    assert fused.history[-1]["train_accuracy"] == eager.history[-1]["train_accuracy"]


def test_a_compiled_network_is_left_as_found() -> None:
    model = network()
    names, forward = list(model.state_dict()), model.forward
    with compiled(model, "default"):
        assert list(model.state_dict()) == names
        assert model.forward != forward
    with pytest.raises(ZeroDivisionError), compiled(model, "default"):
        raise ZeroDivisionError
    assert model.forward == forward
    assert "forward" not in vars(model)


def test_no_compilation_is_nothing_at_all() -> None:
    model = network()
    with compiled(model, "none"):
        assert "forward" not in vars(model)


def test_fast_allows_what_deterministic_forbids(tmp_path: Path) -> None:
    found = []

    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: Tensor) -> Tensor:
            found.append(
                (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark)
            )
            out: Tensor = self.inner(x)
            return out

    run(tmp_path / "slow", model=Looks())
    assert set(found) == {(True, False)}
    found.clear()
    run(tmp_path / "fast", model=Looks(), determinism="fast")
    assert set(found) == {(False, True)}
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark


@pytest.mark.parametrize("name", METHODS)
def test_float16_trains_every_method_as_float32_does_or_refuses(name: str, tmp_path: Path) -> None:
    method = made(name)
    options: dict[str, Any] = {"epochs": 2 * method.replays, "learning_rate": 0.02}
    full = run(tmp_path / "full", name, **options)
    if method.second_order or method.beside_network:
        with pytest.raises(ValueError, match=f"{type(method).__name__} needs others"):
            run(tmp_path / "low", name, precision="float16", **options)
        return
    low = run(tmp_path / "low", name, precision="float16", **options)
    moved = sum((full.last[key] - weight).square().sum() for key, weight in low.last.items())
    size = sum(weight.square().sum() for weight in full.last.values())
    assert 0 < moved / size < 0.05**2


def test_a_loss_of_gradients_cannot_be_compiled(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="compile_mode default: compiled passes have no second"):
        run(tmp_path, "gradalign", compile_mode="default")
