from advtrain.tracking.params import flatten
from tests.tracking.tracked_repository import train_params


def test_a_plugin_is_its_name_and_its_parameters():
    entry = {"name": "fast", "module": "fgsm_rs", "parameters": {"step_size": 0.25, "start": None}}
    assert flatten({"method": entry}) == {
        "method": "fast",
        "method.module": "fgsm_rs",
        "method.step_size": "0.25",
        "method.start": "null",
    }


def test_the_module_is_named_only_where_it_is_not_the_name():
    assert "method.module" not in flatten(train_params())


def test_a_natural_cell_has_neither_norm_nor_epsilon():
    columns = flatten(train_params(threat=None))
    assert not {"threat", "norm", "epsilon"} & columns.keys()


def test_a_budget_is_written_as_it_is_spoken_of():
    threat = {"norm": "linf", "epsilon": 8 / 255}
    assert flatten({"threat": threat}) == {"norm": "linf", "epsilon": "8/255"}


def test_what_is_not_text_is_json():
    assert flatten({"seed": 3, "flip": True, "epochs": [1, 2], "text": "as it is"}) == {
        "seed": "3",
        "flip": "true",
        "epochs": "[1, 2]",
        "text": "as it is",
    }


def test_other_groups_are_dotted():
    assert flatten({"schedule": {"kind": "cyclic", "peak": {"at": 0.4}}}) == {
        "schedule.kind": "cyclic",
        "schedule.peak.at": "0.4",
    }
