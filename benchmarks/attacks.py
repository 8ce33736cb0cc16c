"""How fast the attacks are: beside the published packages, and beside what they must cost at least.

    python benchmarks/attacks.py [--quick] [--only pgd autoattack ...] [--json FILE]

One process and one thread. The methods of a section take turns, in another order each round, and
what is shown is the CPU time of the process: medians over the rounds, with their range, and medians
of the ratios within a round, which the load of the machine moves less. Speed is shown beside
verdicts: all methods attack the same images from the same starts, and every example on which
another verdict than the reference's is reached is listed with its margins.

A section is a function from the trained networks and the size to its results; another one joins
`SECTIONS`.
"""

import argparse
import copy
import itertools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from advtrain.attacks.ascent import ascend  # noqa: E402
from advtrain.attacks.attack import Attacked, predictions  # noqa: E402
from advtrain.attacks.deepfool import deepfool  # noqa: E402
from advtrain.attacks.frozen import crafting  # noqa: E402
from advtrain.attacks.objectives import cross_entropy, margin  # noqa: E402
from advtrain.attacks.pgd import pgd  # noqa: E402
from advtrain.methods.fgsm_rs import FgsmRs  # noqa: E402
from advtrain.methods.method import Batch  # noqa: E402
from advtrain.methods.pgd_at import PgdAt  # noqa: E402
from advtrain.models.preact_resnet import preact_resnet  # noqa: E402
from advtrain.models.small_cnn import small_cnn  # noqa: E402
from advtrain.noise import Noise  # noqa: E402
from advtrain.threat import ThreatModel  # noqa: E402
from advtrain.training.precision import lowered  # noqa: E402
from pipeline.job import keep_freed_memory  # noqa: E402

CPU = torch.device("cpu")
PACKAGES = ("torch", "torchattacks", "foolbox", "adversarial-robustness-toolbox")
SEED = 0


@dataclass(frozen=True)
class Network:
    """A trained network, and the images that it has not seen.

    Attributes:
        name: as in the tables.
        model: in eval mode.
        x: (N, C, H, W) in [0, 1].
        y: (N,) int64.
        threat: the budget that a part of the images withstands.
        batch: how many images an attack is given at once.
    """

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    threat: ThreatModel
    batch: int

    def batches(self) -> Iterator[tuple[Tensor, Tensor, Noise]]:
        """Full batches of images, their labels and their noise, without end."""
        full = len(self.y) // self.batch
        for number in itertools.cycle(range(full)):
            rows = torch.arange(number * self.batch, (number + 1) * self.batch)
            yield self.x[rows], self.y[rows], Noise(SEED, rows)

    def of(self, batch: int) -> "Network":
        """The same with other batches, no larger than there are images."""
        return replace(self, batch=min(batch, len(self.y)))


@dataclass(frozen=True)
class Goal:
    """What a number should be."""

    name: str
    measured: float
    bound: float
    at_most: bool = False

    def __str__(self) -> str:
        met = self.measured <= self.bound if self.at_most else self.measured >= self.bound
        sign, verdict = "<=" if self.at_most else ">=", "met" if met else "MISSED"
        text = f"{verdict:6} {self.name}: {self.measured:.3f} (goal {sign} {self.bound:g})"
        if not met and "bfloat16" in self.name and not bfloat16_instructions():
            text += "; this processor has no bfloat16 instructions"
        return text


