"""What training costs: each method's weight step beside the passes that it is made of.

    python benchmarks/training.py [--quick] [--only steps ...] [--device cuda] [--folder FOLDER]

A step is taken at learning rate 0, so that every step finds the same network. Its least cost is
that of its parts, measured in the same round: A, an input gradient; B, the forward and backward
pass of a loss to the weights (and to the image, for a method that uses both); F, a forward pass;
and P, a plain training step, which is B and the optimizer's step. Its price in the literature is a
count of forward passes, in which A is 2 F and P is 3 F (`Cost.forward_equivalents`); what torch
takes for A and P is more, so that the goals are about the parts and about operations.
"""

import argparse
import copy
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils.flop_counter import flop_registry  # noqa: E402

from advtrain.attacks.apgd import apgd  # noqa: E402
from advtrain.attacks.frozen import Mode, crafting  # noqa: E402
from advtrain.attacks.objectives import cross_entropy, kl  # noqa: E402
from advtrain.attacks.pgd import pgd  # noqa: E402
from advtrain.data.augment import augment  # noqa: E402
from advtrain.data.store import Split  # noqa: E402
from advtrain.methods.cat import Cat  # noqa: E402
from advtrain.methods.consistency import Consistency  # noqa: E402
from advtrain.methods.fat import Fat  # noqa: E402
from advtrain.methods.fgsm_mixed import FgsmMixed  # noqa: E402
from advtrain.methods.fgsm_rs import FgsmRs  # noqa: E402
from advtrain.methods.free import Free  # noqa: E402
from advtrain.methods.gaussian import Gaussian  # noqa: E402
from advtrain.methods.gradalign import Gradalign  # noqa: E402
from advtrain.methods.iaat import Iaat  # noqa: E402
from advtrain.methods.ibp import Ibp  # noqa: E402
from advtrain.methods.mart import Mart  # noqa: E402
from advtrain.methods.method import Batch, Cost, Passes  # noqa: E402
from advtrain.methods.method import Method as Trained  # noqa: E402
from advtrain.methods.natural import Natural  # noqa: E402
from advtrain.methods.nfgsm import Nfgsm  # noqa: E402
from advtrain.methods.pgd_at import PgdAt  # noqa: E402
from advtrain.methods.trades import Trades  # noqa: E402
from advtrain.models.preact_resnet import preact_resnet  # noqa: E402
from advtrain.models.small_cnn import small_cnn  # noqa: E402
from advtrain.noise import Noise  # noqa: E402
from advtrain.threat import ThreatModel  # noqa: E402
from advtrain.training.loop import TrainingData, train  # noqa: E402
from advtrain.training.precision import Precision, computing  # noqa: E402
from advtrain.training.updates import EVALUATIONS, UpdateName, awp, plain  # noqa: E402
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
    bfloat16_instructions,
    channels_last,
    interleaved,
    ratio,
    spread,
    timing,
    turns,
)
from benchmarks.performance import show  # noqa: E402

VIEW = 2**40
"""Between the ids of two views of an example, as in the loop."""


def networks(device: torch.device) -> list[Network]:
    """Fresh networks and random images: the time of a step does not depend on either's values."""
    if device.type == "cpu":
        made = [
            ("CNN-28", small_cnn(channels=1, size=28, classes=10), (1, 28, 28), 128),
            (
                "PreActResNet18-w16",
                preact_resnet(channels=3, size=32, classes=10, width=16),
                (3, 32, 32),
                64,
            ),
        ]
    else:
        full = preact_resnet(channels=3, size=32, classes=10)
        made = [
            (f"PreActResNet18, batch {batch}", copy.deepcopy(full), (3, 32, 32), batch)
            for batch in (128, 512)
        ]
    found = []
    for name, model, shape, batch in made:
        model.to(device)
        torch.manual_seed(SEED)
        x = torch.rand(2 * batch, *shape).to(device)
        with torch.no_grad():  # running averages as of a network in use
            for _ in range(10):
                model.train()(x)
            y = model.eval()(x).argmax(1)
        found.append(Network(name, model, x, y, ThreatModel("linf", 8 / 255), batch))
    return found


