"""A model's code as one file: it builds the same network without the package."""

from pathlib import Path
from typing import Any

import pytest
import torch

from advtrain.standalone import files, standalone
from pipeline.plugins import load

ROOT = Path(__file__).resolve().parents[2]
SMALL: dict[str, dict[str, Any]] = {
    "small_cnn": {"width": 4, "normalisation": "per_image"},
    "preact_resnet": {"depth": 10, "width": 4, "normalisation": "cifar10"},
    "wide_resnet": {"depth": 10, "widen": 1},
    "resnet": {"depth": 18, "normalisation": "imagenet"},
}
"""Every model but the user's own, whose file an export takes along."""


def test_all_models_are_here() -> None:
    plugins = {path.stem for path in (ROOT / "src/advtrain/models").glob("*.py")}
    assert plugins == {*SMALL, "external", "__init__", "normalisation", "residual"}


@pytest.mark.parametrize("module", SMALL)
def test_the_same_network_without_the_package(module: str) -> None:
    source = standalone(ROOT, module)
    assert "advtrain" not in source
    alone: dict[str, Any] = {}
    exec(source, alone)  # what `python model.py` does
    facts = {"channels": 3, "size": 16, "classes": 5, **SMALL[module]}
    model, copy = load("models", module)(**facts).eval(), alone[module](**facts).eval()
    copy.load_state_dict(model.state_dict())
    images = torch.linspace(0, 1, 2 * 3 * 256).reshape(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(copy(images), model(images), rtol=0, atol=0)


def test_what_is_imported_comes_first() -> None:
    assert files(ROOT, "preact_resnet") == (
        "src/advtrain/models/normalisation.py",
        "src/advtrain/models/residual.py",
        "src/advtrain/models/preact_resnet.py",
    )


def test_quantities_are_types_and_docstrings_stay() -> None:
    source = standalone(ROOT, "small_cnn")
    assert "width: int = 16" in source
    assert "Stack one convolution at full size" in source
    assert source.count("from torch import") == 1
