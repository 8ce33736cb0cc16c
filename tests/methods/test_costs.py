"""What a weight step costs, in forward passes per row: F, input gradient 1 F, weights 1 F more."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from advtrain.methods.consistency import Consistency
from advtrain.methods.fgsm_rs import FgsmRs
from advtrain.methods.free import Free
from advtrain.methods.gradalign import Gradalign
from advtrain.methods.iaat import Iaat
from advtrain.methods.mart import Mart
from advtrain.methods.method import Batch, Method
from advtrain.methods.natural import Natural
from advtrain.methods.nfgsm import Nfgsm
from advtrain.methods.pgd_at import PgdAt
from advtrain.methods.trades import Trades
from advtrain.noise import Noise
from advtrain.params import signatures
from advtrain.threat import ThreatModel
from advtrain.training.updates import EVALUATIONS, UpdateName
from tests.methods.conftest import batch_of
from tests.methods.test_method_contracts import Meter

README = Path(__file__).resolve().parents[2] / "README.md"
THREAT = ThreatModel("linf", 0.1)

PUBLISHED: list[tuple[str, Method, UpdateName, float]] = [
    ("natural", Natural(), "plain", 3),
    ("Fast-AT", FgsmRs(), "plain", 5),
    ("N-FGSM", Nfgsm(), "plain", 5),
    ("Free, a replay", Free(replays=8), "plain", 3),
    ("PGD-7", PgdAt(steps=7), "plain", 17),
    ("PGD-10", PgdAt(steps=10), "plain", 23),
    ("TRADES-10", Trades(), "plain", 27),
    ("MART-10", Mart(), "plain", 26),
    ("AT-AWP-10", PgdAt(steps=10), "awp", 26),
    ("TRADES-AWP-10", Trades(), "awp", 33),
]
"""The cost model of the literature: a plain step 3 F, an attack step 2 F."""


@pytest.mark.parametrize(("name", "method", "update", "forwards"), PUBLISHED)
def test_the_counted_passes_are_those_of_the_cost_model(
    name: str, method: Method, update: UpdateName, forwards: float, model: nn.Module, batch: Batch
) -> None:
    """Counted at the network: the loss is run as often as the update runs it."""
    noise = Noise(0, batch.example)
    crafting = Meter(model)
    x_adv = method.perturb(model, batch, THREAT, noise)
    crafted = crafting.forward_examples + crafting.backward_examples
    for _ in range(EVALUATIONS[update]):
        method.loss(model, batch, x_adv, THREAT, noise).total.backward()
    forward = crafting.forward_examples
    backward = crafting.backward_examples
    weights = forward + backward - crafted
    # Every backward pass of the loss reaches the weights too, which costs a forward pass more.
    counted = crafted + weights + weights / 2
    assert counted / len(batch.x) == forwards
    extra = (EVALUATIONS[update] - 1) * (
        method.cost().loss.forward + 2 * method.cost().loss.backward
    )
    assert method.cost().forward_equivalents + extra == forwards


def test_the_readme_gives_the_cost_of_every_method() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([\d.]+|\S.*?) F \|$", README.read_text(), re.M)
    assert len(rows) == len(dict(rows)) == 15
    assert {name for name, _ in rows} <= set(signatures.modules("methods"))
    given = dict(rows)
    for name, method in {
        "natural": Natural(),
        "fgsm_rs": FgsmRs(),
        "nfgsm": Nfgsm(),
        "free": Free(),
        "pgd_at": PgdAt(),
        "trades": Trades(),
        "mart": Mart(),
        "gradalign": Gradalign(),
    }.items():
        assert float(given[name]) == method.cost().forward_equivalents


def test_three_attacks_make_iaat_three_times_pgd_at() -> None:
    method, batch = Iaat(warmup=0.0), batch_of(4)
    method.start(batch.example)
    model = nn.Sequential(nn.Flatten(), nn.Linear(30, 4))
    with torch.random.fork_rng():
        method.perturb(model, batch, THREAT, Noise(0, batch.example))
    assert method.cost().crafting.backward == 3 * method.steps


def test_each_view_of_consistency_costs_what_pgd_at_costs() -> None:
    assert Consistency(steps=10).cost() == PgdAt(steps=10).cost()