# ------------------------------------------------------------------------------ P3, P4: steps


@dataclass(frozen=True)
class Step:
    """A method under test.

    Attributes:
        name: as in the table.
        method: with its parameters.
        update: how its loss becomes a step.
        code: of the goal that it is held to; empty for none.
    """

    name: str
    method: Trained
    update: UpdateName = "plain"
    code: str = ""

    @property
    def cost(self) -> Cost:
        """Per row of the batch, of all evaluations of the loss."""
        found, times = self.method.cost(), EVALUATIONS[self.update]
        return Cost(found.crafting, Passes(found.loss.forward * times, found.loss.backward * times))


def all_steps(network: Network) -> list[Step]:
    """Every method, those of the goals at the settings of their papers."""
    found = [
        Step("PGD-7", PgdAt(steps=7, crafting="eval"), code="P3"),
        Step("PGD-7, crafted in train mode", PgdAt(steps=7)),
        Step("TRADES-10", Trades(), code="P4"),
        Step("MART-10", Mart(), code="P4"),
        Step("AT-AWP-10", PgdAt(steps=10, crafting="eval"), "awp", "P4"),
        Step("TRADES-AWP-10", Trades(), "awp", "P4"),
        Step("Free, a replay", Free(), code="P4"),
        Step("Fast-AT", FgsmRs(), code="P4"),
        Step("N-FGSM", Nfgsm()),
        Step("FGSM, mixed", FgsmMixed()),
        Step("natural", Natural()),
        Step("Gaussian", Gaussian()),
        Step("GradAlign", Gradalign()),
        Step("Consistency-10", Consistency()),
        Step("IAAT-10", Iaat()),
        Step("FAT-10", Fat()),
        Step("CAT", Cat()),
    ]
    # No bounds are known for a residual block.
    return found + [Step("IBP", Ibp())] * network.name.startswith("CNN")


def optimized(model: nn.Module) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model with an optimizer that leaves its weights as they are."""
    weights = list(model.parameters())
    given: dict[str, Any] = {"momentum": 0.9, "weight_decay": 5e-4, "fused": weights[0].is_cuda}
    return model, torch.optim.SGD(weights, lr=0.0, **given)


def viewed(step: Step, x: Tensor, y: Tensor, noise: Noise) -> tuple[Batch, Noise]:
    """The minibatch of a method, with as many views as it asks for."""
    views, ids = step.method.views, noise.examples
    batch = Batch(x.repeat(views, 1, 1, 1), y.repeat(views), ids.repeat(views), progress=0.5)
    return batch, Noise(noise.seed, torch.cat([ids + view * VIEW for view in range(views)]))


def descend(
    step: Step,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    threat: ThreatModel,
    batch: Batch,
    noise: Noise,
    x_adv: Tensor,
) -> None:
    """The second half of a step, as the loop takes it."""
    if step.method.input_gradient:
        x_adv.requires_grad_()
    loss = partial(step.method.loss, model, batch, x_adv, threat, noise)
    if step.update == "awp":
        awp(model, optimizer, loss, gamma=0.01)
    else:
        plain(model, optimizer, loss)
    step.method.after_step(batch, x_adv.detach(), x_adv.grad, threat)


def ours(
    step: Step, network: Network, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Method:
    """A weight step of this package."""

    def take(x: Tensor, y: Tensor, noise: Noise) -> None:
        batch, drawn = viewed(step, x, y, noise)
        x_adv = step.method.perturb(model.train(), batch, network.threat, drawn)
        descend(step, model, optimizer, network.threat, batch, drawn, x_adv)

    return take


def lowered(
    step: Step,
    network: Network,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    precision: Precision,
) -> Method:
    """The same with channels last and in a precision."""
    exact = ours(step, network, model, optimizer)

    def take(x: Tensor, y: Tensor, noise: Noise) -> None:
        with computing(precision, model, network.device):
            exact(x.to(memory_format=torch.channels_last), y, noise)

    return take


def usual(
    step: Step, network: Network, model: nn.Module, optimizer: torch.optim.Optimizer, mode: Mode
) -> Method:
    """The structure of most published code: the attack's gradients reach the weights too.

    The crafting is written out, `.backward()` on live weights; loss and update are ours. (TRADES'
    own code also computes the clean prediction anew in every step; here it is computed once.)
    """
    threat, steps = network.threat, getattr(step.method, "steps", 1)
    size = threat.epsilon * (1.25 if steps == 1 else 0.25)

    def take(x: Tensor, y: Tensor, noise: Noise) -> None:
        batch, objective = Batch(x, y, noise.examples), partial(cross_entropy, y=y)
        model.train(mode == "train")
        if isinstance(step.method, Trades):
            with torch.no_grad():
                objective = partial(kl, reference=model(x))
        delta = (threat.random_start(x, noise) - x).requires_grad_()
        for _ in range(steps):
            objective(model((x + delta).clamp(0, 1))).mean().backward()
            assert delta.grad is not None
            moved = delta.data + size * delta.grad.sign()
            moved = moved.clamp(-threat.epsilon, threat.epsilon)
            delta.data = (x + moved).clamp(0, 1) - x
            delta.grad.zero_()
        model.train()
        descend(step, model, optimizer, threat, batch, noise, (x + delta).detach())

    return take


GRADIENTS = 7
"""Of one measurement of A, which alone is short; and of PGD-7's floor."""


