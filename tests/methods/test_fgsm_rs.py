"""FGSM-RS's stop when the one step is overfitted."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from advtrain.methods.fgsm_rs import FgsmRs
from advtrain.methods.method import Batch
from advtrain.noise import Noise
from advtrain.threat import ThreatModel

# Ten images, more than two budgets apart: under any attack, one is right or wrong for certain.
THREAT = ThreatModel("linf", 0.02)
BATCH = Batch(
    torch.linspace(0.05, 0.95, 10).view(10, 1, 1, 1), torch.zeros(10).long(), torch.arange(10)
)


class Threshold(nn.Module):
    """Right on images brighter than a threshold; notes the modes that it was asked in."""

    def __init__(self, robust: int) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(1.0 - robust / 10))
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append(self.training)
        z = 20 * (x.flatten(1) - self.threshold)
        return torch.cat([z, torch.zeros_like(z)], dim=1)


def check(method: FgsmRs, robust: int, epoch: int = 1) -> str:
    """What the method says after an epoch that ends with this many images of ten robust."""
    noise = Noise(epoch, BATCH.example)
    return method.after_epoch(Threshold(robust), BATCH, {"epoch": epoch}, THREAT, noise)


def test_a_fall_stops_the_training_and_says_so() -> None:
    method = FgsmRs(early_stop=True)
    assert check(method, 6, 1) == ""
    assert check(method, 8, 2) == ""
    assert check(method, 5, 3) == (
        "catastrophic overfitting in epoch 3: the accuracy under PGD-5 on its first minibatch "
        "fell from 80.0% to 50.0%, by more than 20.0% of the minibatch"
    )


def test_a_slow_fall_goes_on() -> None:
    # Each epoch is compared with the last one, not with the best.
    method = FgsmRs(early_stop=True)
    assert [check(method, robust) for robust in (9, 8, 7, 6, 5, 4, 3)] == [""] * 7
    assert "from 30.0% to 0.0%" in check(method, 0)


def test_the_first_check_never_stops() -> None:
    assert check(FgsmRs(early_stop=True, stop_drop=0.0), 0) == ""


def test_the_share_that_may_fall_is_a_parameter() -> None:
    for share, stops in ((0.05, True), (0.35, False)):
        method = FgsmRs(early_stop=True, stop_drop=share)
        check(method, 7)
        assert bool(check(method, 4)) == stops
    method = FgsmRs(early_stop=True, stop_drop=0.0)
    assert check(method, 7) == check(method, 7) == ""


def test_without_it_nothing_is_attacked_or_kept() -> None:
    method, model = FgsmRs(), Threshold(9)
    noise = Noise(0, BATCH.example)
    for robust in (9, 0):
        model = Threshold(robust)
        assert method.after_epoch(model, BATCH, {"epoch": 1}, THREAT, noise) == ""
        assert model.modes == []
    assert method.state_dict() == {}


def test_the_accuracy_is_measured_and_kept_as_a_tensor() -> None:
    method = FgsmRs(early_stop=True)
    assert method.state_dict() == {}
    check(method, 7)
    assert method.state_dict()["checked"].item() == pytest.approx(0.7)
    saved = io.BytesIO()
    torch.save(method.state_dict(), saved)
    saved.seek(0)
    resumed = FgsmRs(early_stop=True)
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    assert resumed.state_dict() == method.state_dict()
    assert check(resumed, 4, 9) == check(method, 4, 9) != ""
    # The cause leaves the memory alone: the epoch it speaks of is thrown away.
    assert method.state_dict()["checked"].item() == pytest.approx(0.7)
    resumed.load_state_dict({})
    assert check(resumed, 4) == ""


def test_the_state_is_no_parameter() -> None:
    method, fresh = FgsmRs(early_stop=True), FgsmRs(early_stop=True)
    check(method, 7)
    assert method == fresh
    assert repr(method) == repr(fresh)
    assert method != FgsmRs()


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_check_attacks_and_predicts_in_the_mode_of_the_crafting(mode: str) -> None:
    model = Threshold(7).train(mode == "eval")
    method = FgsmRs(early_stop=True, crafting=mode)
    method.after_epoch(model, BATCH, {"epoch": 1}, THREAT, Noise(0, BATCH.example))
    assert model.modes == [mode == "train"] * (method.stop_steps + 1)
    assert model.training == (mode == "eval")


def test_the_check_is_pgd_from_a_random_start() -> None:
    # One image, a quarter of the budget above the threshold, is drawn many times over.
    count, epsilon = 400, 0.1
    batch = Batch(torch.full((count, 1, 1, 1), 0.5), torch.zeros(count).long(), torch.arange(count))
    noise, threat = Noise(0, batch.example), ThreatModel("linf", epsilon)
    starts = 2 * noise.uniform((1, 1, 1)).flatten() - 1
    for steps in (1, 3, 5, 8):
        method, model = FgsmRs(early_stop=True, stop_steps=steps), Threshold(0)
        model.threshold.data.fill_(0.5 - epsilon / 4)
        method.after_epoch(model, batch, {"epoch": 1}, threat, noise)
        # From a start u budgets above the image, n steps of a quarter end at u - n / 4 or -1.
        right = ((starts - steps / 4).clamp(min=-1) > -0.25).float().mean().item()
        assert method.state_dict()["checked"].item() == pytest.approx(right, abs=1 / count)
        assert (right == 0) == (steps > 4)


def test_logits_that_are_not_finite_count_as_fooled() -> None:
    method, model = FgsmRs(early_stop=True), Threshold(10)
    model.threshold.data.fill_(torch.nan)
    method.after_epoch(model, BATCH, {"epoch": 1}, THREAT, Noise(0, BATCH.example))
    assert method.state_dict()["checked"].item() == 0.0


def test_the_check_leaves_the_model_and_the_batch_as_found(model: nn.Module, batch: Batch) -> None:
    before, x = copy.deepcopy(model.state_dict()), batch.x.clone()
    model[2].eval()
    modes = [module.training for module in model.modules()]
    method = FgsmRs(early_stop=True)
    method.after_epoch(
        model, batch, {"epoch": 1}, ThreatModel("linf", 0.1), Noise(0, batch.example)
    )
    assert method.state_dict()["checked"].shape == ()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    assert torch.equal(batch.x, x)


def test_crafting_is_the_same_with_and_without_the_stop(model: nn.Module, batch: Batch) -> None:
    threat, noise = ThreatModel("linf", 0.1), Noise(0, batch.example)
    images = [
        FgsmRs(early_stop=stop).perturb(model, batch, threat, noise) for stop in (False, True)
    ]
    assert torch.equal(*images)
    assert FgsmRs(early_stop=True).cost() == FgsmRs().cost()
