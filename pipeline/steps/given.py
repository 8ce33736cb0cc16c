"""The train step of a cell that is not trained: a file of weights -> checkpoints."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch

from advtrain.data.store import load_description
from advtrain.methods.given import Given
from advtrain.results.history import write_history
from advtrain.training.checkpoint import save_weights
from advtrain.training.state_dicts import WeightsError, load_given
from pipeline.plugins import build_model

if TYPE_CHECKING:
    from pipeline.job import Job


def run(job: Job) -> None:
    """Load the weights into the model; they are its last and its best, after no epoch."""
    params = job.params
    entry = params["method"]
    given = Given(**entry["parameters"])
    if not given.weights and params["model"]["module"] != "external":
        raise ValueError(
            f"params.yaml: methods.{entry['name']}.weights: none are given, and only an external "
            f"model brings its own; {params['model']['name']} would be evaluated untrained"
        )
    torch.set_num_threads(1)
    torch.manual_seed(params["seed"])
    model = build_model(params["model"], load_description(job.input_folder("prepare")))
    part = ""
    if given.weights:
        try:
            part = load_given(model, job.root / given.weights, given.part)
        except WeightsError as error:
            raise ValueError(f"params.yaml: methods.{entry['name']}.weights: {error}") from None
    for file in ("last.safetensors", "best.safetensors"):
        save_weights(job.output(file), model.state_dict())
    write_history(job.output("history.parquet"), [])
    summary = {
        "status": "finished",
        "cause": "",
        "best_epoch": 0,
        "epochs": 0,
        "forward_passes": 0,
        "backward_passes": 0,
        "examples": 0,
        "parameters": sum(p.numel() for p in model.parameters()),
        "part": part,
    }
    job.output("summary.json").write_text(
        json.dumps(summary, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
