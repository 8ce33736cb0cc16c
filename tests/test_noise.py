import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advtrain import noise as noise_module
from advtrain.noise import Noise

SHAPE = (3, 5, 4)

UNIFORM = [[0.6807299256324768, 0.9162293672561646], [0.8111369609832764, 0.9703947305679321]]
FOLDED = [[0.7348307371139526], [0.9534675478935242]]
NORMAL = [[-0.7496078610420227, 1.2794214487075806], [-1.0904489755630493, 0.5661265850067139]]


def draw(noise: Noise, kind: str, restart: int = 0) -> torch.Tensor:
    return getattr(noise, kind)(SHAPE, restart=restart)


def test_the_finaliser_is_splitmix64() -> None:
    """The generator of seed 1234567 as published with the reference implementation."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    states = [1234567 + step * noise_module.INCREMENT for step in (1, 2, 3)]
    assert [noise_module._mix_number(state) for state in states] == published
    signed = torch.tensor([noise_module._signed(state) for state in states])
    assert [value % 2**64 for value in noise_module._mix(signed).tolist()] == published


def test_the_stream_is_the_one_that_stored_results_were_made_with() -> None:
    """A change here changes every number of every study: it is a change of results."""
    noise = Noise(7, torch.tensor([0, 12345]))
    assert noise.uniform((2,)).tolist() == UNIFORM
    assert noise.fold_in(3).uniform((1,), restart=1).tolist() == FOLDED
    torch.testing.assert_close(noise.normal((2,)), torch.tensor(NORMAL), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["uniform", "normal"])
@settings(deadline=None)
@given(
    seed=st.integers(-(2**70), 2**70),
    examples=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=9),
    data=st.data(),
)
def test_an_examples_noise_does_not_depend_on_its_batch(
    kind: str, seed: int, examples: list[int], data: st.DataObject
) -> None:
    whole = draw(Noise(seed, torch.tensor(examples)), kind)
    order = data.draw(st.permutations(range(len(examples))))
    kept = order[: data.draw(st.integers(0, len(order)))]
    part = Noise(seed, torch.tensor([examples[row] for row in kept], dtype=torch.int64))
    assert torch.equal(draw(part, kind), whole[kept])


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=9))
def test_take_is_the_same_noise_for_a_subset(kept: list[bool]) -> None:
    noise, mask = Noise(1, torch.arange(len(kept)) * 10), torch.tensor(kept)
    expected = noise.uniform(SHAPE)[mask]
    assert torch.equal(noise.take(mask).uniform(SHAPE), expected)
    assert torch.equal(noise.take(mask.nonzero().squeeze(1)).uniform(SHAPE), expected)


def test_drawing_changes_neither_the_ids_nor_the_next_draw() -> None:
    examples = torch.tensor([3, 1, 2])
    noise = Noise(1, examples)
    first = noise.uniform(SHAPE)
    noise.normal(SHAPE)
    assert torch.equal(noise.uniform(SHAPE), first)
    assert examples.tolist() == [3, 1, 2]


def test_noise_does_not_touch_the_global_generator() -> None:
    before = torch.get_rng_state()
    Noise(1, torch.arange(4)).normal(SHAPE)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_streams_differ_in_every_key(kind: str) -> None:
    """Seed, example, restart, each fold and the order of the folds."""
    base = Noise(0, torch.arange(2))
    streams = [
        draw(base, kind),
        draw(Noise(1, base.examples), kind),
        draw(base, kind, restart=1),
        draw(base.fold_in(0), kind),
        draw(base.fold_in(1), kind),
        draw(base.fold_in(1).fold_in(2), kind),
        draw(base.fold_in(2).fold_in(1), kind),
        base.uniform((2 * math.prod(SHAPE),))[:, -math.prod(SHAPE) :].view(2, *SHAPE),
    ]
    rows = torch.cat(streams).flatten(1)
    equal = (rows[:, None] == rows[None]).float().mean(2)
    assert (equal - torch.eye(len(rows))).max() < 0.05


def test_uniform_numbers_fill_the_unit_interval_evenly() -> None:
    drawn = Noise(3, torch.arange(500)).uniform((200,))
    assert drawn.dtype == torch.float32
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts = torch.histc(drawn, bins=50, min=0, max=1)
    # Chi-squared with 49 degrees of freedom: mean 49, standard deviation 9.9.
    assert ((counts - 2000) ** 2 / 2000).sum() < 49 + 4 * 9.9


def test_normal_numbers_have_the_moments_of_a_standard_normal() -> None:
    drawn = Noise(3, torch.arange(500)).normal((200,)).double()
    moments = [drawn.pow(power).mean().item() for power in (1, 2, 3, 4)]
    errors = (0.0032, 0.0045, 0.012, 0.031)  # their standard deviations at 100 000 draws
    for moment, expected, error in zip(moments, (0, 1, 0, 3), errors, strict=True):
        assert abs(moment - expected) < 4 * error


def test_neighbours_are_uncorrelated() -> None:
    drawn = Noise(3, torch.arange(400)).uniform((400,)) - 0.5
    for one, other in ((drawn[1:], drawn[:-1]), (drawn[:, 1:], drawn[:, :-1])):
        correlation = (one * other).mean() * 12
        assert abs(correlation) < 4 / 400


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_no_examples_give_no_noise(kind: str) -> None:
    assert draw(Noise(0, torch.empty(0, dtype=torch.int64)), kind).shape == (0, *SHAPE)


def test_an_empty_shape_gives_one_number_per_example() -> None:
    assert Noise(0, torch.arange(3)).uniform(()).shape == (3,)
