import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from advtrain.methods.free import Free
from advtrain.methods.method import Batch, Cost, Method, Passes
from advtrain.methods.natural import Natural
from advtrain.methods.pgd_at import PgdAt
from advtrain.methods.trades import Trades
from advtrain.params import signatures
from advtrain.training import loop, randomness
from advtrain.training.loop import Trained, TrainingData, train
from tests.training.tiny import network, split_of

THREAT = loop.ThreatModel("linf", 0.1)
CPU = torch.device("cpu")


def run(
    workspace: Path,
    data: TrainingData,
    method: Method | None = None,
    *,
    model: nn.Module | None = None,
    threat: loop.ThreatModel | None = THREAT,
    seed: int = 0,
    rows: list[dict[str, float]] | None = None,
    **recipe: object,
) -> Trained:
    """Train the tiny network for a few epochs."""
    chosen = {"epochs": 3, "batch_size": 8, "validation_steps": 2, **recipe}
    return train(
        network() if model is None else model,
        PgdAt(steps=2) if method is None else method,
        threat,
        data,
        seed,
        workspace,
        (lambda row: None) if rows is None else rows.append,
        CPU,
        **chosen,
    )


def assert_equal(one: Trained, other: Trained) -> None:
    assert one.history == other.history
    assert (one.best_epoch, one.status, one.cause) == (other.best_epoch, other.status, other.cause)
    for name in one.last:
        assert torch.equal(one.last[name], other.last[name])
        assert torch.equal(one.best[name], other.best[name])


class Recorder(Natural):
    """Natural training that notes what it is given."""

    def __init__(self) -> None:
        object.__setattr__(self, "batches", [])
        object.__setattr__(self, "seeds", [])

    def perturb(self, model, batch, threat, noise):
        assert model.training
        self.batches.append(batch)
        self.seeds.append(noise.seed)
        return super().perturb(model, batch, threat, noise)


def test_a_row_holds_what_it_promises(tmp_path: Path, data: TrainingData) -> None:
    rows: list[dict[str, float]] = []
    trained = run(tmp_path, data, Trades(steps=2), rows=rows)
    assert rows == trained.history
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert set(rows[0]) == {
        *("epoch", "learning_rate", "loss", "loss_natural", "loss_robust", "train_accuracy"),
        *("validation_clean_accuracy", "validation_robust_accuracy"),
        *("examples_seen", "forward_passes", "backward_passes"),
    }
    for row in rows:
        assert all(type(value) in (int, float) and math.isfinite(value) for value in row.values())
        assert row["loss"] == pytest.approx(row["loss_natural"] + 6 * row["loss_robust"])
        assert 0 <= row["train_accuracy"] <= 1
    assert [row["examples_seen"] for row in rows] == [22, 44, 66]
    assert [row["forward_passes"] for row in rows] == [22 * 5, 44 * 5, 66 * 5]
    assert [row["backward_passes"] for row in rows] == [22 * 4, 44 * 4, 66 * 4]
    assert trained.status == "finished"
    assert trained.cause == ""


def test_it_learns(tmp_path: Path, data: TrainingData) -> None:
    trained = run(
        tmp_path, data, Natural(), model=network(dropout=0.0), epochs=15, learning_rate=0.05
    )
    assert trained.history[-1]["loss"] < 0.3 * trained.history[0]["loss"]
    assert trained.history[-1]["validation_clean_accuracy"] == 1.0


def test_two_runs_are_bit_equal_and_another_seed_is_not(tmp_path: Path, data: TrainingData) -> None:
    recipe = {"crop_padding": 1, "flip": True}
    one, other = (run(tmp_path / name, data, **recipe) for name in ("one", "other"))
    assert_equal(one, other)
    # torch.save notes no time or place: even the file to resume from is the same.
    files = [(tmp_path / name / "resume.pt").read_bytes() for name in ("one", "other")]
    assert files[0] == files[1]
    third = run(tmp_path / "third", data, seed=1, **recipe)
    assert third.history[0]["loss"] != one.history[0]["loss"]


def test_the_global_generators_neither_matter_nor_move(tmp_path: Path, data: TrainingData) -> None:
    one = run(tmp_path / "one", data)
    torch.manual_seed(99)
    found = randomness.state(CPU)["torch"]
    assert_equal(one, run(tmp_path / "other", data))
    assert torch.equal(randomness.state(CPU)["torch"], found)
    assert not torch.are_deterministic_algorithms_enabled()


