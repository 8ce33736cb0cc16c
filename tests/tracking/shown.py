"""What MLflow shows, in a form that two databases can be compared by: no run ids."""

from typing import Any


def shown(uri: str) -> dict[str, dict[str, Any]]:
    """Return every run by `<experiment>/<key>`; a run found twice is an error."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    runs = {}
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            tags = dict(run.data.tags)
            name = f"{experiment.name}/{tags['advtrain.key']}"
            assert name not in runs, f"{name} is there twice"
            tags.pop("mlflow.runName")
            parent = tags.pop("mlflow.parentRunId", None)
            runs[name] = {
                "id": run.info.run_id,
                "name": run.info.run_name,
                "status": run.info.status,
                "times": (run.info.start_time, run.info.end_time),
                "params": run.data.params,
                "tags": tags,
                "parent": parent and client.get_run(parent).data.tags["advtrain.key"],
                "latest": run.data.metrics,
                "metrics": {
                    metric: sorted(
                        (one.step, one.timestamp, one.value)
                        for one in client.get_metric_history(run.info.run_id, metric)
                    )
                    for metric in run.data.metrics
                },
                "datasets": [
                    (one.dataset.name, one.dataset.digest, one.dataset.source, one.tags[0].value)
                    for one in run.inputs.dataset_inputs
                ],
            }
    return runs


def without_ids(runs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        name: {what: value for what, value in run.items() if what != "id"}
        for name, run in runs.items()
    }
