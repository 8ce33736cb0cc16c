"""`advtrain export` of a user's own network, and of what cannot be found."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from advtrain.export_command import ExportError, code, copy_own_files, locate
from advtrain.models.external import external

ROOT = Path(__file__).resolve().parents[1]
OWN = Path(__file__).parent / "models"
FACTS = {"channels": 1, "size": 8, "classes": list("0123456789")}


def test_a_network_of_ones_own_goes_along_with_its_files(tmp_path: Path) -> None:
    given = {"file": str(OWN / "own_network.py"), "build": "build", "mean": [0.5], "std": [0.25]}
    model = {"module": "external", "parameters": {**given, "normalisation": "none"}}
    copy_own_files(ROOT, model, tmp_path)
    assert sorted(path.name for path in (tmp_path / "code").iterdir()) == [
        "own_blocks.py",
        "own_network.py",
    ]
    original = external(channels=1, size=8, classes=10, **model["parameters"]).eval()
    save_file(original.state_dict(), tmp_path / "model.safetensors")
    moved = Path(shutil.move(tmp_path, f"{tmp_path}-moved"))
    alone: dict[str, Any] = {"__file__": str(moved / "model.py")}
    exec(code(ROOT, model, FACTS), alone)  # what `python model.py` does
    images = torch.linspace(0, 1, 3 * 64).reshape(3, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(alone["load"]()(images), original(images))


def test_a_cell_is_found_by_its_name_or_with_its_study(tmp_path: Path) -> None:
    for cell in ("one/trades-linf-0.1-s0", "two/trades-linf-0.1-s0", "two/natural-s0"):
        path = tmp_path / "results/train" / cell / "manifest.json"
        path.parent.mkdir(parents=True)
        path.touch()
    assert locate(tmp_path, "natural-s0") == ("two", "natural-s0")
    assert locate(tmp_path, "one/trades-linf-0.1-s0") == ("one", "trades-linf-0.1-s0")
    with pytest.raises(ExportError, match=r"one/trades-linf-0.1-s0, two/trades-linf-0.1-s0; name"):
        locate(tmp_path, "trades-linf-0.1-s0")
    with pytest.raises(ExportError, match="did you mean 'natural-s0'"):
        locate(tmp_path, "naturel-s0")
    with pytest.raises(ExportError, match="did you mean 'two/natural-s0'"):
        locate(tmp_path, "two/natural-s1")