@dataclass
class Results:
    """Of one section: rows of a table, the goals, and remarks."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    images: int


Method = Callable[[Tensor, Tensor, Noise], Any]
"""(x, y, noise) -> whatever the section makes of it."""

Section = Callable[[list[Network], Size], Results]


# ------------------------------------------------------------------------------ measuring


def interleaved(
    methods: Mapping[str, Method], network: Network, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[Any]]]:
    """Let the methods take turns on one batch after another.

    Returns:
        The CPU seconds of each method in each round, and what it returned. The first batch is run
        once before, unmeasured: compilers, caches and lazy imports.
    """
    x, y, noise = next(network.batches())
    for method in methods.values():
        method(x, y, noise)
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    returned: dict[str, list[Any]] = {name: [] for name in methods}
    for number, (x, y, noise) in zip(range(rounds), network.batches(), strict=False):
        names = list(methods)
        first = number % len(names)
        for name in names[first:] + names[:first]:
            started = time.process_time()
            found = methods[name](x, y, noise)
            seconds[name].append(time.process_time() - started)
            returned[name].append(found)
    return seconds, returned


def ratio(over: list[float], under: list[float]) -> tuple[float, float, float]:
    """The median, least and largest of the ratios within a round."""
    ratios = [one / other for one, other in zip(over, under, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def timing(seconds: list[float]) -> dict[str, float]:
    """The median and the range."""
    return {"seconds": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}


def verdicts(network: Network, found: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Who withstands, and the margin of the best wrong class: in float32, on the network as it is.

    Args:
        network: whose batches were attacked in order.
        found: the perturbed batches.
    """
    with torch.no_grad():
        logits = torch.cat([network.model(x_adv.contiguous()) for x_adv in found])
    labels = torch.cat([y for _, (_, y, _) in zip(found, network.batches(), strict=False)])
    return predictions(logits) == labels, margin(logits, labels)


# ------------------------------------------------------------------------------ networks


