"""Look at one cell's gradients and losses: weights and test examples -> one row per example."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from advtrain.data.store import load_description, load_split
from advtrain.evaluation.landscape import REACH, landscapes
from advtrain.evaluation.probe import probe
from advtrain.results.images import class_name
from advtrain.results.landscapes import write_landscapes
from advtrain.results.probes import write_probes
from advtrain.threat import ThreatModel
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
    test = load_split(job.input_folder("prepare"), "test")
    probed = test.take(slice(params["examples"]))
    model = trained_model(job).to(device)
    columns = probe(
        model,
        probed,
        device,
        job.unkeyed["batch_size"],
        lambda done: job.progress.update(epoch=done, epochs=len(probed)),
    )
    described = {
        "what": "gradients at the clean images, evaluated twice",
        "weights": params["weights"],
        "mode": "eval",
        "precision": "float32",
        "tf32": False,
        "examples": f"the first {len(probed)} of the test split",
    }
    write_probes(
        job.output("probes.parquet"), {"cell": params["cell"], **columns}, stamps(job, described)
    )
    pictured = test.take(slice(params["pictured"]))
    around = landscapes(model, pictured, ThreatModel(**params["threat"]), device)
    classes = load_description(job.input_folder("prepare"))["classes"]
    write_landscapes(
        job.output("landscapes.parquet"),
        {
            **around,
            "image": pictured.images.numpy(),
            "label_name": np.array([class_name(classes, one) for one in around["label"].tolist()]),
        },
        {"cell": params["cell"], "reach": REACH, **params["threat"]},
        stamps(
            job,
            {
                **described,
                "what": "loss along the gradient and across it",
                "examples": f"the first {len(pictured)} of the test split",
            },
        ),
    )
