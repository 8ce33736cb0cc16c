"""What the parts of a recipe do to the minibatches, the weights and the rows of a training."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from advtrain.methods.iaat import Iaat
from advtrain.methods.method import Batch, Cost, Passes
from advtrain.methods.natural import Natural
from advtrain.methods.pgd_at import PgdAt
from advtrain.methods.trades import Trades
from advtrain.training.loop import TrainingData
from tests.training.test_loop import Recorder, run
from tests.training.tiny import CLASSES, network, split_of


def recorded(folder: Path, data: TrainingData, **recipe: object) -> list[Batch]:
    """The minibatches of one epoch."""
    recorder = Recorder()
    run(folder, data, recorder, **{"epochs": 1, **recipe})
    return recorder.batches


@pytest.fixture
def with_extra(data: TrainingData) -> TrainingData:
    extra = split_of(10, seed=5)
    return TrainingData(data.train, data.validation, extra)


def test_smoothing_mixes_the_label_with_all_classes(tmp_path: Path, data: TrainingData) -> None:
    (batch, *_) = recorded(tmp_path, data, label_smoothing=0.3)
    own, others = 0.7 + 0.3 / CLASSES, 0.3 / CLASSES
    assert batch.smoothed is not None
    assert batch.target is batch.smoothed
    for label, row in zip(batch.y.tolist(), batch.smoothed.tolist(), strict=True):
        expected = [own if one == label else others for one in range(CLASSES)]
        assert row == pytest.approx(expected)


def test_without_smoothing_the_target_is_the_label(tmp_path: Path, data: TrainingData) -> None:
    (batch, *_) = recorded(tmp_path, data)
    assert batch.smoothed is None
    assert batch.target is batch.y


def test_a_share_of_each_minibatch_is_extra(tmp_path: Path, with_extra: TrainingData) -> None:
    assert with_extra.extra is not None
    given = with_extra.extra
    extra = dict(zip(given.example.tolist(), given.labels.tolist(), strict=True))
    batches = recorded(tmp_path, with_extra, extra_fraction=0.25)
    own: list[int] = []
    for batch in batches:
        ids = batch.example.tolist()
        assert [one in extra for one in ids[-2:]] == [True, True]
        assert not any(one in extra for one in ids[:-2])
        assert [extra[one] for one in ids[-2:]] == batch.y.tolist()[-2:]
        own += ids[:-2]
    # An epoch stays one pass over the labelled examples.
    assert sorted(own) == sorted(with_extra.train.example.tolist())


def test_extra_data_is_counted_as_seen(tmp_path: Path, with_extra: TrainingData) -> None:
    trained = run(tmp_path, with_extra, Natural(), epochs=2, extra_fraction=0.25)
    # 22 labelled in minibatches of 6, 4 of them, with 2 extra ones each.
    assert [row["examples_seen"] for row in trained.history] == [30, 60]
    assert [row["forward_passes"] for row in trained.history] == [30, 60]


def test_extra_data_that_is_not_there_is_named(tmp_path: Path, data: TrainingData) -> None:
    with pytest.raises(ValueError, match="extra_fraction is 0.5, but there is no extra data"):
        run(tmp_path, data, extra_fraction=0.5)


class Pair(Recorder):
    """A method of two views."""

    views = 2


def test_views_are_augmented_and_attacked_apart(tmp_path: Path, data: TrainingData) -> None:
    pair = Pair()
    trained = run(tmp_path, data, pair, epochs=1, crop_padding=2)
    batch = pair.batches[0]
    assert len(batch.x) == 16
    assert torch.equal(batch.example[:8], batch.example[8:])
    assert torch.equal(batch.y[:8], batch.y[8:])
    assert not torch.equal(batch.x[:8], batch.x[8:])
    assert trained.history[0]["examples_seen"] == 22
    assert trained.history[0]["forward_passes"] == 44


def test_the_first_view_is_that_of_a_method_with_one(tmp_path: Path, data: TrainingData) -> None:
    one, pair = Recorder(), Pair()
    run(tmp_path / "one", data, one, epochs=1, crop_padding=2)
    run(tmp_path / "pair", data, pair, epochs=1, crop_padding=2)
    assert torch.equal(pair.batches[0].x[:8], one.batches[0].x)


def test_progress_is_the_share_of_the_steps_done(tmp_path: Path, data: TrainingData) -> None:
    recorder = Recorder()
    run(tmp_path, data, recorder, epochs=2)
    assert [batch.progress for batch in recorder.batches] == [step / 6 for step in range(6)]


def test_policies_begin_at_their_share(tmp_path: Path, data: TrainingData) -> None:
    plain, late = Recorder(), Recorder()
    run(tmp_path / "plain", data, plain, epochs=2)
    run(tmp_path / "late", data, late, epochs=2, cutout=2, policy_start=0.5)
    same = [torch.equal(a.x, b.x) for a, b in zip(plain.batches, late.batches, strict=True)]
    assert same == [True] * 3 + [False] * 3


class Stopping(PgdAt):
    """Asks to stop after its second epoch."""

    def after_epoch(self, model, batch, row, threat, noise):
        row["checked"] = 2 * row["epoch"]
        return "enough" if row["epoch"] == 2 else ""


def test_a_stop_goes_back_to_the_epoch_before(tmp_path: Path, data: TrainingData) -> None:
    rows: list[dict[str, float]] = []
    recipe = {"schedule": "constant", "epochs": 5}
    stopped = run(tmp_path / "stopped", data, Stopping(steps=2), rows=rows, **recipe)
    whole = run(tmp_path / "whole", data, PgdAt(steps=2), schedule="constant", epochs=1)
    assert stopped.status == "stopped"
    assert stopped.cause == "enough; the weights kept are those before that epoch"
    assert [row["epoch"] for row in stopped.history] == [1, 2]
    assert [row["checked"] for row in rows] == [2, 4]
    for name, weights in whole.last.items():
        assert torch.equal(stopped.last[name], weights)
    assert stopped.best_epoch == 1


def test_what_a_method_keeps_per_example_is_returned(tmp_path: Path, data: TrainingData) -> None:
    trained = run(tmp_path, data, Iaat(steps=2, warmup=0.0), epochs=3)
    values = trained.example_values
    assert set(values) == {"example", "epoch", "epsilon"}
    ids = sorted(data.train.example.tolist())
    assert values["example"].tolist() == ids * 3
    assert values["epoch"].tolist() == [epoch for epoch in (1, 2, 3) for _ in ids]
    last = values["epsilon"][-len(ids) :]
    assert trained.history[-1]["mean_epsilon"] == pytest.approx(last.double().mean().item())
    assert len(last.unique()) > 1


def test_a_method_that_keeps_nothing_returns_nothing(tmp_path: Path, data: TrainingData) -> None:
    assert run(tmp_path, data, epochs=1).example_values == {}


def test_the_average_is_what_is_validated_and_kept(tmp_path: Path, data: TrainingData) -> None:
    class Seen(Natural):
        """Notes the weights after each step."""

        def after_step(self, batch, x_adv, gradient, threat):
            weights.append(model[0].weight.detach().clone())

    weights: list[Tensor] = []
    model = network(dropout=0.0)
    start = model[0].weight.detach().clone()
    trained = run(
        *(tmp_path, data, Seen()),
        model=model,
        epochs=1,
        averaging="ema",
        ema_decay=0.05,
        threat=None,
    )
    expected = start
    for step, one in enumerate(weights):
        decay = min(0.05, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * one
    assert torch.allclose(trained.last["0.weight"], expected, atol=1e-6)
    assert not torch.allclose(trained.last["0.weight"], weights[-1], atol=1e-6)
    assert torch.equal(trained.last["0.weight"], model[0].weight.detach())


def test_awp_costs_a_second_loss(tmp_path: Path, data: TrainingData) -> None:
    def spent(name: str, **recipe: object) -> list[tuple[float, float]]:
        trained = run(tmp_path / name, data, Trades(steps=2), epochs=2, **recipe)
        return [(row["forward_passes"], row["backward_passes"]) for row in trained.history]

    # Crafting 3 and 2, the loss 2 and 2, for 22 examples.
    assert spent("plain") == [(110, 88), (220, 176)]
    assert spent("awp", update="awp") == [(154, 132), (308, 264)]
    assert spent("late", update="awp", awp_warmup=1) == [(110, 88), (264, 220)]


def test_a_varying_cost_is_added_up(tmp_path: Path, data: TrainingData) -> None:
    class Growing(Natural):
        """Step k costs k passes of crafting."""

        def perturb(self, model, batch, threat, noise):
            object.__setattr__(self, "k", getattr(self, "k", 0) + 1)
            return batch.x

        def cost(self) -> Cost:
            return Cost(crafting=Passes(self.k, 0), loss=Passes(1, 1))

    trained = run(tmp_path, data, Growing(), epochs=1)
    assert trained.history[0]["forward_passes"] == 22 + 8 * 1 + 8 * 2 + 6 * 3


def test_bfloat16_trains_and_leaves_float32_weights(tmp_path: Path, data: TrainingData) -> None:
    trained = run(tmp_path, data, epochs=8, learning_rate=0.05, precision="bfloat16")
    assert {weights.dtype for weights in trained.last.values()} == {torch.float32, torch.int64}
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]
