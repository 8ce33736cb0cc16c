"""What the tables and the page are told of the recipes of a study."""

from typing import Any

from tests.graph.conftest import MakeGraph


def test_what_a_recipe_does_besides_the_method_is_told(make_graph: MakeGraph) -> None:
    def change(params: dict[str, Any]) -> None:
        short = params["recipes"]["short"]
        params["recipes"]["views"] = {**short, "precision": "float32", "cutout": 2}
        params["recipes"]["views"] |= {"averaging": "ema", "label_smoothing": 0.1}
        params["recipes"]["default"] = {**short, "cutout": 0, "averaging": "none", "update": "awp"}
        params["studies"]["tiny"]["recipe"] = {
            "default": "short",
            "trades": "views",
            "fgsm_rs": "default",
        }

    graph = make_graph(change)
    told = graph["tables:tiny"].params["method_additions"]
    # What is given as the default, and what makes another variant, adds nothing.
    assert told == {
        "natural": [],
        "fgsm_rs": [],
        "trades": ["averaging ema", "cutout 2", "label_smoothing 0.1"],
    }
    (report,) = graph.stage("report")
    assert report.params["studies"][0]["method_additions"] == told
