"""GradAlign: the cosine by hand and by numpy, the second-order gradient by finite differences."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advtrain.attacks.fgsm import fgsm
from advtrain.methods.gradalign import Gradalign
from advtrain.methods.method import Batch, Passes, Terms
from advtrain.models.preact_resnet import preact_resnet
from advtrain.models.small_cnn import small_cnn
from advtrain.noise import Noise
from advtrain.params.signatures import DEFAULT_NORMS as NORMS
from advtrain.threat import ThreatModel
from tests.methods.test_losses import EPSILON, THREAT, X, cross_entropy, pixels, step

BUDGETS = {"linf": 0.1, "l2": 0.5}


class Parabola(nn.Module):
    """Logits (sum of a_i (x_i - c_i)^2, 0): the loss's gradient is along (a_i (x_i - c_i))."""

    def __init__(self, a: list[float], c: list[float]) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))
        self.c = nn.Parameter(torch.tensor(c, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        z = (self.a * (x.flatten(1) - self.c) ** 2).sum(1, keepdim=True)
        return torch.cat([z, torch.zeros_like(z)], dim=1)


def pairs(count: int, channels: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(count)
    x = torch.rand(count, channels, 1, 1, generator=generator, dtype=torch.float64)
    return Batch(x, torch.zeros(count).long(), torch.arange(count))


def near(batch: Batch, threat: ThreatModel = THREAT) -> Tensor:
    """The points at which the loss takes the other gradient."""
    seen: list[Tensor] = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(batch.x[0].numel(), 4).to(batch.x.dtype))
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    loss(Gradalign(), model, batch, threat)
    assert len(seen) == 3
    assert torch.equal(seen[1], batch.x)
    return seen[2]


def loss(method: Gradalign, model: nn.Module, batch: Batch, threat: ThreatModel = THREAT) -> Terms:
    """At images of its own, so that what depends on the weights is the loss alone."""
    x_adv = (batch.x + threat.epsilon / 7).clamp(0, 1)
    return method.loss(model, batch, x_adv, threat, Noise(2, batch.example))


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one.ravel(), other.ravel()
    return float(one @ other / np.sqrt((one @ one) * (other @ other)))


def test_it_trains_on_fgsm_images(model: nn.Module, batch: Batch) -> None:
    model.eval()
    noise = Noise(0, batch.example)
    expected = fgsm(model, batch.x, batch.y, THREAT, noise).x_adv
    assert torch.equal(Gradalign(crafting="eval").perturb(model, batch, THREAT, noise), expected)
    halved = Gradalign(crafting="eval", step_size="epsilon/2")
    distance = THREAT.distance(halved.perturb(model, batch, THREAT, noise), batch.x)
    assert distance.max().item() == pytest.approx(EPSILON / 2, rel=1e-5)


def test_one_pixel_has_but_one_direction() -> None:
    terms = step(Gradalign(), pixels())
    assert terms.parts["misalignment"].item() == pytest.approx(0.0, abs=1e-12)
    assert terms.total.item() == pytest.approx(cross_entropy(X - EPSILON), rel=1e-12)


def test_a_linear_model_of_two_classes_is_aligned() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(7, 2).double())
    terms = loss(Gradalign(), model, pairs(5, 7))
    assert terms.parts["misalignment"].item() == pytest.approx(0.0, abs=1e-12)
    # With three classes the direction depends on the probabilities, so on the image.
    model = nn.Sequential(nn.Flatten(), nn.Linear(7, 3).double())
    assert loss(Gradalign(), model, pairs(5, 7)).parts["misalignment"].item() > 1e-6


def test_a_parabola_by_hand() -> None:
    a, c, batch = np.array([2.0, -1.0]), np.array([0.1, 0.3]), pairs(4)
    ends = zip(batch.x.flatten(1).numpy(), near(batch).flatten(1).numpy(), strict=True)
    expected = np.mean([1 - cosine(a * (x - c), a * (point - c)) for x, point in ends])
    terms = loss(Gradalign(regularisation=3.0), Parabola([2.0, -1.0], [0.1, 0.3]), batch)
    assert expected > 1e-3
    assert terms.parts["misalignment"].item() == pytest.approx(expected, rel=1e-9)
    total = terms.parts["adversarial"] + 3.0 * terms.parts["misalignment"]
    assert terms.total.item() == pytest.approx(total.item(), rel=1e-12)


def test_a_small_network_by_numpy() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    batch = pairs(5, 6)._replace(y=torch.arange(5) % 4)
    w1, b1, w2, b2 = (part.detach().numpy() for part in model.parameters())

    def gradient(x: np.ndarray, y: int) -> np.ndarray:
        hidden = np.tanh(w1 @ x.ravel() + b1)
        z = w2 @ hidden + b2
        p = np.exp(z) / np.exp(z).sum()
        return w1.T @ ((1 - hidden**2) * (w2.T @ (p - np.eye(4)[y])))

    expected = np.mean(
        [
            1 - cosine(gradient(x, y), gradient(point, y))
            for x, point, y in zip(
                batch.x.numpy(), near(batch).numpy(), batch.y.tolist(), strict=True
            )
        ]
    )
    terms = loss(Gradalign(), model, batch)
    assert expected > 1e-6
    assert terms.parts["misalignment"].item() == pytest.approx(expected, rel=1e-9)
    assert torch.equal(terms.parts["adversarial"], F.cross_entropy(terms.logits, batch.y))


def smooth() -> nn.Module:
    """Twice differentiable, with BatchNorm in train mode."""
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(2, 2, 2),
        nn.BatchNorm2d(2),
        nn.Softplus(),
        nn.Flatten(),
        nn.Linear(2 * 3 * 2, 3),
    ).double()


