"""The MLflow tracker: it imports mlflow only when there is news.

Importing MLflow and opening a SQLite file takes seconds, fresh files that several processes
migrate at once break, and a call costs the same for one metric as for hundreds. Hence the import
inside functions, the lock, and one call per run.
"""

import functools
import hashlib
import logging
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from advtrain.tracking import sqlite
from advtrain.tracking.location import database, without_password
from advtrain.tracking.tracker import (
    OPTIONAL_TAGS,
    Artifact,
    DatasetRead,
    Deliver,
    Metric,
    RefusedError,
    RunRecord,
    UnreachableError,
)
from advtrain.tracking.views import experiment_tags, run_page

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric as Logged
    from mlflow.entities import Run

# Read by MLflow when it is imported; what the user has set stays. A server that does not answer
# costs seconds, not minutes: reconciling again is the retry.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

CHATTER = {"alembic": logging.WARNING, "mlflow": logging.WARNING, "mlflow.store.db": logging.FATAL}

PATIENCE = 120.0  # seconds to wait for another process that delivers


@dataclass(frozen=True)
class MlflowTracker:
    """Shows runs in MLflow: an experiment per study, a run per cell, a child per evaluation.

    A study with tables has one more run, with them, the figures and the report.

    Attributes:
        uri: where MLflow keeps them.
        lock: the file whose lock lets one process deliver at a time.
    """

    uri: str
    lock: Path

    def shows(self) -> frozenset[str] | None:
        """Return the identities of the runs in a SQLite file; None for a server."""
        path = database(self.uri)
        return sqlite.known_runs(path) if path else None

    @contextmanager
    def delivering(self) -> Iterator[Deliver]:
        """Open MLflow, alone; a fresh SQLite file is made under the same lock."""
        try:
            self.lock.parent.mkdir(parents=True, exist_ok=True)
            held = FileLock(self.lock).acquire(timeout=PATIENCE)
        except Timeout:
            raise UnreachableError(
                f"another process has been delivering runs for {PATIENCE:.0f} s and still is"
            ) from None
        except OSError as error:
            raise self._unreachable(error) from error
        with held:
            try:
                client = self._open()
            except Exception as error:
                raise self._unreachable(error) from error
            yield functools.partial(self._deliver, client)

    def _open(self) -> "MlflowClient":
        path = database(self.uri)
        client = _client(self.uri, sqlite.open_for_many(path) if path else 0)
        client.search_experiments(max_results=1)
        return client

    def _deliver(self, client: "MlflowClient", record: RunRecord) -> str:
        try:
            return _show(client, self.uri, record)
        except Exception as error:
            try:
                client.search_experiments(max_results=1)
            except Exception as lost:
                raise self._unreachable(lost) from error
            raise RefusedError(
                f"the run {record.study}/{record.name} was refused ({_brief(error)})"
            ) from error

    def _unreachable(self, error: Exception) -> UnreachableError:
        return UnreachableError(f"{without_password(self.uri)} cannot be reached ({_brief(error)})")


@functools.lru_cache(maxsize=1)
def _client(uri: str, file: int) -> "MlflowClient":
    """Open MLflow.

    Args:
        uri: where it keeps the runs.
        file: the number of the SQLite file, which changes when it is deleted and made again.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.tracking._tracking_service import utils

    for name, level in CHATTER.items():
        logging.getLogger(name).setLevel(level)
    # MLflow keeps what it once opened, and would write into a file that has been deleted.
    utils._tracking_store_registry._get_store_with_resolved_uri.cache_clear()
    if stale := SqlAlchemyStore._engine_map.pop(uri, None):
        stale.dispose()
    return mlflow.MlflowClient(uri)


def _show(client: "MlflowClient", uri: str, record: RunRecord) -> str:
    """Make MLflow show a run, logging only what it does not show yet; the status comes last.

    Returns:
        The address of its page, below MLflow's own.
    """
    from mlflow.entities import Param, RunTag
    from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_TAG_VAL_LENGTH

    experiment = _experiment(client, uri, record)
    described = {**record.tags, "mlflow.note.content": record.description}
    tags = {name: _fit(value, MAX_TAG_VAL_LENGTH) for name, value in described.items() if value}
    # The key goes in with the run itself: whatever happens next, it is found again.
    tags["advtrain.key"] = record.key
    if record.parent and (parent := _find(client, experiment, record.parent)):
        tags["mlflow.parentRunId"] = parent.info.run_id
    run = _find(client, experiment, record.key) or client.create_run(
        experiment,
        start_time=None if record.started is None else _milliseconds(record.started),
        run_name=record.name,
        tags=dict(tags),
    )
    run_id, shown = run.info.run_id, run.data
    client.log_batch(
        run_id,
        list(_missing(client, run, record.metrics)),
        [
            Param(name, _fit(value, MAX_PARAM_VAL_LENGTH))
            for name, value in record.params.items()
            if name not in shown.params
        ],
        [RunTag(name, value) for name, value in tags.items() if shown.tags.get(name) != value],
    )
    for name in OPTIONAL_TAGS:
        if name in shown.tags and name not in tags:
            client.delete_tag(run_id, name)
    if record.dataset and not (run.inputs and run.inputs.dataset_inputs):
        _log_dataset(client, run_id, record.dataset)
    if record.artifacts:
        _log_artifacts(client, run, record.artifacts)
    _end(client, run, record)
    return run_page(experiment, run_id)


def _end(client: "MlflowClient", run: "Run", record: RunRecord) -> None:
    if record.finished is None:
        if run.info.status != record.status:
            client.update_run(run.info.run_id, record.status)
        return
    end = _milliseconds(record.finished)
    if (run.info.status, run.info.end_time) != (record.status, end):
        client.set_terminated(run.info.run_id, record.status, end)


def _experiment(client: "MlflowClient", uri: str, record: RunRecord) -> str:
    """Return the number of a study's experiment; made, taken back and described where need be."""
    from mlflow.utils.validation import MAX_EXPERIMENT_TAG_VAL_LENGTH

    experiment = client.get_experiment_by_name(record.study)
    if experiment is None:
        path = database(uri)
        # By default it would depend on the current folder.
        folder = (path.parent / "mlruns" / record.study).as_uri() if path else None
        tags = record.experiment_tags or experiment_tags()
        return client.create_experiment(record.study, artifact_location=folder, tags=dict(tags))
    if experiment.lifecycle_stage != "active":
        client.restore_experiment(experiment.experiment_id)
    for name, value in record.experiment_tags.items():
        if experiment.tags.get(name) != (fitting := _fit(value, MAX_EXPERIMENT_TAG_VAL_LENGTH)):
            client.set_experiment_tag(experiment.experiment_id, name, fitting)
    return experiment.experiment_id


