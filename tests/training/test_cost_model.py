"""The operations of a network, counted from its shapes."""

import pytest

from advtrain.training.cost_model import forward_flops


def test_the_operations_of_a_forward_pass() -> None:
    entry = {"module": "small_cnn", "parameters": {"width": 8, "hidden": 64}}
    once = forward_flops(entry, 1, 8, 10)
    assert once is not None
    # The first layer alone: 8 filters of 3 x 3 at 8 x 8 places.
    assert once > 2 * 8 * 9 * 64
    assert forward_flops(entry, 1, 8, 11) == once + 2 * 64


def test_a_preact_resnet_18_for_cifar_has_the_published_operations() -> None:
    entry = {"module": "preact_resnet", "parameters": {"depth": 18}}
    # 0.56 G multiplications and additions.
    assert forward_flops(entry, 3, 32, 10) == pytest.approx(2 * 0.556e9, rel=0.01)


def test_a_network_of_ones_own_is_not_counted() -> None:
    assert forward_flops({"module": "external", "parameters": {}}, 3, 32, 10) is None
