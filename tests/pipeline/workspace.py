"""A scratch copy of the repository with the smallest study, to run the real tools in."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

PARAMS: dict[str, Any] = {
    "run": ["tiny"],
    "raw_data": "data/raw",
    "device": "cpu",
    "datasets": {"digits": {"train_examples": 300, "test_examples": 60}},
    "models": {"small_cnn": {"width": 4, "hidden": 32}},
    "recipes": {
        "short": {
            "epochs": 6,
            "batch_size": 16,
            "optimizer": "adam",
            "learning_rate": 0.01,
            "validation_steps": 1,
        }
    },
    "methods": {
        "natural": {},
        "fgsm_rs": {"step_size": "epsilon"},
        "trades": {"beta": 6.0, "steps": 2},
    },
    "attacks": {"fgsm": {}, "pgd_2": {"module": "pgd", "steps": 2}},
    "certificates": {},
    "studies": {
        "tiny": {
            "title": "The smallest study",
            "dataset": "digits",
            "model": "small_cnn",
            "recipe": "short",
            "epsilons": [0.1, 0.2],
            "methods": ["natural", "fgsm_rs", "trades"],
            "attacks": ["fgsm", "pgd_2"],
            "weights": ["last"],
        }
    },
}


@dataclass(frozen=True)
class Workspace:
    """A clone of the repository at work."""

    root: Path

    def run(
        self, *command: str, fails: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the clone, as a user in the activated environment would."""
        done = subprocess.run(
            command,
            cwd=self.root,
            env=clean_environment(environment),
            capture_output=True,
            text=True,
            check=False,
        )
        told = f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        assert (done.returncode != 0) == fails, told
        return done

    def snakemake(
        self, *arguments: str, fails: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return self.run("snakemake", "--cores", "2", *arguments, fails=fails, **environment)

    def dvc(
        self, *arguments: str, fails: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return self.run("dvc", *arguments, fails=fails, **environment)

    def by_hand(
        self, spec: str, *, fails: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one job as a user would, without a workflow and its warm process."""
        return self.run("python", "-m", "pipeline.run", spec, fails=fails, **environment)

    def spec(self, stage: str, name: str) -> str:
        """Return the newest spec of a node; `snakemake -n` writes those of the parameters."""
        found = (self.root / ".pipeline/specs" / stage).glob(f"{name}.*.json")
        return str(max(found, key=lambda path: path.stat().st_ctime).relative_to(self.root))

    def commit(self, message: str = "work") -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", message)

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Edit params.yaml."""
        path = self.root / "params.yaml"
        given = yaml.safe_load(path.read_text())
        change(given)
        path.write_text(yaml.safe_dump(given, sort_keys=False))

    def replace(self, file: str, old: str, new: str) -> None:
        """Edit a source file."""
        path = self.root / file
        text = path.read_text()
        assert old in text, f"{file} does not hold {old!r}"
        path.write_text(text.replace(old, new, 1))

    def journal(self) -> list[dict[str, Any]]:
        path = self.root / ".pipeline/journal.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines()]

    def done_since(self, before: int) -> dict[str, str]:
        """Return what the jobs did after the first `before` lines of the journal: node -> what."""
        return {f"{j['stage']}:{j['name']}": j["what"] for j in self.journal()[before:]}

    def done_by(self, action: Callable[[], object]) -> dict[str, str]:
        """Run something and return what the jobs that it started did: node -> what."""
        before = len(self.journal())
        action()
        return self.done_since(before)

    def cells_of(self, action: Callable[[], object]) -> set[str]:
        """Run something and return the cells that it computed."""
        return computed_cells(self.done_by(action))

    def tables(self) -> dict[str, bytes]:
        """Return the bytes of every table and row file that may not differ between runs."""
        found = {}
        for folder in ("reports/tables", "results", "checkpoints"):
            for path in sorted((self.root / folder).rglob("*")):
                if path.is_file() and path.stem not in ("costs", "timing"):
                    found[str(path.relative_to(self.root))] = path.read_bytes()
        metrics = self.root / "reports/metrics.json"
        found["metrics"] = metrics.read_bytes() if metrics.exists() else b""
        return found

    def is_finished(self) -> bool:
        """Whether a run finds nothing to do."""
        return "Nothing to be done" in self.snakemake().stderr

    def copy(self, target: Path) -> "Workspace":
        shutil.copytree(self.root, target, symlinks=True)
        return Workspace(target)


def computed_cells(done: dict[str, str]) -> set[str]:
    """Return the cells (train, attack, certify, probe) that were computed, of what jobs did."""
    cells = ("train:", "attack:", "certify:", "probe:")
    return {id for id, what in done.items() if what == "computed" and id.startswith(cells)}


def marker(stage: str, name: str) -> str:
    """Return what to ask Snakemake for to make one node and what it reads."""
    return f".pipeline/fresh/{stage}/{name}"


def clean_environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a user: the project's programs, no tracker unless asked for."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST", "PYTHON", "ADVTRAIN", "MLFLOW", "DVC", "COV"))
    }
    return {
        **kept,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "ADVTRAIN_TRACKING": "off",
        **(extra or {}),
    }


def set_beta(value: float) -> Callable[[dict[str, Any]], None]:
    """Return the edit of a parameter that TRADES alone has."""

    def change(params: dict[str, Any]) -> None:
        params["methods"]["trades"]["beta"] = value

    return change


def only(
    methods: tuple[str, ...], epsilons: tuple[float, ...] = (0.1,)
) -> Callable[[dict[str, Any]], None]:
    """Return the edit that leaves these cells in the study, and so makes the test cheaper."""

    def change(params: dict[str, Any]) -> None:
        params["studies"]["tiny"] |= {"methods": list(methods), "epsilons": list(epsilons)}

    return change


def make_workspace(root: Path, params: dict[str, Any] | None = None) -> Workspace:
    """Copy the project's files, choose the smallest study, and commit."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    (root / "dvc.lock").unlink(missing_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump(params or PARAMS, sort_keys=False))
    workspace = Workspace(root)
    workspace.run("git", "init", "-q", "-b", "main")
    workspace.run("git", "config", "user.name", "A Tester")
    workspace.run("git", "config", "user.email", "tester@example.org")
    workspace.commit("start")
    return workspace
