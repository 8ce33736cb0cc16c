"""Attack one cell with one attack: a checkpoint and the test split -> one row per example."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from advtrain.data.store import load_description, load_split
from advtrain.evaluation.evaluate import evaluate
from advtrain.results.outcomes import write_outcomes
from advtrain.threat import ThreatModel
from advtrain.training.checkpoint import load_weights
from pipeline.plugins import load

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pipeline.job import Job


def run(job: Job) -> None:
    """Evaluate the weights that the parameters name, and write the rows with their stamps."""
    params = job.params
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    wanted = job.unkeyed["device"]
    use_gpu = torch.cuda.is_available() and wanted != "cpu"
    device = torch.device("cuda" if use_gpu else "cpu")
    folder = job.input_folder("prepare")
    facts = load_description(folder)
    test = load_split(folder, "test")
    if params["examples"]:
        if params["examples"] > len(test):
            raise ValueError(
                f"params.yaml: studies.{job.study}.attack_examples: {params['examples']}, "
                f"but the test split has {len(test)} examples"
            )
        test = test.take(slice(params["examples"]))
    model = load("models", params["model"]["module"])(
        channels=facts["channels"],
        size=facts["size"],
        classes=len(facts["classes"]),
        **params["model"]["parameters"],
    )
    weights = f"{params['weights']}.safetensors"
    model.load_state_dict(load_weights(job.input("train", weights)))
    threat = ThreatModel(**params["threat"])
    attack = partial(load("attacks", params["attack"]["module"]), **params["attack"]["parameters"])
    columns = evaluate(
        model.to(device),
        attack,
        threat,
        test,
        params["seed"],
        device,
        job.unkeyed["batch_size"],
        lambda done: job.progress.update(epoch=done, epochs=len(test)),
    )
    trained = job.input_manifest("train")
    (checkpoint,) = (
        found["sha256"] for path, found in trained["outputs"].items() if path.endswith(weights)
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
        {
            "cell_key": trained["key"],
            "attack_key": job.spec["key"],
            "data": job.input_digest("prepare"),
            "checkpoint": checkpoint,
            "code": job.spec["code_digest"],
            "protocol": protocol(params),
            "study": job.study,
        },
    )


def protocol(params: Mapping[str, Any]) -> str:
    """Say in words what was done, as a table's caption needs it."""
    attack, threat = params["attack"], params["threat"]
    values = ", ".join(f"{name}={value}" for name, value in attack["parameters"].items())
    examples = params["examples"] or "all"
    return (
        f"{attack['module']}({values}), {threat['norm']} {threat['epsilon']:.6g}, "
        f"{params['weights']} weights, eval mode, float32, {examples} test examples, "
        f"seed {params['seed']}"
    )