def test_each_epoch_visits_every_example_once_in_its_own_order(
    tmp_path: Path, data: TrainingData
) -> None:
    method = Recorder()
    run(tmp_path, data, method, epochs=2)
    ids = torch.cat([batch.example for batch in method.batches]).tolist()
    assert [len(batch.x) for batch in method.batches] == [8, 8, 6, 8, 8, 6]
    assert sorted(ids[:22]) == sorted(ids[22:]) == data.train.example.tolist()
    assert ids[:22] != ids[22:]
    assert len(set(method.seeds)) == 6
    for batch in method.batches:
        rows = [data.train.example.tolist().index(example) for example in batch.example.tolist()]
        assert torch.equal(batch.y, data.train.labels[rows])
        assert torch.equal(batch.x, data.train.images[rows] / 255)


def test_augmentation_reaches_the_training_images(tmp_path: Path, data: TrainingData) -> None:
    method = Recorder()
    run(tmp_path, data, method, epochs=1, batch_size=22, flip=True)
    (batch,) = method.batches
    rows = [data.train.example.tolist().index(example) for example in batch.example.tolist()]
    images = data.train.images[rows] / 255
    flipped = (batch.x == images.flip(3)).flatten(1).all(1)
    kept = (batch.x == images).flatten(1).all(1)
    assert (flipped | kept).all()
    assert flipped.any()
    assert kept.any()


@pytest.mark.parametrize(("epochs", "replays", "passes"), [(8, 4, 2), (9, 4, 3), (1, 4, 1)])
def test_replays_divide_the_passes_over_the_data(
    tmp_path: Path, data: TrainingData, epochs: int, replays: int, passes: int
) -> None:
    trained = run(tmp_path, data, Free(replays=replays), epochs=epochs)
    assert len(trained.history) == passes
    assert trained.history[-1]["examples_seen"] == passes * replays * 22
    assert trained.history[-1]["forward_passes"] == passes * replays * 22
    assert trained.history[-1]["backward_passes"] == passes * replays * 22


def test_the_schedule_runs_over_the_weight_steps(tmp_path: Path, data: TrainingData) -> None:
    # 8 epochs of Free-4 are 2 passes of 3 minibatches of 4 steps: the last of 24 is number 23.
    trained = run(
        *(tmp_path, data, Free(replays=4)),
        epochs=8, schedule="cyclic", peak_share=0.5, learning_rate=0.1,
    )  # fmt: skip
    assert [row["learning_rate"] for row in trained.history] == pytest.approx(
        [0.1 * 11 / 12, 0.1 * 1 / 12]
    )


def test_replays_replay_the_same_minibatch(tmp_path: Path, data: TrainingData) -> None:
    class Replayed(Recorder):
        replays = 3

    method = Replayed()
    run(tmp_path, data, method, epochs=3)
    assert len(method.batches) == 9
    for first in range(0, 9, 3):
        again = method.batches[first : first + 3]
        assert all(torch.equal(batch.x, again[0].x) for batch in again)
    assert len(set(method.seeds)) == 9


def test_without_a_threat_nothing_robust_is_measured(tmp_path: Path, data: TrainingData) -> None:
    trained = run(tmp_path, data, Natural(), threat=None)
    assert "validation_robust_accuracy" not in trained.history[0]
    assert "validation_clean_accuracy" in trained.history[0]


def test_validation_may_be_rare_but_includes_the_last_epoch(
    tmp_path: Path, data: TrainingData
) -> None:
    trained = run(tmp_path, data, epochs=5, validate_every=2)
    measured = [row["epoch"] for row in trained.history if "validation_clean_accuracy" in row]
    assert measured == [2, 4, 5]
    assert trained.best_epoch in measured


def test_no_validation_split_keeps_the_last_epoch_as_the_best(
    tmp_path: Path, data: TrainingData
) -> None:
    empty = split_of(0, seed=2)
    trained = run(tmp_path, TrainingData(data.train, empty))
    assert "validation_clean_accuracy" not in trained.history[0]
    assert trained.best_epoch == 3
    assert torch.equal(trained.best["5.weight"], trained.last["5.weight"])


@pytest.mark.parametrize(
    ("scores", "best"), [([0.2, 0.5, 0.5], 2), ([0.0, 0.0, 0.0], 1), ([0.1, 0.3, 0.2], 2)]
)
def test_best_is_the_highest_robust_accuracy_and_the_earlier_of_equals(
    tmp_path: Path,
    data: TrainingData,
    monkeypatch: pytest.MonkeyPatch,
    scores: list[float],
    best: int,
) -> None:
    given = iter(scores)
    monkeypatch.setattr(
        loop,
        "_validate",
        lambda *_: {"validation_clean_accuracy": 0.9, "validation_robust_accuracy": next(given)},
    )
    after: list[torch.Tensor] = []
    model = network()
    trained = train(
        *(model, PgdAt(steps=1), THREAT, data, 0, tmp_path),
        lambda row: after.append(model[5].weight.detach().clone()),
        *(CPU,),
        epochs=3,
    )
    assert trained.best_epoch == best
    assert torch.equal(trained.best["5.weight"], after[best - 1])
    assert torch.equal(trained.last["5.weight"], after[-1])


