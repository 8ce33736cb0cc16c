"""The command line, over results written as jobs would write them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from advtrain import cli
from advtrain.graph.store import Store
from tests.graph.conftest import MakeGraph, finish, finish_all, make_graph

__all__ = ["make_graph"]

TRADES = "train:tiny/trades-linf-0.1-s0"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in the scratch root, with the library under test."""
    (tmp_path / "Snakefile").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_use_code_of", lambda root: None)
    for name in ("DVC_ROOT", "ADVTRAIN_STORE"):
        monkeypatch.delenv(name, raising=False)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = cli.main(arguments)
    found = capsys.readouterr()
    return code, found.out + found.err


def set_seconds(graph: Any, seconds: float) -> None:
    for node in graph:
        if node.stage in ("train", "attack"):
            path = graph.root / node.folder / "timing.json"
            path.write_text(json.dumps({"seconds": seconds}))


def test_status(make_graph: MakeGraph, capsys: pytest.CaptureFixture[str]) -> None:
    finish_all(make_graph())
    assert said(capsys, "status") == (0, "tiny: 27 fresh\n")
    changed = make_graph(lambda p: p["methods"]["trades"].update(beta=1.5))
    assert changed[TRADES].key
    code, text = said(capsys, "status")
    assert code == 1
    assert "stale    train    tiny/trades-linf-0.1-s0\n" in text
    assert "methods.trades.beta: 6.0 -> 1.5" in text
    assert text.splitlines()[-1] == "tiny: 15 fresh, 12 stale"
    code, text = said(capsys, "status", "--all")
    assert "fresh    train    tiny/natural-s0" in text


