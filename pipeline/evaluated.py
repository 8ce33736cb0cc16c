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


def trained_model(job: Job, role: str | None = None) -> nn.Module:
    """Return the cell's model with the weights that the parameters name, on the CPU.

    Args:
        job: an evaluation.
        role: of the cell whose last weights are meant instead (`source`).
    """
    facts = load_description(job.input_folder("prepare"))
    model = build_model(job.params["model"], facts)
    path = job.role(role, "last.safetensors") if role else job.cell_file(_weights(job))
    model.load_state_dict(load_weights(path))
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


def stamps(job: Job, protocol: Mapping[str, Any]) -> dict[str, str]:
    """Return the stamps of the rows.

    Args:
        job: an evaluation.
        protocol: how it is made.
    """
    trained = job.cell_manifest()
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
        "protocol": in_words(protocol),
        "study": job.study,
    }


def described(job: Job, kind: str) -> dict[str, Any]:
    """Return the protocol: all that two evaluations have to share to be compared.

    Args:
        job: an evaluation.
        kind: the parameter that says what is run: `attack` or `certificate`.
    """
    params = job.params
    run = params[kind]
    total = load_description(job.input_folder("prepare"))["counts"]["test"]
    precision = params.get("precision", "float32")
    return {
        kind: {"module": run["module"], "parameters": run["parameters"]},
        "threat": params["threat"],
        "weights": params["weights"],
        "mode": "eval",
        "precision": precision,
        "tf32": precision == "tf32",
        "verdict": "float32 without TF32, re-checked at another batch size",
        "examples": params["examples"] or total,
        "of": total,
        "sampling": "the first of the test split",
        "seed": params["seed"],
    }


def in_words(protocol: Mapping[str, Any]) -> str:
    """Say in words what was done, as a table's caption needs it."""
    run = protocol.get("attack") or protocol.get("certificate")
    if run is None:
        return ", ".join(f"{name}: {value}" for name, value in protocol.items())
    threat = protocol["threat"]
    values = ", ".join(f"{name}={value}" for name, value in run["parameters"].items())
    budget = "" if threat["epsilon"] is None else f" {threat['epsilon']:.6g}"
    return (
        f"{run['module']}({values}), {threat['norm']}{budget}, "
        f"{protocol['weights']} weights, {protocol['mode']} mode, {protocol['precision']}, "
        f"the first {protocol['examples']} of {protocol['of']} test examples, "
        f"seed {protocol['seed']}"
    )


def _weights(job: Job) -> str:
    return f"{job.params['weights']}.safetensors"
