"""The store of finished cells."""

import json
import os
from pathlib import Path

import pytest

from advtrain.graph.store import Store, copy_file
from tests.graph.conftest import MakeGraph, finish

TRADES = "train:tiny/trades-linf-0.1-s0"


def test_what_is_put_comes_out(make_graph: MakeGraph, tmp_path: Path) -> None:
    graph = make_graph()
    store = Store(tmp_path / "store")
    node = graph[TRADES]
    finish(graph["prepare:digits"])
    assert store.take(node.spec(), tmp_path / "out") is None
    manifest = finish(node)
    store.put(graph.root, manifest)
    assert store.holds("train", node.key)
    assert store.take(node.spec(), tmp_path / "out") == json.loads(json.dumps(manifest))
    for path in node.outputs:
        assert (tmp_path / "out" / path).read_bytes() == (graph.root / path).read_bytes()


def test_another_study_takes_the_same_cell(make_graph: MakeGraph, tmp_path: Path) -> None:
    graph = make_graph()
    finish(graph["prepare:digits"])
    node = graph[TRADES]
    store = Store(tmp_path / "store")
    store.put(graph.root, finish(node))
    spec = node.spec()
    spec["outputs"] = [path.replace("/tiny/", "/other/") for path in spec["outputs"]]
    assert store.take(spec, tmp_path / "out") is not None
    assert (tmp_path / "out" / spec["outputs"][0]).exists()


def test_a_damaged_entry_is_dropped(make_graph: MakeGraph, tmp_path: Path) -> None:
    graph = make_graph()
    finish(graph["prepare:digits"])
    node = graph[TRADES]
    store = Store(tmp_path / "store")
    store.put(graph.root, finish(node))
    kept = store.entry("train", node.key) / "files" / node.outputs[0]
    kept.write_text("x" * kept.stat().st_size)  # the same size, other bytes
    assert store.take(node.spec(), tmp_path / "out") is None
    assert not store.holds("train", node.key)


def test_tables_are_not_kept(make_graph: MakeGraph, tmp_path: Path) -> None:
    graph = make_graph()
    for node in graph:
        manifest = finish(node)
    store = Store(tmp_path / "store")
    store.put(graph.root, manifest)
    assert list(store.entries()) == []


def test_the_bound_drops_the_least_recently_used_first(
    make_graph: MakeGraph, tmp_path: Path
) -> None:
    graph = make_graph()
    finish(graph["prepare:digits"])
    store = Store(tmp_path / "store")
    nodes = graph.stage("train")[:3]
    for age, node in enumerate(nodes):
        store.put(graph.root, finish(node))
        os.utime(store.entry("train", node.key), (1000 + age, 1000 + age))
    sizes = dict(store.bound(0))
    assert list(sizes) == [store.entry("train", node.key) for node in nodes]
    total = sum(sizes.values())
    assert store.bound(total) == []
    assert [path for path, _ in store.bound(total - 1)] == [store.entry("train", nodes[0].key)]
    kept = frozenset({nodes[0].key})
    assert [p for p, _ in store.bound(total - 1, kept)] == [store.entry("train", nodes[1].key)]
    store.take(nodes[0].spec(), tmp_path / "out")  # using it makes it recent
    assert [path for path, _ in store.bound(total - 1)] == [store.entry("train", nodes[1].key)]


def test_where_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("ADVTRAIN_STORE", raising=False)
    assert Store.of(tmp_path).folder == tmp_path / ".pipeline/store"
    monkeypatch.setenv("DVC_ROOT", "/parent")
    assert Store.of(tmp_path).folder == Path("/parent/.pipeline/store")
    monkeypatch.setenv("ADVTRAIN_STORE", "/else")
    assert Store.of(tmp_path).folder == Path("/else")


def test_a_copy_is_a_copy(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    copy_file(tmp_path / "a", tmp_path / "sub/b")
    (tmp_path / "a").write_bytes(b"xyz")
    assert (tmp_path / "sub/b").read_bytes() == b"abc"