def parts(
    network: Network, model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Method]:
    """What steps are made of: see the head of this file."""

    def gradients(x: Tensor, y: Tensor, noise: Noise, mode: Mode = "eval") -> None:
        with crafting(model, mode):
            for _ in range(GRADIENTS):
                point = x.detach().requires_grad_()
                loss = F.cross_entropy(model(point), y, reduction="sum")
                torch.autograd.grad(loss, point)

    def weights(x: Tensor, y: Tensor, noise: Noise, image: bool = False) -> None:
        optimizer.zero_grad()
        point = x.detach().requires_grad_(image)
        F.cross_entropy(model.train()(point), y).backward()

    def train_step(x: Tensor, y: Tensor, noise: Noise) -> None:
        weights(x, y, noise)
        optimizer.step()

    def floor(x: Tensor, y: Tensor, noise: Noise) -> None:
        gradients(x, y, noise)
        train_step(x, y, noise)

    def forwards(x: Tensor, y: Tensor, noise: Noise) -> None:
        with torch.no_grad():
            model.eval()
            for _ in range(GRADIENTS):
                model(x)

    return {
        FLOOR: floor,
        f"{GRADIENTS} A, in eval mode": gradients,
        f"{GRADIENTS} A, in train mode": partial(gradients, mode="train"),
        "B": weights,
        "B, of the image too": partial(weights, image=True),
        "P": train_step,
        f"{GRADIENTS} F": forwards,
    }


FLOOR = f"floor: {GRADIENTS} A + P"


def least(step: Step, seconds: dict[str, list[float]]) -> list[float]:
    """What the parts of a step cost in each round."""
    crafted, learned = step.cost.crafting, step.cost.loss
    mode = getattr(step.method, "crafting", "eval")
    both = ", of the image too" * step.method.input_gradient
    needed = (f"{GRADIENTS} A, in {mode} mode", f"{GRADIENTS} F", f"B{both}", "B", "P")
    return [
        step.method.views
        * (
            crafted.backward * gradients / GRADIENTS
            + (crafted.forward - crafted.backward) * forwards / GRADIENTS
            + learned.backward * loss
        )
        + plain_step
        - weights
        for gradients, forwards, loss, weights, plain_step in zip(
            *(seconds[name] for name in needed), strict=True
        )
    ]


class Operations(TorchDispatchMode):
    """Counts the multiplications and additions of convolutions and products.

    By torch's own formulas; its `FlopCounterMode` also follows modules, with hooks that gradients
    of an image cannot be taken under.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operator, and add what it cost."""
        found = function(*args, **(kwargs or {}))
        if formula := flop_registry.get(function._overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=found)
        return found


def operations(action: Callable[[], Any]) -> int:
    """What an action costs, whatever the machine."""
    with Operations() as counter:
        action()
    return counter.total


