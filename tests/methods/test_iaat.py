import pytest
import torch
from torch import Tensor, nn

from advtrain.methods.iaat import Iaat
from advtrain.methods.method import Batch, Passes
from advtrain.methods.pgd_at import PgdAt
from advtrain.noise import Noise
from advtrain.params.quantities import step_size
from advtrain.params.signatures import DEFAULT_NORMS as NORMS
from advtrain.threat import ThreatModel
from tests.methods.conftest import batch_of
from tests.methods.pixel import Pixel, noise_of, pixels

THREAT = ThreatModel("linf", 0.1)
GAMMA = 0.02
LATER = 0.5  # progress after the warm-up


def made(batch: Batch, radii: list[float] | None = None, **parameters: float) -> Iaat:
    """A method that has met the batch, and remembers these radii for it."""
    method = Iaat(gamma=GAMMA, **parameters)
    method.start(batch.example)
    if radii is not None:
        method.load_state_dict({"example": batch.example, "epsilon": torch.tensor(radii)})
    return method


def step(method: Iaat, model: nn.Module, batch: Batch, threat: ThreatModel = THREAT) -> Tensor:
    x_adv = method.perturb(model, batch, threat, noise_of(batch))
    method.after_step(batch, x_adv, None, threat)
    return x_adv


def radii_of(method: Iaat) -> list[float]:
    return method.state_dict()["epsilon"].tolist()


# The image is 0.5 + margin of class 0; an attack of radius r ends at its lower end, and so fools
# the network if r is more than the margin. The radius before is 0.05.
@pytest.mark.parametrize(
    ("margin", "new"),
    [
        (0.30, 0.05 + GAMMA),  # withstands the larger radius: grows
        (0.06, 0.05),  # withstands its own radius alone: stays
        (0.04, 0.05 - GAMMA),  # withstands neither: shrinks
        (0.001, 0.05 - GAMMA),  # also where the image is all but misclassified
        (-0.01, 0.0),  # misclassified as it is: 0
    ],
)
@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_the_selection_rule(margin: float, new: float, beta: float) -> None:
    batch = pixels([0.5 + margin], [0], progress=LATER)
    method = made(batch, [0.05], beta=beta)
    x_adv = step(method, Pixel(0.5), batch)
    selected = beta * new + (1 - beta) * 0.05
    assert radii_of(method) == pytest.approx([selected], rel=1e-6)
    assert x_adv.item() == pytest.approx(0.5 + margin - selected, rel=1e-6)


def test_a_radius_does_not_fall_below_0() -> None:
    batch = pixels([0.505], [0], progress=LATER)
    method = made(batch, [0.01], beta=1.0)  # 0.01 - gamma is negative
    step(method, Pixel(0.5), batch)
    assert radii_of(method) == [0.0]


def test_a_misclassified_example_loses_a_tenth_of_its_radius_at_each_visit() -> None:
    batch = pixels([0.3], [0], progress=LATER)
    method = made(batch, [0.05])
    for visit in range(1, 4):
        step(method, Pixel(0.5), batch)
        assert radii_of(method) == pytest.approx([0.05 * 0.9**visit], rel=1e-6)


def test_a_radius_grows_beyond_the_budget() -> None:
    batch = pixels([0.95], [0], progress=LATER)
    method = made(batch, [0.1], beta=1.0)
    for visit in range(1, 6):
        x_adv = step(method, Pixel(0.5), batch)
        assert radii_of(method) == pytest.approx([0.1 + visit * GAMMA], rel=1e-6)
    assert x_adv.item() == pytest.approx(0.95 - 0.2, rel=1e-6)
    assert not method.within_budget


def test_in_the_warm_up_right_examples_get_the_budget_and_wrong_ones_nothing() -> None:
    batch, model = pixels([0.8, 0.3, 0.2], [0, 0, 1]), Pixel(0.5)
    method = made(batch, [0.5, 0.5, 0.5])
    x_adv = step(method, model, batch)
    assert x_adv.flatten().tolist() == pytest.approx([0.7, 0.3, 0.3], rel=1e-6)
    assert radii_of(method) == pytest.approx([0.1, 0.0, 0.1])


