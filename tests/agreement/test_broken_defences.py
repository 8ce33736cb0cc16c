"""Defences that are broken on purpose: every audit that should fire does, on real attacks.

A network of real robustness is wrapped in what papers have been refuted for (Athalye, Carlini and
Wagner 2018; Tramèr et al. 2020), attacked, and audited as a study's cells are.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advtrain.attacks.attack import Attack, Attacked
from advtrain.attacks.fgsm import fgsm
from advtrain.attacks.pgd import pgd
from advtrain.attacks.random_noise import random_noise
from advtrain.attacks.square import square
from advtrain.attacks.transfer import transfer
from advtrain.data.store import Split
from advtrain.evaluation.evaluate import evaluate
from advtrain.evaluation.probe import probe
from advtrain.noise import Noise
from advtrain.reporting.audits import AUDITS, audit_rows
from advtrain.reporting.measure import Evaluated, Measured, Probe, units
from advtrain.reporting.study import StudyInfo
from advtrain.results.names import parse_cell
from advtrain.threat import ThreatModel

Examples = tuple[nn.Module, Tensor, Tensor]

CPU = torch.device("cpu")
COUNT = 100
EPSILON = 0.15
CURVE = (0.05, EPSILON, 0.4, 1.0)


class Wrapped(nn.Module):
    """A defence around a network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


class Quantised(Wrapped):
    """Rounds the pixels to eight levels: their gradient is 0 everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return self.network((x * 8).round() / 8)


class Saturated(Wrapped):
    """Multiplies the logits, as distillation does: the loss is rounded to 0."""

    def forward(self, x: Tensor) -> Tensor:
        return 1e4 * self.network(x)


class Resized(Wrapped):
    """Shrinks and shifts the image at random, in every pass otherwise (Xie et al. 2018)."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(self.passes)
            angle = (torch.rand(len(x)) - 0.5) * 0.8
            scale = 1 + 0.3 * torch.rand(len(x))
            shift = (torch.rand(len(x), 2) - 0.5) * 0.4
        self.passes += 1
        turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
        places = torch.cat([turn * scale[:, None, None], shift[:, :, None]], 2)
        grid = F.affine_grid(places, list(x.shape), align_corners=False)
        return self.network(F.grid_sample(x, grid, align_corners=False))

    passes = 0


class Softmaxed(Wrapped):
    """Ends with probabilities, of which the attacks' losses take the softmax again."""

    def forward(self, x: Tensor) -> Tensor:
        return (20 * self.network(x)).softmax(1)


class MaskedAtTheData(Wrapped):
    """Has no gradient at pixels of 8 bits, which is where a single step without a start begins."""

    def forward(self, x: Tensor) -> Tensor:
        levels = 255 * x.detach()
        stored = (levels - levels.round()).abs() < 1e-4
        return self.network(torch.where(stored, x.detach(), x))


def attacks_on(network: nn.Module) -> dict[str, Attack]:
    """The attacks of the audits; what is transferred is crafted on the network without defence."""
    return {
        "fgsm": fgsm,
        "pgd_20": partial(pgd, steps=20),
        "pgd_20_x2": partial(pgd, steps=20, restarts=2),
        "square": partial(square, queries=400),
        "noise": partial(random_noise, draws=5),
        "transfer": partial(transfer, source=network, steps=20),
    }


MODULES = {"pgd_20": "pgd", "pgd_20_x2": "pgd", "noise": "random_noise"}


def rows_of(model: nn.Module, name: str, attack: Attack, epsilon: float, split: Split) -> Evaluated:
    threat = ThreatModel("linf", epsilon)
    rows = evaluate(model, attack, threat, split, 0, CPU, 128)
    given = getattr(attack, "keywords", {})
    return Evaluated(
        name=f"{name}-linf-{epsilon:g}",
        attack=name,
        norm="linf",
        epsilon=epsilon,
        weights="last",
        module=MODULES.get(name, name),
        parameters={
            "restarts": 1,
            **{key: value for key, value in given.items() if key != "source"},
        },
        precision="float32",
        example=rows["example"],
        clean=rows["clean_prediction"] == rows["label"],
        robust=rows["adversarial_prediction"] == rows["label"],
        backwards=int(rows["backward"].max()),
        passes=rows["forward"].astype(np.int64) + rows["backward"],
        stage=rows["stage"].astype(object),
        claim=rows["claim"].astype(object),
        gain=rows["gain"].astype(np.float64),
        late_gain=rows["late_gain"].astype(np.float64),
    )


