"""The loss around an image is that of the model there, on a grid that depends on nothing else."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from advtrain.attacks.restarts import SMALLEST_BATCH
from advtrain.data.store import Split
from advtrain.evaluation.landscape import REACH, SIDE, landscapes
from advtrain.models.small_cnn import small_cnn
from advtrain.threat import ThreatModel
from tests.evaluation.memorised import random_split

CPU = torch.device("cpu")
MIDDLE = SIDE // 2
LINF = ThreatModel("linf", 0.1)


class Sums(nn.Module):
    """Two classes, told apart by a weighted sum of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(64, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        margin = x.flatten(1) @ self.weight
        return torch.stack([margin, torch.zeros_like(margin)], 1)


class Detached(Sums):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.detach())


@pytest.fixture(scope="module")
def split() -> Split:
    whole = random_split(3)
    return Split(whole.images, whole.labels % 2, whole.example)


def losses(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return nn.functional.cross_entropy(model(x), y, reduction="none").numpy()


@pytest.mark.parametrize("threat", [LINF, ThreatModel("l2", 0.5)], ids=["linf", "l2"])
def test_the_grid_holds_the_losses_along_the_gradient(split: Split, threat: ThreatModel) -> None:
    model = Sums()
    found = landscapes(model, split, threat, CPU)
    x = split.images.float() / 255
    assert found["loss"].shape == (3, SIDE, SIDE)
    np.testing.assert_allclose(
        found["loss"][:, MIDDLE, MIDDLE], losses(model, x, split.labels), rtol=1e-5, atol=1e-6
    )
    direction = threat.steepest(torch.from_numpy(found["gradient"]))
    for column, reach in ((0, -REACH), (-1, REACH), (MIDDLE + 5, REACH / 2)):
        moved = x + reach * threat.epsilon * direction
        expected = losses(model, moved, split.labels)
        np.testing.assert_allclose(found["loss"][:, MIDDLE, column], expected, rtol=1e-4)
    assert (np.diff(found["loss"][:, MIDDLE]) > 0).all()


def test_the_gradient_and_the_prediction_are_those_at_the_image(split: Split) -> None:
    model = Sums()
    found = landscapes(model, split, LINF, CPU)
    x = (split.images.float() / 255).requires_grad_()
    logits = model(x)
    nn.functional.cross_entropy(logits, split.labels, reduction="sum").backward()
    np.testing.assert_allclose(found["gradient"], x.grad, rtol=1e-4, atol=1e-7)
    assert found["prediction"].tolist() == logits.argmax(1).tolist()
    assert found["example"].tolist() == split.example.tolist()
    assert found["label"].tolist() == split.labels.tolist()


def test_across_the_gradient_every_pixel_moves_by_the_budget_in_a_direction_of_the_example(
    split: Split,
) -> None:
    class Recorder(Sums):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.detach().clone())
            return super().forward(x)

    seen: list[torch.Tensor] = []
    landscapes(Recorder(), split, LINF, CPU)
    firsts = seen
    seen = []
    landscapes(Recorder(), split.take(slice(1, 2)), LINF, CPU)
    lines = [one for one in firsts if len(one) == SIDE]
    assert len(lines) == 3 * SIDE
    moved = lines[MIDDLE + 1][MIDDLE] - lines[MIDDLE][MIDDLE]
    step = torch.full_like(moved, 0.1 * REACH / MIDDLE)
    torch.testing.assert_close(moved.abs(), step)
    assert 0.2 < (moved > 0).float().mean() < 0.8
    # The second example alone gets the same points as among the others.
    again = [one for one in seen if len(one) == SIDE]
    assert all(one.equal(other) for one, other in zip(lines[SIDE : 2 * SIDE], again, strict=True))
    assert SIDE >= SMALLEST_BATCH


def test_without_a_path_to_the_input_there_is_no_gradient_to_follow(split: Split) -> None:
    found = landscapes(Detached(), split, LINF, CPU)
    assert not found["gradient"].any()
    assert np.isfinite(found["loss"]).all()
    # Along no direction, nothing changes.
    np.testing.assert_allclose(found["loss"], found["loss"][:, :, :1].repeat(SIDE, 2), rtol=1e-5)


@pytest.mark.parametrize("build", [Sums, lambda: small_cnn(channels=1, size=8, classes=5)])
def test_the_same_bits_again_and_the_model_as_it_was(
    split: Split, build: Callable[[], nn.Module]
) -> None:
    torch.manual_seed(0)
    model = build().train()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    one, other = (landscapes(model, split, LINF, CPU) for _ in range(2))
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)
    assert model.training
    assert all(one.equal(before[name]) for name, one in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
