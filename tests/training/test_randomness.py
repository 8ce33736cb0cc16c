import io
import random

import numpy as np
import pytest
import torch

from advtrain.training import randomness

CPU = torch.device("cpu")


def draw() -> list[float]:
    random.gauss(0, 1)  # leaves a spare value in the generator
    return [
        random.random(),
        random.gauss(0, 1),
        np.random.standard_normal(),
        torch.rand(()).item(),
        torch.randn(()).item(),
    ]


def test_every_global_generator_is_seeded() -> None:
    drawn = []
    for seed in (1, 1, 2):
        with randomness.reproducible(seed, CPU):
            drawn.append(draw())
    assert drawn[0] == drawn[1]
    assert not any(one == other for one, other in zip(drawn[0], drawn[2], strict=True))


def test_a_seed_may_be_any_integer() -> None:
    for seed in (0, 2**40, -1):
        with randomness.reproducible(seed, CPU):
            assert len(draw()) == 5


def test_a_state_survives_a_file() -> None:
    with randomness.reproducible(0, CPU):
        draw()
        buffer = io.BytesIO()
        torch.save(randomness.state(CPU), buffer)
        expected = draw()
        buffer.seek(0)
        randomness.restore(torch.load(buffer, weights_only=True), CPU)
        assert draw() == expected


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_found_is_put_back(fails: bool) -> None:
    found = randomness.state(CPU)
    expected = draw()
    randomness.restore(found, CPU)
    deterministic = torch.are_deterministic_algorithms_enabled()
    benchmark = torch.backends.cudnn.benchmark
    try:
        with randomness.reproducible(7, CPU):
            assert torch.are_deterministic_algorithms_enabled()
            draw()
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert torch.backends.cudnn.benchmark == benchmark
    assert draw() == expected
