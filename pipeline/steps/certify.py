"""Certify one cell with one certificate: a checkpoint and the test split -> one row per example."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from advtrain.evaluation.certify import certify
from advtrain.results.certified import write_certified
from advtrain.threat import ThreatModel
from pipeline.evaluated import chosen_examples, described, stamps, trained_model
from pipeline.plugins import load
from pipeline.torch_device import choose_device

if TYPE_CHECKING:
    from pipeline.job import Job


def run(job: Job) -> None:
    """Certify the weights that the parameters name, and write the rows with their stamps."""
    params = job.params
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    device = choose_device(job.unkeyed["device"])
    test = chosen_examples(job, "certify_examples")
    asked = params["threat"]["epsilon"] is not None
    entry = params["certificate"]
    columns = certify(
        trained_model(job).to(device),
        partial(load("certificates", entry["module"]), **entry["parameters"]),
        ThreatModel(**params["threat"]) if asked else None,
        test,
        params["seed"],
        device,
        job.unkeyed["batch_size"],
        lambda done: job.progress.update(epoch=done, epochs=len(test)),
    )
    write_certified(
        job.output("certified.parquet"),
        {
            "cell": params["cell"],
            "certificate": params["evaluation"],
            **params["threat"],
            **columns,
        },
        stamps(job, described(job, "certificate")),
    )
