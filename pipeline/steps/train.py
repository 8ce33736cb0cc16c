"""Train one cell: prepared data -> checkpoints and the history of its epochs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import torch

from advtrain.data.store import load_description, load_split
from advtrain.results.files import write_table
from advtrain.results.history import write_history
from advtrain.threat import ThreatModel
from advtrain.training.checkpoint import load_weights, save_weights
from advtrain.training.distributed import ALONE
from advtrain.training.extra_data import pseudo_label
from advtrain.training.loop import TrainingData, train
from advtrain.training.pretrained import start_from
from advtrain.training.randomness import reproducible
from pipeline.plugins import build_model, load
from pipeline.torch_device import choose_device

if TYPE_CHECKING:
    from torch import Tensor, nn

    from advtrain.data.store import Split
    from advtrain.training.distributed import Processes
    from pipeline.job import Job


def run(job: Job, processes: Processes = ALONE) -> None:
    """Train the cell, or continue where a killed run of it stopped.

    Args:
        job: of the cell.
        processes: that train it together, each of which makes this call; the first one writes.
    """
    params = job.params
    torch.set_num_threads(1)
    device = choose_device(job.unkeyed["device"])
    folder = job.input_folder("prepare")
    # The split file of the test examples is never opened here.
    raw = job.root / job.unkeyed["raw_data"]  # where photographs lie that are decoded as we go
    data = TrainingData(
        load_split(folder, "train", raw=raw),
        load_split(folder, "validation", raw=raw),
        extra_data(job, device),
    )
    torch.manual_seed(params["seed"])
    model = initial_model(job)
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
        job.progress.measure,
        processes,
        **recipe,
    )
    if not processes.writes:
        return
    save_weights(job.output("last.safetensors"), trained.last)
    save_weights(job.output("best.safetensors"), trained.best)
    write_history(job.output("history.parquet"), trained.history)
    if method.per_example:
        table = example_table(method.per_example, trained.example_values)
        write_table(job.output("examples.parquet"), table)
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


def initial_model(job: Job) -> nn.Module:
    """Return the model to train: with fresh weights, another cell's last, or published ones."""
    facts = load_description(job.input_folder("prepare"))
    model = build_model(job.params["model"], facts)
    start = job.params["start"]
    if start == "last":
        model.load_state_dict(upstream_weights(job, "start"))
    elif start is not None:
        try:
            start_from(model, start.removeprefix("torchvision:"))
        except ValueError as error:
            name = job.params["method"]["name"]
            raise ValueError(f"params.yaml: methods.{name}.start: {error}") from None
    return model


def upstream_weights(job: Job, role: str) -> dict[str, Tensor]:
    """Return the last weights of the cell that this one starts from or learns from.

    Raises:
        ValueError: if that training collapsed: its weights are not what their name says.
    """
    summary = json.loads(job.role(role, "summary.json").read_text(encoding="utf-8"))
    if summary["status"] == "collapsed":
        name = job.params["method"]["name"]
        raise ValueError(
            f"params.yaml: methods.{name}: the training that is its {role} collapsed "
            f"({summary['cause']}); lower the learning rate of its recipe, or name another method"
        )
    return load_weights(job.role(role, "last.safetensors"))


def extra_data(job: Job, device: torch.device) -> Split | None:
    """Return the unlabelled split with the labels to learn, or None if the cell uses none.

    The labels are the teacher's, or those that the data came with.

    Raises:
        ValueError: if the data set has nothing to label, or no one labels it.
    """
    params = job.params
    folder = job.input_folder("prepare")
    facts = load_description(folder)
    if params["teacher"] is not None:
        split = load_split(folder, "unlabelled")
        if len(split) == 0:
            raise ValueError(
                f"params.yaml: methods.{params['method']['name']} has a teacher, but the data set "
                f"has no images without labels; set datasets.{params['dataset']}.unlabelled to the "
                "share of the training part to strip of its labels"
            )
        teacher = build_model(params["model"], facts)
        teacher.load_state_dict(upstream_weights(job, "teacher"))
        with reproducible(params["seed"], device):
            return pseudo_label(
                teacher.to(device), split, device, params["recipe"]["parameters"]["batch_size"]
            )
    fraction = params["recipe"]["parameters"]["extra_fraction"]
    if fraction == 0:
        return None
    if not facts["unlabelled_labels"]:
        raise ValueError(
            f"params.yaml: recipes.{params['recipe']['name']}.extra_fraction is {fraction:g}, but "
            f"nothing labels the extra data of {params['dataset']}: give "
            f"methods.{params['method']['name']} a teacher, or use data that come with labels"
        )
    return load_split(folder, "unlabelled")


def example_table(names: tuple[str, ...], values: dict[str, Tensor]) -> pa.Table:
    """Write what a method learnt of each example as columns; without an epoch there are no rows."""
    nothing = torch.empty(0)
    whole = {name: values.get(name, nothing).long().cpu() for name in ("example", "epoch")}
    numbers = {name: values.get(name, nothing).double().cpu() for name in names}
    return pa.table({name: pa.array(found.numpy()) for name, found in (whole | numbers).items()})
