"""The training loop: one for every method, resumed bit by bit, read from top to bottom."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from advtrain.attacks.ascent import ascend
from advtrain.attacks.attack import predictions
from advtrain.attacks.frozen import crafting
from advtrain.attacks.objectives import cross_entropy
from advtrain.data.augment import Policy, augment
from advtrain.data.store import Split
from advtrain.data.stream import fetch
from advtrain.methods.method import Batch, Method
from advtrain.noise import Noise
from advtrain.params.fitting import unfit
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
from advtrain.training.averaging import Average, Averaging
from advtrain.training.checkpoint import load_resume, load_weights, save_resume, save_weights
from advtrain.training.compiling import CompileMode, compiled
from advtrain.training.distributed import ALONE, Processes
from advtrain.training.extra_data import extra_rows, shares
from advtrain.training.micro_batches import MicroBatches
from advtrain.training.precision import Precision, computing
from advtrain.training.randomness import Determinism
from advtrain.training.schedules import Schedule, multiplier
from advtrain.training.stopwatch import Stopwatch, measured
from advtrain.training.updates import EVALUATIONS, Update, UpdateName, awp, plain

# Streams of random numbers: what is drawn for one purpose must not move what another draws.
ORDER, AUGMENT, CRAFT, VALIDATE, CHECK = 1, 2, 3, 4, 5

# To the noise, another view of an example is another example; ids of data sets stay far below.
VIEW = 2**40


class TrainingData(NamedTuple):
    """What a run learns from, and what it selects its best epoch by.

    Attributes:
        train: with its labels.
        validation: may be empty.
        extra: unlabelled or generated images with the labels that a teacher gave them; None for
            none. Their example ids are not those of `train`.
    """

    train: Split
    validation: Split
    extra: Split | None = None


class Trained(NamedTuple):
    """What a run leaves behind.

    Attributes:
        last: weights after the last epoch (collapsed: after the last finite one), on the CPU.
        best: weights after the best epoch on the validation split, on the CPU.
        best_epoch: its number; 0 if no epoch ended finite.
        history: one row per finite epoch; the last one of a stopped run is that of the epoch which
            made it stop, whose weights are not kept.
        status: whether the run finished, its loss left the finite numbers, or its method stopped
            it.
        cause: of a collapse or a stop, in words.
        example_values: `example` and `epoch` (M,) int64 and (M,) values for each name that the
            method keeps per example; empty if it keeps none.
    """

    last: dict[str, Tensor]
    best: dict[str, Tensor]
    best_epoch: int
    history: list[dict[str, float]]
    status: Literal["finished", "collapsed", "stopped"]
    cause: str
    example_values: dict[str, Tensor]


def train(
    model: nn.Module,
    method: Method,
    threat: ThreatModel | None,
    data: TrainingData,
    seed: int,
    workspace: Path,
    on_epoch: Callable[[dict[str, float]], None],
    device: torch.device,
    on_measure: Callable[[dict[str, float]], None] | None = None,
    processes: Processes = ALONE,
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
    warmup: Share = 0.0,
    label_smoothing: Share = 0.0,
    update: UpdateName = "plain",
    awp_gamma: NonNegative = 0.01,
    awp_warmup: Whole = 0,
    averaging: Averaging = "none",
    ema_decay: Share = 0.995,
    swa_start: Share = 0.75,
    extra_fraction: Share = 0.0,
    crop_padding: Whole = 0,
    flip: bool = False,
    cutout: Whole = 0,
    policy: Policy = "none",
    policy_start: Share = 0.0,
    precision: Precision = "float32",
    determinism: Determinism = "deterministic",
    channels_last: bool = False,
    compile_mode: CompileMode = "none",
    micro_batch: Whole = 0,
    halve_on_out_of_memory: bool = False,
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
        data: uint8 images, held on the device as one tensor, or photographs that are decoded,
            cropped at random and brought there minibatch by minibatch; validation meets centres.
        seed: of the order, the augmentation, the crafting and the global generators.
        workspace: folder of the run; holds `resume.pt`.
        on_epoch: gets each new row once it cannot be lost; not called again for the epochs that
            a resumed run skips.
        device: where to train.
        on_measure: gets what `stopwatch.measured` says of an epoch, before `on_epoch` gets its row.
        processes: that train the network together. Each makes this call with the same arguments,
            but for `device`; the first one alone writes and reports.
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
        peak_share: share of the weight steps after which `cyclic` and `one_cycle` peak.
        warmup: share of the weight steps over which the schedule is scaled linearly from 0.
        label_smoothing: weight of the uniform distribution in what the weights learn, below 1
            (Szegedy et al. 2016, sec. 7); attacks raise the loss of the label alone.
        update: how the loss becomes a step: `plain`, or `awp` (adversarial weight perturbation).
        awp_gamma: size of the weight perturbation relative to each layer's norm.
        awp_warmup: epochs of plain updates before `awp` sets in.
        averaging: what is validated, kept and attacked: the weights (`none`), their exponential
            moving average over steps (`ema`) or their average over epochs (`swa`).
        ema_decay: of the moving average, per weight step.
        swa_start: share of the training after which epochs are averaged.
        extra_fraction: share of each minibatch that is drawn from the extra data (Carmon et al.
            2019); an epoch stays one pass over the labelled data.
        crop_padding: pixels of padding before a random crop to the old size; 0 for none.
        flip: whether to flip images left to right at random.
        cutout: side in pixels of the square that is blanked; 0 for none.
        policy: of colours and shapes: `autoaugment` (that for CIFAR-10), `randaugment` or none.
        policy_start: share of the training after which policy and cutout are applied.
        precision: of the forward passes in training; weights and validation are float32. TF32 is
            off unless this is `tf32`.
        determinism: `fast` lets CUDA kernels add in any order; two runs then differ by rounding.
        channels_last: the layout of images and weights in memory; another rounding, and faster.
        compile_mode: of `torch.compile` for the training's passes; another rounding.
        micro_batch: images per forward pass; 0 for the whole minibatch. A weight step is the same
            up to rounding and costs one more forward pass; refused where it would be another one
            (BatchNorm, and methods that keep a perturbation from step to step).
        halve_on_out_of_memory: instead of failing, halve the micro-batch for the rest of the run.
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
    if label_smoothing == 1:
        raise ValueError("label_smoothing 1 leaves nothing of the labels to learn; expected [0, 1)")
    chosen_speed = {"precision": precision, "compile_mode": compile_mode}
    if problem := unfit(type(method).__name__, partial(getattr, method), chosen_speed):
        raise ValueError(problem)
    if halve_on_out_of_memory and processes.count > 1:
        raise ValueError(
            "halve_on_out_of_memory: one of several processes would repeat a step without the "
            "others; set micro_batch, or train on one process"
        )
    labelled, extra = shares(batch_size, extra_fraction)
    if extra and not data.extra:
        raise ValueError(
            f"extra_fraction is {extra_fraction:g}, but there is no extra data: give the method "
            "entry a teacher and the data set a share of unlabelled images, or set it to 0"
        )
    # Without a budget the ball is the image itself, so that every method has the same signature.
    ball = threat or ThreatModel("linf", 0.0)

    with randomness.reproducible(seed, device, determinism):
        layout = torch.channels_last if channels_last else torch.contiguous_format
        model.to(device, memory_format=layout)  # type: ignore[call-overload]
        pool = _pool(data, extra > 0).to(device)
        ids = pool.example[: len(data.train)]
        (image,) = _clean(pool, 1, 1)
        if processes.count > 1:
            processes.refuse(method, model, image, (len(ids) - 1) % labelled + 1 + extra)
            processes.spread([*model.parameters(), *model.buffers()])
        stepper = _optimizer(
            model, optimizer, momentum, nesterov, weight_decay, weight_decay_on_norm
        )
        average = Average(model, averaging, decay=ema_decay, start=swa_start)
        minibatches = math.ceil(len(ids) / labelled)
        passes_over_data = math.ceil(epochs / method.replays)
        steps = minibatches * method.replays * passes_over_data
        classes = _classes(model, image) if label_smoothing else 0
        method.start(pool.example)
        micro = MicroBatches(model, method, micro_batch, halve=halve_on_out_of_memory, image=image)

        watch = Stopwatch(device)

        history: list[dict[str, float]] = []
        current = last = best = _copy(model)
        best_epoch, best_score = 0, -1.0
        forward, backward = 0.0, 0.0

        def reached() -> dict[str, Any]:
            return {
                "history": history,
                "model": current,
                "last": last,
                "best": best,
                "best_epoch": best_epoch,
                "best_score": best_score,
                "spent": [processes.added(forward), processes.added(backward)],
                "optimizer": stepper.state_dict(),
                "average": average.state_dict(),
                "method": processes.state_of(method, min(len(ids), labelled) + extra),
                "micro_batch": micro.size,
                "random": randomness.state(device),
            }

        def save() -> None:
            state = reached()
            if processes.writes:
                save_resume(workspace, settings, state)

        def report(row: dict[str, float]) -> None:
            if processes.writes:
                on_epoch(dict(row))

        found = load_resume(workspace, settings) if processes.writes else None
        if (state := processes.agreed(found)) is None:
            method.load_state_dict({})  # it may have been trained before
            # Before the first epoch, so that a folder that cannot be written shows now.
            save()
        else:
            history, current = state["history"], state["model"]
            last, best = state["last"], state["best"]
            best_epoch, best_score = state["best_epoch"], state["best_score"]
            # The sums over the processes, which the first one goes on with.
            forward, backward = state["spent"] if processes.writes else (0.0, 0.0)
            micro.size = state["micro_batch"]
            model.load_state_dict(current)
            stepper.load_state_dict(state["optimizer"])
            average.load_state_dict(state["average"])
            kept = {name: one.to(device) for name, one in state["method"].items()}
            method.load_state_dict(processes.share_of(kept, method))
            randomness.restore(state["random"], device)

        def ended(status: Literal["finished", "collapsed", "stopped"], cause: str = "") -> Trained:
            written = method.per_example and processes.writes
            values = _example_values(workspace, len(history)) if written else {}
            return Trained(last, best, best_epoch, history, status, cause, values)

        for epoch in range(len(history) + 1, passes_over_data + 1):
            step = (epoch - 1) * minibatches * method.replays
            # Adversarial weight perturbation is made for weights that have learned something.
            update_now: UpdateName = update if epoch > awp_warmup else "plain"
            descend: Update = partial(plain, processes=processes)
            if update_now == "awp":
                descend = partial(awp, gamma=awp_gamma, processes=processes)
            take_step = partial(descend, model, stepper)
            order = Noise(seed, ids).fold_in(ORDER).fold_in(epoch).uniform((1,)).flatten()
            chosen = torch.split(order.argsort(stable=True), labelled)
            if extra:
                drawn = extra_rows(pool.example[len(ids) :], seed, epoch, minibatches, extra)
                chosen = tuple(
                    torch.cat([own, others + len(ids)])
                    for own, others in zip(chosen, drawn, strict=True)
                )
            rates: list[float] = []
            losses: list[Tensor] = []
            parts: dict[str, list[Tensor]] = defaultdict(list)
            correct: list[Tensor] = []
            sizes: list[int] = []
            first: tuple[Batch, Noise] | None = None
            model.train()
            mine = [processes.share(rows) for rows in chosen]
            with (
                processes.normalising(model),
                compiled(model, compile_mode),
                computing(precision, model, device),
            ):
                images = fetch(
                    pool.stored,
                    mine,
                    noise_of=partial(_augmenting, seed, pool.example, method.views, epoch),
                    device=device,
                    views=method.views,
                )
                fetching = watch.each("data", images)
                for whole, rows, fetched in zip(chosen, mine, fetching, strict=True):
                    strong = step >= policy_start * steps
                    noise = _noise(seed, pool.example[rows], method.views)
                    with watch("data"):
                        x = augment(
                            fetched,
                            noise.fold_in(AUGMENT).fold_in(epoch),
                            crop_padding=crop_padding,
                            flip=flip,
                            cutout=cutout if strong else 0,
                            policy=policy if strong else "none",
                        ).contiguous(memory_format=layout)
                    y = pool.labels[rows].repeat(method.views)
                    smoothed = _smoothed(y, classes, label_smoothing) if label_smoothing else None
                    batch = Batch(x, y, pool.example[rows].repeat(method.views), smoothed)
                    first = first or (batch, noise)
                    for _ in range(method.replays):
                        rate = learning_rate * multiplier(
                            schedule,
                            step / steps,
                            milestones=milestones,
                            factor=factor,
                            peak_share=peak_share,
                            warmup=warmup,
                        )
                        for group in stepper.param_groups:
                            group["lr"] = rate
                        rates.append(rate)
                        batch = batch._replace(progress=step / steps)
                        drawn_now = noise.fold_in(CRAFT).fold_in(step)
                        shared = processes.sharing(take_step, len(whole))
                        update_weights = watch.timed("update", shared)
                        with watch("attack"):
                            x_adv, terms = micro.step(update_weights, model, batch, ball, drawn_now)
                        step += 1
                        with watch("update"):
                            method.after_step(batch, x_adv.detach(), x_adv.grad, ball)
                            processes.remember(method, pool.example[whole])
                            average.after_step(model, step / steps)

                        # Read once per epoch: reading now would stall the device at every step.
                        losses.append(terms.total.detach())
                        for name, part in terms.parts.items():
                            parts[name].append(part.detach())
                        correct.append((predictions(terms.logits.detach()) == batch.y).sum())
                        sizes.append(len(whole) * method.views)
                        cost, evaluated = micro.cost(), EVALUATIONS[update_now]
                        forward += len(x) * (cost.crafting.forward + evaluated * cost.loss.forward)
                        backward += len(x) * (
                            cost.crafting.backward + evaluated * cost.loss.backward
                        )

            processes.add_up([*losses, *(one for part in parts.values() for one in part), *correct])
            cause = _cause_of_collapse(torch.stack(losses).cpu(), rates, model, epoch)
            if cause:
                model.load_state_dict(last)
                return ended("collapsed", cause)

            clean = partial(_clean, pool, len(ids), batch_size)
            with computing("float32"):
                average.after_epoch(model, step / steps, clean, processes)
            row: dict[str, float] = {
                "epoch": epoch,
                "learning_rate": rates[-1],
                "loss": _mean(losses, sizes),
                **{f"loss_{name}": _mean(part, sizes) for name, part in parts.items()},
                "train_accuracy": int(torch.stack(correct).sum()) / sum(sizes),
                **method.measures(),
                "examples_seen": epoch * sum(sizes) // method.views,
                "forward_passes": round(processes.added(forward)),
                "backward_passes": round(processes.added(backward)),
            }
            if epoch % validate_every == 0 or epoch == passes_over_data:
                with watch("validation"), computing("float32"):
                    row |= _validate(
                        average.model,
                        data.validation,
                        threat,
                        seed,
                        device,
                        validation_steps,
                        micro.size or batch_size,
                        processes,
                    )
            if method.per_example and processes.writes:
                save_weights(_values_of(workspace, epoch), method.example_values())
            history.append(row)
            if first is not None:
                batch, noise = processes.together(*first, len(chosen[0]), method.views)
                noise = noise.fold_in(CHECK).fold_in(epoch)
                with watch("validation"), computing("float32"):
                    cause = processes.agreed(method.after_epoch(model, batch, row, ball, noise))
            spent = measured(watch.read(), sum(sizes), device)
            if on_measure is not None and processes.writes:
                on_measure(spent)
            if cause:
                report(row)
                model.load_state_dict(last)
                return ended("stopped", f"{cause}; the weights kept are those before that epoch")

            current = _copy(model)
            last = _copy(average.model) if averaging != "none" else current
            # Without a validation split, the last epoch is the best that is known.
            score = row.get("validation_robust_accuracy", row.get("validation_clean_accuracy"))
            if score is None and len(data.validation) == 0:
                best, best_epoch = last, epoch
            elif score is not None and score > best_score:
                best, best_epoch, best_score = last, epoch, score

            save()
            report(row)
        model.load_state_dict(last)
        return ended("finished")


def _pool(data: TrainingData, with_extra: bool) -> Split:
    """The labelled examples, and after them the extra ones: one tensor to draw rows from."""
    if data.extra is None or not with_extra:
        return data.train
    parts = (data.train, data.extra)
    return Split(
        torch.cat([part.images for part in parts]),
        torch.cat([part.labels for part in parts]),
        torch.cat([part.example for part in parts]),
    )


def _classes(model: nn.Module, image: Tensor) -> int:
    """How many logits the network has."""
    with torch.no_grad(), crafting(model):
        return int(model(image).shape[1])


def _noise(seed: int, examples: Tensor, views: int) -> Noise:
    """Random numbers of the rows of a minibatch: those of its examples, view after view."""
    return Noise(seed, torch.cat([examples + view * VIEW for view in range(views)]))


def _augmenting(seed: int, examples: Tensor, views: int, epoch: int, rows: Tensor) -> Noise:
    """Random numbers of what an epoch's augmentation does to some rows, view after view."""
    return _noise(seed, examples[rows], views).fold_in(AUGMENT).fold_in(epoch)