def _find(client: "MlflowClient", experiment: str, key: str) -> "Run | None":
    """Find a run by its key; one that was deleted in the web page is taken back, as it has news."""
    from mlflow.entities import ViewType

    runs = client.search_runs([experiment], f"tags.`advtrain.key` = '{key}'", ViewType.ALL)
    runs.sort(key=lambda run: (run.info.lifecycle_stage != "active", run.info.start_time))
    if runs and runs[0].info.lifecycle_stage != "active":
        client.restore_run(runs[0].info.run_id)
    return runs[0] if runs else None


def _missing(client: "MlflowClient", run: "Run", metrics: Iterable[Metric]) -> Iterator["Logged"]:
    """Yield the metrics that a run does not show.

    A value that is not the latest one at its step (a training made again on another machine, an
    evaluation made again) is logged beside it with a later time, and so becomes the latest.
    """
    from mlflow.entities import Metric as Logged

    wanted = [
        Logged(metric.name, _finite(metric.value), _milliseconds(metric.time), metric.step)
        for metric in metrics
    ]
    shown: dict[tuple[str, int], tuple[int, bool, float]] = {}
    for name in sorted({metric.key for metric in wanted} & run.data.metrics.keys()):
        for old in client.get_metric_history(run.info.run_id, name):
            place = (name, old.step)
            shown[place] = max(shown.get(place, (0, False, 0.0)), _sortable(old))
    for metric in wanted:
        latest = shown.get((metric.key, metric.step))
        if latest is None:
            yield metric
        elif latest[1:] != _sortable(metric)[1:]:
            time = max(metric.timestamp, latest[0] + 1)
            yield Logged(metric.key, metric.value, time, metric.step)


def _sortable(metric: "Logged") -> tuple[int, bool, float]:
    """Order the values of one step as MLflow does, also those that are not numbers."""
    unknown = isnan(metric.value)
    return metric.timestamp, unknown, 0.0 if unknown else metric.value


def _finite(value: float) -> float:
    """Write an infinity as MLflow stores it: as the largest float."""
    largest = sys.float_info.max
    return value if isnan(value) else max(-largest, min(largest, value))


def _log_dataset(client: "MlflowClient", run: str, dataset: DatasetRead) -> None:
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.validation import MAX_DATASET_DIGEST_SIZE

    source = CodeDatasetSource(tags={"path": dataset.path, "digest": dataset.digest})
    digest = dataset.digest[:MAX_DATASET_DIGEST_SIZE]
    # Abstract in its annotations only.
    described = MetaDataset(source, name=dataset.name, digest=digest)  # type: ignore[abstract]
    context = InputTag("mlflow.data.context", dataset.context)
    client.log_inputs(run, [DatasetInput(Dataset(**described.to_dict()), [context])])


def _log_artifacts(client: "MlflowClient", run: "Run", artifacts: Sequence[Artifact]) -> None:
    """Make a run show files; a tag, which comes last, says that it does."""
    digest = hashlib.sha256(repr(artifacts).encode()).hexdigest()[:16]
    if run.data.tags.get("advtrain.artifacts") == digest:
        return
    with TemporaryDirectory() as folder:
        for artifact in artifacts:
            target = Path(folder, artifact.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(artifact.source, target)
        client.log_artifacts(run.info.run_id, folder)
    client.set_tag(run.info.run_id, "advtrain.artifacts", digest)


def _milliseconds(time: float) -> int:
    return round(time * 1000)


def _fit(value: str, longest: int) -> str:
    """Shorten a text that MLflow does not take, and say so."""
    if len(value) <= longest:
        return value
    note = f"... ({len(value)} characters; all of it is in the files)"
    return value[: longest - len(note)] + note


def _brief(error: BaseException) -> str:
    """Say what went wrong in one short line."""
    line = " ".join(str(error).split()) or type(error).__name__
    return without_password(line if len(line) <= 300 else f"{line[:300]}...")
