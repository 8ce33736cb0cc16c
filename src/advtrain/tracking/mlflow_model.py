"""An exported network as an MLflow model: a traced program, which runs without its code."""

import importlib.util
import json
import logging
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np


def save_mlflow_model(folder: Path, told: Mapping[str, str]) -> Path:
    """Write the MLflow model of an export.

    Args:
        folder: of the export; gets the model in `mlflow`.
        told: what MLflow is to keep beside it, by name.

    Returns:
        The model's folder: for `mlflow.pytorch.load_model` and `mlflow.pyfunc.load_model`.
    """
    import mlflow.pytorch

    _, channels, height, width = json.loads((folder / "config.json").read_text())["input"]["shape"]
    # A batch of two: torch.export takes a dimension of one for a constant.
    example = np.zeros((2, channels, height, width), dtype=np.float32)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pytorch.save_model(
            _network(folder / "model.py"),
            folder / "mlflow",
            input_example=example,
            serialization_format="pt2",
            pip_requirements=[_pinned(name) for name in ("torch", "numpy")],
            metadata=dict(told),
        )
    return folder / "mlflow"


def _network(path: Path) -> Any:
    """Run the exported code, as its user would, and return the network with its weights."""
    spec = importlib.util.spec_from_file_location("exported_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load()


def _pinned(package: str) -> str:
    """Name a package's version as an index knows it, without the build (`2.11.0+cu128`)."""
    return f"{package}=={metadata.version(package).partition('+')[0]}"
