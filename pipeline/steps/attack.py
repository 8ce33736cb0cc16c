"""Attack one cell with one attack: a checkpoint and the test split -> one row per example."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from advtrain.evaluation.evaluate import evaluate
from advtrain.results.outcomes import write_outcomes
from advtrain.threat import ThreatModel
from pipeline.evaluated import chosen_examples, stamps, trained_model
from pipeline.plugins import load
from pipeline.torch_device import choose_device

if TYPE_CHECKING:
    from pipeline.job import Job


def run(job: Job) -> None:
    """Evaluate the weights that the parameters name, and write the rows with their stamps."""
    params = job.params
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    device = choose_device(job.unkeyed["device"])
    test = chosen_examples(job, "attack_examples")
    threat = ThreatModel(**params["threat"])
    attack = partial(load("attacks", params["attack"]["module"]), **params["attack"]["parameters"])
    columns = evaluate(
        trained_model(job).to(device),
        attack,
        threat,
        test,
        params["seed"],
        device,
        job.unkeyed["batch_size"],
        lambda done: job.progress.update(epoch=done, epochs=len(test)),
    )
    rows = len(columns["example"])
    write_outcomes(
        job.output("outcomes.parquet"),
        {
            "cell": np.full(rows, params["cell"]),
            "attack": np.full(rows, params["evaluation"]),
            "norm": np.full(rows, threat.norm),
            "epsilon": np.full(rows, threat.epsilon),
            **columns,
        },
        stamps(job, "attack"),
    )
