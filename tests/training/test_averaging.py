import copy
import io
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from advtrain.training.averaging import Average
from tests.training.tiny import network, split_of


class One(nn.Module):
    """One weight, one running statistic, one counter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.register_buffer("statistic", torch.zeros((), dtype=torch.float64))
        self.register_buffer("counter", torch.tensor(0))

    def set(self, value: float) -> "One":
        nn.init.constant_(self.weight, value)
        self.statistic.fill_(-value)
        self.counter.fill_(int(value))
        return self


def nothing() -> Iterator[Tensor]:
    raise AssertionError("no image is needed here")


def test_the_moving_average_by_hand() -> None:
    model = One().set(10)
    average = Average(model, "ema", decay=0.25, start=0.0)
    # The decay is 1/10, 2/11, then 3/12 and 0.25: the least of its rise and 0.25.
    expected = 10.0
    for value, decay in [(20, 0.1), (30, 2 / 11), (40, 0.25), (50, 0.25)]:
        average.after_step(model.set(value), 0.0)
        expected = decay * expected + (1 - decay) * value
        assert average.model.weight.item() == pytest.approx(expected, rel=1e-14)
        assert average.model.statistic.item() == pytest.approx(-expected, rel=1e-14)
        assert average.model.counter.item() == value
    kept = copy.deepcopy(average.model.state_dict())
    average.after_epoch(model.set(60), 1.0, nothing)
    assert average.model.state_dict() == kept


def test_the_epochs_average_by_hand() -> None:
    model = One().set(10)
    average = Average(model, "swa", decay=0.9, start=0.5)
    expected = {0.25: 20, 0.5: 30, 0.75: (30 + 50) / 2, 1.0: (30 + 50 + 10) / 3}
    for (progress, mean), value in zip(expected.items(), [20, 30, 50, 10], strict=True):
        average.after_step(model.set(value - 5), progress)
        average.after_epoch(model.set(value), progress, nothing)
        assert average.model.weight.item() == pytest.approx(mean, rel=1e-14)
        assert average.model.counter.item() == value


def trained(model: nn.Module, averages: list[Average], steps: range) -> None:
    """Train for some steps, four to an epoch, sixteen in all."""
    split = split_of(20, seed=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model.train()
    for step in steps:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(split.images / 255), split.labels).backward()
        optimizer.step()
        for average in averages:
            average.after_step(model, (step + 1) / 16)
            if (step + 1) % 4 == 0:
                average.after_epoch(model, (step + 1) / 16, batches)


def batches() -> Iterator[Tensor]:
    # Of unequal sizes, as the last one of an epoch is.
    yield from torch.split(split_of(20, seed=1).images / 255, 8)


def equal(one: nn.Module, other: nn.Module) -> bool:
    states = (one.state_dict().values(), other.state_dict().values())
    return all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_without_averaging_it_is_the_network_itself() -> None:
    model = network()
    average = Average(model, "none", decay=0.9, start=0.0)
    trained(model, [average], range(4))
    assert average.model is model
    assert average.state_dict() == {}
    average.load_state_dict({})
    assert model.training


def test_a_moving_average_of_decay_0_is_the_weights() -> None:
    model = network()
    average = Average(model, "ema", decay=0.0, start=0.0)
    trained(model, [average], range(4))
    assert average.model is not model
    assert equal(average.model, model)


def test_before_its_start_the_epochs_average_is_the_weights() -> None:
    model = network()
    average = Average(model, "swa", decay=0.0, start=0.75)
    trained(model, [average], range(8))
    assert equal(average.model, model)


def test_an_average_that_starts_at_the_end_has_the_last_weights() -> None:
    model = network()
    average = Average(model, "swa", decay=0.0, start=1.0)
    trained(model, [average], range(16))
    for one, other in zip(average.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_averages_differ_from_the_weights_and_are_never_trained(kind: str) -> None:
    model = network()
    average = Average(model, kind, decay=0.9, start=0.25)
    trained(model, [average], range(12))
    assert not equal(average.model, model)
    for module in average.model.modules():
        assert not module.training
    for weight in average.model.parameters():
        assert not weight.requires_grad
        assert weight.grad is None


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_averaging_leaves_the_training_alone(kind: str) -> None:
    models = [network(), network()]
    states = []
    for model, averaging in zip(models, ["none", kind], strict=True):
        with torch.random.fork_rng():
            torch.manual_seed(0)  # of the dropout
            trained(model, [Average(model, averaging, decay=0.9, start=0.25)], range(16))
            states.append(torch.get_rng_state())
    assert equal(*models)
    assert torch.equal(*states)


def test_the_statistics_are_the_mean_over_the_batches() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(1, momentum=0.3)).double()
    model[1].running_mean.fill_(7)
    average = Average(model, "swa", decay=0.0, start=0.0)
    images = [batch.double() for batch in batches()]
    for _ in range(2):
        average.after_epoch(model, 0.5, lambda: images)
    sizes = torch.tensor([8, 8, 4], dtype=torch.float64)
    means = torch.stack([batch.mean() for batch in images])
    variances = torch.stack([batch.var() for batch in images])
    norm = average.model[1]
    torch.testing.assert_close(norm.running_mean, (means @ sizes / 20)[None])
    torch.testing.assert_close(norm.running_var, (variances @ sizes / 20)[None])
    assert norm.momentum == model[1].momentum == 0.3
    assert model[1].running_mean == 7


def test_norms_without_statistics_have_nothing_to_estimate() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False))
    average = Average(model, "swa", decay=0.0, start=0.0)
    average.after_epoch(model, 0.5, nothing)
    assert average.model[0].running_mean is None


@pytest.mark.parametrize("fails", ["images", "model"])
def test_what_the_estimate_changes_is_put_back(fails: str) -> None:
    model = network()
    average = Average(model, "swa", decay=0.0, start=0.0)

    def broken() -> Iterator[Tensor]:
        yield from batches()
        if fails == "images":
            raise KeyboardInterrupt
        yield torch.zeros(2, 5, 4, 4)

    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        average.after_epoch(model, 0.5, broken)
    assert average.model[1].momentum == 0.1
    assert not average.model[1].training


@pytest.mark.parametrize("kind", ["ema", "swa"])
@pytest.mark.parametrize("stop", [2, 4, 8, 12])
def test_a_resumed_average_is_the_same(kind: str, stop: int) -> None:
    def make(model: nn.Module) -> Average:
        return Average(model, kind, decay=0.9, start=0.5)

    whole = network(dropout=0.0)
    whole_average = make(whole)
    trained(whole, [whole_average], range(16))

    first = network(dropout=0.0)
    first_average = make(first)
    trained(first, [first_average], range(stop))
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "average": first_average.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)

    resumed = network(dropout=0.0)
    resumed_average = make(resumed)
    resumed.load_state_dict(state["model"])
    resumed_average.load_state_dict(state["average"])
    trained(resumed, [resumed_average], range(stop, 16))
    assert equal(resumed_average.model, whole_average.model)
    assert resumed_average.state_dict()["count"] == whole_average.state_dict()["count"]


def test_tied_weights_are_averaged_once() -> None:
    def tied() -> nn.Sequential:
        one, other = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        other.weight = one.weight
        return nn.Sequential(one, other)

    model = tied()
    nn.init.zeros_(model[0].weight)
    average = Average(model, "swa", decay=0.0, start=0.0)
    for value in (1.0, 2.0, 3.0):
        nn.init.constant_(model[0].weight, value)
        average.after_epoch(model, 0.5, nothing)
    assert torch.equal(average.model[0].weight, torch.full((2, 2), 2.0))
    assert average.model[1].weight is average.model[0].weight


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="averaging 'sma' is unknown; expected none, ema or swa"):
        Average(network(), "sma", decay=0.9, start=0.5)


def test_the_images_are_read_at_each_epoch_from_the_start_on() -> None:
    read: list[float] = []
    model = network()
    average = Average(model, "swa", decay=0.0, start=0.5)
    for progress in (0.25, 0.5, 0.75):

        def images(progress: float = progress) -> Iterator[Tensor]:
            read.append(progress)
            return batches()

        average.after_epoch(model, progress, images)
    assert read == [0.5, 0.75]
