import math

import pytest
import torch
from torch import nn

from advtrain.attacks import square as module
from advtrain.attacks.attack import Attacked, predictions
from advtrain.attacks.objectives import margin
from advtrain.attacks.pgd import pgd
from advtrain.attacks.square import square
from advtrain.noise import Noise
from advtrain.threat import ThreatModel

Examples = tuple[torch.Tensor, torch.Tensor]

BUDGETS = {"linf": 0.2, "l2": 1.2, "l1": 5.0}

each_norm = pytest.mark.parametrize("norm", BUDGETS)


def attacked(
    model: nn.Module, examples: Examples, norm: str, rows: torch.Tensor | None = None, **few: int
) -> Attacked:
    x, y = examples
    rows = torch.arange(len(x)) if rows is None else rows
    threat = ThreatModel(norm, BUDGETS[norm])
    return square(model, x[rows], y[rows], threat, Noise(0, rows), **few)


def right(model: nn.Module, found: Attacked, y: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return predictions(model(found.x_adv)) == y


class Linear(nn.Module):
    """Logits (100, w.x): class 0, whatever a small perturbation does."""

    def __init__(self, size: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.w = nn.Parameter(torch.randn(size, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = x.flatten(1) @ self.w
        return torch.stack([torch.full_like(value, 100), value], 1)


@pytest.mark.parametrize(
    ("norm", "least"), [("linf", 1 - 1e-4), ("l2", 0.6), ("l1", 0.4)], ids=["linf", "l2", "l1"]
)
def test_it_approaches_the_optimum_of_a_linear_model(norm: str, least: float) -> None:
    """epsilon times the dual norm of w; for linf it gets there, once squares are single pixels."""
    x = 0.4 + 0.2 * torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    y, threat, model = torch.zeros(8, dtype=torch.int64), ThreatModel(norm, 0.3), Linear(64)
    queries = 2500 if norm == "linf" else 800
    dual = {"linf": 1.0, "l2": 2.0, "l1": math.inf}[norm]
    best = threat.epsilon * torch.linalg.vector_norm(model.w.detach(), ord=dual)
    found = square(model, x, y, threat, Noise(0, torch.arange(8)), queries=queries)
    with torch.no_grad():
        gain = (found.x_adv - x).flatten(1) @ model.w
    assert (gain >= least * best).all()
    assert (gain <= best + 1e-4).all()


@each_norm
def test_more_queries_continue_the_same_search(
    norm: str, trained: nn.Module, examples: Examples
) -> None:
    """So robust accuracy never rises with them, and one that has fallen costs no more."""
    y = examples[1]
    before, robust = None, []
    for queries in (1, 20, 250):
        found = attacked(trained, examples, norm, queries=queries)
        now = right(trained, found, y)
        robust.append(int(now.sum()))
        if before is not None:
            fallen, objective = ~right(trained, before, y), before.objective
            assert not now[fallen].any()
            assert torch.equal(found.x_adv[fallen], before.x_adv[fallen])
            assert torch.equal(found.forwards[fallen], before.forwards[fallen])
            assert (found.forwards > before.forwards)[now].all()
            assert (found.objective >= objective)[now].all()
        before = found
    assert robust[-1] < robust[0]


@each_norm
def test_the_objective_is_the_margin_and_the_image_lies_in_the_set(
    norm: str, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    found = attacked(trained, examples, norm, queries=150)
    with torch.no_grad():
        expected = margin(trained(found.x_adv), y)
    torch.testing.assert_close(found.objective, expected)
    assert torch.equal(right(trained, found, y), found.objective <= 0)
    distances = ThreatModel(norm, 1.0).distance(found.x_adv, x)
    assert (distances <= BUDGETS[norm] * (1 + 1e-6)).all()
    assert (distances > 0.5 * BUDGETS[norm]).all()


def counted(model: nn.Module) -> tuple[nn.Module, list[torch.Tensor]]:
    seen: list[torch.Tensor] = []
    wrapped = nn.Sequential(model)
    wrapped.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    return wrapped.eval(), seen


@each_norm
def test_no_example_is_queried_more_often_than_told(
    norm: str, trained: nn.Module, examples: Examples
) -> None:
    """Alone in its batch, so that every row the network sees is of that example."""
    few = {"queries": 60, "restarts": 2}
    whole = attacked(trained, examples, norm, **few)
    for row in range(0, 96, 24):
        model, seen = counted(trained)
        attacked(model, examples, norm, torch.tensor([row]), **few)
        assert len(torch.cat(seen)) == whole.forwards[row] <= 1 + 2 * 60
    assert whole.backwards.tolist() == [0] * 96


def test_what_has_been_refused_is_not_asked_again(trained: nn.Module, examples: Examples) -> None:
    """With squares of one pixel: no image again before another is accepted, nor the best one."""
    (x, y), (model, seen) = examples, counted(trained)
    x, y, threat = x[:1], y[:1], ThreatModel("linf", 0.03)
    few = {"queries": 400, "initial_share": 1 / 64}
    found = square(model, x, y, threat, Noise(0, torch.arange(1)), **few)
    assert right(trained, found, y).all()
    images, best, value, asked = torch.cat(seen)[1:], None, -math.inf, set()
    with torch.no_grad():
        values = torch.cat([margin(trained(image[None]), y) for image in images])
    for image, reached in zip(images, values, strict=True):
        key = image.numpy().tobytes()
        assert key not in asked
        asked.add(key)
        if reached > value:
            best, value, asked = image, reached, {key}
    torch.testing.assert_close(best, found.x_adv[0])
    assert len(images) < 400


@pytest.mark.parametrize(
    ("changed", "norm"),
    [("REMEMBERED", "linf"), ("stalls", "linf"), ("stalls", "l2"), ("stalls", "l1")],
)
def test_skipping_known_answers_changes_no_result(
    changed: str,
    norm: str,
    trained: nn.Module,
    examples: Examples,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against the same search in lockstep; and on a device that is not to be stalled."""
    expected = attacked(trained, examples, norm, queries=250)
    monkeypatch.setattr(module, changed, 0 if changed == "REMEMBERED" else lambda device: True)
    found = attacked(trained, examples, norm, queries=250)
    assert torch.equal(found.x_adv, expected.x_adv)
    assert torch.equal(found.objective, expected.objective)
    assert (found.forwards >= expected.forwards).all()
    assert (found.forwards > expected.forwards).any()


@each_norm
def test_an_example_meets_the_same_search_in_any_batch(
    norm: str, trained: nn.Module, examples: Examples
) -> None:
    """Over several blocks of queries, with many examples dropped."""
    whole = attacked(trained, examples, norm, queries=250)
    rows = torch.randperm(96, generator=torch.Generator().manual_seed(0))[:33]
    part = attacked(trained, examples, norm, rows, queries=250)
    for found, expected in zip(part[:4], whole[:4], strict=True):
        assert torch.equal(found, expected[rows])
    assert 0 < right(trained, whole, examples[1]).sum() < 96


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_step_function_is_broken_which_gradients_do_not_move(
    norm: str, trained: nn.Module, examples: Examples
) -> None:
    class Stepped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = trained

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            levels: torch.Tensor = self.model((x * 32).round() / 32)
            return levels

    (x, y), model = examples, Stepped().eval()
    threat, noise = ThreatModel(norm, BUDGETS[norm]), Noise(0, torch.arange(96))
    blind = pgd(model, x, y, threat, noise, random_start=False)
    assert torch.equal(blind.x_adv, x)
    found = square(model, x, y, threat, noise, queries=300)
    assert right(model, found, y).sum() < 0.8 * right(model, blind, y).sum()


def test_for_linf_every_image_is_a_corner(trained: nn.Module, examples: Examples) -> None:
    x = examples[0]
    found = attacked(trained, examples, "linf", queries=60)
    low, high = (x - 0.2).clamp(min=0), (x + 0.2).clamp(max=1)
    assert ((found.x_adv == low) | (found.x_adv == high)).all()


def test_the_share_is_halved_by_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published schedule for 10000 queries; rescaled, the same share of fewer queries."""
    x, y = torch.full((1, 1, 32, 32), 0.5), torch.tensor([0])
    blocks = []
    monkeypatch.setattr(module._Search, "run", lambda self, *block: blocks.append(block) or True)

    def sides(queries: int, rescaled: bool) -> list[int]:
        blocks.clear()
        model = nn.Sequential(nn.Flatten(), nn.Linear(1024, 2))
        with torch.no_grad():
            model[1].bias.copy_(torch.tensor([100.0, 0.0]))
        threat, noise = ThreatModel("linf", 0.1), Noise(0, torch.arange(1))
        square(model, x, y, threat, noise, queries=queries, rescaled=rescaled)
        return [side for first, count, side in blocks for _ in range(count)]

    raw = sides(5000, False)
    assert len(raw) == 4999
    expected = [29] * 10 + [20] * 40 + [14] * 150 + [10] * 300 + [7] * 500
    assert raw == expected + [5] * 1000 + [4] * 2000 + [3] * 999
    assert [first for first, _, _ in blocks] == sorted({first for first, _, _ in blocks})
    assert sides(10_000, True) == sides(10_000, False)
    rescaled = sides(1000, True)
    assert rescaled == sides(10_000, False)[9::10]


def test_a_smaller_first_share_proposes_smaller_squares(
    trained: nn.Module, examples: Examples
) -> None:
    x = examples[0]
    first = attacked(trained, examples, "linf", queries=1).x_adv
    with_one = attacked(trained, examples, "linf", queries=2, initial_share=1 / 64).x_adv
    changed = (with_one != first).flatten(1).sum(1)
    assert changed.max() == 1
    assert x.shape[2] == 8


def test_logits_that_are_not_finite_count_as_misclassified(examples: Examples) -> None:
    class Overflowing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            value = x.flatten(1).sum(1)
            high = torch.where(value > 36, math.inf, 100.0)
            return torch.stack([high, value], 1)

    x, y = 0.5 + 0 * examples[0], torch.zeros_like(examples[1])
    threat, noise = ThreatModel("linf", 0.1), Noise(0, torch.arange(len(x)))
    found = square(Overflowing(), x, y, threat, noise, queries=200)
    assert not right(Overflowing(), found, y).any()
    assert found.x_adv.isfinite().all()


def test_a_misclassified_image_is_returned_as_it_is(trained: nn.Module, examples: Examples) -> None:
    x, y = examples[0], (examples[1] + 1) % 4
    found = attacked(trained, (x, y), "linf", queries=30)
    wrong = predictions(trained(x)) != y
    assert wrong.float().mean() > 0.9
    assert torch.equal(found.x_adv[wrong], x[wrong])
    assert (found.forwards[wrong] == 1).all()
    assert (found.objective[wrong] > 0).all()
