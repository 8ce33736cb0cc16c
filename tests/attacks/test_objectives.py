import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from advtrain.attacks.attack import NO_PREDICTION, predictions
from advtrain.attacks.objectives import cross_entropy, dlr, kl, margin, targeted_dlr

LOGITS = torch.tensor([[2.0, 5.0, 1.0], [2.0, 5.0, 1.0], [0.0, 0.0, 0.0]])
Y = torch.tensor([0, 1, 2])

logits_batches = hnp.arrays(
    "float32", st.tuples(st.integers(0, 5), st.just(4)), elements=st.floats(-50, 50, width=32)
).map(torch.from_numpy)

# Differences that no quotient takes below the smallest float.
spread_logits = hnp.arrays("int8", st.tuples(st.integers(0, 5), st.just(4))).map(
    lambda levels: torch.from_numpy(levels).float() / 2
)


def random_logits(seed: int, scale: float = 10) -> torch.Tensor:
    return scale * torch.randn(64, 5, generator=torch.Generator().manual_seed(seed))


def gradient(values: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(values.sum(), at)[0]


def test_cross_entropy_is_minus_the_log_of_the_labels_probability() -> None:
    expected = -LOGITS.softmax(1)[torch.arange(3), Y].log()
    torch.testing.assert_close(cross_entropy(LOGITS, Y), expected)


def test_margin_by_hand() -> None:
    assert margin(LOGITS, Y).tolist() == [3, -3, 0]
    assert margin(LOGITS, Y, kappa=1).tolist() == [1, -3, 0]
    assert margin(LOGITS, Y, kappa=0).tolist() == [0, -3, 0]


@settings(deadline=None)
@given(logits=logits_batches)
def test_margin_is_positive_exactly_where_another_class_wins(logits: torch.Tensor) -> None:
    y = torch.zeros(len(logits), dtype=torch.int64)
    assert torch.equal(margin(logits, y) > 0, predictions(logits) != y)


@pytest.mark.parametrize("kappa", [0.0, 50.0])
def test_margin_is_the_published_loss_less_a_constant(kappa: float) -> None:
    """Madry et al.'s challenge (kappa 50) and Free-AT (kappa 0), restated with one-hot masks."""
    logits, y = random_logits(0, scale=30).requires_grad_(), torch.arange(64) % 5
    mask = F.one_hot(y, 5)
    correct = (mask * logits).sum(1)
    wrong = ((1 - mask) * logits - 1e4 * mask).amax(1)
    published = -F.relu(correct - wrong + kappa)
    ours = margin(logits, y, kappa)
    torch.testing.assert_close(ours, published + kappa, rtol=0, atol=1e-5)
    assert torch.equal(gradient(ours, logits), gradient(published, logits))


def test_margin_is_flat_beyond_kappa() -> None:
    logits = LOGITS.clone().requires_grad_()
    slope = gradient(margin(logits, Y, kappa=1), logits)
    assert slope[0].tolist() == [0, 0, 0]
    assert slope[1].tolist() == [1, -1, 0]


def test_dlr_by_hand() -> None:
    """The margin over the gap between the first and the third logit."""
    assert dlr(LOGITS, Y).tolist() == [0.75, -0.75, 0]
    logits = torch.tensor([[7.0, 1.0, 5.0, 4.0]]).expand(3, 4)
    values = targeted_dlr(logits, torch.tensor([0, 0, 2]), torch.tensor([2, 1, 0]))
    assert values.tolist() == pytest.approx([-2 / 4.5, -6 / 4.5, 2 / 4.5])


@settings(deadline=None)
@given(logits=spread_logits)
def test_dlr_is_positive_exactly_where_another_class_wins(logits: torch.Tensor) -> None:
    y = torch.zeros(len(logits), dtype=torch.int64)
    values = dlr(logits, y)
    assert torch.equal(values > 0, predictions(logits) != y)
    assert (values >= -1).all()


@settings(deadline=None)
@given(logits=spread_logits, seed=st.integers(0, 9))
def test_targeted_dlr_is_positive_exactly_where_the_target_is_above(
    logits: torch.Tensor, seed: int
) -> None:
    y = torch.zeros(len(logits), dtype=torch.int64)
    target = torch.randint(1, 4, y.shape, generator=torch.Generator().manual_seed(seed))
    above = logits.gather(1, target[:, None]).squeeze(1) > logits[:, 0]
    assert torch.equal(targeted_dlr(logits, y, target) > 0, above)


def test_dlr_depends_on_neither_shift_nor_scale() -> None:
    """Why it works where a large scale saturates the cross-entropy."""
    logits, y = random_logits(4), torch.arange(64) % 5
    scaled, target = 100 * logits - 30, (y + 1) % 5
    torch.testing.assert_close(dlr(scaled, y), dlr(logits, y))
    torch.testing.assert_close(targeted_dlr(scaled, y, target), targeted_dlr(logits, y, target))


def test_dlr_and_its_slopes_are_the_published_ones() -> None:
    """Restated by sorting, as in the paper: z_(1) >= z_(2) >= ..."""
    logits, y = random_logits(5).requires_grad_(), torch.arange(64) % 5
    target, row = (y + 2) % 5, torch.arange(64)
    ordered, classes = logits.sort(dim=1, descending=True)
    best = torch.where(classes[:, 0] == y, ordered[:, 1], ordered[:, 0])
    own = logits[row, y]
    published = -(own - best) / (ordered[:, 0] - ordered[:, 2])
    torch.testing.assert_close(dlr(logits, y), published)
    torch.testing.assert_close(
        gradient(dlr(logits, y), logits),
        torch.autograd.grad(published.sum(), logits, retain_graph=True)[0],
    )
    spread = ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2
    towards = -(own - logits[row, target]) / spread
    found = targeted_dlr(logits, y, target)
    torch.testing.assert_close(found, towards)
    torch.testing.assert_close(gradient(found, logits), gradient(towards, logits))


def test_equal_logits_have_a_finite_dlr() -> None:
    logits, y = torch.zeros(2, 4), torch.tensor([0, 3])
    assert dlr(logits, y).tolist() == [0, 0]
    assert targeted_dlr(logits, y, 3 - y).tolist() == [0, 0]


def test_too_few_classes_have_no_dlr() -> None:
    logits, y = torch.zeros(2, 3), torch.tensor([0, 1])
    message = "the targeted difference of logits ratio needs 4 classes or more, the model has 3"
    with pytest.raises(ValueError, match=message):
        targeted_dlr(logits, y, 1 - y)
    message = "the difference of logits ratio needs 3 classes or more, the model has 2"
    with pytest.raises(ValueError, match=message):
        dlr(logits[:, :2], y)


def test_kl_is_the_sum_over_classes_of_the_definition() -> None:
    logits, reference = random_logits(1), random_logits(2)
    p, q = reference.double().softmax(1), logits.double().softmax(1)
    expected = (p * (p.log() - q.log())).sum(1)
    torch.testing.assert_close(kl(logits, reference).double(), expected, rtol=1e-5, atol=1e-5)


@settings(deadline=None)
@given(logits=logits_batches)
def test_kl_of_a_distribution_with_itself_is_zero(logits: torch.Tensor) -> None:
    assert torch.equal(kl(logits, logits), torch.zeros(len(logits)))


def test_kl_has_no_slope_at_the_clean_input() -> None:
    """Why TRADES starts its ascent beside x, not at x."""
    logits = random_logits(3, scale=1).requires_grad_()
    assert gradient(kl(logits, logits.detach()), logits).abs().max() < 1e-6


def test_kl_has_the_slopes_of_the_published_loss_in_both_arguments() -> None:
    """TRADES trains through the clean prediction too: KLDivLoss(log_softmax, softmax), summed."""
    logits, reference = random_logits(1).requires_grad_(), random_logits(2).requires_grad_()
    published = F.kl_div(logits.log_softmax(1), reference.softmax(1), reduction="sum")
    for at in (logits, reference):
        slope = torch.autograd.grad(published, at, retain_graph=True)[0]
        torch.testing.assert_close(gradient(kl(logits, reference), at), slope)


def test_kl_stays_finite_for_saturated_logits() -> None:
    logits = torch.tensor([[1000.0, 0.0]]).requires_grad_()
    values = kl(logits, torch.tensor([[0.0, 1000.0]]))
    assert values.item() == pytest.approx(1000)
    assert gradient(values, logits).isfinite().all()


def test_a_logit_that_is_not_finite_predicts_no_class() -> None:
    logits = torch.tensor([[0.0, 1.0], [math.nan, 0.0], [0.0, math.inf], [-math.inf, 0.0]])
    assert predictions(logits).tolist() == [1, NO_PREDICTION, NO_PREDICTION, NO_PREDICTION]
