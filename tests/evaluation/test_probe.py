"""The probe sees what hides a model's weakness from attacks by gradients."""

import numpy as np
import pytest
import torch
from torch import nn

from advtrain.data.store import Split
from advtrain.evaluation.probe import COLUMNS, probe
from advtrain.results.schema import PROBES
from tests.evaluation.memorised import random_split

CPU = torch.device("cpu")


class Linear(nn.Module):
    """Logits that are multiples of fixed sums of pixels."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(scale * torch.randn(5, 64, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.weight.T


class Quantised(Linear):
    """Rounds its input to four levels, which has no gradient."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward((x * 4).round() / 4)


class Detached(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.detach())


class Noisy(Linear):
    """Adds noise to its input, in every pass another."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(id(self) + self.calls))
        self.calls += 1
        return super().forward(x + 0.5 * noise).square()

    calls = 0


class Probabilities(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).softmax(1)


@pytest.fixture(scope="module")
def split() -> Split:
    return random_split(60)


def test_one_row_per_example_with_the_columns_of_the_table(split: Split) -> None:
    rows = probe(Linear(), split, CPU, 32)
    assert {name: column.dtype for name, column in rows.items()} == COLUMNS
    assert {"cell", *rows} == set(PROBES.names)
    assert rows["example"].tolist() == split.example.tolist()


def test_a_linear_models_gradients_are_known(split: Split) -> None:
    model = Linear()
    rows = probe(model, split, CPU, 32)
    x = split.images.float() / 255
    with torch.no_grad():
        logits = model(x)
        weight = logits.softmax(1) - nn.functional.one_hot(split.labels, 5)
        expected = (weight @ model.weight).norm(dim=1)
        others = logits.scatter(1, split.labels[:, None], -torch.inf).argmax(1)
        margin = (model.weight[others] - model.weight[split.labels]).norm(dim=1)
    np.testing.assert_allclose(rows["gradient"], expected.numpy(), rtol=1e-4)
    np.testing.assert_allclose(rows["margin_gradient"], margin.numpy(), rtol=1e-4)
    assert rows["prediction"].tolist() == logits.argmax(1).tolist()
    assert not rows["logit_change"].any()
    assert (rows["gradient_cosine"] == 1).all()
    assert not rows["probabilities"].any()


def test_rows_do_not_depend_on_the_batch(split: Split) -> None:
    one, other = (probe(Linear(), split, CPU, size) for size in (60, 17))
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)


@pytest.mark.parametrize("model", [Quantised(), Detached()], ids=["quantised", "detached"])
def test_no_gradient_is_seen(model: nn.Module, split: Split) -> None:
    rows = probe(model, split, CPU, 32)
    assert (rows["gradient"] == 0).all()
    assert (rows["zero_share"] == 1).all()
    assert (rows["gradient_cosine"] == 1).all()


def test_a_saturated_loss_is_seen_beside_the_margins_gradient(split: Split) -> None:
    model = Linear(1e4)
    with torch.no_grad():
        labels = model(split.images.float() / 255).argmax(1)
    rows = probe(model, Split(split.images, labels, split.example), CPU, 32)
    assert (rows["gradient"] == 0).mean() > 0.9
    assert (rows["loss"] == 0).mean() > 0.9
    assert (rows["margin_gradient"] > 0).all()


def test_randomness_is_seen(split: Split) -> None:
    rows = probe(Noisy(), split, CPU, 32)
    assert (rows["logit_change"] > 0.1).all()
    assert rows["gradient_cosine"].mean() < 0.9


def test_probabilities_are_seen(split: Split) -> None:
    assert probe(Probabilities(), split, CPU, 32)["probabilities"].all()