@pytest.mark.parametrize("norm", NORMS)
def test_the_warm_up_is_pgd_at_but_for_what_is_misclassified(norm: str, model: nn.Module) -> None:
    batch, threat = batch_of(10), ThreatModel(norm, 0.1)
    method = Iaat(crafting="eval")
    method.start(batch.example)
    x_adv = step(method, model, batch, threat)
    expected = PgdAt(crafting="eval").perturb(model, batch, threat, noise_of(batch))
    right = model.eval()(batch.x).argmax(1) == batch.y
    assert 0 < right.sum() < 10
    assert torch.equal(x_adv[right], expected[right])
    torch.testing.assert_close(x_adv[~right], batch.x[~right], rtol=0, atol=1e-7)


def test_the_warm_up_lasts_10_of_110_epochs() -> None:
    # 196 minibatches of 256 images make an epoch of CIFAR-10.
    for before, adapts in ((10 * 196 - 1, False), (10 * 196, True)):
        batch = pixels([0.9], [0], progress=before / (110 * 196))
        method = made(batch, [0.05])
        step(method, Pixel(0.5), batch)
        expected = 0.05 + 0.1 * GAMMA if adapts else 0.1
        assert radii_of(method) == pytest.approx([expected], rel=1e-6)


def test_with_gamma_0_a_radius_stays_while_the_image_is_right() -> None:
    batch = pixels([0.9, 0.52, 0.4], [0, 0, 0], progress=LATER)
    method = Iaat(gamma=0.0, beta=1.0)
    method.start(batch.example)
    method.load_state_dict({"example": batch.example, "epsilon": torch.full((3,), 0.05)})
    for _ in range(3):
        step(method, Pixel(0.5), batch)
    assert radii_of(method) == pytest.approx([0.05, 0.05, 0.0])


def test_with_beta_0_the_memory_never_moves_after_the_warm_up() -> None:
    batch = pixels([0.9, 0.52, 0.4], [0, 0, 0], progress=LATER)
    method = made(batch, [0.01, 0.02, 0.03], beta=0.0)
    step(method, Pixel(0.5), batch)
    assert radii_of(method) == pytest.approx([0.01, 0.02, 0.03])


def test_the_steps_are_long_enough_for_the_radius_and_no_shorter_than_the_least() -> None:
    # With 2 steps of max(2 r / 2, least): the large radius is crossed in one step of r, from the
    # start s to max(s - 2 r, -r); the small one by the least step, which is longer.
    batch = pixels([0.7, 0.7], [0, 0], progress=LATER)
    method = made(batch, [0.2, 0.001], beta=0.0, steps=1, least_step=0.002)
    x_adv = step(method, Pixel(0.5), batch).flatten().tolist()
    unit = 2 * noise_of(batch).uniform((1, 1, 1)).flatten() - 1
    first = max(0.7 + 0.2 * unit[0].item() - 2 * 0.2, 0.7 - 0.2)
    second = max(0.7 + 0.001 * unit[1].item() - 0.002, 0.7 - 0.001)
    assert x_adv == pytest.approx([first, second], rel=1e-6)
    short = made(batch, [0.2, 0.001], beta=0.0, steps=10, least_step=0.0)
    # Ten steps of r / 5 travel 2 r: from wherever they start, to the end.
    x_adv = step(short, Pixel(0.5), batch).flatten().tolist()
    assert x_adv == pytest.approx([0.5, 0.699], rel=1e-6)


def test_each_of_the_three_attacks_has_a_random_start_of_its_own() -> None:
    batch, seen = pixels([0.8], [0], progress=LATER), []
    method = made(batch, [0.05], beta=0.0, steps=1)
    model = Pixel(0.5)
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].item()))
    step(method, model, batch)
    # The image; start and verdict at the present radius and at the larger one; the start.
    starts = {1: (0.05, 1), 3: (0.05 + GAMMA, 2), 5: (0.05, 0)}
    for at, (radius, restart) in starts.items():
        unit = 2 * noise_of(batch).uniform((1, 1, 1), restart=restart).item() - 1
        assert seen[at] == pytest.approx(0.8 + radius * unit, rel=1e-6)
    assert len(seen) == 6


