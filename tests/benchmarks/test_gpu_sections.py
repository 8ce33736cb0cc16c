"""The GPU's sections on a CPU and a small network: they run, and judge what they measured."""

from functools import partial
from pathlib import Path

import pytest
import torch

from advtrain.data.store import Split
from advtrain.models.preact_resnet import preact_resnet
from advtrain.noise import Noise
from benchmarks import gpu
from benchmarks.harness import CPU, Network, Size

QUICK, FULL = Size(rounds=1, images=8), Size(rounds=3, images=8)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "preact_resnet", partial(preact_resnet, width=2))
    eager = {"compile_mode": "none", "precision": "float32", "batch_size": 8}
    monkeypatch.setattr(gpu, "RECIPE", gpu.RECIPE | eager)
    monkeypatch.setattr(gpu, "images", lambda size, data: (images(16), images(8) if data else None))


def images(count: int) -> Split:
    drawn = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    return Split(drawn, torch.randint(0, 10, (count,)), torch.arange(count))


def test_the_variants_of_an_attack_step_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    eager = {name: (*found[:2], "none") for name, found in gpu.VARIANTS.items()}
    monkeypatch.setattr(gpu, "VARIANTS", eager)
    made = gpu.resnet
    monkeypatch.setattr(gpu, "resnet", lambda device, batch: made(device, batch // 64))
    monkeypatch.setattr(gpu, "STEPS", 2)
    found = gpu.graphs_section(CPU, QUICK, None)
    assert len(found.rows) == 3 * len(eager)
    assert [goal.name.split()[0] for goal in found.goals] == ["G1", "G1"]


def test_an_attack_step_moves_images_within_the_budget() -> None:
    network: Network = gpu.resnet(CPU, 4)
    with gpu.ExitStack() as still_open:
        attack = gpu.steps(network, "float32", True, "none", still_open)
        found = attack(network.x, network.y, Noise(0, torch.arange(4)))
    moved = gpu.THREAT.distance(found, network.x)
    assert (moved > 0).all()
    assert (moved <= gpu.THREAT.epsilon * 1.0001).all()


def test_trainings_are_timed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    short = [(name, method, 3 * method.replays, 600) for name, method, _, _ in gpu.TRAININGS]
    monkeypatch.setattr(gpu, "TRAININGS", short)
    found = gpu.trainings_section(CPU, FULL, None)
    assert [row["epochs done"] for row in found.rows] == [3, 3, 3]
    assert all(goal.met for goal in found.goals)
    assert "PGD-20 accuracy" not in found.rows[0]
    assert "random" in found.remarks[0]


def test_with_data_the_accuracy_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "TRAININGS", gpu.TRAININGS[:1])
    monkeypatch.setattr(gpu, "WANTED", 0.0)
    full = [(name, method, 2, bound) for name, method, _, bound in gpu.TRAININGS]
    monkeypatch.setattr(gpu, "TRAININGS", full)
    found = gpu.trainings_section(CPU, FULL, Path("prepared"))
    assert 0 <= found.rows[0]["PGD-20 accuracy"] <= 1
    assert found.goals[-1].name == "G2 seconds to 0% under PGD-20"


def test_a_trial_judges_no_training() -> None:
    assert gpu.trainings_section(CPU, QUICK, None).goals == []


@pytest.mark.gpu
def test_the_profiler_sees_a_gpu_idle_for_a_part() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert 0 <= gpu.idle(torch.device("cuda"), 3, gpu.RECIPE, 8) < 1
