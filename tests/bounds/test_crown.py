"""Linear bounds hold every output, are exact for what is linear, and count what they spend."""

import pytest
import torch
from torch import Tensor, nn

from advtrain.bounds import crown, interval
from advtrain.bounds.crown import worst_case_logits
from advtrain.bounds.interval import ball, layers_of
from tests.bounds.networks import CLASSES, NAMES, images, inside, labels, network, outputs, steepest
from tests.bounds.test_interval import two_neurons

ROUNDING = 1e-12
MODES = ("crown", "ibp")


def bounds(model: nn.Module, epsilon: float, mode: str, count: int = 5) -> Tensor:
    return worst_case_logits(model, images(count), labels(count), epsilon, intermediate=mode)[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("epsilon", [0.0, 0.01, 0.3])
@pytest.mark.parametrize("name", NAMES)
def test_bounds_hold_the_outputs_of_the_whole_ball(name: str, epsilon: float, mode: str) -> None:
    model, y = network(name), labels()
    worst = bounds(model, epsilon, mode)
    assert worst.gather(1, y[:, None]).abs().max() == 0
    logits = outputs(model, inside(ball(images(), epsilon)))
    assert (logits - logits[:, torch.arange(5), y, None] <= worst + ROUNDING).all()


@pytest.mark.parametrize("mode", MODES)
def test_two_neurons_by_hand(mode: str) -> None:
    # On x in [1/4, 3/4] the line above relu(2 x - 1) is x - 1/4, so relu(x) - relu(2 x - 1) is at
    # least x - (x - 1/4) = 1/4, which it is at both ends; intervals say -1/4. The line below it is
    # 0 (the tie u = -l), so it is at most x, 3/4.
    model, x = two_neurons(), torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64)
    for label, expected in ((0, [0.0, -0.25]), (1, [0.75, 0.0])):
        worst, spent = worst_case_logits(model, x, torch.tensor([label]), 0.25, intermediate=mode)
        assert worst[0].tolist() == pytest.approx(expected, abs=ROUNDING)
        assert spent.tolist() == [2]


@pytest.mark.parametrize("mode", MODES)
def test_the_lower_line_turns_where_the_positive_side_is_longer(mode: str) -> None:
    # x in [3/8, 7/8]: 2 x - 1 in [-1/4, 3/4], so the line below its relu is 2 x - 1 itself: the
    # logit is at most x - (2 x - 1) = 1 - x, 5/8 at x = 3/8; with the line 0 it would be 7/8.
    model, x = two_neurons(), torch.full((1, 1, 1, 1), 0.625, dtype=torch.float64)
    worst, _ = worst_case_logits(model, x, torch.tensor([1]), 0.25, intermediate=mode)
    assert worst[0, 0].item() == pytest.approx(0.625, abs=ROUNDING)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["small_cnn", "perceptron", "linear"])
def test_bounds_are_exact_where_every_sign_is_known(name: str, mode: str) -> None:
    # Biases so large that every ReLU is open: the network is linear, and its worst case a corner.
    model, x, y = network(name), images(), labels()
    with torch.no_grad():
        for layer in layers_of(model)[:-1]:
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.bias.fill_(100.0)
                layer.weight.div_(layer.weight[0].numel())
    worst, box = bounds(model, 0.1, mode), ball(x, 0.1)
    unit = torch.eye(CLASSES, dtype=torch.float64)
    for k in range(CLASSES):
        row = unit[k] - unit[y]
        expected = (model(steepest(model, x, box, row)) * row).sum(1)
        torch.testing.assert_close(worst[:, k], expected, rtol=0, atol=1e-10)
    if name != "linear":
        looser = interval.worst_case_logits(model, x, y, 0.1) - worst
        assert looser.min() >= -1e-10
        assert looser.max() > 1e-6


def test_bounded_relu_inputs_can_only_shrink() -> None:
    # With "crown" every ReLU's interval lies in the one that interval propagation gives.
    model, x = network("perceptron"), images()
    layers, boxes = layers_of(model), [ball(x, 0.1)]
    for layer in layers:
        boxes.append(interval.through(layer, boxes[-1]))
    depth = 4  # the second ReLU's input is boxes[4]
    chosen = crown._open(boxes[depth])
    assert chosen.any()
    lower, upper = crown._tightened(layers[:depth], boxes[: depth + 1], chosen)
    assert (lower >= boxes[depth].lower).all()
    assert (upper <= boxes[depth].upper).all()
    assert ((upper - lower) < (boxes[depth].upper - boxes[depth].lower))[chosen].any()
    kept = ~chosen
    assert torch.equal(lower[kept], boxes[depth].lower[kept])
    z = outputs(model[:depth], inside(boxes[0]))
    assert (z >= lower - ROUNDING).all()
    assert (z <= upper + ROUNDING).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["small_cnn", "pooled"])
def test_neither_the_batch_nor_the_pieces_change_a_bound(
    name: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, y = network(name), images(6), labels(6)
    worst, spent = worst_case_logits(model, x, y, 0.05, intermediate=mode)
    alone = [
        worst_case_logits(model, x[n : n + 1], y[n : n + 1], 0.05, intermediate=mode)
        for n in range(6)
    ]
    torch.testing.assert_close(torch.cat([a for a, _ in alone]), worst, rtol=0, atol=ROUNDING)
    assert torch.cat([b for _, b in alone]).tolist() == spent.tolist()
    monkeypatch.setattr(crown, "ELEMENTS", {"cpu": 5000})
    pieces, _ = worst_case_logits(model, x, y, 0.05, intermediate=mode)
    torch.testing.assert_close(pieces, worst, rtol=0, atol=ROUNDING)


def test_what_is_spent_is_a_function_per_class_and_two_per_open_neuron() -> None:
    model, x, y = network("perceptron"), images(), labels()
    for epsilon in (0.02, 0.2):
        _, few = worst_case_logits(model, x, y, epsilon, intermediate="ibp")
        assert few.tolist() == [CLASSES] * 5
        _, spent = worst_case_logits(model, x, y, epsilon, intermediate="crown")
        lower, upper = interval.propagate(model[:4], ball(x, epsilon))
        undecided = ((lower < 0) & (upper > 0)).sum(1)
        assert spent.tolist() == (2 * undecided + CLASSES).tolist()


def test_other_intermediate_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="'crown' or 'ibp', got 'alpha'"):
        bounds(network("linear"), 0.1, "alpha")
