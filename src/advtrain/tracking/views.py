"""How MLflow lists a study's runs: views of an experiment, by name, in the list `Views`.

A view is a tag of the experiment that holds what the page of the runs is to show. Who opens the
experiment otherwise gets the columns that they chose themselves, or MLflow's own.
"""

import json
from collections.abc import Sequence

VIEW = "mlflow.sharedViewState."
WORKFLOW = "workflowType=machine_learning"
"""Without it MLflow opens its pages for language models."""
RESULTS, EVALUATIONS = "results", "evaluations"

COLUMNS = ("clean_accuracy", "worst_case_accuracy", "passes_over_natural")
"""What the tables say of a cell, whatever its study."""

# MLflow orders the views by when they were made, newest first; these are always the same.
MADE = {RESULTS: 1_735_689_600_001, EVALUATIONS: 1_735_689_600_000}


def experiment_tags(
    description: str = "", columns: Sequence[str] = (), attacks: Sequence[str] = ()
) -> dict[str, str]:
    """Return the tags of a study's experiment.

    Args:
        description: of the study.
        columns: the names of what the study's tables say of its cells.
        attacks: the study's, in the order of the columns.
    """
    results = _view(
        RESULTS,
        "tags.`advtrain.stage` = 'train'",
        *(("params", name) for name in ("method", "epsilon", "seed")),
        ("tags", "advtrain.status"),
        *(("metrics", name) for name in COLUMNS),
        *(("metrics", f"robust_accuracy/{attack}") for attack in attacks),
        *(("metrics", name) for name in columns if name.startswith("worst_case_accuracy/")),
    )
    evaluations = _view(
        EVALUATIONS,
        "tags.`advtrain.evaluation` LIKE '%'",
        ("tags", "advtrain.cell"),
        *(("params", name) for name in ("attack", "certificate", "norm", "epsilon", "weights")),
        *(("metrics", f"{kind}_accuracy") for kind in ("clean", "robust", "certified")),
        ("tags", "advtrain.status"),
    )
    tags = {
        "mlflow.experimentKind": "custom_model_development",
        f"{VIEW}{RESULTS}": results,
        f"{VIEW}{EVALUATIONS}": evaluations,
    }
    return {"mlflow.note.content": description, **tags} if description else tags


def run_page(experiment: str, run: str) -> str:
    """Return the address of a run, below MLflow's own."""
    return f"#/experiments/{experiment}/runs/{run}?{WORKFLOW}"


def table_page(run: str) -> str:
    """Return the address of the results of a run's experiment, below MLflow's own.

    Args:
        run: the run's address.
    """
    return f"{run.rpartition('/')[0]}?{WORKFLOW}&viewStateShareKey={RESULTS}"


def _view(name: str, chosen: str, *columns: tuple[str, str]) -> str:
    """Return a view's tag: the runs that a filter chooses, sorted by name.

    Args:
        name: of the view.
        chosen: the filter.
        columns: the kind and name of each, in the order in which they stand.
    """
    shown = {f"{kind}.`{one}`": one for kind, one in columns}
    state = {
        "searchFilter": chosen,
        "orderByKey": "tags.`mlflow.runName`",
        "orderByAsc": True,
        "selectedColumns": list(shown),
        "columnOrder": list(shown),
        "columnWidths": {column: 40 + 7 * max(len(one), 12) for column, one in shown.items()},
    }
    made = MADE[name]
    return json.dumps(
        {"name": name, "createdAt": made, "updatedAt": made, "state": json.dumps(state)}
    )
