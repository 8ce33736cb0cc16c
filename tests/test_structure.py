"""The house: imports go one way, packages import nothing, plugins keep their promises."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src/advtrain"
FLOORS = (
    *(
        "command_error",
        "params",
        "provenance",
        "graph",
        "noise",
        "threat",
        "data",
        "models",
        "attacks",
        "bounds",
    ),
    *("methods", "certificates", "training", "evaluation", "results", "published"),
    *("reporting", "tracking", "standalone"),
    *("evaluate_command", "export_command", "diff_command", "reference_command", "cli"),
)
WITHOUT_TORCH = (
    *("params", "provenance", "graph", "results", "published", "reporting", "tracking"),
    *("standalone", "evaluate_command", "export_command", "diff_command", "reference_command"),
    "cli",
)
FILES = sorted(PACKAGE.rglob("*.py"))


def floor(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_what_stands_above_it(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return
    own = FLOORS.index(floor(path))
    for name in imported(path):
        assert not name.startswith("pipeline"), f"{path} imports {name}"
        if name.startswith("advtrain."):
            other = name.split(".")[1]
            assert FLOORS.index(other) <= own, f"{path} imports {name}, which stands below it"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_numerical_floors_import_torch(path: Path) -> None:
    if floor(path) in WITHOUT_TORCH:
        assert not any(name.split(".")[0] in ("torch", "torchvision") for name in imported(path))


def test_two_modules_import_mlflow() -> None:
    users = {p.relative_to(PACKAGE).as_posix() for p in FILES for n in imported(p) if "mlflow" in n}
    # These import our modules of that name, not mlflow.
    users -= {"tracking/reconcile.py", "cli.py", "export_command.py"}
    assert users == {"tracking/mlflow_tracker.py", "tracking/mlflow_model.py"}


@pytest.mark.parametrize("path", [p for p in FILES if p.name == "__init__.py"], ids=str)
def test_a_package_imports_nothing(path: Path) -> None:
    # What a package imports would be part of the code digest of everything below it.
    assert not imported(path)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "pipeline/rules").glob("*.smk")), ids=lambda p: p.name
)
def test_rules_are_short_and_only_declare(path: Path) -> None:
    text = path.read_text()
    for rule in text.split("\nrule ")[0:]:
        assert len(rule.strip().splitlines()) <= 15
    assert "run:" not in text
    assert "script:" not in text
    assert "lambda" not in text


def test_the_versions_agree() -> None:
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version


def test_the_conda_environment_lists_what_the_steps_need() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    workflow = ("snakemake", "dvc", "mlflow", "rich")
    expected = [one for one in project if not one.startswith(workflow)]
    conda = yaml.safe_load((ROOT / "pipeline/environment.yaml").read_text())
    assert conda["dependencies"][-1]["pip"] == expected
