"""What every model module promises, by name."""

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advtrain.params import signatures

NAMES = signatures.modules("models")
SMALL: dict[str, dict[str, Any]] = {
    "small_cnn": {},
    "preact_resnet": {"width": 4},
    "wide_resnet": {"depth": 10, "widen": 1},
    "resnet": {"depth": 18},
    "external": {"file": str(Path(__file__).parent / "own_network.py")},
}
"""Parameters that keep the tests fast."""


def build(
    name: str, *, channels: int = 3, size: int = 8, classes: int = 5, **given: str
) -> nn.Module:
    function: Callable[..., nn.Module] = getattr(import_module(f"advtrain.models.{name}"), name)
    given = {"normalisation": "none", **given}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return function(
            channels=channels, size=size, classes=classes, **SMALL.get(name, {}), **given
        )


def images_of(count: int, channels: int = 3, size: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, channels, size, size, generator=generator)


def test_the_modules_are_found() -> None:
    assert set(SMALL) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
class TestEveryModel:
    @pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 28), (3, 32), (3, 33), (2, 7)])
    def test_shapes(self, name: str, channels: int, size: int) -> None:
        model = build(name, channels=channels, size=size, classes=7).eval()
        for count in (1, 3):
            logits = model(images_of(count, channels, size))
            assert logits.shape == (count, 7)
            assert logits.dtype == torch.float32
            assert logits.isfinite().all()

    def test_parameters_are_keywords_and_only_the_three_facts_lack_defaults(
        self, name: str
    ) -> None:
        function = getattr(import_module(f"advtrain.models.{name}"), name)
        parameters = inspect.signature(function).parameters.values()
        assert {parameter.kind for parameter in parameters} == {inspect.Parameter.KEYWORD_ONLY}
        bare = [parameter.name for parameter in parameters if parameter.default is parameter.empty]
        assert bare == ["channels", "size", "classes"]

    def test_normalisation_is_inside_and_first(self, name: str) -> None:
        normalised, bare = build(name, normalisation="cifar10"), build(name)
        weights = {
            key: value
            for key, value in normalised.state_dict().items()
            if key not in ("0.mean", "0.std")
        }
        bare.load_state_dict(weights)
        mean = torch.tensor([0.4914, 0.4822, 0.4465]).reshape(1, 3, 1, 1)
        std = torch.tensor([0.2471, 0.2435, 0.2616]).reshape(1, 3, 1, 1)
        x = images_of(4)
        got = normalised.eval()(x)
        assert torch.allclose(got, bare.eval()((x - mean) / std), atol=1e-5)
        assert not torch.allclose(got, bare(x), atol=1e-3)

    def test_shifted_images_under_a_shifted_table_give_the_same_logits(self, name: str) -> None:
        model = build(name, normalisation="cifar10").eval()
        x = images_of(4)
        before = model(x)
        model.get_buffer("0.mean").add_(0.1)
        assert torch.allclose(model(x + 0.1), before, atol=1e-4)

    def test_gradients_reach_the_images_and_every_weight(self, name: str) -> None:
        model = build(name, size=32).train()
        x = images_of(4, size=32).requires_grad_()
        torch.autograd.backward(nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 2, 3])))
        assert x.grad is not None
        assert (x.grad.flatten(1).abs().sum(1) > 0).all()
        for weight, parameter in model.named_parameters():
            assert parameter.grad is not None, weight
            assert parameter.grad.isfinite().all(), weight
            assert parameter.grad.abs().sum() > 0, weight

    def test_eval_is_deterministic_and_changes_nothing(self, name: str) -> None:
        model = build(name).eval()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        x = images_of(8)
        assert torch.equal(model(x), model(x))
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())

    def test_the_seed_decides_the_weights(self, name: str) -> None:
        first, second = build(name).state_dict(), build(name).state_dict()
        assert all(torch.equal(value, second[key]) for key, value in first.items())

    def test_examples_do_not_meet_in_eval_mode(self, name: str) -> None:
        model = build(name).eval()
        x = images_of(8)
        alone = torch.cat([model(image[None]) for image in x])
        assert torch.allclose(model(x), alone, atol=1e-5)

    def test_channels_last_gives_the_same_logits(self, name: str) -> None:
        model = build(name, size=32).eval()
        x = images_of(4, size=32)
        expected = model(x)
        layout = torch.channels_last
        got = model.to(memory_format=layout)(x.contiguous(memory_format=layout))
        assert torch.allclose(got, expected, atol=1e-4)

    def test_wrong_channels_of_the_table_are_an_error(self, name: str) -> None:
        with pytest.raises(ValueError, match="for 3 channels, the images have 1"):
            build(name, channels=1, normalisation="cifar10")

    def test_the_signature_is_readable_without_importing(self, name: str) -> None:
        assert "normalisation" in signatures.signature("models", name)
