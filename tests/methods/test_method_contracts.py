"""What every training method promises, by name."""

import copy
import dataclasses
import importlib

import pytest
import torch
from torch import Tensor, nn

from advtrain.methods.method import Batch, Method
from advtrain.noise import Noise
from advtrain.params import signatures
from advtrain.threat import NORMS, ThreatModel
from tests.methods.conftest import CLASSES, batch_of

NAMES = signatures.modules("methods")
BUDGETS = {"linf": 0.1, "l2": 0.5}


def make(name: str) -> Method:
    made = getattr(importlib.import_module(f"advtrain.methods.{name}"), signatures.camel_case(name))
    method = made()
    assert isinstance(method, Method)
    return method


def noise_of(batch: Batch) -> Noise:
    return Noise(0, batch.example)


def step(method: Method, model: nn.Module, batch: Batch, threat: ThreatModel) -> Tensor:
    """One weight step as the loop makes it, the update of the weights left out."""
    x_adv = method.perturb(model, batch, threat, noise_of(batch))
    if method.input_gradient:
        x_adv.requires_grad_()
    model.zero_grad()
    method.loss(model, batch, x_adv).total.backward()
    method.after_step(batch, x_adv.detach(), x_adv.grad, threat)
    return x_adv.detach()


class Counted(torch.autograd.Function):
    """Counts the examples whose gradient comes back."""

    @staticmethod
    def forward(ctx, logits, meter):
        ctx.meter = meter
        return logits.view_as(logits)

    @staticmethod
    def backward(ctx, gradient):
        ctx.meter.backward_examples += len(gradient)
        return gradient, None


class Meter(nn.Module):
    """Counts the examples that pass through a network, and the gradients that come back."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.forward_examples, self.backward_examples = inner, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.forward_examples += len(x)
        return Counted.apply(self.inner(x), self)


class Constant(nn.Module):
    """The same logits for every image, with gradients that are all zero."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.bias + (0 * x).flatten(1).sum(1, keepdim=True)


def test_the_methods_are_found() -> None:
    assert {"natural", "fgsm_mixed", "fgsm_rs", "pgd_at", "free", "trades"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
class TestEveryMethod:
    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("count", [1, 2, 10])
    def test_perturbed_images_lie_in_the_threat_set(
        self, name: str, norm: str, count: int, model: nn.Module
    ) -> None:
        method, threat, batch = make(name), ThreatModel(norm, BUDGETS[norm]), batch_of(count)
        for _ in range(3):
            x_adv = step(method, model, batch, threat)
            assert x_adv.shape == batch.x.shape
            assert x_adv.min() >= 0
            assert x_adv.max() <= 1
            assert (threat.distance(x_adv, batch.x) <= threat.epsilon * (1 + 1e-6) + 1e-7).all()

    def test_crafting_leaves_the_model_and_the_batch_as_found(
        self, name: str, model: nn.Module, batch: Batch
    ) -> None:
        method, threat = make(name), ThreatModel("linf", 0.1)
        step(method, model, batch, threat)
        model.zero_grad()
        model[2].eval()  # a mixed mode is the caller's business too
        modes = [module.training for module in model.modules()]
        before = {key: value.clone() for key, value in model.state_dict().items()}
        x = batch.x.clone()
        x_adv = method.perturb(model, batch, threat, noise_of(batch))
        assert [module.training for module in model.modules()] == modes
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
        assert all(weight.requires_grad for weight in model.parameters())
        assert all(weight.grad is None for weight in model.parameters())
        assert not x_adv.requires_grad
        assert torch.equal(batch.x, x)

    def test_reruns_are_bitwise_equal(self, name: str, model: nn.Module, batch: Batch) -> None:
        one, other, threat = make(name), make(name), ThreatModel("linf", 0.1)
        twin = copy.deepcopy(model)
        for _ in range(3):
            first, second = step(one, model, batch, threat), step(other, twin, batch, threat)
            assert torch.equal(first, second)

    def test_a_loaded_state_continues_exactly(
        self, name: str, model: nn.Module, batch: Batch
    ) -> None:
        method, threat = make(name), ThreatModel("linf", 0.1)
        for _ in range(2):
            step(method, model, batch, threat)
        saved = {key: value.clone() for key, value in method.state_dict().items()}
        resumed, twin = make(name), copy.deepcopy(model)
        resumed.load_state_dict(saved)
        for _ in range(2):
            expected = step(method, model, batch, threat)
            assert torch.equal(step(resumed, twin, batch, threat), expected)

    def test_an_empty_state_is_the_initial_one(
        self, name: str, model: nn.Module, batch: Batch
    ) -> None:
        method, threat, twin = make(name), ThreatModel("linf", 0.1), copy.deepcopy(model)
        first = step(method, model, batch, threat)
        method.load_state_dict({})
        assert torch.equal(method.perturb(twin, batch, threat, noise_of(batch)), first)

    def test_passes_are_those_that_the_model_sees(
        self, name: str, model: nn.Module, batch: Batch
    ) -> None:
        method, meter = make(name), Meter(model)
        step(method, meter, batch, ThreatModel("linf", 0.1))
        cost = method.passes()
        assert meter.forward_examples == cost.forward * len(batch.x)
        assert meter.backward_examples == cost.backward * len(batch.x)

    def test_the_loss_is_a_scalar_with_a_graph_and_reaches_every_weight(
        self, name: str, model: nn.Module, batch: Batch
    ) -> None:
        terms = make(name).loss(model, batch, batch.x)
        assert terms.total.shape == ()
        assert terms.logits.shape == (len(batch.x), CLASSES)
        assert all(part.shape == () for part in terms.parts.values())
        terms.total.backward()
        assert all(weight.grad is not None for weight in model.parameters())

    def test_a_constant_model_gives_a_finite_loss(self, name: str, batch: Batch) -> None:
        method, threat = make(name), ThreatModel("linf", 0.1)
        x_adv = step(method, Constant(), batch, threat)
        assert x_adv.isfinite().all()
        assert method.loss(Constant(), batch, x_adv).total.item() == pytest.approx(1.386294)

    def test_the_text_of_a_method_is_its_parameters(self, name: str, model: nn.Module) -> None:
        # A resumed run compares it: state in it would make every resumed run start over.
        method, threat = make(name), ThreatModel("linf", 0.1)
        before = repr(method)
        step(method, model, batch_of(4), threat)
        assert repr(method) == before
        for parameter in signatures.signature("methods", name):
            assert f"{parameter}=" in before

    def test_parameters_have_the_defaults_that_are_read_from_the_source(self, name: str) -> None:
        method = make(name)
        assert {
            field.name: getattr(method, field.name)
            for field in dataclasses.fields(method)
            if field.init
        } == {key: found.default for key, found in signatures.signature("methods", name).items()}

    def test_the_need_of_a_threat_is_what_the_source_says(self, name: str) -> None:
        assert make(name).needs_threat == signatures.needs_threat(name)
        assert make(name).needs_threat == (name != "natural")
