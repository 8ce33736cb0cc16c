import copy
from collections.abc import Callable
from functools import partial
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from advtrain.methods.free import Free
from advtrain.methods.method import Batch, Cost, Passes, Terms
from advtrain.methods.pgd_at import PgdAt
from advtrain.methods.trades import Trades
from advtrain.noise import Noise
from advtrain.threat import ThreatModel
from advtrain.training.updates import EVALUATIONS, UpdateName, awp, plain
from tests.training.tiny import network, split_of

THREAT = ThreatModel("linf", 0.1)


def test_plain_is_one_gradient_step() -> None:
    model = nn.Linear(2, 1, bias=False)
    nn.init.ones_(model.weight)
    x = torch.tensor([[1.0, 2.0]])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loss() -> Terms:
        logits = model(x)
        return Terms((logits**2).sum() / 2, logits, {})

    terms = plain(model, optimizer, loss)
    assert terms.total.item() == 4.5
    # The gradient is logit * x = 3 * (1, 2).
    assert torch.allclose(model.weight, torch.tensor([[0.7, 0.4]]))
    plain(model, optimizer, loss)
    # A gradient left from the first step would have been added: logit = 1.5.
    assert torch.allclose(model.weight, torch.tensor([[0.55, 0.1]]))


def scalar(weight: float) -> tuple[nn.Linear, Callable[[Tensor], Terms]]:
    """The network w * x and the loss (w * x)^2 / 2."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, weight)

    def loss(x: Tensor) -> Terms:
        logits = model(x)
        return Terms((logits**2).sum() / 2, logits, {})

    return model, loss


@pytest.mark.parametrize(("weight", "stepped"), [(2.0, 1.802), (-2.0, -1.802)])
def test_awp_on_one_weight(weight: float, stepped: float) -> None:
    model, loss = scalar(weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.tensor([[3.0]], dtype=torch.float64)
    terms = awp(model, optimizer, partial(loss, x), gamma=0.1)
    # v = 0.1 * 2 away from 0; there the loss is 4.5 * 2.2^2 and its gradient 9 * 2.2.
    assert terms.total.item() == pytest.approx(21.78)
    assert abs(model.weight.grad.item()) == pytest.approx(19.8)
    # 2.2 - 0.01 * 19.8 - 0.2
    assert model.weight.item() == pytest.approx(stepped)


def test_weight_decay_acts_on_the_perturbed_weight() -> None:
    model, loss = scalar(2.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=0.5)
    awp(model, optimizer, partial(loss, torch.ones(1, 1, dtype=torch.float64)), gamma=0.1)
    # 2.2 - 0.01 * (2.2 + 0.5 * 2.2) - 0.2
    assert model.weight.item() == pytest.approx(1.967)


def test_the_gradient_of_the_images_is_that_at_the_perturbed_weight() -> None:
    model, loss = scalar(2.0)
    x = torch.tensor([[3.0]], dtype=torch.float64, requires_grad=True)
    awp(model, torch.optim.SGD(model.parameters(), lr=0.01), partial(loss, x), gamma=0.1)
    # w^2 * x; that of the first evaluation, 12, would have been added.
    assert x.grad.item() == pytest.approx(2.2**2 * 3)


def batch_of(count: int) -> Batch:
    split = split_of(count, seed=1)
    return Batch(split.images / 255, split.labels, split.example)


class Recorded:
    """The cross-entropy of a batch, which notes the weights that it is evaluated at."""

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        self.model, self.batch = model, batch
        self.weights: list[dict[str, Tensor]] = []
        self.values: list[float] = []

    def __call__(self) -> Terms:
        named = self.model.named_parameters()
        self.weights.append({name: weight.detach().clone() for name, weight in named})
        logits = self.model(self.batch.x)
        total = functional.cross_entropy(logits, self.batch.y)
        self.values.append(total.item())
        return Terms(total, logits, {})


def test_each_layer_moves_up_its_gradient_by_gamma_of_its_norm() -> None:
    model = network(dropout=0.0).double()
    loss = Recorded(model, batch_of(20)._replace(x=batch_of(20).x.double()))
    awp(model, torch.optim.SGD(model.parameters(), lr=0.1), loss, gamma=0.05)
    before, at = loss.weights
    model.load_state_dict(model.state_dict() | before)
    gradients = dict(
        zip(before, torch.autograd.grad(loss().total, list(model.parameters())), strict=True)
    )
    moved = {name for name in before if not torch.equal(before[name], at[name])}
    assert moved == {"0.weight", "5.weight"}
    for name in moved:
        move = at[name] - before[name]
        assert move.norm() / before[name].norm() == pytest.approx(0.05, rel=1e-12)
        cosine = functional.cosine_similarity(move.flatten(), gradients[name].flatten(), dim=0)
        assert cosine == pytest.approx(1, abs=1e-12)
    assert loss.values[1] > loss.values[0]


def test_weights_go_by_their_name_and_dimensions() -> None:
    model = nn.Conv2d(1, 2, 3, bias=True)
    model.offset = nn.Parameter(torch.ones(1, 1, 4, 4))
    at: list[dict[str, Tensor]] = []

    def loss() -> Terms:
        at.append({name: weight.detach().clone() for name, weight in model.named_parameters()})
        logits = model(batch_of(4).x + model.offset).flatten(1)
        return Terms(logits.square().mean(), logits, {})

    awp(model, torch.optim.SGD(model.parameters(), lr=0.1), loss, gamma=0.1)
    assert {name for name in at[0] if not torch.equal(at[0][name], at[1][name])} == {"weight"}


def test_the_perturbation_is_taken_away() -> None:
    model = network()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    loss = Recorded(model, batch_of(20))
    awp(model, torch.optim.SGD(model.parameters(), lr=0.0), loss, gamma=0.5)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight, before[name], rtol=1e-5, atol=1e-7)


def test_the_running_averages_meet_the_perturbed_weights_alone() -> None:
    model = network(dropout=0.0)
    fresh = copy.deepcopy(model)
    loss = Recorded(model, batch_of(20))
    awp(model, torch.optim.SGD(model.parameters(), lr=0.1), loss, gamma=0.5)
    fresh.load_state_dict(fresh.state_dict() | loss.weights[1])
    fresh(loss.batch.x)
    for found, expected in zip(model.buffers(), fresh.buffers(), strict=True):
        assert torch.equal(found, expected)
    assert model[1].num_batches_tracked == 1


@pytest.mark.parametrize("norm", [True, False])
def test_awp_with_gamma_0_is_plain_to_the_bit(norm: bool) -> None:
    models = [network(norm=norm), network(norm=norm)]
    drawn = []
    for model, update in zip(models, [plain, partial(awp, gamma=0.0)], strict=True):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        with torch.random.fork_rng():
            torch.manual_seed(0)  # of the dropout
            for _ in range(3):
                update(model, optimizer, Recorded(model, batch_of(20)))
            drawn.append(torch.get_rng_state())
    for one, other in zip(*(model.state_dict().values() for model in models), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(*drawn)


def test_both_evaluations_meet_the_same_dropout() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3))
    masks = []
    model[1].register_forward_hook(lambda layer, inputs, output: masks.append(output == 0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    awp(model, optimizer, Recorded(model, batch_of(20)), gamma=0.1)
    assert torch.equal(*masks)
    assert 0.3 < masks[0].float().mean() < 0.7


def test_a_layer_that_the_loss_does_not_reach_stays() -> None:
    model = nn.ModuleDict({"used": nn.Linear(2, 1), "dead": nn.Linear(2, 1), "apart": network()})
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}

    def loss() -> Terms:
        x = torch.ones(1, 2)
        logits = model["used"](x) + 0 * model["dead"](x)
        return Terms(logits.sum(), logits, {})

    awp(model, torch.optim.SGD(model.parameters(), lr=0.1), loss, gamma=0.1)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name]) == (not name.startswith("used"))


def by_proxy(
    model: nn.Module, proxy: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, gamma: float
) -> float:
    """TRADES-AWP with a second network, step by step as the paper tells it, beta 6."""

    def objective(net: nn.Module) -> Tensor:
        clean, adversarial = net(batch.x), net(batch.x + 0.05)
        p, q = functional.softmax(clean, 1), functional.softmax(adversarial, 1)
        divergence = (p * (p.log() - q.log())).sum() / len(p)
        return functional.cross_entropy(clean, batch.y) + 6 * divergence

    proxy.load_state_dict(model.state_dict())
    ascent = torch.optim.SGD(proxy.parameters(), lr=0.01, maximize=True)
    ascent.zero_grad()
    objective(proxy).backward()
    ascent.step()
    moves = {}
    with torch.no_grad():
        for (name, weight), moved in zip(model.named_parameters(), proxy.parameters(), strict=True):
            if weight.ndim > 1:
                difference = moved - weight
                moves[name] = gamma * difference * weight.norm() / difference.norm()
                weight.add_(moves[name])
    optimizer.zero_grad()
    total = objective(model)
    total.backward()
    optimizer.step()
    with torch.no_grad():
        for name, move in moves.items():
            model.get_parameter(name).sub_(move)
    return total.item()


def test_trades_awp_is_that_of_a_proxy_network() -> None:
    own, theirs = (network(dropout=0.0).double() for _ in range(2))
    proxy = copy.deepcopy(theirs)
    recipe = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    own_optimizer, their_optimizer = (
        torch.optim.SGD(model.parameters(), **recipe) for model in (own, theirs)
    )
    batch = batch_of(20)._replace(x=batch_of(20).x.double())
    method = Trades(beta=6.0)
    for step in range(5):
        loss = partial(method.loss, own, batch, batch.x + 0.05, THREAT, Noise(step, batch.example))
        terms = awp(own, own_optimizer, loss, gamma=0.05)
        expected = by_proxy(theirs, proxy, their_optimizer, batch, gamma=0.05)
        assert terms.total.item() == pytest.approx(expected, rel=1e-10)
        assert set(terms.parts) == {"natural", "robust"}
    for name, weight in theirs.state_dict().items():
        torch.testing.assert_close(own.state_dict()[name], weight, rtol=1e-9, atol=1e-11)


def test_free_steps_along_the_gradient_of_the_second_evaluation() -> None:
    model, batch, method = network(), batch_of(6), Free(replays=2)
    noise = Noise(0, batch.example)
    x_adv = method.perturb(model, batch, THREAT, noise).requires_grad_()
    loss = partial(method.loss, model, batch, x_adv, THREAT, noise)
    at: list[Tensor] = []

    def recorded() -> Terms:
        torch.manual_seed(0)  # of the dropout, so that the gradient can be taken again
        terms = loss()
        at.append(torch.autograd.grad(terms.total, x_adv, retain_graph=True)[0])
        return terms

    with torch.random.fork_rng():
        awp(model, torch.optim.SGD(model.parameters(), lr=0.1), recorded, gamma=0.5)
    assert not torch.equal(at[0], at[1])
    assert torch.equal(x_adv.grad, at[1])


@pytest.mark.parametrize("name", get_args(UpdateName))
def test_the_evaluations_are_counted(name: UpdateName) -> None:
    model = network()
    loss = Recorded(model, batch_of(6))
    update = {"plain": plain, "awp": partial(awp, gamma=0.1)}[name]
    update(model, torch.optim.SGD(model.parameters(), lr=0.1), loss)
    assert len(loss.values) == EVALUATIONS[name]


@pytest.mark.parametrize(("method", "expected"), [(PgdAt(steps=10), 26), (Trades(steps=10), 33)])
def test_awp_costs_one_loss_more(method: PgdAt | Trades, expected: int) -> None:
    cost = method.cost()
    more = Cost(crafting=Passes(0, 0), loss=cost.loss).forward_equivalents
    assert cost.forward_equivalents + (EVALUATIONS["awp"] - 1) * more == expected