def test_a_row_is_told_only_when_it_cannot_be_lost(tmp_path: Path, data: TrainingData) -> None:
    def look(row: dict[str, float]) -> None:
        kept = torch.load(tmp_path / "resume.pt", weights_only=True)["state"]["history"]
        assert kept[-1] == row

    train(
        *(network(), PgdAt(steps=1), THREAT, data, 0, tmp_path, look, CPU),
        epochs=2, batch_size=8,
    )  # fmt: skip


class Explosive(nn.Module):
    """Gives logits that are not numbers from its fifth forward pass in train mode on."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.passes = network(), 0

    def forward(self, x):
        self.passes += self.training
        return self.inner(x) * (float("nan") if self.passes >= 5 else 1.0)


def test_a_huge_learning_rate_collapses_and_says_so(tmp_path: Path, data: TrainingData) -> None:
    model, rows = network(norm=False), []
    initial = {name: weights.clone() for name, weights in model.state_dict().items()}
    trained = run(tmp_path, data, model=model, rows=rows, learning_rate=1e20)
    assert trained.status == "collapsed"
    assert "the training loss became " in trained.cause
    assert "of epoch 1 (learning rate 1e+20)" in trained.cause
    assert trained.history == rows == []
    assert trained.best_epoch == 0
    for name, weights in initial.items():
        assert torch.equal(trained.last[name], weights)
        assert torch.equal(trained.best[name], weights)
        assert torch.equal(model.state_dict()[name], weights)


def test_a_collapse_keeps_the_weights_of_the_last_finite_epoch(
    tmp_path: Path, data: TrainingData
) -> None:
    trained = run(tmp_path, data, Natural(), model=Explosive(), epochs=3)
    assert trained.status == "collapsed"
    assert trained.cause == (
        "the training loss became nan at step 2 of epoch 2 (learning rate 0.1); "
        "the weights kept are those before that epoch"
    )
    assert [row["epoch"] for row in trained.history] == [1]
    assert trained.best_epoch == 1
    assert all(weights.isfinite().all() for weights in trained.last.values())


def test_weights_that_overflow_under_a_finite_loss_are_a_collapse(
    tmp_path: Path, data: TrainingData
) -> None:
    # One step per epoch: the loss of the only one is finite, what it does to the weights is not.
    trained = run(
        *(tmp_path, data, Natural()),
        model=network(norm=False), batch_size=22, learning_rate=1e38, weight_decay=1e3,
    )  # fmt: skip
    assert trained.status == "collapsed"
    assert "left the finite numbers in epoch 1" in trained.cause
    assert all(weights.isfinite().all() for weights in trained.last.values())


def test_norm_layers_may_be_spared_from_decay(tmp_path: Path, data: TrainingData) -> None:
    class Still(Natural):
        """No gradient reaches the weights: only their decay moves them."""

        def loss(self, model, batch, x_adv, threat, noise):
            terms = super().loss(model, batch, x_adv, threat, noise)
            return terms._replace(total=0 * terms.total)

    moved = {}
    for spared in (False, True):
        model = network()
        before = {name: weights.detach().clone() for name, weights in model.named_parameters()}
        recipe = {"weight_decay": 0.1, "weight_decay_on_norm": not spared, "epochs": 1}
        run(tmp_path / str(spared), data, Still(), model=model, **recipe)
        moved[spared] = {
            name for name, weights in model.named_parameters() if not weights.equal(before[name])
        }
    # BatchNorm's bias is zero, and zero does not decay.
    assert moved[False] == {"0.weight", "0.bias", "1.weight", "5.weight", "5.bias"}
    assert moved[True] == moved[False] - {"1.weight"}


@pytest.mark.parametrize("recipe", [{"optimizer": "adam"}, {"nesterov": True}])
def test_other_optimizers_train_otherwise(
    tmp_path: Path, data: TrainingData, recipe: dict[str, object]
) -> None:
    plain = run(tmp_path / "plain", data, learning_rate=0.01)
    other = run(tmp_path / "other", data, learning_rate=0.01, **recipe)
    assert other.status == "finished"
    assert other.history[-1]["loss"] != plain.history[-1]["loss"]


def test_adam_takes_its_first_step_by_the_rule(tmp_path: Path, data: TrainingData) -> None:
    # The first step of Adam is the learning rate along the gradient's sign.
    model = network(dropout=0.0)
    before = model[5].weight.detach().clone()
    run(
        *(tmp_path, data, Natural()),
        model=model, optimizer="adam", learning_rate=0.01, weight_decay=0.0, epochs=1,
        batch_size=22,
    )  # fmt: skip
    step = (model[5].weight.detach() - before).abs()
    assert torch.allclose(step[step > 1e-3], torch.tensor(0.01), rtol=1e-3)
    assert (step > 1e-3).float().mean() > 0.5


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"optimizer": "rmsprop"}, "optimizer 'rmsprop' is unknown; expected sgd or adam"),
        ({"optimizer": "adam", "nesterov": True}, "nesterov is for the optimizer sgd"),
        ({"schedule": "linear"}, "schedule 'linear' is unknown"),
        ({"threat": None}, "PgdAt needs a threat model, got none"),
        ({"label_smoothing": 1.0}, "label_smoothing 1 leaves nothing of the labels"),
    ],
)
def test_arguments_that_do_not_go_together_are_named(
    tmp_path: Path, data: TrainingData, recipe: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(tmp_path, data, **recipe)


def test_an_empty_training_split_is_named(tmp_path: Path, data: TrainingData) -> None:
    with pytest.raises(ValueError, match="the training split is empty"):
        run(tmp_path, TrainingData(split_of(0, seed=1), data.validation))


def test_a_workspace_that_cannot_be_written_is_named_before_the_first_step(
    tmp_path: Path, data: TrainingData
) -> None:
    (tmp_path / "file").touch()
    method = Recorder()
    with pytest.raises(OSError, match=r"file/run/resume.pt: cannot be written"):
        run(tmp_path / "file" / "run", data, method)
    assert method.batches == []


def test_every_recipe_parameter_can_be_read_from_the_source() -> None:
    read = signatures.signature("training", "loop", "train")
    assert read["milestones"].default == (0.5, 0.75)
    assert {"epochs", "batch_size", "learning_rate", "schedule", "optimizer"} <= set(read)


def test_the_passes_of_a_method_are_multiplied_by_its_examples(
    tmp_path: Path, data: TrainingData
) -> None:
    class Half(Natural):
        def cost(self) -> Cost:
            return Cost(crafting=Passes(0.5, 0.25), loss=Passes(1, 1))

    row = run(tmp_path, data, Half(), epochs=1).history[0]
    assert (row["forward_passes"], row["backward_passes"]) == (33, 28)
    assert type(row["forward_passes"]) is int


def test_a_run_that_ended_is_only_read_again(tmp_path: Path, data: TrainingData) -> None:
    first, rows = run(tmp_path, data), []
    method = Recorder()
    again = run(tmp_path, data, rows=rows)
    assert_equal(again, first)
    assert rows == method.batches == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda: {"epochs": 4}, "epochs: 3, now 4"),
        (lambda: {"method": PgdAt(steps=3)}, "method: PgdAt(steps=2,"),
        (lambda: {"threat": loop.ThreatModel("l2", 0.1)}, "threat: ThreatModel(norm='linf'"),
        (lambda: {"seed": 5}, "seed: 0, now 5"),
        (lambda: {"model": network(norm=False)}, "model: "),
        (lambda: {"data": TrainingData(split_of(21, seed=1), split_of(12, seed=2))}, "data: "),
    ],
    ids=["recipe", "method", "threat", "seed", "model", "data"],
)
def test_other_settings_start_over(
    tmp_path: Path,
    data: TrainingData,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[], dict[str, Any]],
    told: str,
) -> None:
    fresh = run(tmp_path / "fresh", **{"data": data, **change()})
    run(tmp_path / "changed", data)
    assert not caplog.records
    assert_equal(run(tmp_path / "changed", **{"data": data, **change()}), fresh)
    assert f"is of a run with other settings ({told}" in caplog.text
    assert "the training starts over" in caplog.text


def test_one_example_and_one_batch(tmp_path: Path, data: TrainingData) -> None:
    one = TrainingData(split_of(1, seed=1), split_of(1, seed=2))
    trained = run(tmp_path, one, batch_size=128, epochs=2)
    assert trained.status == "finished"
    assert trained.history[-1]["examples_seen"] == 2


def test_a_method_object_can_be_trained_twice(tmp_path: Path, data: TrainingData) -> None:
    method = Free(replays=2)
    one = run(tmp_path / "one", data, method)
    assert_equal(run(tmp_path / "other", data, method), one)


def test_batches_carry_what_their_type_says(tmp_path: Path, data: TrainingData) -> None:
    method = Recorder()
    run(tmp_path, data, method, epochs=1)
    batch: Batch = method.batches[0]
    assert batch.x.dtype == torch.float32
    assert batch.y.dtype == batch.example.dtype == torch.int64