def _smoothed(y: Tensor, classes: int, smoothing: float) -> Tensor:
    """(N, K) probabilities: the label's, with a share of the uniform distribution."""
    return F.one_hot(y, classes).float().mul_(1 - smoothing).add_(smoothing / classes)


def _clean(pool: Split, count: int, batch_size: int) -> Iterator[Tensor]:
    """The labelled training images as they are, batch by batch."""
    device = pool.labels.device
    rows = torch.split(torch.arange(count, device=device), batch_size)
    for images in fetch(pool.stored, rows, noise_of=None, device=device):
        yield images.float().div_(255)


def _values_of(workspace: Path, epoch: int) -> Path:
    return workspace / "examples" / f"{epoch}.safetensors"


def _example_values(workspace: Path, epochs: int) -> dict[str, Tensor]:
    """What the method kept per example, epoch below epoch."""
    found = [load_weights(_values_of(workspace, epoch)) for epoch in range(1, epochs + 1)]
    for epoch, values in enumerate(found, start=1):
        values["epoch"] = torch.full_like(values["example"], epoch)
    names = found[0] if found else ()
    return {name: torch.cat([values[name] for values in found]) for name in names}


def _validate(
    model: nn.Module,
    split: Split,
    threat: ThreatModel | None,
    seed: int,
    device: torch.device,
    steps: int,
    batch_size: int,
    processes: Processes,
) -> dict[str, float]:
    """Measure the accuracies that select the best epoch; the same starts at every epoch."""
    clean, robust = [], []
    model.eval()
    mine = processes.share(torch.arange(len(split)))
    chosen = torch.split(mine, max(batch_size // processes.count, 1))
    images = fetch(split.stored, chosen, noise_of=None, device=device)
    for rows, fetched in zip(chosen, images, strict=True):
        example, y = split.example[rows].to(device), split.labels[rows].to(device)
        x = augment(fetched, Noise(seed, example), crop_padding=0, flip=False)
        with torch.no_grad():
            clean.append(predictions(model(x)) == y)
        if threat is not None and steps > 0:
            x_adv = ascend(
                model,
                x,
                threat.random_start(x, Noise(seed, example).fold_in(VALIDATE)),
                partial(cross_entropy, y=y),
                threat,
                steps=steps,
                step_size=step_size("epsilon/4", threat.epsilon),
            )
            with torch.no_grad():
                robust.append(predictions(model(x_adv)) == y)
    measured = {"validation_clean_accuracy": clean, "validation_robust_accuracy": robust}
    return {
        name: int(processes.added(int(torch.cat(correct).sum()))) / len(split)
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
    # One kernel for all weights, where launching one each would cost more than it computes.
    fused = all(weight.is_cuda for weight in decayed)
    # The learning rate is set at every step.
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=nesterov, fused=fused)
    if name == "adam" and not nesterov:
        return torch.optim.Adam(groups, lr=0.0, betas=(momentum, 0.999), fused=fused)
    if name == "adam":
        raise ValueError("nesterov is for the optimizer sgd, got it with adam; set one of the two")
    raise ValueError(f"optimizer {name!r} is unknown; expected sgd or adam")


def _settings(arguments: dict[str, Any]) -> dict[str, str]:
    """Say in words what decides the bits of a run: a resumed one must agree in all of it."""
    model, data, device = arguments["model"], arguments["data"], arguments["device"]
    apart = ("model", "data", "workspace", "on_epoch", "on_measure", "device", "processes")
    shapes = {name: (tuple(t.shape), t.dtype) for name, t in model.state_dict().items()}
    count = arguments["processes"].count
    content = hashlib.sha256()
    for split in (data.train, data.validation, *([data.extra] if data.extra else [])):
        for part in (split.example, split.labels):
            content.update(part.cpu().numpy().tobytes())
    return {name: repr(value) for name, value in arguments.items() if name not in apart} | {
        "model": hashlib.sha256(repr(shapes).encode()).hexdigest()[:16],
        "data": content.hexdigest()[:16],
        "device": device.type if count == 1 else f"{count} x {device.type}",
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
