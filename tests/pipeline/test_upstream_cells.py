"""Cells that read other cells' weights, and certificates, in the real graph."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipeline.workspace import PARAMS, make_workspace

pytestmark = pytest.mark.workflow

SMALL: dict[str, Any] = {
    **PARAMS,
    "datasets": {"digits": {"train_examples": 200, "test_examples": 40, "unlabelled": 0.2}},
    "recipes": {
        "short": {**PARAMS["recipes"]["short"], "epochs": 2},
        "mixed": {**PARAMS["recipes"]["short"], "epochs": 2, "extra_fraction": 0.5},
    },
    "methods": {
        "natural": {},
        "fgsm_rs": {"step_size": "epsilon"},
        "student": {"module": "trades", "steps": 1, "teacher": "natural", "start": "fgsm_rs"},
    },
    "attacks": {"fgsm": {}},
    "certificates": {
        "ibp": {},
        "smoothing_025": {"module": "smoothing", "sigma": 0.25, "samples": 20, "selection": 10},
    },
    "studies": {
        "tiny": {
            **PARAMS["studies"]["tiny"],
            "recipe": {"default": "short", "student": "mixed"},
            "epsilons": [0.1],
            "methods": ["student", "fgsm_rs", "natural"],
            "attacks": ["fgsm"],
            "weights": ["last"],
            "certificates": {"ibp": ["student"], "smoothing_025": ["student"]},
            "certify_examples": 20,
        }
    },
}
NATURAL, FAST = "train:tiny/natural-s0", "train:tiny/fgsm_rs-linf-0.1-s0"
STUDENT = "train:tiny/student-linf-0.1-s0"
OF_STUDENT = {
    STUDENT,
    "attack:tiny/student-linf-0.1-s0/fgsm-linf-0.1",
    "certify:tiny/student-linf-0.1-s0/ibp-linf-0.1",
    "certify:tiny/student-linf-0.1-s0/smoothing_025-l2",
}


def cells(done: dict[str, str], what: str) -> set[str]:
    stages = ("train", "attack", "certify")
    return {id for id, found in done.items() if found == what and id.startswith(stages)}


def test_teacher_start_and_certificates(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "work", SMALL)
    done = workspace.done_by(lambda: workspace.dvc("repro", "--quiet"))
    assert set(done.values()) == {"computed"}
    order = list(done)
    assert order.index(STUDENT) > max(order.index(NATURAL), order.index(FAST))
    assert done.keys() > OF_STUDENT
    assert workspace.is_finished()
    assert workspace.dvc("status").stdout.strip() == "Data and pipelines are up to date."

    tables = workspace.tables()

    # Weights that are not here are brought back for the training that has to read them.
    for path in (workspace.root / "checkpoints").rglob("*.safetensors"):
        path.unlink()
    workspace.edit(lambda p: p["methods"]["student"].update(beta=1.0))
    done = workspace.done_by(workspace.snakemake)
    assert cells(done, "computed") == OF_STUDENT
    assert cells(done, "restored from the store of finished cells") == {NATURAL, FAST}

    # And it is computed again to the same bytes.
    workspace.edit(lambda p: p["methods"]["student"].pop("beta"))
    done = workspace.done_by(lambda: workspace.snakemake("-R", "train"))
    assert {NATURAL, FAST} | OF_STUDENT <= cells(done, "computed")
    assert workspace.tables() == tables


def test_what_cannot_be_trained_or_certified_is_named(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "work", SMALL)
    workspace.edit(lambda p: p["datasets"]["digits"].pop("unlabelled"))
    certified = {"certificates": ["smoothing_025"], "certify_examples": 41}
    workspace.edit(lambda p: p["studies"]["tiny"].update(certified))
    failed = workspace.snakemake(fails=True)
    told = (
        "train tiny/student-linf-0.1-s0: params.yaml: methods.student has a teacher, but the data "
        "set has no images without labels; set datasets.digits.unlabelled"
    )
    assert told in failed.stderr
    assert "Traceback" not in failed.stderr
    page = (workspace.root / "reports/index.html").read_text()
    assert "set datasets.digits.unlabelled" in page
    assert "studies.tiny.certify_examples: 41, but the test split has 40 examples" in page


def test_the_method_of_the_contributors_guide_is_one_file_and_one_entry(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "work", SMALL)
    guide = (workspace.root / "CONTRIBUTING.md").read_text()
    (source,) = re.findall(r"```python\n(.*?)```", guide, re.S)
    (entry,) = re.findall(r"```yaml\n(.*?)```", guide, re.S)
    (workspace.root / "src/advtrain/methods/halfway.py").write_text(source)
    workspace.edit(lambda p: p["methods"].update(yaml.safe_load(entry)["methods"]))
    workspace.edit(lambda p: p["studies"]["tiny"]["methods"].append("halfway"))
    workspace.snakemake("--", ".pipeline/fresh/train/tiny/halfway-linf-0.1-s0")
    folder = workspace.root / "results/train/tiny/halfway-linf-0.1-s0"
    assert json.loads((folder / "summary.json").read_text())["status"] == "finished"
    method = json.loads((folder / "manifest.json").read_text())["params"]["method"]
    assert method == {"name": "halfway", "module": "halfway", "parameters": {"share": 0.25}}
