"""`advtrain export` on a finished study: what plain PyTorch and MLflow make of the folder."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from advtrain.data.store import load_split
from advtrain.results.files import read_table, write_table
from tests.pipeline.workspace import Workspace

pytestmark = pytest.mark.workflow

CELL = "trades-linf-0.2-s0"

ALONE = """
import sys

sys.modules["advtrain"] = sys.modules["pipeline"] = None  # an import of either fails
import numpy
import torch
from model import load

images = torch.from_numpy(numpy.load(sys.argv[1]))
network = load()
numpy.save(sys.argv[2], network(images).detach().numpy())
"""

BY_MLFLOW = """
import sys

sys.modules["advtrain"] = sys.modules["pipeline"] = None
import mlflow
import numpy
import torch

images = numpy.load(sys.argv[1])
network = mlflow.pytorch.load_model("mlflow")
x = torch.from_numpy(images).requires_grad_()
logits = network(x)
logits.sum().backward()
assert x.grad.abs().sum() > 0  # it can be attacked
numpy.save(sys.argv[2], logits.detach().numpy())
numpy.save(sys.argv[3], mlflow.pyfunc.load_model("mlflow").predict(images))
"""


def images(workspace: Workspace) -> np.ndarray:
    """Return the test images as a user would have them, in the order of the rows."""
    split = load_split(workspace.root / "data/prepared/digits", "test")
    order = split.example.argsort()
    return split.images[order].numpy() / np.float32(255)


def run_alone(script: str, folder: Path, *arguments: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)


def predictions(workspace: Workspace) -> list[int]:
    rows = read_table(workspace.root / "results/collect/tiny/outcomes.parquet").to_pylist()
    return [
        row["clean_prediction"]
        for row in rows
        if (row["cell"], row["attack"]) == (CELL, "fgsm-linf-0.2")
    ]


def test_plain_pytorch_and_mlflow_predict_what_the_rows_say(
    workspace: Workspace, tmp_path: Path
) -> None:
    workspace.run("advtrain", "export", CELL, "--mlflow")
    folder = workspace.root / "exports/tiny" / CELL
    x, logits, traced, served = (tmp_path / f"{n}.npy" for n in ("x", "logits", "traced", "served"))
    np.save(x, images(workspace))
    run_alone(ALONE, folder, x, logits)
    expected = predictions(workspace)
    assert len(set(expected)) > 2
    assert np.load(logits).argmax(1).tolist() == expected
    run_alone(BY_MLFLOW, folder, x, traced, served)
    for found in (traced, served):
        np.testing.assert_allclose(np.load(found), np.load(logits), rtol=1e-4, atol=1e-5)
    card = (folder / "README.md").read_text()
    told = json.loads((folder / "config.json").read_text())
    assert told["sha256"] in card
    assert told["classes"] == list("0123456789")
    assert "from model import load" in card
    assert 'mlflow.pytorch.load_model("mlflow")' in card


def test_a_folder_in_use_is_left_alone(workspace: Workspace) -> None:
    folder = workspace.root / "kept"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    told = workspace.run("advtrain", "export", CELL, "--out", "kept", fails=True).stderr
    assert "is in use" in told
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_collapsed_cell_is_exported_as_one_or_not_at_all(workspace: Workspace) -> None:
    path = workspace.root / "results/collect/tiny/cells.parquet"
    cells = read_table(path)
    rows = cells.to_pylist()
    for row in rows:
        if row["cell"] == CELL:
            row |= {"status": "collapsed", "cause": "loss is not finite at epoch 2"}
    write_table(path, pa.Table.from_pylist(rows, cells.schema))
    told = workspace.run("advtrain", "export", CELL, fails=True).stderr
    assert "collapsed: loss is not finite at epoch 2" in told
    assert not (workspace.root / "exports").exists()
    workspace.run("advtrain", "export", CELL, "--collapsed")
    card = (workspace.root / "exports/tiny" / CELL / "README.md").read_text()
    assert card.index("> **collapsed") < card.index("## Loading")


def test_what_is_not_of_one_piece_is_refused(workspace: Workspace) -> None:
    weights = workspace.root / "checkpoints/tiny" / CELL / "last.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + b"x")
    assert "other bytes" in workspace.run("advtrain", "export", CELL, fails=True).stderr
    weights.unlink()
    assert "dvc pull" in workspace.run("advtrain", "export", CELL, fails=True).stderr
    weights.write_bytes(kept)
    model = workspace.root / "src/advtrain/models/small_cnn.py"
    model.write_text(model.read_text().replace("padding=1", "padding=0 + 1"))
    assert "has changed since" in workspace.run("advtrain", "export", CELL, fails=True).stderr
    told = workspace.run("advtrain", "export", "trade-linf-0.2-s0", fails=True).stderr
    assert f"did you mean '{CELL}'" in told
