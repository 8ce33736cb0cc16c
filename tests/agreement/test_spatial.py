"""The grid of rotations and shifts beside the Adversarial Robustness Toolbox's.

ART chooses one transformation for all images that it is given, so it is given one at a time. It
shifts by whole pixels, interpolates by cubic splines, and rotates after it has shifted: shifts
agree in every verdict, rotations and both together in most.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from advtrain.attacks.attack import predictions
from advtrain.attacks.objectives import cross_entropy
from advtrain.attacks.spatial import spatial, transformed
from advtrain.models.small_cnn import small_cnn
from advtrain.noise import Noise
from advtrain.threat import Transformation

pytestmark = pytest.mark.filterwarnings("ignore")  # of the other package's own

Network = tuple[nn.Module, Tensor, Tensor]
SIDE, IMAGES = 12, 60


@pytest.fixture(scope="module")
def network() -> Network:
    """A small CNN, trained on digits in all positions, and digits that it is right on.

    Those are digits that it has not seen; ART asks for no labels, but for a change of prediction.
    """
    images, labels = load_digits(return_X_y=True)
    x = F.pad(torch.tensor(images / 16, dtype=torch.float32).view(-1, 1, 8, 8), (2, 2, 2, 2))
    y = torch.tensor(labels, dtype=torch.int64)
    limits = torch.tensor([15.0, 1 / SIDE, 1 / SIDE], dtype=torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = small_cnn(channels=1, size=SIDE, classes=10)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
        for rows in torch.cat([torch.randperm(1500) for _ in range(8)]).split(100):
            moved = transformed(x[rows], (2 * torch.rand(len(rows), 3).double() - 1) * limits)
            optimizer.zero_grad()
            cross_entropy(model(moved), y[rows]).mean().backward()
            optimizer.step()
    x, y = x[1500:], y[1500:]
    with torch.no_grad():
        right = predictions(model.eval()(x)) == y
    return model, x[right][:IMAGES], y[right][:IMAGES]


class ChannelsLast(nn.Module):
    """ART takes the sides from the second and third dimension, whatever the order of channels."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x.permute(0, 3, 1, 2))
        return logits


def theirs(model: nn.Module, x: Tensor, **chosen: float) -> Tensor:
    """(N,) bool: no transformation of the grid changes the prediction."""
    evasion = pytest.importorskip("art.attacks.evasion", reason="ART is not installed")
    estimators = pytest.importorskip("art.estimators.classification")
    classifier = estimators.PyTorchClassifier(
        model=ChannelsLast(model),
        loss=nn.CrossEntropyLoss(),
        input_shape=(SIDE, SIDE, 1),
        nb_classes=10,
        channels_first=False,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    robust = []
    for image in x.permute(0, 2, 3, 1).numpy():
        attack = evasion.SpatialTransformation(classifier, verbose=False, **chosen)
        moved = attack.generate(image[None])
        found = classifier.predict(moved), classifier.predict(image[None])
        robust.append(np.argmax(found[0]) == np.argmax(found[1]))
    return torch.tensor(robust)


def ours(model: nn.Module, x: Tensor, y: Tensor, **chosen: float) -> Tensor:
    noise = Noise(0, torch.arange(len(x)))
    found = spatial(model, x, y, Transformation("spatial"), noise, **chosen)
    with torch.no_grad():
        return predictions(model(found.x_adv)) == y


def test_shifts_agree_in_every_verdict(network: Network) -> None:
    model, x, y = network
    mine = ours(model, x, y, degrees=0, shift=1 / SIDE, shifts=3)
    art = theirs(model, x, max_translation=100 / SIDE, num_translations=3)
    assert torch.equal(mine, art)
    assert 0 < mine.sum() < len(y)


def test_rotations_agree_in_most_verdicts(network: Network) -> None:
    model, x, y = network
    mine = ours(model, x, y, degrees=40, shift=0, angles=7)
    art = theirs(model, x, max_rotation=40.0, num_rotations=7)
    assert (mine == art).float().mean() >= 0.9
    assert 0 < mine.sum() < len(y)


def test_the_grid_agrees_in_most_verdicts(network: Network) -> None:
    model, x, y = network
    mine = ours(model, x, y, degrees=10, shift=1 / SIDE, angles=3, shifts=3)
    chosen = {"max_translation": 100 / SIDE, "num_translations": 3}
    art = theirs(model, x, max_rotation=10.0, num_rotations=3, **chosen)
    assert (mine == art).float().mean() >= 0.8
    assert 0 < mine.sum() < len(y)
