"""A repository's results and progress files, written by hand for the tests of the tracking."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from advtrain.graph.records import write_json
from advtrain.results.certified import write_certified
from advtrain.results.history import write_history
from advtrain.results.outcomes import write_outcomes
from advtrain.results.schema import STAMPS

START = 1_700_000_000.0
STUDY = "digits"
CELL = "trades-linf-0.2-s0"
KEY = "a" * 16
EVALUATION = "pgd_20-linf-0.2"
EVALUATION_KEY = "e" * 16
CERTIFICATE = "smoothing_025-l2"
CERTIFICATE_KEY = "5" * 16


def train_params(**changes: Any) -> dict[str, Any]:
    params = {
        "dataset": "digits",
        "model": {"name": "small_cnn", "module": "small_cnn", "parameters": {"width": 8}},
        "method": {"name": "trades", "module": "trades", "parameters": {"beta": 6.0, "steps": 10}},
        "threat": {"norm": "linf", "epsilon": 0.2},
        "recipe": {"name": "short", "parameters": {"epochs": 3, "flip": False, "warm_up": None}},
        "seed": 0,
    }
    return params | changes


def row(epoch: int) -> dict[str, float | int]:
    return {
        "epoch": epoch,
        "learning_rate": 0.1,
        "loss": 2.0 / epoch,
        "validation_robust_accuracy": 0.1 * epoch,
        "forward_passes": 11000 * epoch,
    }


def finished_at(epochs: int) -> float:
    return START + 2.5 * epochs + 0.25


@dataclass
class TrackedRepository:
    root: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.root / 'mlflow.db'}"

    def train(
        self,
        cell: str = CELL,
        key: str = KEY,
        *,
        study: str = STUDY,
        epochs: int = 3,
        changed_rows: dict[int, dict[str, float]] | None = None,
        measured: dict[str, float] | None = None,
        params: dict[str, Any] | None = None,
        status: str = "finished",
        cause: str = "",
    ) -> Path:
        folder = self.root / "results/train" / study / cell
        rows = [row(epoch) | (changed_rows or {}).get(epoch, {}) for epoch in range(1, epochs + 1)]
        write_history(folder / "history.parquet", rows)
        summary = {
            "status": status,
            "cause": cause,
            "best_epoch": 2,
            "epochs": epochs,
            "forward_passes": 11000 * epochs,
            "parameters": 1234,
        }
        write_json(folder / "summary.json", summary)
        times = [
            {"epoch": epoch, "time": START + 2.5 * epoch, "seconds": 2.5}
            | ({"measured": measured} if measured else {})
            for epoch in range(1, epochs + 1)
        ]
        self._timing(folder, finished_at(epochs), times)
        weights = {
            f"checkpoints/{study}/{cell}/{which}.safetensors": {"size": 1, "sha256": which * 4}
            for which in ("last", "best")
        }
        self._manifest(
            folder,
            stage="train",
            name=f"{study}/{cell}",
            key=key,
            params=train_params() if params is None else params,
            inputs={"prepare:digits": {"key": "d" * 16, "digest": "f" * 16}},
            outputs=weights,
        )
        return folder

    def evaluate(
        self,
        evaluation: str = EVALUATION,
        key: str = EVALUATION_KEY,
        *,
        cell: str = CELL,
        study: str = STUDY,
        train_key: str = KEY,
        robust: int = 6,
        finished: float = START + 60.0,
    ) -> Path:
        folder = self.root / "results/attack" / study / cell / evaluation
        label = np.zeros(10, np.int16)
        columns = {
            "cell": cell,
            "attack": evaluation,
            "norm": "linf",
            "epsilon": 0.2,
            "example": np.arange(10),
            "label": label,
            "clean_prediction": np.array([0] * 9 + [1], np.int16),
            "adversarial_prediction": np.array([0] * robust + [1] * (10 - robust), np.int16),
            "distance": np.full(10, 0.2, np.float32),
            "objective": np.zeros(10, np.float32),
            "forward": np.full(10, 21, np.int32),
            "backward": np.full(10, 20, np.int32),
            "protocol": "0123456789abcdef",
            "stage": np.full(10, ""),
            "claim": np.full(10, "none"),
            "gain": np.full(10, 0.5),
            "late_gain": np.full(10, 0.1),
        }
        stamps = dict.fromkeys(STAMPS, "stamp") | {"checkpoint": "last" * 4}
        write_outcomes(folder / "outcomes.parquet", columns, stamps)
        self._timing(folder, finished, [])
        self._manifest(
            folder,
            stage="attack",
            name=f"{study}/{cell}/{evaluation}",
            key=key,
            params={
                "cell": cell,
                "attack": {"name": "pgd_20", "module": "pgd", "parameters": {"steps": 20}},
                "threat": {"norm": "linf", "epsilon": 0.2},
                "weights": "last",
                "examples": None,
                "seed": 0,
            },
            inputs={
                "prepare:digits": {"key": "d" * 16, "digest": "f" * 16},
                f"train:{study}/{cell}": {"key": train_key, "digest": "0" * 16},
            },
            outputs={},
        )
        return folder

    def certify(
        self,
        evaluation: str = CERTIFICATE,
        key: str = CERTIFICATE_KEY,
        *,
        norm: str = "l2",
        epsilon: float | None = None,
        prediction: list[int],
        radius: list[float],
    ) -> Path:
        """Certify examples whose label is 0."""
        folder = self.root / "results/certify" / STUDY / CELL / evaluation
        rows = len(radius)
        columns = {
            "cell": CELL,
            "certificate": evaluation,
            "norm": norm,
            "epsilon": epsilon,
            "example": np.arange(rows),
            "label": np.zeros(rows, np.int16),
            "prediction": np.array(prediction, np.int16),
            "radius": np.array(radius),
            "forward": np.full(rows, 1100, np.int32),
            "backward": np.zeros(rows, np.int32),
        }
        stamps = dict.fromkeys(STAMPS, "stamp") | {"checkpoint": "last" * 4}
        write_certified(folder / "certified.parquet", columns, stamps)
        self._timing(folder, START + 60.0, [])
        self._manifest(
            folder,
            stage="certify",
            name=f"{STUDY}/{CELL}/{evaluation}",
            key=key,
            params={
                "cell": CELL,
                "certificate": {"name": evaluation, "module": "smoothing", "parameters": {}},
                "threat": {"norm": norm, "epsilon": epsilon},
                "weights": "last",
                "examples": None,
                "seed": 0,
            },
            inputs={
                "prepare:digits": {"key": "d" * 16, "digest": "f" * 16},
                f"train:{STUDY}/{CELL}": {"key": KEY, "digest": "0" * 16},
            },
            outputs={},
        )
        return folder

    def progress(
        self,
        state: str,
        *,
        pid: int,
        key: str = KEY,
        stage: str = "train",
        name: str = f"{STUDY}/{CELL}",
        **facts: Any,
    ) -> Path:
        path = self.root / ".pipeline/progress" / stage / f"{name}.json"
        content = {
            "stage": stage,
            "name": name,
            "key": key,
            "state": state,
            "params": train_params(),
            "started": START,
            "updated": START + 9.0,
            "pid": pid,
        }
        write_json(path, content | facts)
        return path

    def live(self, epoch: int, key: str = KEY, *, measured: dict[str, float] | None = None) -> Path:
        path = self.root / ".pipeline/wip/train" / STUDY / f"{CELL}.{key}" / "history.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            line = row(epoch) | {"time": START + 2.5 * epoch, "seconds": 2.5}
            line |= {"measured": measured} if measured else {}  # type: ignore[dict-item]
            file.write(json.dumps(line) + "\n")
        return path

    def store(self, folder: Path) -> None:
        """Keep a finished result by its key, as the pipeline's store does."""
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        entry = self.root / ".pipeline/store" / manifest["stage"] / manifest["key"]
        kept = entry / "files" / folder.relative_to(self.root)
        shutil.copytree(folder, kept)
        (kept / "manifest.json").rename(entry / "manifest.json")

    def _timing(self, folder: Path, finished: float, epochs: list[dict[str, Any]]) -> None:
        timing = {
            "started": START,
            "finished": finished,
            "seconds": finished - START,
            "epochs": epochs,
            "device": "cpu",
            "git_commit": "c0ffee",
        }
        write_json(folder / "timing.json", timing)

    def _manifest(self, folder: Path, **content: Any) -> None:
        content |= {"code": {}, "code_digest": "b" * 16, "volatile": [], "environment": {}}
        write_json(folder / "manifest.json", content)
