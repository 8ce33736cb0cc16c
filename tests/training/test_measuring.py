"""What the loop says of its time: each part of a step counts to its section."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advtrain.graph.timings import SECTIONS, TRAINING
from advtrain.methods.consistency import Consistency
from advtrain.methods.free import Free
from advtrain.methods.method import Batch, Method, Terms
from advtrain.methods.pgd_at import PgdAt
from advtrain.noise import Noise
from advtrain.threat import ThreatModel
from advtrain.training import loop
from advtrain.training.loop import Trained, TrainingData, train
from tests.training.conftest import Clock
from tests.training.tiny import network

CPU = torch.device("cpu")
STEPS = 3  # minibatches of 8 out of 22 images


class Slow(PgdAt):
    """An attack takes 5 s, a loss 3 s, the state after a step 2 s, a check of an epoch 70 s."""

    clock = Clock()
    stops = False

    def perturb(self, model: nn.Module, batch: Batch, threat: ThreatModel, noise: Noise) -> Tensor:
        self.clock.now += 5
        return super().perturb(model, batch, threat, noise)

    def loss(self, model: nn.Module, *given: Any) -> Terms:
        self.clock.now += 3
        return super().loss(model, *given)

    def after_step(self, *given: Any) -> None:
        self.clock.now += 2

    def after_epoch(self, *given: Any) -> str:
        self.clock.now += 70
        return "enough" if self.stops else ""


def run(
    workspace: Path,
    data: TrainingData,
    method: Method,
    measured: list[dict[str, float]] | None = None,
    **recipe: object,
) -> Trained:
    chosen = {"epochs": 2, "batch_size": 8, "validation_steps": 1, **recipe}
    return train(
        *(network(), method, ThreatModel("linf", 0.1), data, 0, workspace),
        lambda row: None,
        CPU,
        None if measured is None else measured.append,
        **chosen,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(("update", "losses"), [("plain", 1), ("awp", 2)])
def test_work_is_counted_to_its_section(
    tmp_path: Path, data: TrainingData, clock: Clock, monkeypatch: pytest.MonkeyPatch,
    update: str, losses: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(Slow, "clock", clock)
    validate = loop._validate

    def slow(*given: Any) -> dict[str, float]:
        clock.now += 20
        return validate(*given)

    monkeypatch.setattr(loop, "_validate", slow)
    found: list[dict[str, float]] = []
    run(tmp_path, data, Slow(steps=1), found, update=update)
    for epoch in found:
        assert [epoch[section] for section in SECTIONS] == [
            *(0.0, 5 * STEPS, (3 * losses + 2) * STEPS, 20 + 70),
        ]
        assert epoch["images_per_second"] == pytest.approx(22 / (STEPS * (7 + 3 * losses)))
        assert epoch["peak_memory_bytes"] > 0
    assert len(found) == 2


def test_augmentation_is_data(
    tmp_path: Path, data: TrainingData, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    augment = loop.augment

    def slow(*given: Any, **named: Any) -> Tensor:
        clock.now += 4
        return augment(*given, **named)

    monkeypatch.setattr(loop, "augment", slow)
    found: list[dict[str, float]] = []
    run(tmp_path, data, PgdAt(steps=1), found, epochs=1)
    assert [found[0][section] for section in TRAINING] == [4 * STEPS, 0.0, 0.0]
    # The validation prepares its images by the same function: 12 of them in two batches.
    assert found[0]["validation"] == 4 * 2


@pytest.mark.parametrize(
    ("method", "rows"), [(Free(replays=3), 22 * 3), (Consistency(steps=1), 22 * 2)]
)
def test_replays_and_views_are_images_too(
    tmp_path: Path, data: TrainingData, method: Method, rows: int
) -> None:
    found: list[dict[str, float]] = []
    run(tmp_path, data, method, found, epochs=1)
    seconds = sum(found[0][section] for section in TRAINING)
    assert found[0]["images_per_second"] * seconds == pytest.approx(rows)


def test_being_measured_changes_nothing(tmp_path: Path, data: TrainingData) -> None:
    found: list[dict[str, float]] = []
    watched = run(tmp_path / "watched", data, PgdAt(steps=2), found)
    alone = run(tmp_path / "alone", data, PgdAt(steps=2))
    assert watched.history == alone.history
    assert all(torch.equal(watched.last[name], alone.last[name]) for name in alone.last)
    assert not set(alone.history[0]) & {*found[0]}
    # It is the same run: one that was not watched is not made again.
    before = len(found)
    assert run(tmp_path / "alone", data, PgdAt(steps=2), found).history == alone.history
    assert len(found) == before


def test_the_epoch_that_stops_a_training_is_measured_before_its_row(
    tmp_path: Path, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Slow, "stops", True)
    said: list[str] = []
    ended = train(
        *(network(), Slow(steps=1), ThreatModel("linf", 0.1), data, 0, tmp_path),
        lambda row: said.append("row"),
        CPU,
        lambda measured: said.append("measured"),
        epochs=2,
        batch_size=8,
        validation_steps=0,
    )
    assert ended.status == "stopped"
    assert said == ["measured", "row"]
