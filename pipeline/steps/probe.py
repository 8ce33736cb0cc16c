"""Look at one cell's gradients: a checkpoint and some test examples -> one row per example."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from advtrain.data.store import load_split
from advtrain.evaluation.probe import probe
from advtrain.results.probes import write_probes
from pipeline.evaluated import stamps, trained_model
from pipeline.torch_device import choose_device

if TYPE_CHECKING:
    from pipeline.job import Job


def run(job: Job) -> None:
    """Probe the weights that the parameters name, and write the rows with their stamps."""
    params = job.params
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=params["model"]["module"] == "external")
    device = choose_device(job.unkeyed["device"])
    test = load_split(job.input_folder("prepare"), "test").take(slice(params["examples"]))
    columns = probe(
        trained_model(job).to(device),
        test,
        device,
        job.unkeyed["batch_size"],
        lambda done: job.progress.update(epoch=done, epochs=len(test)),
    )
    described = {
        "what": "gradients at the clean images, evaluated twice",
        "weights": params["weights"],
        "mode": "eval",
        "precision": "float32",
        "tf32": False,
        "examples": f"the first {len(test)} of the test split",
    }
    write_probes(
        job.output("probes.parquet"), {"cell": params["cell"], **columns}, stamps(job, described)
    )
