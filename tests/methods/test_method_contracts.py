"""What every training method promises, by name."""

import copy
import dataclasses
import importlib
import math

import pytest
import torch
from torch import Tensor, nn

from advtrain.methods.method import Batch, Method
from advtrain.noise import Noise
from advtrain.params import signatures
from advtrain.params.signatures import DEFAULT_NORMS as NORMS
from advtrain.threat import ThreatModel
from advtrain.training.loop import VIEW
from tests.methods.conftest import CLASSES, batch_of

NAMES = [one for one in signatures.modules("methods") if signatures.is_trained(one)]
"""Without `given`, which stands for a training and makes no step."""
BUDGETS = {"linf": 0.1, "l2": 0.5}
CONSTANT = {"mart": math.log(4 / 3), "gradalign": 0.2}
"""What a loss adds to the cross-entropy of a network that says the same of every image."""


def make(name: str) -> Method:
    made = getattr(importlib.import_module(f"advtrain.methods.{name}"), signatures.camel_case(name))
    method = made()
    assert isinstance(method, Method)
    method.start(torch.arange(1000))
    return method


def seen_by(method: Method, batch: Batch) -> Batch:
    """The batch as the loop hands it to a method of several views."""
    views = [batch.x, batch.x.flip(-1), batch.x.flip(-2)][: method.views]
    return batch._replace(
        x=torch.cat(views),
        y=batch.y.repeat(method.views),
        example=batch.example.repeat(method.views),
    )


def noise_of(batch: Batch) -> Noise:
    views = torch.arange(len(batch.x)).div(len(batch.example.unique()), rounding_mode="floor")
    return Noise(0, batch.example + views * VIEW)


def step(method: Method, model: nn.Module, batch: Batch, threat: ThreatModel) -> Tensor:
    """One weight step as the loop makes it, the update of the weights left out."""
    batch = seen_by(method, batch)
    x_adv = method.perturb(model, batch, threat, noise_of(batch))
    if method.input_gradient:
        x_adv.requires_grad_()
    model.zero_grad()
    method.loss(model, batch, x_adv, threat, noise_of(batch)).total.backward()
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


class Meter:
    """Counts the examples that pass through a network, and the gradients that come back."""

    def __init__(self, network: nn.Module) -> None:
        self.forward_examples = self.backward_examples = 0
        network.register_forward_hook(self._count)

    def _count(self, network: nn.Module, inputs: tuple[Tensor], logits: Tensor) -> Tensor:
        self.forward_examples += len(inputs[0])
        counted: Tensor = Counted.apply(logits, self)
        return counted


def constant() -> nn.Module:
    """The same logits for every image, with gradients of the input that are all zero."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(2 * 5 * 3, CLASSES))
    for weight in network.parameters():
        nn.init.zeros_(weight)
    return network


def supported(method: Method, norm: str) -> bool:
    """Whether a method is for this norm; one that is not says for which it is."""
    batch = seen_by(method, batch_of(2))
    network = constant()
    try:
        x_adv = method.perturb(network, batch, ThreatModel(norm, 0.1), noise_of(batch))
        method.loss(network, batch, x_adv, ThreatModel(norm, 0.1), noise_of(batch))
    except ValueError as error:
        said = str(error)
    else:
        return True
    assert "linf" in said
    assert norm != "linf"
    return False


def test_the_methods_are_found() -> None:
    assert set(NAMES) >= {
        *("cat", "consistency", "fat", "fgsm_mixed", "fgsm_rs", "free", "gaussian", "gradalign"),
        *("iaat", "ibp", "mart", "natural", "nfgsm", "pgd_at", "trades"),
    }


@pytest.mark.parametrize("name", NAMES)
class TestEveryMethod:
    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("count", [1, 2, 10])
    def test_perturbed_images_lie_in_the_threat_set(
        self, name: str, norm: str, count: int, model: nn.Module
    ) -> None:
        method, threat, batch = make(name), ThreatModel(norm, BUDGETS[norm]), batch_of(count)
        if not supported(make(name), norm):
            return
        x = seen_by(method, batch).x
        for _ in range(3):
            x_adv = step(method, model, batch, threat)
            assert x_adv.shape == x.shape
            assert not x_adv.requires_grad
            if method.within_budget:
                assert x_adv.min() >= 0
                assert x_adv.max() <= 1
                assert (threat.distance(x_adv, x) <= threat.epsilon * (1 + 1e-6) + 1e-7).all()

    def test_crafting_leaves_the_model_and_the_batch_as_found(
        self, name: str, model: nn.Module, batch: Batch
    ) -> None:
        method, threat = make(name), ThreatModel("linf", 0.1)
        step(method, model, batch, threat)
        model.zero_grad()
        model[2].eval()  # a mixed mode is the caller's business too
        modes = [module.training for module in model.modules()]
        before = {key: value.clone() for key, value in model.state_dict().items()}
        batch = seen_by(method, batch)
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
        batch = seen_by(method, batch)
        assert torch.equal(method.perturb(twin, batch, threat, noise_of(batch)), first)

    def test_passes_are_those_that_the_model_sees(
        self, name: str, model: nn.Module, batch: Batch
    ) -> None:
        method, meter = make(name), Meter(model)
        step(method, model, batch, ThreatModel("linf", 0.1))
        crafting, loss = method.cost()
        rows = len(seen_by(method, batch).x)
        assert meter.forward_examples == (crafting.forward + loss.forward) * rows
        assert meter.backward_examples == (crafting.backward + loss.backward) * rows

    def test_the_loss_is_a_scalar_with_a_graph_and_reaches_every_weight(
        self, name: str, model: nn.Module, batch: Batch
    ) -> None:
        method, threat = make(name), ThreatModel("linf", 0.1)
        batch = seen_by(method, batch)
        terms = method.loss(model, batch, batch.x, threat, noise_of(batch))
        assert terms.total.shape == ()
        assert terms.logits.shape == (len(batch.x), CLASSES)
        assert all(part.shape == () for part in terms.parts.values())
        terms.total.backward()
        assert all(weight.grad is not None for weight in model.parameters())

    def test_a_constant_model_gives_a_finite_loss(self, name: str, batch: Batch) -> None:
        method, threat = make(name), ThreatModel("linf", 0.1)
        x_adv = step(method, constant(), batch, threat)
        assert x_adv.isfinite().all()
        batch = seen_by(method, batch)
        loss = method.loss(constant(), batch, x_adv, threat, noise_of(batch)).total
        assert loss.item() == pytest.approx(math.log(4) + CONSTANT.get(name, 0.0), abs=1e-6)

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
        assert make(name).needs_threat == (name not in ("natural", "gaussian"))