def images() -> Batch:
    generator = torch.Generator().manual_seed(8)
    x = torch.rand(5, 2, 4, 3, generator=generator, dtype=torch.float64)
    return Batch(x, torch.arange(5) % 3, torch.arange(5))


def differences(model: nn.Module, value: Callable[[], float], shift: float = 1e-5) -> Tensor:
    """The gradient of a value with respect to all weights, by central differences."""
    found = []
    for weight in model.parameters():
        flat = weight.data.view(-1)
        for index in range(len(flat)):
            kept = flat[index].item()
            flat[index] = kept + shift
            above = value()
            flat[index] = kept - shift
            below = value()
            flat[index] = kept
            found.append((above - below) / (2 * shift))
    return torch.tensor(found, dtype=torch.float64)


def gradients(model: nn.Module) -> Tensor:
    grads = [weight.grad for weight in model.parameters()]
    assert all(grad is not None for grad in grads)
    return torch.cat([grad.flatten() for grad in grads if grad is not None])


def input_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), y), x)
    return gradient.flatten(1)


def test_the_second_order_gradient_by_central_differences() -> None:
    method, model, batch = Gradalign(regularisation=1.5, hold_clean=False), smooth(), images()
    terms = loss(method, model, batch)
    terms.total.backward()
    expected = differences(model, lambda: loss(method, model, batch).total.item())
    torch.testing.assert_close(gradients(model), expected, rtol=1e-6, atol=1e-8)
    # And the regulariser has a part in it.
    model.zero_grad()
    loss(Gradalign(regularisation=0.0), model, batch).total.backward()
    assert (gradients(model) - expected).abs().max() > 1e-3


def test_the_gradient_with_the_clean_side_held_by_central_differences() -> None:
    method, model, batch = Gradalign(regularisation=1.5), smooth(), images()
    points, held = near(batch), input_gradient(model, batch.x, batch.y)

    def value() -> float:
        moving = input_gradient(model, points, batch.y)
        misalignment = (1 - F.cosine_similarity(held, moving)).mean().item()
        return loss(method, model, batch).parts["adversarial"].item() + 1.5 * misalignment

    terms = loss(method, model, batch)
    assert terms.total.item() == pytest.approx(value(), rel=1e-9)
    terms.total.backward()
    expected = differences(model, value)
    torch.testing.assert_close(gradients(model), expected, rtol=1e-6, atol=1e-8)


def test_holding_the_clean_gradient_changes_what_is_learned_not_the_loss() -> None:
    batch, totals, learned = images(), [], []
    for hold in (True, False):
        model = smooth()
        total = loss(Gradalign(hold_clean=hold), model, batch).total
        total.backward()
        totals.append(total)
        learned.append(gradients(model))
    assert torch.equal(*totals)
    assert (learned[0] - learned[1]).abs().max() > 1e-4


