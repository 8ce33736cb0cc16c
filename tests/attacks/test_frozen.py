import pytest
import torch
from torch import nn

from advtrain.attacks.frozen import crafting, frozen


@pytest.fixture
def model() -> nn.Module:
    """A model in a state that no default restores: mixed modes, mixed gradients, no tracking."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1),
        nn.BatchNorm2d(2),
        nn.Dropout(0.0),
        nn.BatchNorm2d(2, track_running_stats=False),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    model.train()
    model[2].eval()
    model[5].bias.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    return model


def state(model: nn.Module) -> tuple[object, ...]:
    return (
        [module.training for module in model.modules()],
        [getattr(module, "track_running_stats", None) for module in model.modules()],
        [weight.requires_grad for weight in model.parameters()],
        [None if weight.grad is None else weight.grad.tolist() for weight in model.parameters()],
        {name: tensor.tolist() for name, tensor in model.state_dict().items()},
    )


def batch(seed: int = 0) -> torch.Tensor:
    return torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_crafting_leaves_the_model_as_it_was_found(model: nn.Module, mode: str) -> None:
    before = state(model)
    with crafting(model, mode):
        x = batch().requires_grad_()
        torch.autograd.grad(model(x).sum(), x)
    assert state(model) == before


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_crafting_restores_after_an_exception(model: nn.Module, mode: str) -> None:
    before = state(model)
    with pytest.raises(RuntimeError, match="shapes"), crafting(model, mode):
        model(batch()[:, :, 1:])  # fails in the last layer, after every BatchNorm
    assert state(model) == before


def test_eval_mode_normalises_with_the_running_averages(model: nn.Module) -> None:
    with crafting(model, "eval"):
        found = model(batch())
    torch.testing.assert_close(found, model.eval()(batch()))


def test_train_mode_normalises_with_the_batch(model: nn.Module) -> None:
    with crafting(model, "train"):
        found = model(batch())
    torch.testing.assert_close(found, model.train()(batch()))


def test_the_two_modes_differ(model: nn.Module) -> None:
    with crafting(model, "eval"):
        one = model(batch())
    with crafting(model, "train"):
        other = model(batch())
    assert not torch.allclose(one, other)


def test_modes_nest(model: nn.Module) -> None:
    with crafting(model, "train"):
        before = state(model)
        with crafting(model, "eval"):
            assert not any(module.training for module in model.modules())
        assert state(model) == before


def test_weights_have_no_gradients_while_frozen(model: nn.Module) -> None:
    with frozen(model):
        assert not any(weight.requires_grad for weight in model.parameters())
        assert not model(batch()).requires_grad
