"""How fast the attacks are: beside the published packages, and beside what they must cost at least.

    python benchmarks/attacks.py [--quick] [--only pgd autoattack ...] [--folder FOLDER]

One process and one thread. The methods of a section take turns, in another order each round, and
what is shown is the CPU time of the process: medians over the rounds, with their range, and medians
of the ratios within a round, which the load of the machine moves less. Speed is shown beside
verdicts: all methods attack the same images from the same starts, and every example on which
another verdict than the reference's is reached is listed with its margins.

A section is a function from the trained networks and the size to its results; another one joins
`SECTIONS`.
"""

import statistics
import sys
from collections.abc import Callable
from functools import partial
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
from advtrain.models.preact_resnet import preact_resnet  # noqa: E402
from advtrain.models.small_cnn import small_cnn  # noqa: E402
from advtrain.noise import Noise  # noqa: E402
from advtrain.threat import ThreatModel  # noqa: E402
from advtrain.training.precision import lowered  # noqa: E402
from benchmarks import harness  # noqa: E402
from benchmarks.harness import (  # noqa: E402
    CPU,
    FULL,
    QUICK,
    SEED,
    Goal,
    Method,
    Network,
    Results,
    Size,
    Spread,
    channels_last,
    interleaved,
    one_thread,
    ratio,
    timing,
)

Section = Callable[[list[Network], Size], Results]

# ------------------------------------------------------------------------------ measuring


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
        speed: dict[tuple[str, str], Spread] = {}
        for name in methods:
            right, its_margins = verdicts(network, found[name])
            differing = (right != reference).nonzero().squeeze(1).tolist()
            gains = {other: ratio(seconds[other], seconds[name]) for other in published(network)}
            speed |= {(name, other): gains[other] for other in gains}
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
            Goal(f"P6 {network.name}: it / sum of survivors", overhead, 1.1, at_most=True)
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
                results.goals.append(Goal(label, gain, 2.5))
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
    "restarts": restarts_section,
    "deepfool": deepfool_section,
    "autoattack": autoattack_section,
}


def main() -> None:
    """Measure, print, and keep the results."""
    arguments = harness.parser(__doc__, SECTIONS)
    arguments.add_argument(
        "--weights", type=Path, metavar="FOLDER", help="keep the networks there between runs"
    )
    given = arguments.parse_args()
    size = QUICK if given.quick else FULL
    with one_thread():
        made = networks(size, given.weights)
    harness.measure("attacks", SECTIONS, given, made, size)


if __name__ == "__main__":
    main()
