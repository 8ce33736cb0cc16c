import json

from advtrain.tracking.views import VIEW, experiment_tags, run_page, table_page


def view(tags, name):
    return json.loads(json.loads(tags[f"{VIEW}{name}"])["state"])


def test_the_results_list_the_trainings_with_a_column_for_each_attack():
    columns = ["clean_accuracy", "worst_case_accuracy", "worst_case_accuracy/linf-0.1"]
    state = view(experiment_tags("of six methods", columns, ["pgd_20", "cw_20"]), "results")
    assert state["searchFilter"] == "tags.`advtrain.stage` = 'train'"
    assert state["selectedColumns"] == [
        "params.`method`",
        "params.`epsilon`",
        "params.`seed`",
        "tags.`advtrain.status`",
        "metrics.`clean_accuracy`",
        "metrics.`worst_case_accuracy`",
        "metrics.`passes_over_natural`",
        "metrics.`robust_accuracy/pgd_20`",
        "metrics.`robust_accuracy/cw_20`",
        "metrics.`worst_case_accuracy/linf-0.1`",
    ]
    assert state["columnOrder"] == state["selectedColumns"]
    assert state["columnWidths"].keys() == set(state["selectedColumns"])


def test_the_tags_are_the_same_each_time():
    assert experiment_tags("of six methods", [], ["pgd_20"]) == experiment_tags(
        "of six methods", [], ["pgd_20"]
    )


def test_before_the_first_tables_the_experiment_has_no_description():
    assert "mlflow.note.content" not in experiment_tags()
    assert experiment_tags("of six methods")["mlflow.note.content"] == "of six methods"


def test_the_table_is_that_of_the_runs_experiment():
    page = table_page(run_page("12", "0123abc"))
    assert page.startswith("#/experiments/12/runs?")
    assert page.endswith("viewStateShareKey=results")
