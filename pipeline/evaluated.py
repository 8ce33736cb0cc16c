"""What an attack or a certificate is run on, and what its rows say of their origin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from advtrain.data.store import load_description, load_split
from advtrain.training.checkpoint import load_weights
from pipeline.plugins import build_model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from torch import nn

    from advtrain.data.store import Split
    from pipeline.job import Job


def trained_model(job: Job) -> nn.Module:
    """Return the cell's model with the weights that the parameters name, on the CPU."""
    facts = load_description(job.input_folder("prepare"))
    model = build_model(job.params["model"], facts)
    model.load_state_dict(load_weights(job.input("train", _weights(job))))
    return model


def chosen_examples(job: Job, key: str) -> Split:
    """Return the test split, or as much of it as the study asks for.

    Args:
        job: an evaluation.
        key: what the number of examples is called in the study's part of `params.yaml`.

    Raises:
        ValueError: if there are not so many.
    """
    test = load_split(job.input_folder("prepare"), "test")
    wanted = job.params["examples"]
    if wanted and wanted > len(test):
        raise ValueError(
            f"params.yaml: studies.{job.study}.{key}: {wanted}, "
            f"but the test split has {len(test)} examples"
        )
    return test.take(slice(wanted)) if wanted else test


def stamps(job: Job, kind: str) -> dict[str, str]:
    """Return the stamps of the rows.

    Args:
        job: an evaluation.
        kind: the parameter that says what is run: `attack` or `certificate`.
    """
    trained = job.input_manifest("train")
    (checkpoint,) = (
        found["sha256"]
        for path, found in trained["outputs"].items()
        if path.endswith(f"/{_weights(job)}")
    )
    return {
        "cell_key": trained["key"],
        "attack_key": job.spec["key"],
        "data": job.input_digest("prepare"),
        "checkpoint": checkpoint,
        "code": job.spec["code_digest"],
        "protocol": protocol(job.params, kind),
        "study": job.study,
    }


def protocol(params: Mapping[str, Any], kind: str) -> str:
    """Say in words what was done, as a table's caption needs it."""
    run, threat = params[kind], params["threat"]
    values = ", ".join(f"{name}={value}" for name, value in run["parameters"].items())
    budget = "" if threat["epsilon"] is None else f" {threat['epsilon']:.6g}"
    examples = params["examples"] or "all"
    return (
        f"{run['module']}({values}), {threat['norm']}{budget}, "
        f"{params['weights']} weights, eval mode, float32, {examples} test examples, "
        f"seed {params['seed']}"
    )


def _weights(job: Job) -> str:
    return f"{job.params['weights']}.safetensors"