def test_lambda_0_is_fgsm_training(model: nn.Module, batch: Batch) -> None:
    method, noise = Gradalign(regularisation=0.0), Noise(0, batch.example)
    x_adv = method.perturb(model, batch, THREAT, noise)
    terms = method.loss(model, batch, x_adv, THREAT, noise)
    assert torch.equal(terms.total, F.cross_entropy(model(x_adv), batch.y))
    assert terms.parts == {}
    regularised = Gradalign(regularisation=1.0).loss(model, batch, x_adv, THREAT, noise)
    assert torch.equal(regularised.parts["adversarial"], terms.total)
    assert regularised.total > terms.total


@pytest.mark.parametrize("hold", [True, False])
def test_an_image_without_gradient_teaches_nothing_and_harms_nothing(hold: bool) -> None:
    # The parabola is flat at its centre: there the first image has no direction, the second one
    # has, and moving the centre would give the first one a direction too.
    centre = [0.4, 0.6]
    x = torch.tensor([centre, [0.9, 0.2]], dtype=torch.float64).view(2, 2, 1, 1)
    both = Batch(x, torch.zeros(2).long(), torch.arange(2))
    other = Batch(x[1:], both.y[1:], both.example[1:])
    method, model = Gradalign(hold_clean=hold), Parabola([2.0, 1.0], centre)
    twin = copy.deepcopy(model)
    misalignment = loss(method, model, both).parts["misalignment"]
    misalignment.backward()
    alone = loss(method, twin, other).parts["misalignment"]
    alone.backward()
    assert misalignment.item() == pytest.approx((1 + alone.item()) / 2, rel=1e-12)
    torch.testing.assert_close(gradients(model), gradients(twin) / 2)
    assert gradients(twin).abs().min() > 1e-4


@pytest.mark.parametrize(
    ("slope", "defined"),
    [(0.0, False), (1e-42, False), (1e-30, False), (1e-22, False), (1e-16, True), (1e-9, True)],
)
@pytest.mark.parametrize("hold", [True, False])
def test_gradients_too_small_to_be_squared(slope: float, defined: bool, hold: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.Softplus(), nn.Linear(4, 3))
    for weight in model.parameters():
        weight.data.normal_()
    model[3].weight.data.mul_(slope)
    batch = Batch(torch.rand(5, 3, 1, 1), torch.arange(5) % 3, torch.arange(5))
    terms = loss(Gradalign(hold_clean=hold), model, batch)
    terms.total.backward()
    assert gradients(model).isfinite().all()
    # A gradient's direction does not depend on its length, which float64 can square.
    exact = loss(Gradalign(), copy.deepcopy(model).double(), batch._replace(x=batch.x.double()))
    expected = exact.parts["misalignment"].item() if defined else 1.0
    assert terms.parts["misalignment"].item() == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert (expected < 0.9) == defined


def test_the_running_averages_move_with_the_adversarial_batch_alone(
    model: nn.Module, batch: Batch
) -> None:
    noise, twin = Noise(0, batch.example), copy.deepcopy(model)
    x_adv = Gradalign().perturb(model, batch, THREAT, noise)
    Gradalign().loss(model, batch, x_adv, THREAT, noise)
    twin(x_adv)
    states = zip(model.state_dict().items(), twin.state_dict().items(), strict=True)
    assert all(torch.equal(ours, theirs) for (_, ours), (_, theirs) in states)
    assert model[1].track_running_stats


def test_the_gradients_are_those_of_the_batch_statistics(model: nn.Module, batch: Batch) -> None:
    noise, x_adv = Noise(2, batch.example), (batch.x + THREAT.epsilon / 7).clamp(0, 1)
    terms = Gradalign().loss(model, batch, x_adv, THREAT, noise)
    ends = (input_gradient(model, x, batch.y) for x in (batch.x, near(batch)))
    expected = (1 - F.cosine_similarity(*ends)).mean().item()
    assert terms.parts["misalignment"].item() == pytest.approx(expected, rel=1e-4)
    model.eval()
    ends = (input_gradient(model, x, batch.y) for x in (batch.x, near(batch)))
    assert abs((1 - F.cosine_similarity(*ends)).mean().item() - expected) > 1e-3


