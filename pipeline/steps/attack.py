"""Attack one cell with one attack: a checkpoint and the test split -> one row per example."""

from __future__ import annotations

import importlib
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.numpy import save_file

from advtrain.evaluation.evaluate import evaluate
from advtrain.provenance import hash_json
from advtrain.results.outcomes import write_outcomes
from advtrain.threat import TRANSFORMATIONS, ThreatModel, Transformation
from pipeline.evaluated import chosen_examples, described, stamps, trained_model
from pipeline.plugins import load
from pipeline.torch_device import choose_device

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from advtrain.attacks.attack import Attack
    from pipeline.job import Job


def run(job: Job) -> None:
    """Evaluate the weights that the parameters name, and write the rows with their stamps.

    A killed run goes on after its last batch.
    """
    params = job.params
    torch.set_num_threads(1)
    # What torch has no deterministic kernel for on CUDA may be in a network that is not ours, and
    # is in `flow` (the gradient of grid_sample): a warning in the log, not an error that ends it.
    foreign = params["model"]["module"] == "external" or params["attack"]["module"] == "flow"
    torch.use_deterministic_algorithms(True, warn_only=foreign)
    device = choose_device(job.unkeyed["device"])
    test = chosen_examples(job, "attack_examples")
    free = params["threat"]["norm"] in TRANSFORMATIONS
    threat = Transformation(**params["threat"]) if free else ThreatModel(**params["threat"])
    kept = kept_images(job, tuple(test.images.shape))
    model = trained_model(job).to(device, memory_format=torch.channels_last)
    columns = evaluate(
        model,
        bound_attack(job, threat, device),
        threat,
        test,
        params["seed"],
        device,
        job.unkeyed["batch_size"],
        lambda done: job.progress.update(epoch=done, epochs=len(test)),
        precision=params["precision"],
        unfinished=job.workspace / "rows.npz",
        adversarial=kept,
    )
    protocol = described(job, "attack")
    write_outcomes(
        job.output("outcomes.parquet"),
        {
            "cell": params["cell"],
            "attack": params["evaluation"],
            "protocol": hash_json(protocol)[:16],
            "norm": threat.norm,
            "epsilon": threat.epsilon,
            **columns,
        },
        stamps(job, protocol),
    )
    if kept is not None:
        stored = {"x_adv": np.asarray(kept), "example": columns["example"]}
        save_file(stored, job.output("adversarial.safetensors"))


def bound_attack(job: Job, threat: ThreatModel | Transformation, device: torch.device) -> Attack:
    """Return the attack with its parameters; an ensemble in its stages."""
    entry = job.params["attack"]
    module = importlib.import_module(f"advtrain.attacks.{entry['module']}")
    if hasattr(module, "ensemble"):
        found: Attack = module.ensemble(threat, **entry["parameters"])
        return found
    attack = partial(load("attacks", entry["module"]), **entry["parameters"])
    if "source" in job.spec["roles"]:
        source = trained_model(job, "source").to(device, memory_format=torch.channels_last)
        attack = partial(attack, source=source)
    return attack


def kept_images(
    job: Job, shape: tuple[int, ...]
) -> NDArray[np.float32] | NDArray[np.float16] | None:
    """Map the file of the attacked images, which outlives a kill; None if none are asked for."""
    kind = job.params["adversarial"]
    if kind is None:
        return None
    path = job.workspace / "adversarial.npy"
    if path.exists():
        return np.lib.format.open_memmap(path, mode="r+")
    return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
