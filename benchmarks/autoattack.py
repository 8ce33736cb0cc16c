"""AutoAttack beside the published attacks at the official settings (P5 of the goals).

The official package is on no package index. torchattacks ports its four attacks; with 100 steps, 9
targets, 5000 queries and no rescaled schedule, each run on what the earlier ones left, they are the
standard version. (torchattacks' own `AutoAttack` has 10 steps.)
"""

import copy
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advtrain.attacks.attack import predictions
from advtrain.attacks.autoattack import ensemble
from advtrain.data.store import Split
from advtrain.evaluation.evaluate import evaluate
from advtrain.threat import ThreatModel
from benchmarks.harness import (
    CPU,
    SEED,
    Goal,
    Network,
    Results,
    Size,
    Spread,
    bfloat16_instructions,
    channels_last,
    ratio,
    timing,
)

ROUNDS = 3
"""A round of the published attacks takes a minute or more."""

IMAGES = {"CNN-28": 100, "PreActResNet18-w16": 40, "CNN-28, undefended": 200}


def autoattack_section(all_networks: list[Network], size: Size) -> Results:
    """AutoAttack, standard version, until the last verdict (P5)."""
    results = Results()
    quick = size.rounds <= 2
    chosen = all_networks[:1] if quick else all_networks
    for network in (*chosen, undefended(all_networks[0])):
        images = min(IMAGES[network.name], 20 if quick else 200)
        split = Split(
            (network.x[:images] * 255).round().to(torch.uint8), network.y[:images],
            torch.arange(images),
        )  # fmt: skip
        methods = {
            "torchattacks, official settings": lambda seed, n=network, s=split: published(
                n, s, seed
            ),
            "float32": lambda seed, n=network, s=split: own(n.model, n, s, seed, "float32"),
            "float32, channels_last": lambda seed, n=network, s=split: own(
                channels_last(n), n, s, seed, "float32"
            ),
            "bfloat16, channels_last, confirmed": lambda seed, n=network, s=split: own(
                channels_last(n), n, s, seed, "bfloat16"
            ),
        }
        if not bfloat16_instructions():
            del methods["bfloat16, channels_last, confirmed"]
        rounds = 1 if quick else ROUNDS
        seconds: dict[str, list[float]] = {name: [] for name in methods}
        found: dict[str, list[tuple[Tensor, float]]] = {name: [] for name in methods}
        for number in range(rounds):
            names = list(methods)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                started = time.process_time()
                outcome = methods[name](SEED + number)
                seconds[name].append(time.process_time() - started)
                found[name].append(outcome)
        reference = found["torchattacks, official settings"]
        for name in methods:
            gain = ratio(seconds["torchattacks, official settings"], seconds[name])
            differing = [
                int((ours != theirs).sum())
                for (ours, _), (theirs, _) in zip(found[name], reference, strict=True)
            ]
            row: dict[str, Any] = {
                "network": network.name,
                "method": name,
                **timing(seconds[name]),
                "torchattacks / it": gain,
                "robust": found[name][0][0].float().mean().item(),
                "images": images,
                "passes per image": found[name][0][1],
                "verdicts differing, by round": str(differing),
            }
            results.rows.append(row)
            results.goals += goals(network.name, name, gain, sum(differing), images * rounds)
    if not bfloat16_instructions():
        results.remarks.append("bfloat16 is left out: this processor has no instructions for it.")
    results.remarks.append(
        "Both sides draw random numbers of their own; an example on which single runs differ can "
        "differ between rounds of one and the same code."
    )
    return results


def goals(network: str, name: str, gain: Spread, differing: int, total: int) -> list[Goal]:
    """The goals of one method on one network."""
    if network.endswith("undefended"):
        return [Goal(f"P5 {network} {name}: torchattacks / it", gain, 20)] * (name == "float32")
    cnn = network.startswith("CNN")
    wanted = {"float32, channels_last": 1.4 if cnn else 1.3}
    wanted["bfloat16, channels_last, confirmed"] = 2.0 if cnn else 1.7
    if name not in wanted:
        return []
    return [
        Goal(f"P5 {network} {name}: torchattacks / it", gain, wanted[name]),
        Goal(f"P5 {network} {name}: agreement", 1 - differing / total, 0.995),
    ]


def undefended(network: Network) -> Network:
    """The same architecture after a short training without attacks, at a larger budget."""
    model = copy.deepcopy(network.model).train()
    torch.manual_seed(SEED)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    x, y = network.x, network.y
    for _ in range(10):
        for rows in torch.randperm(len(y)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    model.zero_grad(set_to_none=True)
    name = f"{network.name}, undefended"
    return Network(name, model.eval(), x, y, ThreatModel("linf", 0.2), network.batch)


def published(network: Network, split: Split, seed: int) -> tuple[Tensor, float]:
    """Run the ported attacks in turn, each on what is left; the passes are not counted."""
    import torchattacks

    model, x, y = network.model, split.images.float() / 255, split.labels
    given: dict[str, Any] = {"norm": "Linf", "eps": network.threat.epsilon, "seed": seed}
    several = {"steps": 100, "n_restarts": 1}
    stages = (
        torchattacks.APGD(model, **given, **several, loss="ce"),
        torchattacks.APGDT(model, **given, **several, n_classes=10),
        torchattacks.FAB(model, **given, **several, n_classes=10, multi_targeted=True),
        torchattacks.Square(model, **given, n_queries=5000, n_restarts=1, resc_schedule=False),
    )
    with torch.no_grad():
        robust = predictions(model(x)) == y
        for attack in stages:
            rows = robust.nonzero().squeeze(1)
            if len(rows):
                x_adv = attack(x[rows], y[rows]).detach()
                robust[rows] = predictions(model(x_adv)) == y[rows]
    return robust, float("nan")


def own(
    model: nn.Module, network: Network, split: Split, seed: int, precision: Any
) -> tuple[Tensor, float]:
    """Run ours as the pipeline does, with its second look at every claim."""
    rows = evaluate(
        model, ensemble(network.threat), network.threat, split, seed, CPU, 250, precision=precision
    )
    robust = torch.from_numpy(rows["adversarial_prediction"] == rows["label"])
    return robust, float((rows["forward"] + rows["backward"]).mean())
