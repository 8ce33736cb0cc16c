import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advtrain.methods.method import Method
from advtrain.threat import ThreatModel
from advtrain.training.loop import Trained, train
from advtrain.training.micro_batches import MicroBatches
from advtrain.training.updates import plain
from tests.methods.test_method_contracts import noise_of, seen_by
from tests.training.tiny import METHODS, made, network, split_of, tiny_data

CPU = torch.device("cpu")


def plain_network() -> nn.Module:
    """Without BatchNorm and dropout; IBP knows these layers."""
    return nn.Sequential(*(one for one in network(norm=False) if not isinstance(one, nn.Dropout)))


def run(
    workspace: Path, method: Method | None = None, model: nn.Module | None = None, **recipe: Any
) -> Trained:
    method = method or made("pgd_at")
    threat = ThreatModel("linf", 0.1) if method.needs_threat else None
    return train(
        *(
            model or plain_network(),
            method,
            threat,
            tiny_data(),
            0,
            workspace,
            lambda row: None,
            CPU,
        ),
        **{"epochs": 2, "batch_size": 8, "learning_rate": 0.05, "validation_steps": 2, **recipe},
    )


@pytest.mark.parametrize("name", METHODS)
def test_parts_take_the_same_step_as_the_whole(name: str, tmp_path: Path) -> None:
    """Three parts of 3, 3 and 2 rows; a method that they would change refuses them."""
    method = made(name)
    if not method.rowwise:
        with pytest.raises(ValueError, match=f"a step of {type(method).__name__} is not the mean"):
            run(tmp_path / "parts", method, micro_batch=3)
        return
    whole = run(tmp_path / "whole", made(name))
    parts = run(tmp_path / "parts", method, micro_batch=3)
    for key, weight in whole.last.items():
        torch.testing.assert_close(parts.last[key], weight, rtol=1e-4, atol=1e-5)
    for one, other in zip(whole.history, parts.history, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert other["train_accuracy"] == one["train_accuracy"]


@pytest.mark.parametrize("name", [one for one in METHODS if not made(one).rowwise])
def test_what_is_refused_would_have_been_another_step(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the refusal would be for nothing."""
    split = split_of(8, seed=1)
    taken = []
    for size in (0, 3):
        method, model = made(name), plain_network()
        method.start(split.example)
        monkeypatch.setattr(type(method), "rowwise", True)
        if name == "cat":
            method.strength = 1  # it begins with clean images
        micro = MicroBatches(model, method, size, halve=False, image=split.images[:1] / 255)
        taken.append(one_step(micro, method, model, split))
    assert any(
        not torch.allclose(one, other, rtol=1e-4, atol=1e-5)
        for one, other in zip(*taken, strict=True)
    )


def one_step(micro: MicroBatches, method: Method, model: nn.Module, split: Any) -> list[Tensor]:
    from advtrain.methods.method import Batch

    batch = seen_by(method, Batch(split.images / 255, split.labels, split.example, progress=0.5))
    threat = ThreatModel("linf", 0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    try:
        for _ in range(2):  # what a method keeps from one step acts in the next
            x_adv, _ = micro.step(
                partial(plain, model, optimizer), model, batch, threat, noise_of(batch)
            )
            method.after_step(batch, x_adv.detach(), x_adv.grad, threat)
    except (ValueError, RuntimeError, IndexError):
        return [torch.full_like(weight, torch.inf) for weight in model.parameters()]
    return [weight.detach().clone() for weight in model.parameters()]


@pytest.mark.parametrize(
    "options",
    [{"update": "awp"}, {"label_smoothing": 0.1}, {"precision": "bfloat16"}, {"averaging": "ema"}],
)
def test_parts_go_with_the_recipe(options: dict[str, Any], tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", **options)
    parts = run(tmp_path / "parts", micro_batch=4, **options)
    loose = options.get("precision") == "bfloat16"
    for key, weight in whole.last.items():
        torch.testing.assert_close(parts.last[key], weight, rtol=1e-4, atol=0.02 if loose else 1e-5)


def test_the_forward_passes_of_parts_are_counted(tmp_path: Path) -> None:
    whole, parts = run(tmp_path / "whole"), run(tmp_path / "parts", micro_batch=4)
    steps = 10  # of PGD-AT
    assert whole.history[-1]["forward_passes"] == 2 * 22 * (steps + 1)
    assert parts.history[-1]["forward_passes"] == 2 * 22 * (steps + 2)
    assert parts.history[-1]["backward_passes"] == whole.history[-1]["backward_passes"]


@pytest.mark.parametrize("size", [8, 22, 1000])
def test_a_part_that_is_the_whole_costs_what_the_whole_does(size: int, tmp_path: Path) -> None:
    """22 images in minibatches of 8: the last one, of 6, is whole at a size of 7, too."""
    whole, parts = run(tmp_path / "whole"), run(tmp_path / "parts", micro_batch=size)
    assert parts.history == whole.history
    seven = run(tmp_path / "seven", micro_batch=7)
    again = seven.history[-1]["forward_passes"] - whole.history[-1]["forward_passes"]
    assert again == 2 * 16


def test_the_passes_of_unlike_parts_are_averaged(tmp_path: Path) -> None:
    """FAT's examples take unlike numbers of steps."""
    whole = run(tmp_path / "whole", made("fat"))
    parts = run(tmp_path / "parts", made("fat"), micro_batch=3)
    assert parts.history[-1]["backward_passes"] == whole.history[-1]["backward_passes"]


def test_a_network_that_draws_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="micro_batch 4: the network draws random numbers"):
        run(tmp_path, model=network(norm=False), micro_batch=4)


def test_batch_normalisation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="micro_batch 4: the network has BatchNorm"):
        run(tmp_path, model=network(), micro_batch=4)
    with pytest.raises(ValueError, match="halve_on_out_of_memory: the network has BatchNorm"):
        run(tmp_path, model=network(), halve_on_out_of_memory=True)