def test_the_memory_is_by_example_id() -> None:
    method = Iaat(gamma=GAMMA, beta=1.0)
    method.start(torch.tensor([900, 5, 42, 7, 5]))
    assert method.example_values()["example"].tolist() == [5, 7, 42, 900]
    batch = pixels([0.9, 0.3], [0, 0])._replace(example=torch.tensor([900, 7]))
    step(method, Pixel(0.5), batch)
    assert radii_of(method) == pytest.approx([0, 0, 0, 0.1])
    other = pixels([0.3, 0.9], [0, 0], progress=LATER)._replace(example=torch.tensor([900, 42]))
    step(method, Pixel(0.5), other)
    assert method.example_values()["epsilon"].tolist() == pytest.approx([0, 0, GAMMA, 0])
    assert method.measures() == {"mean_epsilon": pytest.approx(GAMMA / 4)}


def test_an_example_that_is_there_twice_keeps_the_smaller_radius() -> None:
    # Two augmentations of one example: one withstands the larger radius, the other none.
    for values in ([0.9, 0.52], [0.52, 0.9]):
        batch = pixels(values, [0, 0], progress=LATER)._replace(example=torch.tensor([4, 4]))
        method = Iaat(gamma=GAMMA, beta=1.0)
        method.start(torch.tensor([4]))
        method.load_state_dict({"example": torch.tensor([4]), "epsilon": torch.tensor([0.05])})
        step(method, Pixel(0.5), batch)
        assert radii_of(method) == pytest.approx([0.05 - GAMMA])


def test_perturbing_twice_gives_the_same_images_and_writes_nothing(model: nn.Module) -> None:
    batch = batch_of(10)._replace(progress=LATER)
    method = made(batch, [0.05] * 10)
    first = method.perturb(model, batch, THREAT, noise_of(batch))
    assert radii_of(method) == pytest.approx([0.05] * 10)
    assert torch.equal(method.perturb(model, batch, THREAT, noise_of(batch)), first)


@pytest.mark.parametrize("norm", NORMS)
def test_a_resumed_run_continues_exactly(norm: str, model: nn.Module) -> None:
    threat, batch = ThreatModel(norm, 0.1), batch_of(10)
    with torch.no_grad():
        batch = batch._replace(y=model(batch.x).argmax(1))
    method, resumed = Iaat(), Iaat()
    method.start(batch.example)
    for progress in (0.0, 0.05, 0.2):
        step(method, model, batch._replace(progress=progress), threat)
    state = method.state_dict()
    kept = {name: part.clone() for name, part in state.items()}
    resumed.start(batch.example)
    resumed.load_state_dict(state)
    for progress in (0.3, 0.4):
        later = batch._replace(progress=progress)
        assert torch.equal(step(resumed, model, later, threat), step(method, model, later, threat))
    assert radii_of(resumed) == radii_of(method)
    assert radii_of(method) != kept["epsilon"].tolist()
    # What was saved stays what it was.
    assert all(torch.equal(state[name], kept[name]) for name in kept)


@pytest.mark.parametrize(("progress", "attacks"), [(0.0, 1), (LATER, 3)])
def test_the_cost_is_that_of_one_attack_and_later_of_three(progress: float, attacks: int) -> None:
    batch, model = pixels([0.9, 0.52, 0.4], [0, 0, 0], progress=progress), Pixel(0.5)
    method = made(batch)
    step(method, model, batch)
    crafting = method.cost().crafting
    # Each attack is of 10 steps, and each verdict (on the image, later on two attacks) a pass.
    assert crafting == Passes(11 * attacks, 10 * attacks)
    assert (model.forwards, model.backwards) == (3 * crafting.forward, 3 * crafting.backward)


def test_before_the_first_step_the_cost_is_that_of_the_first() -> None:
    assert Iaat().cost().crafting == Passes(11, 10)
    assert Iaat(warmup=0.0).cost().crafting == Passes(33, 30)


def test_the_defaults_are_the_published_ones_at_8_of_255() -> None:
    assert step_size(Iaat().gamma, 8 / 255) == pytest.approx(1.9 / 255)
    assert step_size(Iaat().least_step, 8 / 255) == pytest.approx(2 / 255)


def test_examples_that_were_not_announced_are_refused() -> None:
    batch = pixels([0.5], [0], progress=LATER)
    with pytest.raises(ValueError, match=r"iaat: no example has a radius; call start\(\)"):
        Iaat().perturb(Pixel(), batch, THREAT, Noise(0, batch.example))
