"""Train one cell: prepared data -> checkpoints and the history of its epochs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch

from advtrain.data.store import load_description, load_split
from advtrain.results.history import write_history
from advtrain.threat import ThreatModel
from advtrain.training.checkpoint import save_weights
from advtrain.training.loop import TrainingData, train
from pipeline.plugins import load

if TYPE_CHECKING:
    from pipeline.job import Job


def run(job: Job) -> None:
    """Train the cell, or continue where a killed run of it stopped."""
    params = job.params
    torch.set_num_threads(1)
    device = choose_device(job.unkeyed["device"])
    folder = job.input_folder("prepare")
    facts = load_description(folder)
    # The split file of the test examples is never opened here.
    data = TrainingData(load_split(folder, "train"), load_split(folder, "validation"))
    torch.manual_seed(params["seed"])
    model = load("models", params["model"]["module"])(
        channels=facts["channels"],
        size=facts["size"],
        classes=len(facts["classes"]),
        **params["model"]["parameters"],
    )
    method = load("methods", params["method"]["module"])(**params["method"]["parameters"])
    threat = ThreatModel(**params["threat"]) if params["threat"] else None
    recipe = params["recipe"]["parameters"]
    trained = train(
        model,
        method,
        threat,
        data,
        params["seed"],
        job.workspace,
        lambda row: job.progress.epoch(row, -(-recipe["epochs"] // method.replays)),
        device,
        **recipe,
    )
    save_weights(job.output("last.safetensors"), trained.last)
    save_weights(job.output("best.safetensors"), trained.best)
    write_history(job.output("history.parquet"), trained.history)
    final = trained.history[-1] if trained.history else {}
    summary = {
        "status": trained.status,
        "cause": trained.cause,
        "best_epoch": trained.best_epoch,
        "epochs": len(trained.history),
        "forward_passes": final.get("forward_passes", 0),
        "backward_passes": final.get("backward_passes", 0),
        "examples": len(data.train),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    job.output("summary.json").write_text(
        json.dumps(summary, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )


def choose_device(wanted: str) -> torch.device:
    """Return the device: `auto` is the GPU where there is one.

    Raises:
        ValueError: if `cuda` is asked for and there is none.
    """
    found = torch.cuda.is_available()
    if wanted == "cuda" and not found:
        raise ValueError(
            "params.yaml: device: cuda, but torch finds no CUDA device; "
            "use auto or cpu, or check the driver with nvidia-smi"
        )
    return torch.device("cuda" if found and wanted != "cpu" else "cpu")