def steps_section(all_networks: list[Network], size: Size) -> Results:
    """Each method's weight step beside its parts, its price and the usual code (P3, P4)."""
    results = Results()
    for network in all_networks:
        steps = {step.name: step for step in all_steps(network)}
        model = optimized(copy.deepcopy(network.model))
        last = optimized(channels_last(network))
        for step in steps.values():
            step.method.start(torch.arange(len(network.y), device=network.device))
        first = steps["PGD-7"]
        methods = parts(network, *model)
        methods |= {name: ours(step, network, *model) for name, step in steps.items()}
        methods |= {
            f"PGD-7, {precision}, channels_last": lowered(first, network, *last, precision)
            for precision in precisions(network.device)
        }
        methods |= {
            f"{name}, usual code": usual(steps[name], network, *model, mode)
            for name, mode in USUAL.items()
        }
        seconds, _ = interleaved(methods, network, size.rounds, repeats=repeats(network))
        counted = {name: counts(methods[name], network) for name in steps}
        one = [found / GRADIENTS for found in seconds[f"{GRADIENTS} F"]]
        for name in methods:
            row: dict[str, Any] = {"network": network.name, "step": name, **timing(seconds[name])}
            if name in steps:
                step = steps[name]
                price = step.cost.forward_equivalents * step.method.views
                row |= {
                    "price in F": round(price, 2),
                    "operations in F": counted[name],
                    "it / parts": ratio(seconds[name], least(step, seconds)),
                    "it / (price x F)": ratio(seconds[name], [price * found for found in one]),
                }
            if f"{name}, usual code" in methods:
                row["usual / it"] = ratio(seconds[f"{name}, usual code"], seconds[name])
            if name.startswith("PGD-7") or name == FLOOR:
                row["it / floor"] = ratio(seconds[name], seconds[FLOOR])
                row["usual / it"] = ratio(seconds["PGD-7, usual code"], seconds[name])
            results.rows.append(row)
        results.goals += goals(network.name, {row["step"]: row for row in results.rows}, steps)
        results.remarks.append(costs_of_parts(network.name, seconds))
    return results


USUAL: dict[str, Mode] = {
    "PGD-7": "train",
    "TRADES-10": "eval",
    "MART-10": "eval",
    "AT-AWP-10": "eval",
    "TRADES-AWP-10": "eval",
    "Fast-AT": "train",
}
"""Whose usual code is measured too, and the mode that it crafts in."""


def precisions(device: torch.device) -> tuple[Precision, ...]:
    """What PGD-7 and attacks are measured in with channels last."""
    return ("float32", "bfloat16", *(("tf32", "float16") if device.type == "cuda" else ()))


def repeats(network: Network) -> int:
    """Steps in a turn: a GPU's are short."""
    return 1 if network.device.type == "cpu" else 5


def counts(method: Method, network: Network) -> float:
    """The operations of a step, in forward passes of its examples."""
    given = next(network.batches())
    with torch.no_grad():
        forward = operations(partial(network.model, given[0]))
    return operations(partial(method, *given)) / forward


def costs_of_parts(network: str, seconds: dict[str, list[float]]) -> str:
    """Say how far A and P are from the 2 F and 3 F of the cost model."""
    forward = [found / GRADIENTS for found in seconds[f"{GRADIENTS} F"]]
    gradient = [found / GRADIENTS for found in seconds[f"{GRADIENTS} A, in eval mode"]]
    return (
        f"{network}: A is {show(ratio(gradient, forward))} F, "
        f"P is {show(ratio(seconds['P'], forward))} F."
    )


