from pathlib import Path

import pytest

from advtrain.reporting.works import Module, read_library

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = {
    "methods": {"method"},
    "attacks": {
        *("ascent", "attack", "ensemble", "frozen", "hyperplane", "judged_ascent"),
        *("minimum_norm", "objectives", "restarts", "squares"),
    },
    "certificates": {"certificate"},
    "models": {"normalisation", "residual"},
}


@pytest.mark.parametrize("kind", list(CONTRACTS))
def test_something_is_said_of_every_module(kind: str) -> None:
    files = {path.stem for path in (ROOT / "src/advtrain" / kind).glob("*.py")}
    modules = read_library().modules[kind]
    assert files - CONTRACTS[kind] - {"__init__"} == set(modules)
    assert all(module.says for module in modules.values())


def test_of_a_module_that_was_added_since_nothing_is_said() -> None:
    assert read_library().module("methods", "halfway") == Module()


def test_a_work_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "works.yaml"
    path.write_text("works: {}\nmodules: { methods: { pgd_at: { works: [madry2081] } } }\n")
    expected = r"works.yaml: modules.methods.pgd_at.works: there is no work madry2081"
    with pytest.raises(ValueError, match=expected):
        read_library(path)