class Small(nn.Module):
    """A network on a device that holds the activations of so many images."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.inner, self.room, self.sizes = plain_network(), room, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("no room")
        self.sizes.append(len(x))
        found: Tensor = self.inner(x)
        return found


@pytest.mark.parametrize("update", ["plain", "awp"])
def test_what_does_not_fit_is_halved_and_trains_the_same(update: str, tmp_path: Path) -> None:
    small = Small(room=3)
    halved = run(tmp_path / "halved", model=small, halve_on_out_of_memory=True, update=update)
    whole = run(tmp_path / "whole", model=Small(room=99), update=update)
    for key, weight in whole.last.items():
        torch.testing.assert_close(halved.last[key], weight, rtol=1e-4, atol=1e-5)
    assert max(small.sizes[:20]) <= 3


@pytest.mark.parametrize("number", range(2, 14))
def test_a_step_that_failed_halfway_is_taken_anew(number: int, tmp_path: Path) -> None:
    """After a look at the network, AWP's 12 passes: 10 attack steps and two losses."""

    class Failing(Small):
        def forward(self, x: Tensor) -> Tensor:
            self.sizes.append(len(x))
            if len(self.sizes) == number:
                raise torch.OutOfMemoryError("no room")
            found: Tensor = self.inner(x)
            return found

    options: dict[str, Any] = {"update": "awp", "halve_on_out_of_memory": True, "epochs": 1}
    failed = run(tmp_path / "failed", model=Failing(99), **options)
    whole = run(tmp_path / "whole", model=Small(99), **options)
    assert failed.history[-1]["forward_passes"] > whole.history[-1]["forward_passes"]
    for key, weight in whole.last.items():
        torch.testing.assert_close(failed.last[key], weight, rtol=1e-4, atol=1e-5)


def test_without_leave_to_halve_the_error_is_told(tmp_path: Path) -> None:
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        run(tmp_path, model=Small(room=3))


def test_one_image_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        run(tmp_path, model=Small(room=0), halve_on_out_of_memory=True)


def test_a_resumed_run_goes_on_with_the_size_that_fitted(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(row: dict[str, float]) -> None:
        raise StopError

    arguments = (made("pgd_at"), ThreatModel("linf", 0.1), tiny_data(), 0)
    recipe: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 8,
        "learning_rate": 0.05,
        "validation_steps": 2,
        "halve_on_out_of_memory": True,
    }
    whole = train(Small(3), *arguments, tmp_path / "whole", lambda row: None, CPU, **recipe)
    with pytest.raises(StopError):
        train(Small(3), *copy.deepcopy(arguments), tmp_path / "cut", stop, CPU, **recipe)
    again = Small(3)
    resumed = train(again, *arguments, tmp_path / "cut", lambda row: None, CPU, **recipe)
    assert max(again.sizes) <= 3
    assert resumed.history == whole.history
    assert all(torch.equal(resumed.last[key], whole.last[key]) for key in whole.last)