def audited(
    model: nn.Module, split: Split, attacks: Mapping[str, Attack], curve: str = "pgd_20"
) -> dict[str, str]:
    """Attack and probe a model as a study's cell, and return the status of each audit."""
    made = [rows_of(model, name, attack, EPSILON, split) for name, attack in attacks.items()]
    made += [
        rows_of(model, curve, attacks[curve], epsilon, split)
        for epsilon in CURVE
        if epsilon != EPSILON
    ]
    looked = probe(model, split, CPU, 128)
    cell = Measured(
        cell=f"pgd_at-linf-{EPSILON}-s0",
        name=parse_cell(f"pgd_at-linf-{EPSILON}-s0"),
        status="finished",
        cause="",
        forward=1.0,
        backward=1.0,
        evaluations=tuple(made),
        probe=Probe(
            example=looked["example"],
            clean=looked["prediction"] == looked["label"],
            **{
                name: looked[name].astype(np.float64)
                for name in (
                    *("loss", "gradient", "margin_gradient"),
                    *("zero_share", "logit_change", "gradient_cosine"),
                )
            },
            probabilities=looked["probabilities"],
        ),
    )
    info: StudyInfo = {
        "name": "made",
        "title": "made",
        "description": "",
        "dataset": "digits",
        "model": "small_cnn",
        "norm": "linf",
        "epsilons": [{"text": f"{EPSILON}", "value": EPSILON}],
        "methods": ["pgd_at"],
        "attacks": list(attacks),
        "curve_attack": curve,
        "classes": 10,
        "failures": [],
        "method_modules": {"pgd_at": "pgd_at"},
        "method_updates": {"pgd_at": "plain"},
        "method_additions": {"pgd_at": []},
        "method_upstream": {"pgd_at": {"teacher": None, "start": None}},
        "certificates": [],
        "attack_sources": {},
        "strict": False,
        "data_set": {"module": "digits", "parameters": {}, "split": {}},
        "published": {},
    }
    (row,) = audit_rows(units([cell], info), info)
    return {name: finding.status for name, finding in row.findings.items()}


@pytest.fixture(scope="module")
def split(robust_network: Examples) -> Split:
    _, x, y = robust_network
    return Split((x[:COUNT] * 255).round().to(torch.uint8), y[:COUNT], torch.arange(COUNT))


def failed(statuses: dict[str, str]) -> set[str]:
    assert set(statuses) == set(AUDITS)
    return {name for name, status in statuses.items() if status == "fail"}


def test_no_audit_fires_on_a_good_model(robust_network: Examples, split: Split) -> None:
    network = robust_network[0]
    statuses = audited(network, split, attacks_on(network))
    assert failed(statuses) == set()
    passed = {name for name, status in statuses.items() if status == "pass"}
    assert passed >= {
        *("budget", "restarts", "iterative", "black box", "random noise", "transfer"),
        *("gradients zero", "gradients saturated", "gradients random", "probabilities"),
        *("catastrophic overfitting", "converged", "claims"),
    }


@pytest.mark.parametrize(
    ("defence", "expected"),
    [
        (Quantised, {"gradients zero", "black box", "transfer", "budget"}),
        (Saturated, {"gradients saturated", "black box", "transfer"}),
        (Resized, {"gradients random"}),
        (Softmaxed, {"probabilities"}),
    ],
)
def test_the_audits_fire_on_a_broken_defence(
    robust_network: Examples,
    split: Split,
    defence: Callable[[nn.Module], nn.Module],
    expected: set[str],
) -> None:
    network = robust_network[0]
    assert failed(audited(defence(network), split, attacks_on(network))) >= expected


def test_an_attack_that_has_not_come_to_its_end_is_named(
    robust_network: Examples, split: Split
) -> None:
    network = robust_network[0]
    slow = {"pgd_20": partial(pgd, steps=20, step_size="epsilon/100", random_start=False)}
    assert "converged" in failed(audited(network, split, slow))


def test_a_lying_attack_is_named(robust_network: Examples, split: Split) -> None:
    def outside(
        model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, noise: Noise
    ) -> Attacked:
        found = pgd(model, x, y, threat, noise, steps=20)
        far = (x + 2 * (found.x_adv - x)).clamp(0, 1)
        return found._replace(x_adv=far)

    network = robust_network[0]
    assert "claims" in failed(audited(network, split, {"pgd_20": outside}))


def test_a_network_that_only_withstands_one_step_is_named(split: Split) -> None:
    network = MaskedAtTheData(trained_without_attacks(split))
    assert "catastrophic overfitting" in failed(audited(network, split, attacks_on(network)))


def trained_without_attacks(split: Split) -> nn.Module:
    """Learns the images by heart."""
    x, y = split.images.float() / 255, split.labels
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(60):
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()
    network.zero_grad()
    return network.eval()