def test_plan_scales_what_was_measured(
    make_graph: MakeGraph, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = make_graph()
    assert "5 with no measured rate yet" in said(capsys, "plan")[1]
    finish_all(graph)
    assert said(capsys, "plan") == (0, "nothing to do\n")
    set_seconds(graph, 60.0)
    # Twice the epochs take twice as long; the attacks are as many and as long as before.
    make_graph(lambda p: p["recipes"]["short"].update(epochs=12))
    code, text = said(capsys, "plan", "--cores", "2")
    assert code == 0
    assert "train    5 to compute, about 10 min of work" in text
    assert "attack   12 to compute, about 12 min of work" in text
    assert "with 2 at once" in text


def test_plan_knows_the_store(make_graph: MakeGraph, capsys: pytest.CaptureFixture[str]) -> None:
    graph = make_graph()
    manifests = {node.id: finish(node) for node in graph}
    Store.of(graph.root).put(graph.root, manifests[TRADES])
    for node in graph:
        node.manifest.unlink()
    assert "train    4 to compute, 1 to restore from the store" in said(capsys, "plan")[1]
    assert "(in the store)" in said(capsys, "status")[1]


def test_verify_reads_the_bytes(make_graph: MakeGraph, capsys: pytest.CaptureFixture[str]) -> None:
    graph = make_graph()
    finish_all(graph)
    code, text = said(capsys, "verify")
    assert code == 0
    assert "0 damaged or absent" in text
    weights = graph.root / "checkpoints/tiny/natural-s0/last.safetensors"
    weights.write_text("x" * weights.stat().st_size)
    code, text = said(capsys, "verify")
    assert code == 1
    assert "checkpoints/tiny/natural-s0/last.safetensors has other bytes" in text


def test_prune_removes_what_nothing_owns(
    make_graph: MakeGraph, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = make_graph()
    manifests = {node.id: finish(node) for node in graph}
    Store.of(graph.root).put(graph.root, manifests[TRADES])
    wip = graph.root / f".pipeline/wip/train/tiny/old.{'0' * 16}"
    wip.mkdir(parents=True)

    def less(params: dict[str, Any]) -> None:
        params["studies"]["tiny"]["methods"].remove("trades")

    make_graph(less)
    orphan = graph.root / "results/train/tiny/trades-linf-0.1-s0"
    code, text = said(capsys, "prune", "--dry-run", "--store-gib", "0")
    assert code == 0
    assert "would remove results/train/tiny/trades-linf-0.1-s0" in text
    assert orphan.exists()
    said(capsys, "prune", "--store-gib", "0")
    assert not orphan.exists()
    assert not wip.exists()
    assert list(Store.of(graph.root).entries()) == []
    assert (graph.root / "results/train/tiny/natural-s0").exists()


@pytest.mark.parametrize(
    "before",
    [
        "run: [tiny]  # here",
        "run:  # these\n- tiny",
        "run:\n- tiny",
        "run:\n  - tiny\n  - other",
        "run: tiny",
    ],
)
def test_select_changes_one_line(
    make_graph: MakeGraph, capsys: pytest.CaptureFixture[str], before: str
) -> None:
    def two(params: dict[str, Any]) -> None:
        params["studies"]["other"] = params["studies"]["tiny"]

    path = make_graph(two).root / "params.yaml"
    text = path.read_text().replace("run:\n- tiny", before) + "# the end\n"
    path.write_text(text)
    assert said(capsys, "select", "other", "tiny")[0] == 0
    after = path.read_text()
    assert "run: [other, tiny]" in after
    assert after.endswith("# the end\n")
    assert len(after) - len(text) == len("run: [other, tiny]") - len(
        before.removesuffix("  # here")
    )
    code, said_text = said(capsys, "select", "othr")
    assert code == 2
    assert "did you mean 'other'" in said_text


def test_outside_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "Snakefile").unlink()
    code, text = said(capsys, "status")
    assert code == 2
    assert "no params.yaml and Snakefile here or above" in text


def test_from_a_folder_below(
    make_graph: MakeGraph, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = make_graph()
    finish_all(graph)
    monkeypatch.chdir(graph.root / "results")
    assert said(capsys, "status") == (0, "tiny: 27 fresh\n")
    assert Path(os.getcwd()).name == "results"


def certified(params: dict[str, Any]) -> None:
    params["certificates"] = {"ibp": {}}
    params["studies"]["tiny"]["certificates"] = {"ibp": ["trades"]}


def test_certificates_are_a_stage_like_the_others(
    make_graph: MakeGraph, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = make_graph(certified)
    assert "certify  2 to compute" in said(capsys, "plan")[1]
    manifests = {node.id: finish(node) for node in graph}
    node = graph["certify:tiny/trades-linf-0.1-s0/ibp-linf-0.1"]
    Store.of(graph.root).put(graph.root, manifests[node.id])
    assert said(capsys, "status") == (0, "tiny: 29 fresh\n")
    rows = graph.root / node.outputs[0]
    rows.write_text("x" * rows.stat().st_size)
    assert f"{node.outputs[0]} has other bytes" in said(capsys, "verify")[1]
    graph.report.manifest.unlink()
    graph["collect:tiny"].manifest.unlink()
    node.manifest.unlink()
    assert "certify  1 to restore from the store" in said(capsys, "plan")[1]
    make_graph()
    folder = "results/certify/tiny/trades-linf-0.2-s0/ibp-linf-0.2"
    assert f"orphan   {folder}\n" in said(capsys, "status")[1]
    said(capsys, "prune")
    assert not (graph.root / folder).exists()


def test_plan_counts_the_trainings_whose_weights_are_read(
    make_graph: MakeGraph, capsys: pytest.CaptureFixture[str]
) -> None:
    def chain(params: dict[str, Any]) -> None:
        params["methods"]["trades"]["start"] = "fgsm_rs"

    def changed(params: dict[str, Any]) -> None:
        chain(params)
        params["methods"]["trades"]["beta"] = 1.5

    graph = make_graph(chain)
    finish_all(graph)
    for path in (graph.root / "checkpoints").rglob("*.safetensors"):
        path.unlink()
    assert said(capsys, "plan") == (0, "nothing to do\n")
    make_graph(changed)
    assert "train    4 to compute" in said(capsys, "plan")[1]  # two of each method
    assert "partial  train    tiny/fgsm_rs-linf-0.1-s0\n" in said(capsys, "status")[1]
