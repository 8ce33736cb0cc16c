import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from advtrain.attacks.ascent import ascend
from advtrain.attacks.objectives import cross_entropy
from advtrain.methods.method import Terms
from advtrain.threat import ThreatModel
from advtrain.training.precision import computing, lowered
from advtrain.training.updates import awp, plain
from tests.training.tiny import network, split_of

CPU = torch.device("cpu")


def data() -> tuple[Tensor, Tensor]:
    split = split_of(30, seed=1)
    return split.images / 255, split.labels


def found(model: nn.Module) -> tuple[int, int, bool]:
    """What a context could leave behind."""
    return (
        len(model._forward_pre_hooks),
        len(model._forward_hooks),
        torch.is_autocast_enabled("cpu"),
    )


def test_float32_does_nothing_at_all() -> None:
    model = network(dropout=0.0)
    expected = copy.deepcopy(model)(data()[0])
    with lowered(model, CPU, "float32"):
        assert found(model) == (0, 0, False)
        assert torch.equal(model(data()[0]), expected)


def test_bfloat16_computes_in_bfloat16_and_answers_in_float32() -> None:
    model = network(dropout=0.0).eval()
    x, _ = data()
    expected = model(x)
    inside: list[torch.dtype] = []
    handle = model[0].register_forward_hook(lambda layer, inputs, out: inside.append(out.dtype))
    with lowered(model, CPU, "bfloat16"):
        logits = model(x)
        assert found(model) == (1, 1, False)
    handle.remove()
    assert inside == [torch.bfloat16]
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, expected)
    torch.testing.assert_close(logits, expected, rtol=0.02, atol=0.02)
    assert found(model) == (0, 0, False)
    assert torch.equal(model(x), expected)


def losses(model: nn.Module, precision: str, steps: int = 60) -> list[float]:
    x, y = data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    values = []
    with lowered(model, CPU, precision):
        for _ in range(steps):

            def loss() -> Terms:
                logits = model(x)
                return Terms(functional.cross_entropy(logits, y), logits, {})

            values.append(plain(model, optimizer, loss).total.item())
    return values


def test_a_network_trains_in_bfloat16_much_as_in_float32() -> None:
    full, low = network(dropout=0.0), network(dropout=0.0)
    one, other = losses(full, "float32"), losses(low, "bfloat16")
    assert one != other
    assert other[-1] < 0.1 * other[0]
    assert other[:10] == pytest.approx(one[:10], rel=0.05, abs=0.01)
    for name, weight in low.state_dict().items():
        assert weight.dtype == full.state_dict()[name].dtype
    for weight in low.parameters():
        assert weight.grad.dtype == torch.float32


def test_crafting_has_float32_images_and_bfloat16_gradients() -> None:
    model = network(dropout=0.0).eval()
    x, y = data()
    threat = ThreatModel("linf", 0.1)

    def craft() -> Tensor:
        objective = partial(cross_entropy, y=y)
        return ascend(model, x, x, objective, threat, steps=5, step_size=0.03)

    full = craft()
    with lowered(model, CPU, "bfloat16"):
        low = craft()
    assert low.dtype == torch.float32
    assert threat.distance(low, x).max() <= 0.1 + 1e-6
    # Signs of small gradients differ, most pixels do not.
    assert 0.8 < (low - full).abs().lt(1e-6).float().mean() < 1


def test_the_second_derivative_is_near_that_of_float32() -> None:
    """The gradient for the weights of how two input gradients agree, as GradAlign descends it."""
    x, y = data()

    def second(precision: str) -> Tensor:
        model = network(dropout=0.0)
        model[2] = nn.Softplus()

        def gradient(at: Tensor) -> Tensor:
            at = at.clone().requires_grad_()
            total = functional.cross_entropy(model(at), y, reduction="sum")
            return torch.autograd.grad(total, at, create_graph=True)[0].flatten(1)

        with lowered(model, CPU, precision):
            agreement = functional.cosine_similarity(gradient(x), gradient(x + 0.1), dim=1)
            (1 - agreement).mean().backward()
        return torch.cat([weight.grad.flatten() for weight in (model[0].weight, model[5].weight)])

    full, low = second("float32"), second("bfloat16")
    assert low.dtype == torch.float32
    assert full.norm() > 0
    assert functional.cosine_similarity(full, low, dim=0) > 0.95