def goals(network: str, rows: dict[str, dict[str, Any]], steps: dict[str, Step]) -> list[Goal]:
    """What the goals ask of a network's rows."""
    found = []
    exact, fast = "PGD-7, float32, channels_last", "PGD-7, bfloat16, channels_last"
    for name, bound in (("PGD-7", 1.10), (exact, 0.90), (fast, 0.50)):
        label = f"P3 {network} {name}: it / floor"
        found.append(Goal(label, rows[name]["it / floor"], bound, at_most=True))
    for name, bound in (("PGD-7", 1.2), (fast, 2.5)):
        found.append(Goal(f"P3 {network} {name}: usual / it", rows[name]["usual / it"], bound))
    for name, step in steps.items():
        if step.code == "P3":
            label, counted = f"P3 {network} {name}: operations in F", rows[name]["operations in F"]
            found.append(Goal(label, counted, 17.2, at_most=True))
        if step.code == "P4":
            label = f"P4 {network} {name}: it / parts"
            found.append(Goal(label, rows[name]["it / parts"], 1.10, at_most=True))
            label = f"P4 {network} {name}: operations / price"
            share = rows[name]["operations in F"] / rows[name]["price in F"]
            found.append(Goal(label, share, 1.10, at_most=True))
    return found


# ------------------------------------------------------------------------------ augmentation


def augmentation_section(all_networks: list[Network], size: Size) -> Results:
    """Taking a minibatch and augmenting it, beside the step that learns from it (G4)."""
    results = Results()
    for network in all_networks:
        pool = (network.x * 255).round().to(torch.uint8)

        def augmented(x: Tensor, y: Tensor, noise: Noise, p: Tensor = pool, **given: Any) -> None:
            augment(p[noise.examples], noise, **{"crop_padding": 4, "flip": True} | given)

        model = optimized(copy.deepcopy(network.model))
        steps = {
            name: ours(Step(name, method), network, *model)
            for name, method in (
                ("step of PGD-7", PgdAt(steps=7, crafting="eval")),
                ("step of natural training", Natural()),
            )
        }
        methods: dict[str, Method] = steps | {
            "as they are": partial(augmented, crop_padding=0, flip=False),
            "crop and flip": augmented,
            "crop, flip and cutout": partial(augmented, cutout=8),
        }
        seconds, _ = interleaved(methods, network, size.rounds, repeats=5)
        for name in methods:
            shares = {f"share of a {step}": ratio(seconds[name], seconds[step]) for step in steps}
            row = {"network": network.name, "what": name, **timing(seconds[name])}
            results.rows.append(row | ({} if name in steps else shares))
        if network.device.type == "cuda":
            share = ratio(seconds["crop and flip"], seconds["step of PGD-7"])
            label = f"G4 {network.name}: crop and flip / step of PGD-7"
            results.goals.append(Goal(label, share, 0.02, at_most=True))
    return results


# ------------------------------------------------------------------------------ throughput


def throughput_section(all_networks: list[Network], size: Size) -> Results:
    """Images that attacks get through in a second, none of which falls: the most that they cost."""
    results = Results()
    for network in all_networks:
        methods: dict[str, Method] = {}
        last, fast = channels_last(network), precisions(network.device)
        if network.device.type == "cpu" and not bfloat16_instructions():
            fast = fast[:1]
        kept = {"float32": network.model} | {f"{name}, channels_last": last for name in fast}
        for name, model in kept.items():
            precision = name.split(",")[0]
            for attack, run in ATTACKS.items():
                methods[f"{attack}, {name}"] = attacked(run, model, network, precision)
        seconds, _ = interleaved(methods, network, min(size.rounds, 3))
        for name in methods:
            rate = spread([network.batch / found for found in seconds[name]])
            row = {"network": network.name, "attack": name, "images per second": rate}
            results.rows.append(row | timing(seconds[name]))
    return results


HARMLESS = ThreatModel("linf", 1e-6)
"""So small that every image withstands."""

ATTACKS: dict[str, Callable[..., Any]] = {
    "FGSM": partial(pgd, steps=1, step_size="epsilon", random_start=False),
    "PGD-20": partial(pgd, steps=20),
    "APGD-CE, 20 steps": partial(apgd, steps=20),
}


def attacked(run: Callable[..., Any], model: nn.Module, network: Network, precision: Any) -> Method:
    """An attack in a precision, on images in the layout of the model."""
    last = model is not network.model
    layout = torch.channels_last if last else torch.contiguous_format

    def attack(x: Tensor, y: Tensor, noise: Noise) -> Any:
        with computing(precision, model, network.device):
            return run(model, x.to(memory_format=layout), y, HARMLESS, noise)

    return attack


