"""Pseudo-labels and the choice of extra examples."""

import pytest
import torch
from torch import Tensor, nn

from advtrain.attacks.restarts import SMALLEST_BATCH
from advtrain.data.store import Split
from advtrain.noise import Noise
from advtrain.training import extra_data
from advtrain.training.extra_data import EXTRA_ORDER, extra_rows, pseudo_label, shares
from tests.training.tiny import network, split_of

CPU = torch.device("cpu")


def without_labels(split: Split) -> Split:
    return Split(split.images, torch.full_like(split.labels, -1), split.example)


# --- Pseudo-labels ------------------------------------------------------------------------------


class Brightness(nn.Module):
    """Three classes: dark, middle and bright images; what it was given is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        centres = torch.tensor([0.0, 0.5, 1.0])
        return -((x.flatten(1).mean(1, keepdim=True) - centres) ** 2)


def grey(*levels: int) -> Split:
    images = torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4)
    return Split(images, torch.full((len(levels),), -1), torch.arange(len(levels)) + 70)


def test_labels_are_the_predictions() -> None:
    split = grey(250, 3, 130, 60, 66, 0)
    got = pseudo_label(Brightness(), split, CPU, batch_size=4)
    # Between the centres, at a quarter of 255: 63.75.
    assert got.labels.tolist() == [2, 0, 1, 0, 1, 0]
    assert got.labels.dtype == torch.int64
    assert got.images is split.images
    assert got.example is split.example
    assert split.labels.tolist() == [-1] * 6


def test_the_teacher_sees_clean_images_in_0_1() -> None:
    teacher = Brightness()
    pseudo_label(teacher, grey(255, 51), CPU, batch_size=1)
    assert [x[0, 0, 0, 0].item() for x in teacher.seen] == [1.0, pytest.approx(0.2)]
    assert all(x.dtype == torch.float32 for x in teacher.seen)


def test_labels_that_are_there_are_replaced() -> None:
    split = grey(255, 0)
    labelled = Split(split.images, torch.tensor([1, 1]), split.example)
    assert pseudo_label(Brightness(), labelled, CPU, batch_size=8).labels.tolist() == [2, 0]


def undecided(split: Split) -> nn.Module:
    """A network with dropout and BatchNorm that predicts every class for some of the images."""
    model = network(dropout=0.5).eval()
    with torch.no_grad():
        model[-1].bias -= model(split.images / 255).mean(0)
    return model.train()


def test_labels_do_not_depend_on_the_batch_size() -> None:
    split = without_labels(split_of(70, seed=4))
    model = undecided(split)
    first = pseudo_label(model, split, CPU, batch_size=70).labels
    assert len(first.unique()) == 3
    for batch_size in (1, 7, 32, 64, 1000):
        assert torch.equal(pseudo_label(model, split, CPU, batch_size).labels, first)


def test_small_batches_are_filled() -> None:
    # There torch's kernels take other paths, and logits move in their last bits.
    teacher = Brightness()
    pseudo_label(teacher, grey(*range(40)), CPU, batch_size=37)
    assert [len(x) for x in teacher.seen] == [37, SMALLEST_BATCH]


def test_the_teacher_is_in_eval_mode_and_left_as_found() -> None:
    split = without_labels(split_of(40, seed=4))
    model = undecided(split)
    model[0].weight.requires_grad_(False)
    model[2].eval()  # One layer in a mode of its own.
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    first, second = (pseudo_label(model, split, CPU, batch_size=16).labels for _ in range(2))
    assert torch.equal(first, second)
    assert [module.training for module in model.modules()] == modes
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert [weight.requires_grad for weight in model.parameters()][:2] == [False, True]
    assert all(weight.grad is None for weight in model.parameters())
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(split.images / 255).argmax(1), first)


def test_an_empty_split_stays_empty() -> None:
    split = grey(1).take(slice(0))
    assert len(pseudo_label(Brightness(), split, CPU, batch_size=4)) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_collapsed_teacher_is_named(value: float) -> None:
    class Collapsed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            bright = x.flatten(1).mean(1, keepdim=True)
            return torch.where(bright > 0.5, value, bright).expand(-1, 3)

    with pytest.raises(
        ValueError,
        match=r"not finite on 2 of 5 examples, the first of them 71: the teacher has collapsed; "
        "train it with",
    ):
        pseudo_label(Collapsed(), grey(0, 200, 9, 9, 255), CPU, batch_size=2)


# --- The choice of extra examples ---------------------------------------------------------------

IDS = torch.arange(11) * 3 + 500


@pytest.mark.parametrize(("steps", "count"), [(4, 5), (3, 11), (2, 25), (1, 1), (22, 1), (7, 3)])
def test_extra_examples_are_used_equally_often(steps: int, count: int) -> None:
    used = torch.zeros(len(IDS), dtype=torch.int64)
    for epoch in range(1, 9):
        rows = extra_rows(IDS, 5, epoch, steps, count)
        assert [tuple(step.shape) for step in rows] == [(count,)] * steps
        for step in rows:
            used += torch.bincount(step, minlength=len(IDS))
            assert used.max() - used.min() <= 1
    assert used.sum() == 8 * steps * count


def test_rows_are_pieces_of_permutations_that_follow_each_other() -> None:
    got = torch.cat([torch.cat(extra_rows(IDS, 5, epoch, 4, 5)) for epoch in (1, 2, 3, 4)])
    noise = Noise(5, IDS).fold_in(EXTRA_ORDER)
    orders = [noise.fold_in(n).uniform((1,)).flatten().tolist() for n in range(8)]
    expected = [row for keys in orders for row in sorted(range(11), key=lambda row, k=keys: k[row])]
    assert got.tolist() == expected[:80]
    assert len({tuple(expected[start : start + 11]) for start in range(0, 88, 11)}) == 8


def test_an_epoch_does_not_need_those_before_it() -> None:
    alone = extra_rows(IDS, 5, 3, 4, 5)
    whole = [extra_rows(IDS, 5, epoch, 4, 5) for epoch in (1, 2, 3)]
    assert all(map(torch.equal, alone, whole[2]))
    # One epoch of 12 steps is three of 4.
    long = extra_rows(IDS, 5, 1, 12, 5)
    assert all(map(torch.equal, long, [*whole[0], *whole[1], *whole[2]]))


def test_the_choice_is_of_examples_and_depends_on_the_seed() -> None:
    shuffled = IDS[torch.tensor([4, 0, 9, 1, 10, 2, 8, 3, 7, 5, 6])]
    rows, others = (torch.cat(extra_rows(ids, 5, 2, 4, 5)) for ids in (IDS, shuffled))
    assert torch.equal(IDS[rows], shuffled[others])
    assert not torch.equal(rows, torch.cat(extra_rows(IDS, 6, 2, 4, 5)))


def test_a_permutation_is_drawn_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    order = extra_data._order

    def counted(examples: Tensor, seed: int, number: int) -> Tensor:
        drawn.append(number)
        return order(examples, seed, number)

    monkeypatch.setattr(extra_data, "_order", counted)
    extra_rows(IDS, 5, 1, 10, 1)
    extra_rows(IDS, 5, 2, 10, 1)
    extra_rows(IDS, 5, 101, 11, 1)
    assert drawn == [0, 0, 1, 100]


def test_no_steps_are_no_rows() -> None:
    assert extra_rows(IDS, 5, 4, 0, 3) == []


@pytest.mark.parametrize(("examples", "count"), [(IDS[:0], 4), (IDS, 0)])
def test_nothing_to_choose(examples: Tensor, count: int) -> None:
    with pytest.raises(
        ValueError,
        match=rf"got {len(examples)} extra examples and {count} of them per batch, expected 1 or "
        r"more .*split 'unlabelled'",
    ):
        extra_rows(examples, 5, 1, 3, count)


@pytest.mark.parametrize(
    ("batch_size", "fraction", "expected"),
    [
        (256, 0.5, (128, 128)),  # Carmon et al. 2019
        (512, 0.7, (154, 358)),  # Wang et al. 2023: 358.4
        (100, 0.29, (71, 29)),  # 28.999999999999996 as floats
        (7, 0.5, (4, 3)),
        (2, 0.5, (1, 1)),
        (8, 0.0, (8, 0)),
        (4, 1 - 1e-12, (1, 3)),
    ],
)
def test_shares_of_a_batch(batch_size: int, fraction: float, expected: tuple[int, int]) -> None:
    assert shares(batch_size, fraction) == expected


@pytest.mark.parametrize("fraction", [1.0, 1.5, -0.1, float("nan")])
def test_a_batch_needs_labelled_examples(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"extra_fraction is in \[0, 1\), got .*labelled examples"):
        shares(8, fraction)


@pytest.mark.parametrize(("batch_size", "fraction"), [(1, 0.5), (8, 0.1)])
def test_a_fraction_of_nothing(batch_size: int, fraction: float) -> None:
    with pytest.raises(ValueError, match=f"{fraction} of batch_size {batch_size} is less than one"):
        shares(batch_size, fraction)