def networks(size: Size, folder: Path | None) -> list[Network]:
    """Train both networks adversarially on digits scaled up to their images.

    Args:
        size: how many images are kept for the attacks.
        folder: keeps the weights between runs of this script.
    """
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(images))
    x = torch.tensor(images[order] / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    y = torch.tensor(labels[order], dtype=torch.int64)
    small = F.interpolate(x, 28, mode="bilinear").clamp(0, 1)
    large = F.interpolate(x, 32, mode="bilinear").clamp(0, 1).expand(-1, 3, -1, -1).contiguous()
    torch.manual_seed(SEED)
    cnn = small_cnn(channels=1, size=28, classes=10)
    resnet = preact_resnet(channels=3, size=32, classes=10, width=16)
    made = []
    for name, model, inputs, epsilon, batch, epochs in (
        ("CNN-28", cnn, small, 0.15, 128, 12),
        ("PreActResNet18-w16", resnet, large, 0.11, 64, 6),
    ):
        threat, kept = ThreatModel("linf", epsilon), None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            kept = folder / f"{name}.pt"
        if kept is not None and kept.exists():
            model.load_state_dict(torch.load(kept))
        else:
            train(model, inputs[1024:], y[1024:], threat, epochs)
        if kept is not None:
            torch.save(model.state_dict(), kept)
        seen = slice(0, size.images)
        made.append(Network(name, model.eval(), inputs[seen], y[seen], threat, batch))
    return made


def train(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, epochs: int) -> None:
    """Train for so many epochs by one step from a random start."""
    method, optimizer = FgsmRs(), torch.optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(epochs):
        for rows in torch.randperm(len(y)).split(64):
            batch, noise = Batch(x[rows], y[rows], rows), Noise(SEED + 1, rows).fold_in(epoch)
            x_adv = method.perturb(model, batch, threat, noise)
            optimizer.zero_grad()
            method.loss(model.train(), batch, x_adv, threat, noise).total.backward()
            optimizer.step()
    model.zero_grad(set_to_none=True)


def channels_last(network: Network) -> nn.Module:
    """A copy of the network whose kernels have the channels innermost."""
    return copy.deepcopy(network.model).to(memory_format=torch.channels_last)


# ------------------------------------------------------------------------------ P1, P2: PGD-20

STEPS = 20


def published(network: Network) -> dict[str, Method]:
    """PGD-20 of the other packages, as their documentation calls it, each from our start."""
    import foolbox
    import torchattacks
    from art.attacks.evasion import ProjectedGradientDescent
    from art.attacks.evasion.projected_gradient_descent import (
        projected_gradient_descent_pytorch as toolbox,
    )
    from art.estimators.classification import PyTorchClassifier

    model, threat = network.model, network.threat
    epsilon, step = threat.epsilon, threat.epsilon / 4
    one = torchattacks.PGD(model, eps=epsilon, alpha=step, steps=STEPS, random_start=True)
    other = foolbox.attacks.LinfPGD(abs_stepsize=step, steps=STEPS, random_start=True)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    third = ProjectedGradientDescent(
        PyTorchClassifier(
            model,
            nn.CrossEntropyLoss(),
            tuple(network.x.shape[1:]),
            10,
            clip_values=(0.0, 1.0),
            device_type="cpu",
        ),
        norm=np.inf,
        eps=epsilon,
        eps_step=step,
        max_iter=STEPS,
        num_random_init=1,
        batch_size=network.batch,
        verbose=False,
    )

    def by_torchattacks(x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        start = threat.random_start(x, noise) - x
        with patch.object(Tensor, "uniform_", lambda drawn, low, high: drawn.copy_(start)):
            found: Tensor = one(x, y)
        return found

    def by_foolbox(x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        start = foolbox.attacks.base.ep.astensor(threat.random_start(x, noise))
        with patch.object(other, "get_random_start", lambda x0, epsilon: start):
            found: Tensor = other(wrapped, x, y, epsilons=epsilon)[0]
        return found

    def by_toolbox(x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        start = (threat.random_start(x, noise) - x).numpy()
        with patch.object(toolbox, "random_sphere", lambda *shape: start):
            return torch.from_numpy(third.generate(x.numpy(), y.numpy()))

    return {"torchattacks": by_torchattacks, "foolbox": by_foolbox, "ART": by_toolbox}


def own(network: Network) -> dict[str, Method]:
    """PGD-20 of this package, exact and fast."""
    threat = network.threat
    last = channels_last(network)
    compiled = torch.compile(channels_last(network))

    def attack(model: nn.Module, x: Tensor, y: Tensor, noise: Noise, **given: Any) -> Tensor:
        return pgd(model, x, y, threat, noise, steps=STEPS, **given).x_adv

    def innermost(model: nn.Module, x: Tensor, y: Tensor, noise: Noise, **given: Any) -> Tensor:
        return attack(model, x.to(memory_format=torch.channels_last), y, noise, **given)

    def confirmed(x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """In bfloat16; what is not misclassified in float32 too does not count."""
        with lowered(last, CPU, "bfloat16"):
            found = innermost(last, x, y, noise)
        with torch.no_grad():
            network.model(found)
        return found

    return {
        "float32": partial(attack, network.model),
        "float32, channels_last": partial(innermost, last),
        "float32, channels_last, compiled": partial(innermost, compiled),
        "bfloat16, channels_last, confirmed": confirmed,
        "float32, channels_last, any iterate": partial(innermost, last, iterate="any"),
    }


FLOAT32 = ("float32", "float32, channels_last", "float32, channels_last, compiled")


def pgd_section(all_networks: list[Network], size: Size) -> Results:
    """PGD-20 from the same starts, to the final iterate (P1, P2)."""
    results = Results()
    for network in all_networks:
        rounds = max(size.rounds, size.images // network.batch)
        methods = published(network) | own(network)
        seconds, found = interleaved(methods, network, rounds)
        reference, margins = verdicts(network, found["torchattacks"])
        speed: dict[tuple[str, str], float] = {}
        for name in methods:
            right, its_margins = verdicts(network, found[name])
            differing = (right != reference).nonzero().squeeze(1).tolist()
            gains = {other: ratio(seconds[other], seconds[name]) for other in published(network)}
            speed |= {(name, other): gains[other][0] for other in gains}
            results.rows.append(
                {
                    "network": network.name,
                    "method": name,
                    **timing(seconds[name]),
                    "images per second": network.batch / statistics.median(seconds[name]),
                    **{f"{other} / it": gain for other, gain in gains.items()},
                    "robust": right.float().mean().item(),
                    "images": len(right),
                    "verdicts differing": len(differing),
                }
            )
            if "any" in name:
                continue  # another definition: it may only be stronger
            for row in differing:
                results.remarks.append(
                    f"{network.name}, {name}: image {row} "
                    f"{'withstands' if right[row] else 'falls'}, margin {its_margins[row]:+.2e}; "
                    f"torchattacks {margins[row]:+.2e}"
                )
            agreement = 1 - len(differing) / len(right)
            if name in FLOAT32:
                results.goals.append(Goal(f"P1 {network.name} {name}: agreement", agreement, 0.995))
            if name.startswith("bfloat16"):
                off = abs(float(right.float().mean() - reference.float().mean()))
                results.goals += [
                    Goal(f"P2 {network.name} {name}: agreement", agreement, 0.995),
                    Goal(f"P2 {network.name} {name}: accuracy off", off, 0.003, at_most=True),
                ]
        cnn = network.name.startswith("CNN")
        fast, last, compiled = (
            "bfloat16, channels_last, confirmed",
            "float32, channels_last",
            "float32, channels_last, compiled",
        )
        wanted = [
            ("P1", last, "torchattacks", 1.1 if cnn else 1.2),
            ("P1", last, "foolbox", 1.4),
            ("P1", last, "ART", 1.4),
            *([] if cnn else [("P1", compiled, "torchattacks", 1.4)]),
            ("P2", fast, "torchattacks", 2.5 if cnn else 1.9),
            # Never slower than another, however the network is given.
            *[("P1", "float32", other, 0.98) for other in ("torchattacks", "foolbox", "ART")],
        ]
        for code, name, other, bound in wanted:
            label = f"{code} {network.name} {name}: {other} / it"
            results.goals.append(Goal(label, speed[name, other], bound))
    return results


# ------------------------------------------------------------------------------ P3: PGD-7 AT

CRAFTED = 7


def training_section(all_networks: list[Network], size: Size) -> Results:
    """A step of PGD-7 adversarial training beside 7 input gradients and one plain step (P3)."""
    results = Results()
    for network in all_networks:
        methods = training_steps(network)
        seconds, _ = interleaved(methods, network, size.rounds)
        floor = seconds["floor: 7 gradients + 1 plain step"]
        usual = seconds["usual: .backward() in train mode"]
        shares: dict[str, float] = {}
        for name in methods:
            share, speed = ratio(seconds[name], floor), ratio(usual, seconds[name])
            shares[name] = share[0]
            results.rows.append(
                {
                    "network": network.name,
                    "method": name,
                    **timing(seconds[name]),
                    "it / floor": share,
                    "usual / it": speed,
                }
            )
            for wanted, bound in (("float32", 1.10), ("channels_last", 0.90), ("bfloat16", 0.50)):
                if name == f"PGD-7, {wanted}":
                    label = f"P3 {network.name} {name}: it / floor"
                    results.goals.append(Goal(label, share[0], bound, at_most=True))
            for wanted, bound in (("float32", 1.2), ("bfloat16", 2.5)):
                if name == f"PGD-7, {wanted}":
                    label = f"P3 {network.name} {name}: usual / it"
                    results.goals.append(Goal(label, speed[0], bound))
    return results


def training_steps(network: Network) -> dict[str, Method]:
    """One weight step each, at learning rate 0: every step finds the same network."""
    threat = network.threat
    method = PgdAt(steps=CRAFTED, crafting="eval")
    in_train_mode = PgdAt(steps=CRAFTED, crafting="train")

    def trained(model: nn.Module) -> tuple[nn.Module, torch.optim.Optimizer]:
        return model, torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9, weight_decay=5e-4)

    plain = trained(copy.deepcopy(network.model))
    last = trained(channels_last(network))

    def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def floor(x: Tensor, y: Tensor, noise: Noise) -> None:
        model, optimizer = plain
        with crafting(model, "eval"):
            for _ in range(CRAFTED):
                point = x.detach().requires_grad_()
                loss = F.cross_entropy(model(point), y, reduction="sum")
                torch.autograd.grad(loss, point)
        descend(optimizer, F.cross_entropy(model.train()(x), y))

    def ours(
        method: PgdAt,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        x: Tensor,
        y: Tensor,
        noise: Noise,
    ) -> None:
        if model is last[0]:
            x = x.to(memory_format=torch.channels_last)
        batch = Batch(x, y, noise.examples)
        x_adv = method.perturb(model, batch, threat, noise)
        descend(optimizer, method.loss(model.train(), batch, x_adv, threat, noise).total)

    def in_bfloat16(x: Tensor, y: Tensor, noise: Noise) -> None:
        with lowered(last[0], CPU, "bfloat16"):
            ours(method, *last, x, y, noise)

    def usual(x: Tensor, y: Tensor, noise: Noise) -> None:
        """The structure of most published code: the attack's gradients reach the weights too."""
        model, optimizer = plain
        model.train()
        delta = (threat.random_start(x, noise) - x).requires_grad_()
        for _ in range(CRAFTED):
            F.cross_entropy(model((x + delta).clamp(0, 1)), y).backward()
            assert delta.grad is not None
            moved = delta.data + threat.epsilon / 4 * delta.grad.sign()
            moved = moved.clamp(-threat.epsilon, threat.epsilon)
            delta.data = (x + moved).clamp(0, 1) - x
            delta.grad.zero_()
        descend(optimizer, F.cross_entropy(model((x + delta).detach()), y))

    return {
        "floor: 7 gradients + 1 plain step": floor,
        "usual: .backward() in train mode": usual,
        "PGD-7, float32": partial(ours, method, *plain),
        "PGD-7, float32, crafted in train mode": partial(ours, in_train_mode, *plain),
        "PGD-7, channels_last": partial(ours, method, *last),
        "PGD-7, bfloat16": in_bfloat16,
    }


# ------------------------------------------------------------------------------ P6


RESTARTS = 5


def restarts_section(all_networks: list[Network], size: Size) -> Results:
    """PGD-20 with restarts beside what the surviving examples cost in one run each (P6)."""
    results = Results()
    for given in all_networks:
        # As large a batch as an evaluation has: a batch of few survivors is filled up.
        network = given.of(2 * given.batch)
        seconds, found = interleaved(restarted(network), network, size.rounds)
        runs = [one.backwards.sum().item() / STEPS for one in found["dropping"]]
        wanted = [
            once * count / network.batch
            for once, count in zip(seconds["one run"], runs, strict=True)
        ]
        overhead = ratio(seconds["dropping"], wanted)
        for name in seconds:
            results.rows.append({"network": network.name, "method": name, **timing(seconds[name])})
        results.rows[1 - len(seconds)] |= {
            "runs per example": sum(runs) / len(runs) / network.batch,
            "it / sum of survivors": overhead,
            "not dropping / it": ratio(seconds["not dropping"], seconds["dropping"]),
        }
        results.goals.append(
            Goal(f"P6 {network.name}: it / sum of survivors", overhead[0], 1.1, at_most=True)
        )
        fallen, right = (
            found["not dropping"],
            verdicts(network, [f.x_adv for f in found["dropping"]]),
        )
        same = (torch.cat(fallen) == ~right[0]).float().mean().item()
        results.goals.append(Goal(f"P6 {network.name}: the verdicts of all five", same, 1.0))
    return results


def restarted(network: Network) -> dict[str, Method]:
    """One run, and several with and without the examples that have fallen."""
    threat, model = network.threat, network.model

    def run(x: Tensor, y: Tensor, noise: Noise, restarts: int = 1) -> Attacked:
        return pgd(model, x, y, threat, noise, steps=STEPS, restarts=restarts)

    def not_dropping(x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Who falls to any of the runs."""
        fallen = torch.zeros_like(y, dtype=torch.bool)
        for restart in range(RESTARTS):
            start = threat.random_start(x, noise, restart)
            with crafting(model):
                x_adv = ascend(
                    model,
                    x,
                    start,
                    partial(cross_entropy, y=y),
                    threat,
                    steps=STEPS,
                    step_size=threat.epsilon / 4,
                )
                fallen |= predictions(model(x_adv)) != y
        return fallen

    return {
        "one run": run,
        "dropping": partial(run, restarts=RESTARTS),
        "not dropping": not_dropping,
    }


def deepfool_section(all_networks: list[Network], size: Size) -> Results:
    """DeepFool in l2, in batches and image by image (P6)."""
    results, far = Results(), ThreatModel("l2", 100.0)
    for given in all_networks:
        network = given.of(64)
        seconds, found = interleaved(nearest(network, far), network, size.rounds)
        numbered = zip(range(size.rounds), network.batches(), strict=False)
        images = torch.cat([x for _, (x, _, _) in numbered])
        for name in seconds:
            right, _ = verdicts(network, found[name])
            gain = ratio(seconds["torchattacks"], seconds[name])
            moved = far.distance(torch.cat(found[name]), images)
            results.rows.append(
                {
                    "network": network.name,
                    "method": name,
                    **timing(seconds[name]),
                    "torchattacks / it": gain,
                    "fooled": 1 - right.float().mean().item(),
                    "mean distance": moved.mean().item(),
                }
            )
            if name == "float32":
                label = f"P6 {network.name} DeepFool: torchattacks / it"
                results.goals.append(Goal(label, gain[0], 2.5))
    return results


def nearest(network: Network, far: ThreatModel) -> dict[str, Method]:
    """DeepFool of torchattacks, which takes image after image, and of this package."""
    import torchattacks

    peer = torchattacks.DeepFool(network.model, steps=50, overshoot=0.02)

    def one_by_one(x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        found: Tensor = peer(x, y)
        return found

    def batched(x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        return deepfool(network.model, x, y, far, noise, steps=50, overshoot=0.02).x_adv

    last = channels_last(network)

    def innermost(x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        x = x.to(memory_format=torch.channels_last)
        return deepfool(last, x, y, far, noise, steps=50, overshoot=0.02).x_adv

    return {"torchattacks": one_by_one, "float32": batched, "float32, channels_last": innermost}


def autoattack_section(all_networks: list[Network], size: Size) -> Results:
    """AutoAttack, standard version, until the last verdict (P5)."""
    from benchmarks.autoattack import autoattack_section as measured

    return measured(all_networks, size)


SECTIONS: dict[str, Section] = {
    "pgd": pgd_section,
    "training": training_section,
    "restarts": restarts_section,
    "deepfool": deepfool_section,
    "autoattack": autoattack_section,
}


# ------------------------------------------------------------------------------ the report


def cpuinfo(name: str) -> str:
    """What Linux says of the first processor; nothing elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith(name)), "")


def bfloat16_instructions() -> bool:
    """Whether products in bfloat16 are the processor's own."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(cpuinfo("flags").split()))


def machine() -> dict[str, Any]:
    """What the times depend on."""
    return {
        "processor": cpuinfo("model name") or platform.processor() or platform.machine(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "bfloat16 instructions": bfloat16_instructions(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
    }


def show(value: object) -> str:
    """A cell of a table; a ratio with its range."""
    if isinstance(value, tuple):
        middle, least, most = value
        return f"{middle:.2f} ({least:.2f}-{most:.2f})"
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value)


def table(rows: list[dict[str, Any]]) -> str:
    """Columns of the rows, as wide as they must be."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *[[show(row[name]) if name in row else "" for name in names] for row in rows]]
    widths = [max(len(line[place]) for line in cells) for place in range(len(names))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Two threads of one process would share its CPU time with what they wait for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def main() -> None:
    """Measure, print, and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few images and rounds")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="keep the networks there")
    given = parser.parse_args()
    size = Size(rounds=2, images=128) if given.quick else Size(rounds=7, images=1024)
    sections: dict[str, Results] = {}
    keep_freed_memory()  # as the pipeline's jobs do
    with one_thread():
        before = machine()
        print(json.dumps(before), flush=True)
        made = networks(size, given.weights)
        for name in given.only:
            sections[name] = SECTIONS[name](made, size)
            print(f"\n{SECTIONS[name].__doc__}\n{table(sections[name].rows)}", flush=True)
            for line in [*sections[name].remarks, *map(str, sections[name].goals)]:
                print(line, flush=True)
    if given.json:
        written = {name: asdict(found) for name, found in sections.items()}
        record = {"machine": before, "load after": os.getloadavg(), "sections": written}
        given.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
