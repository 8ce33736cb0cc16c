import pytest
import torch
from torch import nn

from advtrain.attacks.fgsm import fgsm
from advtrain.methods.free import Free
from advtrain.methods.method import Batch
from advtrain.noise import Noise
from advtrain.threat import ThreatModel
from tests.methods.conftest import batch_of
from tests.methods.test_method_contracts import step

THREAT = ThreatModel("linf", 0.1)


def test_the_first_step_leaves_the_perturbation_of_fgsm(model: nn.Module, batch: Batch) -> None:
    model.eval()  # as fgsm crafts
    free = Free(replays=1)
    assert torch.equal(step(free, model, batch, THREAT), batch.x)
    expected = fgsm(model, batch.x, batch.y, THREAT, Noise(0, batch.example)).x_adv
    assert torch.equal(free.perturb(model, batch, THREAT, Noise(0, batch.example)), expected)


def test_the_perturbation_passes_from_a_minibatch_to_the_next(model: nn.Module) -> None:
    free, first, second = Free(), batch_of(10), batch_of(6)
    step(free, model, first, THREAT)
    held = free.state_dict()["delta"].clone()
    x_adv = step(free, model, second, THREAT)
    assert torch.equal(x_adv, (second.x + held[:6]).clamp(0, 1))
    after = free.state_dict()["delta"]
    assert torch.equal(after[6:], held[6:])
    assert not torch.equal(after[:6], held[:6])


def test_a_larger_minibatch_starts_its_new_positions_at_zero(model: nn.Module) -> None:
    free, small, large = Free(), batch_of(6), batch_of(10)
    step(free, model, small, THREAT)
    x_adv = step(free, model, large, THREAT)
    assert torch.equal(x_adv[6:], large.x[6:])
    assert not torch.equal(x_adv[:6], large.x[:6])


@pytest.mark.parametrize(("through_clip", "cut_pixel"), [(True, -0.05), (False, 0.05)])
def test_pixels_that_the_box_cuts(through_clip: bool, cut_pixel: float) -> None:
    # The official code differentiates through the clip to [0, 1], where it cuts to zero.
    free = Free(through_clip=through_clip)
    batch = Batch(torch.tensor([[[[0.0, 0.5]]]]), torch.tensor([0]), torch.tensor([0]))
    free.load_state_dict({"delta": torch.tensor([[[[-0.05, -0.05]]]])})
    x_adv = free.perturb(nn.Identity(), batch, THREAT, Noise(0, batch.example))
    assert x_adv.flatten().tolist() == pytest.approx([0.0, 0.45])
    free.after_step(batch, x_adv, torch.tensor([[[[1.0, 1.0]]]]), THREAT)
    assert free.state_dict()["delta"].flatten().tolist() == pytest.approx([cut_pixel, 0.05])


def test_the_perturbation_keeps_what_one_image_cannot_show() -> None:
    # It outlives the image: the box of this one must not cut it for the next.
    free, threat = Free(), ThreatModel("linf", 0.1)
    dark = Batch(torch.zeros(1, 1, 1, 1), torch.tensor([0]), torch.tensor([0]))
    free.perturb(nn.Identity(), dark, threat, Noise(0, dark.example))
    free.after_step(dark, dark.x, torch.tensor([[[[-1.0]]]]), threat)
    bright = dark._replace(x=torch.ones(1, 1, 1, 1))
    x_adv = free.perturb(nn.Identity(), bright, threat, Noise(0, dark.example))
    assert x_adv.item() == pytest.approx(0.9)


def test_an_l2_perturbation_stays_in_its_ball(model: nn.Module, batch: Batch) -> None:
    free, threat = Free(step_size="0.7*epsilon"), ThreatModel("l2", 0.5)
    for _ in range(4):
        step(free, model, batch, threat)
    length = free.state_dict()["delta"].flatten(1).norm(dim=1)
    assert (length <= 0.5 * (1 + 1e-6)).all()
    assert (length > 0.4).any()


def test_a_network_that_detaches_its_input_is_named() -> None:
    batch = batch_of(2)
    with pytest.raises(ValueError, match="does the network detach its input"):
        Free().after_step(batch, batch.x, None, THREAT)