def test_the_weight_perturbation_stays_in_float32() -> None:
    model = network(dropout=0.0)
    x, y = data()
    weights: list[Tensor] = []

    def loss() -> Terms:
        weights.append(model[5].weight.detach().clone())
        logits = model(x)
        return Terms(functional.cross_entropy(logits, y), logits, {})

    with lowered(model, CPU, "bfloat16"):
        awp(model, torch.optim.SGD(model.parameters(), lr=0.1), loss, gamma=0.01)
    before, at = weights
    assert before.dtype == at.dtype == torch.float32
    # bfloat16 has two decimal digits.
    assert (at - before).norm() / before.norm() == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failing_network_is_left_as_found(error: type[BaseException]) -> None:
    model = network()

    def fail(*ignored: object) -> None:
        raise error("stop")

    handle = model[3].register_forward_hook(fail)
    with pytest.raises(error, match="stop"), lowered(model, CPU, "bfloat16"):
        model(data()[0])
    assert found(model) == (0, 0, False)
    handle.remove()
    assert model(data()[0]).dtype == torch.float32


def test_a_network_that_failed_once_is_lowered_at_the_next_call() -> None:
    model = network().eval()
    x, _ = data()
    with lowered(model, CPU, "bfloat16"):
        expected = model(x)
        with pytest.raises(RuntimeError):
            model(x[:, :, :2])
        assert not torch.is_autocast_enabled("cpu")
        assert torch.equal(model(x), expected)


def test_an_exception_in_the_caller_leaves_nothing() -> None:
    model = network()
    with pytest.raises(ZeroDivisionError), lowered(model, CPU, "bfloat16"):
        raise ZeroDivisionError
    assert found(model) == (0, 0, False)


def test_an_unknown_precision_is_named() -> None:
    with (
        pytest.raises(ValueError, match="precision 'float8' is unknown; expected float32, tf32,"),
        computing("float8", network(), CPU),
    ):
        pass
    with pytest.raises(ValueError, match="float16 is the precision of a model"):
        computing("float16").__enter__()


@pytest.mark.parametrize(("precision", "expected"), [("float32", "ieee"), ("tf32", "tf32")])
def test_tf32_is_on_where_it_is_asked_for_and_nowhere_else(precision: str, expected: str) -> None:
    switches = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    before = [switch.fp32_precision for switch in switches]
    with computing(precision, network(), CPU):
        assert [switch.fp32_precision for switch in switches] == [expected] * 2
    assert [switch.fp32_precision for switch in switches] == before


def first_step(model: nn.Module, precision: str, scale: float) -> dict[str, Tensor]:
    """Gradients of the weights and of the images, of a loss that may be tiny."""
    x, y = data()
    x = x.clone().requires_grad_()
    with computing(precision, model, CPU):
        (scale * functional.cross_entropy(model(x), y)).backward()
    return {"x": x.grad, **{name: weight.grad for name, weight in model.named_parameters()}}


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_float16_gradients_are_scaled_over_what_16_bits_lose(scale: float) -> None:
    """A loss of 1e-6: unscaled, most gradients would be 0 (float16 ends at 6e-8)."""
    full, low = network(dropout=0.0).eval(), network(dropout=0.0).eval()
    one, other = first_step(full, "float32", scale), first_step(low, "float16", scale)
    for name, gradient in one.items():
        assert other[name].dtype == torch.float32
        assert (other[name] - gradient).norm() <= 0.03 * gradient.norm(), name
    assert found(low) == (0, 0, False)
    assert all(not weight._backward_hooks for weight in low.parameters())


def test_a_network_trains_in_float16_much_as_in_float32() -> None:
    full, low = network(dropout=0.0), network(dropout=0.0)
    one, other = losses(full, "float32"), losses(low, "float16")
    assert one != other
    assert other[:10] == pytest.approx(one[:10], rel=0.01, abs=0.002)
    assert other[-1] < 0.1 * other[0]


def test_the_weight_perturbation_of_float16_has_the_size_of_float32s() -> None:
    """AWP asks for weight gradients without `.backward()`: they are unscaled there too."""

    def perturbed(precision: str) -> Tensor:
        model = network(dropout=0.0)
        x, y = data()

        def loss() -> Terms:
            logits = model(x)
            return Terms(functional.cross_entropy(logits, y), logits, {})

        with computing(precision, model, CPU):
            return awp(model, torch.optim.SGD(model.parameters(), lr=0.1), loss, gamma=0.1).total

    assert perturbed("float16").item() == pytest.approx(perturbed("float32").item(), rel=0.01)