# ------------------------------------------------------------------------------ recipes


def recipes_section(all_networks: list[Network], size: Size) -> Results:
    """An epoch of PGD-7 in the loop itself, as each option of the recipe has it."""
    results = Results()
    for network in all_networks:
        chosen = recipes(network)
        seconds: dict[str, list[float]] = {name: [] for name in chosen}
        minibatches = 3 if network.device.type == "cpu" else 8192 // network.batch
        for number in range(min(size.rounds, 3)):
            for name in turns(list(chosen), number):
                run = epochs(network, PgdAt(steps=7), minibatches, 2, **chosen[name])
                seconds[name].append(run[-1])
        for name in chosen:
            rate = [minibatches * network.batch / found for found in seconds[name]]
            results.rows.append(
                {
                    "network": network.name,
                    "recipe": name,
                    **timing(seconds[name]),
                    "images per second": spread(rate),
                    "the first's / it": ratio(seconds[next(iter(chosen))], seconds[name]),
                }
            )
    results.remarks.append(
        "The second epoch of a run: with its checkpoint, without compilation or warming up."
    )
    return results


def recipes(network: Network) -> dict[str, dict[str, Any]]:
    """The options that do not change what is computed, only how; they may change its rounding."""
    last: dict[str, Any] = {"channels_last": True}
    found: dict[str, dict[str, Any]] = {
        "float32": {},
        "float32, crop and flip": {"crop_padding": 4, "flip": True},
        "float32, channels_last": last,
        "float32, channels_last, compiled": last | {"compile_mode": "default"},
        "bfloat16, channels_last": last | {"precision": "bfloat16"},
    }
    if not has_batch_norm(network.model):
        found["float32, micro-batches of a half"] = {"micro_batch": network.batch // 2}
    if network.device.type == "cuda":
        low = last | {"precision": "bfloat16"}
        found |= {
            "tf32, channels_last": last | {"precision": "tf32"},
            "float16, channels_last": last | {"precision": "float16"},
            "bfloat16, channels_last, fast": low | {"determinism": "fast"},
            "bfloat16, channels_last, compiled": low | {"compile_mode": "default"},
            "bfloat16, channels_last, graphs": low | {"compile_mode": "reduce-overhead"},
            "bfloat16, channels_last, graphs, fast": low
            | {"compile_mode": "reduce-overhead", "determinism": "fast"},
        }
    return found


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a minibatch cannot be taken in parts."""
    return any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def epochs(
    network: Network, method: Trained, minibatches: int, count: int, **recipe: Any
) -> list[float]:
    """The seconds of each epoch of a training: CPU time on the CPU, else wall time."""
    clock = time.process_time if network.device.type == "cpu" else time.perf_counter
    images = network.batch * minibatches
    shape = network.x.shape[1:]
    made = Split(
        torch.randint(0, 256, (images, *shape), dtype=torch.uint8),
        torch.randint(0, 10, (images,)),
        torch.arange(images),
    )
    ends = [clock()]
    with tempfile.TemporaryDirectory() as folder:
        train(
            copy.deepcopy(network.model),
            method,
            network.threat,
            TrainingData(made, made.take(slice(0))),
            SEED,
            Path(folder),
            lambda row: ends.append(clock()),
            network.device,
            **{"epochs": count * method.replays, "batch_size": network.batch, **recipe},
        )
    return [after - before for before, after in itertools.pairwise(ends)]


SECTIONS: dict[str, Callable[[list[Network], Size], Results]] = {
    "steps": steps_section,
    "recipes": recipes_section,
    "augmentation": augmentation_section,
    "throughput": throughput_section,
}


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and keep the results."""
    arguments = harness.parser(__doc__, SECTIONS)
    arguments.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    given: argparse.Namespace = arguments.parse_args(argv)
    device = CPU if given.device == "cpu" else harness.cuda_device()
    size = QUICK if given.quick else FULL
    with harness.one_thread():
        made = networks(device)
    harness.measure("training", SECTIONS, given, made, size, device=device)


if __name__ == "__main__":
    main()
