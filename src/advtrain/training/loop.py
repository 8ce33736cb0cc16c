"""The training loop: one for every method, resumed bit by bit, read from top to bottom."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from advtrain.attacks.ascent import ascend
from advtrain.attacks.attack import predictions
from advtrain.attacks.objectives import cross_entropy
from advtrain.data.augment import augment
from advtrain.data.store import Split
from advtrain.methods.method import Batch, Method
from advtrain.noise import Noise
from advtrain.params.quantities import (
    Count,
    NonNegative,
    Positive,
    Share,
    Shares,
    Whole,
    step_size,
)
from advtrain.threat import ThreatModel
from advtrain.training import randomness
from advtrain.training.checkpoint import load_resume, save_resume
from advtrain.training.schedules import Schedule, multiplier
from advtrain.training.updates import plain

# Streams of random numbers: what is drawn for one purpose must not move what another draws.
ORDER, AUGMENT, CRAFT, VALIDATE = 1, 2, 3, 4


class TrainingData(NamedTuple):
    """What a run learns from, and what it selects its best epoch by."""

    train: Split
    validation: Split


class Trained(NamedTuple):
    """What a run leaves behind.

    Attributes:
        last: weights after the last epoch (collapsed: after the last finite one), on the CPU.
        best: weights after the best epoch on the validation split, on the CPU.
        best_epoch: its number; 0 if no epoch ended finite.
        history: one row per finite epoch.
        status: whether the run finished or its loss left the finite numbers.
        cause: of a collapse, in words.
    """

    last: dict[str, Tensor]
    best: dict[str, Tensor]
    best_epoch: int
    history: list[dict[str, float]]
    status: Literal["finished", "collapsed"]
    cause: str


def train(
    model: nn.Module,
    method: Method,
    threat: ThreatModel | None,
    data: TrainingData,
    seed: int,
    workspace: Path,
    on_epoch: Callable[[dict[str, float]], None],
    device: torch.device,
    *,
    epochs: Count = 30,
    batch_size: Count = 128,
    optimizer: Literal["sgd", "adam"] = "sgd",
    learning_rate: Positive = 0.1,
    momentum: Share = 0.9,
    nesterov: bool = False,
    weight_decay: NonNegative = 5e-4,
    weight_decay_on_norm: bool = True,
    schedule: Schedule = "piecewise",
    milestones: Shares = (0.5, 0.75),
    factor: Share = 0.1,
    peak_share: Share = 0.5,
    crop_padding: Whole = 0,
    flip: bool = False,
    validation_steps: Whole = 10,
    validate_every: Count = 1,
) -> Trained:
    """Train a model with a method: min_w E[max_{delta in S} loss] (Madry et al. 2018, eq. 2.1).

    Killed at any instant and called again with the same arguments and a fresh model, it continues
    after the last whole epoch and ends with the same bits as a run that was never killed.

    Args:
        model: with its initial weights; trained in place, moved to the device.
        method: what to perturb and to minimise; its state is changed in place.
        threat: the budget; None for a method that needs none.
        data: uint8 images, held on the device as one tensor.
        seed: of the order, the augmentation, the crafting and the global generators.
        workspace: folder of the run; holds `resume.pt`.
        on_epoch: gets each new row once it cannot be lost; not called again for the epochs that
            a resumed run skips.
        device: where to train.
        epochs: passes over the data that natural training would make. A method that replays each
            minibatch m times makes epochs / m, rounded up.
        batch_size: examples per weight step; the last minibatch of an epoch may be smaller.
        optimizer: `sgd` or `adam` (beta1 = momentum, beta2 = 0.999).
        learning_rate: peak of the schedule.
        momentum: of the optimizer.
        nesterov: Nesterov's momentum (sgd).
        weight_decay: added to the gradient.
        weight_decay_on_norm: whether the weights and biases of norm layers decay too.
        schedule: of the learning rate, per weight step.
        milestones: shares of the weight steps after which `piecewise` drops.
        factor: of each drop.
        peak_share: share of the weight steps after which `cyclic` peaks.
        crop_padding: pixels of padding before a random crop to the old size; 0 for none.
        flip: whether to flip images left to right at random.
        validation_steps: of the PGD (random start, step epsilon/4) that measures the robust
            accuracy; 0 for none.
        validate_every: epochs between two validations; the last epoch is always validated.

    Returns:
        The weights, the history and how it ended. A row holds epoch, learning_rate (of its last
        step), loss, `loss_<part>` for each part that the method names, train_accuracy (on what was
        trained on), validation_clean_accuracy and validation_robust_accuracy (where measured), and
        examples_seen, forward_passes, backward_passes: the sums so far over weight steps and their
        examples, validation not counted. Best is the highest robust accuracy, the clean one where
        there is no threat, the earlier epoch among equals.

    Raises:
        ValueError: for arguments that do not go together.
        OSError: if the workspace cannot be written.
    """
    settings = _settings(dict(locals()))
    if method.needs_threat and threat is None:
        raise ValueError(f"{type(method).__name__} needs a threat model, got none")
    if len(data.train) == 0:
        raise ValueError("the training split is empty; expected 1 example or more")
    # Without a budget the ball is the image itself, so that every method has the same signature.
    ball = threat or ThreatModel("linf", 0.0)

    with randomness.reproducible(seed, device):
        model.to(device)
        images, labels, examples = data.train.images, data.train.labels, data.train.example
        images, labels, examples = images.to(device), labels.to(device), examples.to(device)
        stepper = _optimizer(
            model, optimizer, momentum, nesterov, weight_decay, weight_decay_on_norm
        )
        steps_per_epoch = math.ceil(len(examples) / batch_size) * method.replays
        passes_over_data = math.ceil(epochs / method.replays)

        state = load_resume(workspace, settings)
        if state is None:
            last = _copy(model)
            state = {
                "history": [],
                "last": last,
                "best": last,
                "best_epoch": 0,
                "best_score": -1.0,
                "optimizer": stepper.state_dict(),
                "method": {},
                "random": randomness.state(device),
            }
            # Before the first epoch, so that a folder that cannot be written shows now.
            save_resume(workspace, settings, state)
        history: list[dict[str, float]] = state["history"]
        last, best = state["last"], state["best"]
        best_epoch, best_score = state["best_epoch"], state["best_score"]
        model.load_state_dict(last)
        stepper.load_state_dict(state["optimizer"])
        method.load_state_dict({name: part.to(device) for name, part in state["method"].items()})
        randomness.restore(state["random"], device)

        for epoch in range(len(history) + 1, passes_over_data + 1):
            step = (epoch - 1) * steps_per_epoch
            everyone = Noise(seed, examples).fold_in(ORDER).fold_in(epoch)
            order = everyone.uniform((1,)).flatten().argsort(stable=True)
            rates: list[float] = []
            losses: list[Tensor] = []
            parts: dict[str, list[Tensor]] = defaultdict(list)
            correct: list[Tensor] = []
            sizes: list[int] = []
            model.train()
            for rows in torch.split(order, batch_size):
                noise = Noise(seed, examples[rows])
                x = augment(
                    images[rows],
                    noise.fold_in(AUGMENT).fold_in(epoch),
                    crop_padding=crop_padding,
                    flip=flip,
                )
                batch = Batch(x, labels[rows], examples[rows])
                for _ in range(method.replays):
                    rate = learning_rate * multiplier(
                        schedule,
                        step / (steps_per_epoch * passes_over_data),
                        milestones=milestones,
                        factor=factor,
                        peak_share=peak_share,
                    )
                    for group in stepper.param_groups:
                        group["lr"] = rate
                    rates.append(rate)
                    x_adv = method.perturb(model, batch, ball, noise.fold_in(CRAFT).fold_in(step))
                    if method.input_gradient:
                        x_adv.requires_grad_()
                    terms = plain(model, stepper, partial(method.loss, model, batch, x_adv))
                    method.after_step(batch, x_adv.detach(), x_adv.grad, ball)

                    # Read once per epoch: reading now would stall the device at every step.
                    losses.append(terms.total.detach())
                    for name, part in terms.parts.items():
                        parts[name].append(part.detach())
                    correct.append((predictions(terms.logits.detach()) == batch.y).sum())
                    sizes.append(len(rows))
                    step += 1

            cause = _cause_of_collapse(torch.stack(losses).cpu(), rates, model, epoch)
            if cause:
                model.load_state_dict(last)
                return Trained(last, best, best_epoch, history, "collapsed", cause)

            examples_seen = epoch * len(examples) * method.replays
            cost = method.passes()
            row: dict[str, float] = {
                "epoch": epoch,
                "learning_rate": rates[-1],
                "loss": _mean(losses, sizes),
                **{f"loss_{name}": _mean(part, sizes) for name, part in parts.items()},
                "train_accuracy": int(torch.stack(correct).sum()) / sum(sizes),
                "examples_seen": examples_seen,
                "forward_passes": round(cost.forward * examples_seen),
                "backward_passes": round(cost.backward * examples_seen),
            }
            if epoch % validate_every == 0 or epoch == passes_over_data:
                row |= _validate(
                    model, data.validation, threat, seed, device, validation_steps, batch_size
                )
            history.append(row)
            last = _copy(model)
            # Without a validation split, the last epoch is the best that is known.
            score = row.get("validation_robust_accuracy", row.get("validation_clean_accuracy"))
            if score is None and len(data.validation) == 0:
                best, best_epoch = last, epoch
            elif score is not None and score > best_score:
                best, best_epoch, best_score = last, epoch, score

            save_resume(
                workspace,
                settings,
                {
                    "history": history,
                    "last": last,
                    "best": best,
                    "best_epoch": best_epoch,
                    "best_score": best_score,
                    "optimizer": stepper.state_dict(),
                    "method": method.state_dict(),
                    "random": randomness.state(device),
                },
            )
            on_epoch(dict(row))
    return Trained(last, best, best_epoch, history, "finished", "")


def _validate(
    model: nn.Module,
    split: Split,
    threat: ThreatModel | None,
    seed: int,
    device: torch.device,
    steps: int,
    batch_size: int,
) -> dict[str, float]:
    """Measure the accuracies that select the best epoch; the same starts at every epoch."""
    clean, robust = [], []
    model.eval()
    for rows in torch.split(torch.arange(len(split)), batch_size):
        batch = split.take(rows).to(device)
        x = augment(batch.images, Noise(seed, batch.example), crop_padding=0, flip=False)
        with torch.no_grad():
            clean.append(predictions(model(x)) == batch.labels)
        if threat is not None and steps > 0:
            x_adv = ascend(
                model,
                x,
                threat.random_start(x, Noise(seed, batch.example).fold_in(VALIDATE)),
                partial(cross_entropy, y=batch.labels),
                threat,
                steps=steps,
                step_size=step_size("epsilon/4", threat.epsilon),
            )
            with torch.no_grad():
                robust.append(predictions(model(x_adv)) == batch.labels)
    measured = {"validation_clean_accuracy": clean, "validation_robust_accuracy": robust}
    return {
        name: int(torch.cat(correct).sum()) / len(split)
        for name, correct in measured.items()
        if correct and len(split)
    }


def _optimizer(
    model: nn.Module,
    name: str,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    weight_decay_on_norm: bool,
) -> torch.optim.Optimizer:
    norms = (_NormBase, nn.GroupNorm, nn.LayerNorm)
    spared = [
        weight
        for module in model.modules()
        if isinstance(module, norms) and not weight_decay_on_norm
        for weight in module.parameters(recurse=False)
    ]
    apart = {id(weight) for weight in spared}
    decayed = [weight for weight in model.parameters() if id(weight) not in apart]
    groups = [{"params": decayed, "weight_decay": weight_decay}]
    if spared:
        groups.append({"params": spared, "weight_decay": 0.0})
    # The learning rate is set at every step.
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=nesterov)
    if name == "adam" and not nesterov:
        return torch.optim.Adam(groups, lr=0.0, betas=(momentum, 0.999))
    if name == "adam":
        raise ValueError("nesterov is for the optimizer sgd, got it with adam; set one of the two")
    raise ValueError(f"optimizer {name!r} is unknown; expected sgd or adam")


def _settings(arguments: dict[str, Any]) -> dict[str, str]:
    """Say in words what decides the bits of a run: a resumed one must agree in all of it."""
    model, data, device = arguments["model"], arguments["data"], arguments["device"]
    apart = ("model", "data", "workspace", "on_epoch", "device")
    shapes = {name: (tuple(t.shape), t.dtype) for name, t in model.state_dict().items()}
    content = hashlib.sha256()
    for split in data:
        for part in (split.example, split.labels):
            content.update(part.cpu().numpy().tobytes())
    return {name: repr(value) for name, value in arguments.items() if name not in apart} | {
        "model": hashlib.sha256(repr(shapes).encode()).hexdigest()[:16],
        "data": content.hexdigest()[:16],
        "device": device.type,
    }


def _copy(model: nn.Module) -> dict[str, Tensor]:
    """The weights as they are now, on the CPU, out of reach of the next step."""
    return {
        name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()
    }


def _mean(values: list[Tensor], sizes: list[int]) -> float:
    """The mean over examples of what each step averaged over its own."""
    weights = torch.tensor(sizes, dtype=torch.float64)
    return float(torch.stack(values).cpu().double() @ weights / weights.sum())


def _cause_of_collapse(losses: Tensor, rates: list[float], model: nn.Module, epoch: int) -> str:
    """Say what left the finite numbers in an epoch, if something did."""
    broken = (~losses.isfinite()).nonzero().flatten().tolist()
    kept = "the weights kept are those before that epoch"
    if broken:
        step = broken[0]
        return (
            f"the training loss became {losses[step].item()} at step {step + 1} of epoch {epoch} "
            f"(learning rate {rates[step]:g}); {kept}"
        )
    for name, weights in model.state_dict().items():
        if not weights.isfinite().all():
            return (
                f"{name} left the finite numbers in epoch {epoch} "
                f"(learning rate {rates[-1]:g}); {kept}"
            )
    return ""
