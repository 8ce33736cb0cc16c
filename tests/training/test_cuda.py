"""What a training promises on a GPU; `pytest -m gpu` on a machine that has one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from advtrain.models.preact_resnet import preact_resnet
from advtrain.threat import ThreatModel
from advtrain.training.loop import Trained, train
from tests.training.tiny import METHODS, made, network, tiny_data

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]
RECIPE = {"epochs": 3, "batch_size": 8, "learning_rate": 0.05, "validation_steps": 2}


class StoppedError(Exception):
    """Stands for a kill."""


def run(
    workspace: Path, name: str = "pgd_at", stop_after: int = 0, device: str = "cuda", **recipe: Any
) -> Trained:
    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == stop_after:
            raise StoppedError

    method = made(name)
    if method.replays > 1:
        recipe = {"epochs": 3 * method.replays, **recipe}
    # Bounds are known for plain layers only.
    model = network(norm=name != "ibp")
    if name == "ibp":
        model = nn.Sequential(*(one for one in model if not isinstance(one, nn.Dropout)))
    threat = ThreatModel("linf", 0.1) if method.needs_threat else None
    return train(
        *(model, method, threat, tiny_data(), 0, workspace, stop, torch.device(device)),
        **{**RECIPE, **recipe},
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_stopped_run_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", name)
    with pytest.raises(StoppedError):
        run(tmp_path / "cut", name, stop_after=2)
    resumed = run(tmp_path / "cut", name)
    assert resumed.history == whole.history
    assert all(torch.equal(resumed.last[key], whole.last[key]) for key in whole.last)


@pytest.mark.parametrize("name", ["pgd_at", "trades", "free"])
def test_a_gpu_trains_as_a_cpu_does_up_to_rounding(name: str, tmp_path: Path) -> None:
    """The random numbers are the same; signs of gradients near zero are not."""
    there, here = run(tmp_path / "cuda", name), run(tmp_path / "cpu", name, device="cpu")
    for row, expected in zip(there.history, here.history, strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], rel=0.05)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("fat", "iaat")])
def test_no_step_waits_for_the_device(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA raises at a hidden wait within perturb, loss and after_step."""
    kind = type(made(name))
    for part in ("perturb", "loss", "after_step"):
        monkeypatch.setattr(kind, part, without_waiting(getattr(kind, part)))
    run(tmp_path, name)


def without_waiting(function: Any) -> Any:
    def call(*given: Any, **named: Any) -> Any:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return function(*given, **named)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    return call


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "bfloat16"},
        {"precision": "float16"},
        {"precision": "tf32"},
        {"channels_last": True},
        {"compile_mode": "default"},
        {"compile_mode": "reduce-overhead"},
        {"compile_mode": "reduce-overhead", "precision": "bfloat16"},
        {"determinism": "fast"},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["pgd_at", "trades"])
def test_what_is_faster_learns_the_same(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    full = run(tmp_path / "full", name, batch_size=11)
    fast = run(tmp_path / "fast", name, batch_size=11, **options)
    assert fast.history[-1]["loss"] == pytest.approx(full.history[-1]["loss"], rel=0.15)


def test_compiled_graphs_keep_both_logits_of_a_residual_network(tmp_path: Path) -> None:
    """TRADES reads two outputs of one graph, whose memory is used again."""
    losses = []
    for mode in ("none", "reduce-overhead"):
        torch.manual_seed(0)
        model = preact_resnet(channels=1, size=4, classes=3, width=8)
        trained = train(
            *(model, made("trades"), ThreatModel("linf", 0.1), tiny_data(), 0, tmp_path / mode),
            lambda row: None,
            torch.device("cuda"),
            **{**RECIPE, "batch_size": 11, "compile_mode": mode},
        )
        losses.append(trained.history[0]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
