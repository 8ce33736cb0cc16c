"""Bad input through the real tools: one clear message, no traceback, earlier results untouched."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.pipeline.workspace import Workspace

pytestmark = pytest.mark.workflow


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda p: p["methods"]["trades"].update(betta=1),
            "params.yaml: methods.trades.betta is not a parameter of trades; did you mean 'beta'?",
        ),
        (
            lambda p: p["studies"]["tiny"].update(epsilons=[8]),
            "linf epsilon is in [0, 1] pixel units, got 8; did you mean 8/255?",
        ),
        (
            lambda p: p["methods"].update(tradez={}),
            "there is no src/advtrain/methods/tradez.py; did you mean 'trades'?",
        ),
    ],
)
def test_a_mistake_in_the_parameters(
    workspace: Workspace, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    before = workspace.tables()
    workspace.edit(change)
    for command in (("snakemake", "--cores", "1"), ("advtrain", "status")):
        failed = workspace.run(*command, fails=True)
        told = failed.stdout + failed.stderr
        assert message in told
        assert "Traceback" not in told
    assert workspace.tables() == before


def test_a_mistake_is_told_through_dvc(workspace: Workspace) -> None:
    before = workspace.tables()
    workspace.edit(lambda p: p["methods"]["trades"].update(betta=1))
    failed = workspace.dvc("repro", fails=True)
    told = failed.stdout + failed.stderr
    assert "methods.trades.betta is not a parameter of trades; did you mean 'beta'?" in told
    assert "Traceback" not in told
    assert workspace.tables() == before


def test_mistakes_on_the_command_line(workspace: Workspace) -> None:
    failed = workspace.snakemake("--config", "run=[tinny]", fails=True)
    assert "there is no study 'tinny'; did you mean 'tiny'?" in failed.stderr
    failed = workspace.snakemake("--config", "runn=[tiny]", fails=True)
    assert "runn is not a key; did you mean 'run'?" in failed.stderr
    failed = workspace.run("advtrain", "status", "--study", "tinny", fails=True)
    assert "did you mean 'tiny'?" in failed.stderr
    failed = workspace.snakemake("--", ".pipeline/fresh/train/tiny/pgd-s0", fails=True)
    assert "there is no train tiny/pgd-s0" in failed.stderr
