"""State dicts of other repositories: every usual wrapping loads, every difference is named."""

import argparse
import collections
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from advtrain.models.normalisation import Normalize
from advtrain.training.state_dicts import WeightsError, load_given

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
Weights = dict[str, Tensor]


class Net(nn.Module):
    """A network with BatchNorm and a head."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6))
        self.head = nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.stem(x).mean((2, 3)))
        return out


class Normalised(nn.Module):
    """The same behind a table of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).reshape(1, 3, 1, 1))
        self.backbone = Net()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.backbone((x - self.mean) / self.std)
        return out


def made(kind: Callable[[], nn.Module] = Net, seed: int = 0) -> nn.Module:
    """A network with weights of that seed."""
    model = kind()
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and name not in ("mean", "std", "0.mean", "0.std"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator))
    return model.eval()


def behind_a_table() -> nn.Module:
    return nn.Sequential(Normalize(MEAN, STD), Net())


def prefixed(weights: Weights, prefix: str) -> Weights:
    return {prefix + name: tensor for name, tensor in weights.items()}


def without_counters(weights: Weights) -> Weights:
    return {name: one for name, one in weights.items() if "num_batches" not in name}


def averaged(weights: Weights) -> Weights:
    return {"n_averaged": torch.tensor(7), **prefixed(weights, "module.")}


def compiled_inside(weights: Weights) -> Weights:
    return {name.replace("stem.", "stem._orig_mod."): one for name, one in weights.items()}


TRAINED = made(seed=1)
WEIGHTS: Weights = TRAINED.state_dict()
OTHER: Weights = made(seed=2).state_dict()
X = torch.rand(5, 3, 7, 7, generator=torch.Generator().manual_seed(0))
TABLE = {"mean": torch.tensor(MEAN), "std": torch.tensor(STD)}


def saved(path: Path, content: Any) -> Path:
    file = path / "weights.pt"
    torch.save(content, file)
    return file


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        collections.OrderedDict(WEIGHTS),
        {"state_dict": WEIGHTS, "epoch": 3},
        {"model_state_dict": WEIGHTS, "optimizer": {"state": {0: {"momentum": torch.ones(2)}}}},
        {"net": WEIGHTS, "acc": np.float64(93.1), "history": np.zeros(3)},
        {"model": WEIGHTS, "args": argparse.Namespace(lr=0.1), "best": torch.tensor(0.5)},
        {"checkpoint": {"ema": WEIGHTS}},
        {"model": WEIGHTS, "ema": dict(WEIGHTS)},  # two of the same numbers are no choice
        *(prefixed(WEIGHTS, one) for one in ("module.", "model.", "_orig_mod.", "backbone.", "1.")),
        prefixed(WEIGHTS, "module._orig_mod.encoder.model."),
        without_counters(WEIGHTS),
        averaged(WEIGHTS),
        compiled_inside(WEIGHTS),
        {name: one.double() for name, one in WEIGHTS.items()},
    ],
)
def test_every_usual_wrapping_loads(tmp_path: Path, content: Any) -> None:
    model = made(seed=3)
    assert not torch.allclose(model(X), TRAINED(X))
    load_given(model, saved(tmp_path, content))
    assert torch.equal(model(X), TRAINED(X))


@pytest.mark.parametrize("kind", [Normalised, behind_a_table])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_a_model_with_a_table_takes_the_weights_of_a_bare_network(
    tmp_path: Path, kind: Callable[[], nn.Module], prefix: str
) -> None:
    model, expected = made(kind, seed=3), made(kind, seed=1)
    load_given(model, saved(tmp_path, prefixed(WEIGHTS, prefix)))
    assert torch.equal(model(X), expected(X))


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        (Normalised, {"mean": TABLE["mean"], "std": TABLE["std"]}),
        (behind_a_table, {"mean": TABLE["mean"], "std": TABLE["std"]}),
        (behind_a_table, {"normalize.mean": TABLE["mean"], "normalize.std": TABLE["std"]}),
        (
            behind_a_table,
            {"normalizer.new_mean": TABLE["mean"], "normalizer.new_std": TABLE["std"]},
        ),
        (behind_a_table, {"mu": TABLE["mean"] + 4e-4, "sigma": TABLE["std"][None, :, None, None]}),
    ],
)
def test_a_table_that_the_model_applies_is_no_obstacle(
    tmp_path: Path, kind: Callable[[], nn.Module], table: Weights
) -> None:
    model, expected = made(kind, seed=3), made(kind, seed=1)
    load_given(model, saved(tmp_path, {**table, **prefixed(WEIGHTS, "model.")}))
    assert torch.equal(model(X), expected(X))