@pytest.mark.parametrize("norm", NORMS)
def test_the_other_gradient_is_taken_inside_the_threat_set(norm: str, batch: Batch) -> None:
    threat = ThreatModel(norm, BUDGETS[norm])
    points = near(batch, threat)
    distance = threat.distance(points, batch.x)
    assert (distance <= threat.epsilon * (1 + 1e-6)).all()
    assert (distance > threat.epsilon / 2).all()
    assert points.min() >= 0
    assert points.max() <= 1


def test_the_loss_evaluated_twice_is_the_same(model: nn.Module, batch: Batch) -> None:
    first, second = (loss(Gradalign(), model, batch).total for _ in range(2))
    assert torch.equal(first, second)
    other = Gradalign().loss(model, batch, batch.x, THREAT, Noise(3, batch.example))
    assert other.parts["misalignment"] != loss(Gradalign(), model, batch).parts["misalignment"]


@pytest.mark.parametrize("network", ["small_cnn", "preact_resnet"])
def test_deterministic_algorithms_suffice(network: str) -> None:
    torch.manual_seed(0)
    model: nn.Module = (
        small_cnn(channels=3, size=8, classes=4, width=4, hidden=8)
        if network == "small_cnn"
        else preact_resnet(channels=3, size=8, classes=4, width=4)
    ).train()
    x = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    batch, found = Batch(x, torch.arange(6) % 4, torch.arange(6)), []
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        for hold in (True, True, False):
            twin = copy.deepcopy(model)
            method = Gradalign(hold_clean=hold)
            x_adv = method.perturb(twin, batch, THREAT, noise_of(batch))
            method.loss(twin, batch, x_adv, THREAT, noise_of(batch)).total.backward()
            found.append(gradients(twin))
    finally:
        torch.use_deterministic_algorithms(was)
    assert all(gradient.isfinite().all() for gradient in found)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def noise_of(batch: Batch) -> Noise:
    return Noise(0, batch.example)


def test_the_cost_follows_the_options(model: nn.Module, batch: Batch) -> None:
    assert Gradalign().cost() == (Passes(1, 1), Passes(3, 4))
    assert Gradalign(hold_clean=False).cost() == (Passes(1, 1), Passes(3, 5))
    assert Gradalign(regularisation=0.0).cost() == (Passes(1, 1), Passes(1, 1))
    for method in (Gradalign(), Gradalign(hold_clean=False), Gradalign(regularisation=0.0)):
        rows = {"forward": 0, "backward": 0}

        def count(
            module: nn.Module, inputs: object, logits: Tensor, rows: dict[str, int] = rows
        ) -> None:
            rows["forward"] += 1
            logits.grad_fn.register_hook(lambda *_: rows.update(backward=rows["backward"] + 1))

        handle = model.register_forward_hook(count)
        loss(method, model, batch).total.backward()
        handle.remove()
        assert Passes(**rows) == method.cost().loss


def test_the_mode_while_crafting_changes_the_images(model: nn.Module, batch: Batch) -> None:
    train, eval_ = (
        Gradalign(crafting=mode).perturb(model, batch, THREAT, noise_of(batch))
        for mode in ("train", "eval")
    )
    assert not torch.equal(train, eval_)


def test_smoothed_labels_do_not_turn_the_gradients(model: nn.Module, batch: Batch) -> None:
    # The gradients are the attacker's, who raises the loss of the label.
    smoothed = F.one_hot(batch.y, 4).float() * 0.6 + 0.1
    hard, soft = (loss(Gradalign(), model, b) for b in (batch, batch._replace(smoothed=smoothed)))
    assert torch.equal(soft.parts["misalignment"], hard.parts["misalignment"])
    assert torch.equal(soft.parts["adversarial"], F.cross_entropy(soft.logits, smoothed))
    assert soft.parts["adversarial"] != hard.parts["adversarial"]


def test_the_defaults_are_the_official_ones() -> None:
    assert Gradalign() == Gradalign(0.2, True, "epsilon", "train")