def test_a_table_of_the_same_layer_is_the_files(tmp_path: Path) -> None:
    source, model = made(Normalised, seed=1), made(Normalised, seed=3)
    source.get_buffer("mean").add_(0.1)
    load_given(model, saved(tmp_path, prefixed(source.state_dict(), "module.")))
    assert torch.equal(model(X), source(X))
    assert model.get_buffer("mean").flatten()[0] == pytest.approx(0.59)


def refused(model: nn.Module, file: Path, part: str = "") -> str:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(WeightsError, match=file.name) as error:
        load_given(model, file, part)
    assert all(torch.equal(before[name], one) for name, one in model.state_dict().items())
    return str(error.value)


def test_a_table_that_the_model_lacks_or_contradicts_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, {**TABLE, **WEIGHTS})
    told = refused(made(), file)
    assert "holds a normalisation (mean = 0.49,0.48,0.45) that the model does not have" in told
    other = nn.Sequential(Normalize((0.5, 0.5, 0.5), STD), Net())
    told = refused(other, file)
    assert "trained with mean = 0.49,0.48,0.45, the model normalises with 0.mean = 0.5,0.5" in told


def test_one_of_several(tmp_path: Path) -> None:
    file = saved(tmp_path, {"model": WEIGHTS, "swa": {"ema": OTHER}, "optimizer": {"m": X}})
    model = made(seed=3)
    told = refused(model, file)
    assert "the state dicts model, swa.ema fit the model and differ; say which it is: " in told
    assert load_given(model, file, "swa.ema") == "swa.ema"
    assert torch.equal(model.state_dict()["head.weight"], OTHER["head.weight"])
    told = refused(model, file, "ema")
    assert "has no part 'ema'; the state dicts in it: " in told
    assert "swa.ema" in told


def test_safetensors(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(prefixed(WEIGHTS, "module."), file)
    model = made(seed=3)
    assert load_given(model, file) == ""
    assert torch.equal(model(X), TRAINED(X))
    file.write_bytes(file.read_bytes()[:100])
    assert "not a whole safetensors file" in refused(model, file)


def test_a_pickled_module_is_refused_and_not_run(tmp_path: Path) -> None:
    told = refused(made(), saved(tmp_path, TRAINED))
    assert "holds objects of the class tests.training.test_state_dicts.Net" in told
    assert 'torch.save(model.state_dict(), "weights.pt")' in told
    (tmp_path / "weights.pt").write_bytes(b"no file of weights")
    assert "cannot be read" in refused(made(), tmp_path / "weights.pt")
    with pytest.raises(FileNotFoundError, match="absent.pt: not found"):
        load_given(made(), tmp_path / "absent.pt")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([1, 2], "holds no state dict"),
        (
            {name: one for name, one in WEIGHTS.items() if not name.startswith("head")},
            "6 of the model's 8 names agree; the file lacks head.weight, head.bias; the file is a",
        ),
        (
            {**WEIGHTS, "aux.weight": torch.ones(2)},
            "the model lacks aux.weight; the model is a part",
        ),
        (
            {**prefixed(WEIGHTS, "net."), "criterion.weight": X},
            "8 of the model's 8 names agree; the model lacks criterion.weight; the model is a part",
        ),
        (
            {"a.weight": X, "b.weight": X},
            "0 of the model's 8 names agree; the file lacks stem.0.weight, stem.0.bias, "
            "stem.1.weight and 5 more; the model lacks a.weight, b.weight; the file is of another",
        ),
        ({**WEIGHTS, "head.bias": torch.tensor([0, 0, 0, torch.nan])}, "head.bias holds numbers"),
    ],
)
def test_what_differs_is_named(tmp_path: Path, content: Any, told: str) -> None:
    assert told in refused(made(), saved(tmp_path, content))


def test_other_shapes_are_named(tmp_path: Path) -> None:
    told = refused(made(lambda: Net(classes=10)), saved(tmp_path, {"net": WEIGHTS}))
    assert "weights.pt: net: head.weight is (4, 6) in the file and (10, 6) in the model" in told
    assert "was it trained on a data set with other classes?" in told
    wide = {name: torch.cat([one, one]) if one.ndim else one for name, one in WEIGHTS.items()}
    told = refused(made(), saved(tmp_path, wide))
    assert "stem.0.weight is (12, 3, 3, 3) in the file and (6, 3, 3, 3) in the model" in told
    assert "and 5 more; build the network that was trained (its width, its channels)" in told
