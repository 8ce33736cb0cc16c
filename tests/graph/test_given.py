"""A cell that is not trained: the bytes of its model and weights are what moves its key."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advtrain.graph import files
from advtrain.graph.files import file_digests, imported_beside
from advtrain.graph.nodes import Graph
from advtrain.params.reader import ParamsError
from advtrain.provenance import hash_file
from tests.graph.conftest import MakeGraph
from tests.graph.test_keys import keys

CELL = "train:tiny/mine-s0"
ATTACK = "attack:tiny/mine-s0/fgsm-linf-0.1"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of the repository with a user's model and weights."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "net.py").write_text("import blocks\ndef build(): return blocks.net()\n")
    (folder / "blocks.py").write_text("def net(): ...\n")
    (folder / "unused.py").write_text("x = 1\n")
    (folder / "weights.pt").write_bytes(b"some bytes")
    return folder


def given(params: dict[str, Any]) -> None:
    params["models"]["mine"] = {"module": "external", "file": "own/net.py"}
    params["methods"]["mine"] = {"module": "given", "weights": "own/weights.pt"}
    study = params["studies"]["tiny"]
    study |= {"model": "mine", "methods": ["mine"]}
    del study["recipe"]


def test_one_cell_without_a_recipe_that_is_attacked_at_all_budgets(
    make_graph: MakeGraph, own: Path
) -> None:
    graph = make_graph(given)
    (cell,) = graph.stage("train")
    assert (cell.id, cell.step, cell.params["recipe"]) == (CELL, "given", None)
    assert [one.params["weights"] for one in graph.stage("attack")] == ["last"] * 4
    assert cell.params["model"]["files"] == {
        f"own/{name}": hash_file(own / name) for name in ("net.py", "blocks.py")
    }
    assert cell.params["method"]["files"] == {"own/weights.pt": hash_file(own / "weights.pt")}
    assert graph[ATTACK].params["model"]["files"] == cell.params["model"]["files"]


@pytest.mark.parametrize("weights", [["last", "best"], ["best", "last"], ["best"]])
def test_last_and_best_weights_are_the_same_and_attacked_once(
    make_graph: MakeGraph, own: Path, weights: list[str]
) -> None:
    def change(params: dict[str, Any]) -> None:
        given(params)
        params["studies"]["tiny"]["weights"] = weights
        params["studies"]["tiny"]["curve"] = {"attack": "fgsm", "epsilons": [0.1, 0.3]}

    attacks = make_graph(change).stage("attack")
    chosen = "last" if "last" in weights else "best"
    assert [one.params["weights"] for one in attacks] == [chosen] * 5


@pytest.mark.parametrize("name", ["net.py", "blocks.py", "weights.pt"])
def test_other_bytes_are_another_key(make_graph: MakeGraph, own: Path, name: str) -> None:
    before = keys(make_graph(given))
    with (own / name).open("ab") as file:
        file.write(b"# more\n")
    after = keys(make_graph(given))
    assert {id for id in before if before[id] == after[id]} == {"prepare:digits"}
    assert before.keys() == after.keys()


def test_what_is_not_read_moves_no_key(make_graph: MakeGraph, own: Path) -> None:
    graph = make_graph(given)
    (own / "unused.py").write_text("x = 2\n")
    os.utime(own / "weights.pt", (0, 0))
    assert keys(make_graph(given)) == keys(graph)
    assert "src/advtrain/training/loop.py" not in graph[CELL].code  # none of its epochs is run


@pytest.mark.parametrize(
    ("section", "parameter", "value"),
    [
        ("models", "build", "other"),
        ("models", "normalisation", "per_image"),
        ("models", "mean", [0.5]),
        ("models", "std", [0.5]),
        ("models", "file", "own/unused.py"),
        ("methods", "weights", ""),
        ("methods", "part", "ema"),
    ],
)
def test_every_option_moves_the_key(
    make_graph: MakeGraph, own: Path, section: str, parameter: str, value: object
) -> None:
    def change(params: dict[str, Any]) -> None:
        given(params)
        params[section]["mine"][parameter] = value

    assert make_graph(change)[CELL].key != make_graph(given)[CELL].key


@pytest.mark.parametrize(
    ("name", "place"), [("net.py", "models.mine.file"), ("weights.pt", "methods.mine.weights")]
)
def test_an_absent_file_is_an_error_that_names_its_place(
    make_graph: MakeGraph, own: Path, name: str, place: str
) -> None:
    params = make_graph(given).params
    names = [node.name for node in make_graph(given)]
    (own / name).unlink()
    with pytest.raises(ParamsError, match=rf"params.yaml: {place}: {own / name}: there is no such"):
        Graph(params, own.parent)
    assert [node.name for node in Graph(params, own.parent, names_only=True)] == names


def test_python_that_cannot_be_read(make_graph: MakeGraph, own: Path) -> None:
    (own / "blocks.py").write_text("def net(:\n")
    with pytest.raises(ParamsError, match="models.mine.file: own/net.py is not valid Python"):
        make_graph(given)


def test_a_given_cell_is_the_start_of_a_training(make_graph: MakeGraph, own: Path) -> None:
    def change(params: dict[str, Any]) -> None:
        given(params)
        params["methods"]["tuned"] = {"module": "fgsm_rs", "start": "mine"}
        params["studies"]["tiny"] |= {"methods": ["mine", "tuned"], "recipe": "short"}

    tuned = make_graph(change)["train:tiny/tuned-linf-0.1-s0"]
    assert tuned.roles["start"].id == CELL
    assert tuned.params["recipe"]["name"] == "short"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda p: p["methods"].update(mine={"module": "given", "start": "natural"}),
            "methods.mine.start: mine is given, not trained; take it out",
        ),
        (
            lambda p: p["studies"]["tiny"].update(methods=["mine", "natural"]),
            "studies.tiny.recipe: there is no recipe None",
        ),
        (
            lambda p: p["studies"]["tiny"].update(recipe={"default": "short", "mine": "short"}),
            "studies.tiny.recipe.mine is not a key",
        ),
        (lambda p: p["models"]["mine"].update(file=3), "models.mine.file: expected the path of a"),
        (lambda p: p["models"]["mine"].update(std=[2]), "models.mine.std: expected a number in"),
    ],
)
def test_mistakes_are_named(
    make_graph: MakeGraph, own: Path, change: Callable[[dict[str, Any]], None], told: str
) -> None:
    def both(params: dict[str, Any]) -> None:
        given(params)
        change(params)

    with pytest.raises(ParamsError) as error:
        make_graph(both)
    assert told in str(error.value)


def test_a_large_file_is_read_again_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "REMEMBERED", 4)
    read: list[str] = []
    monkeypatch.setattr(files, "hash_file", lambda path: read.append(path.name) or hash_file(path))
    large, small = tmp_path / "large.pt", tmp_path / "small.pt"
    large.write_bytes(b"12345678")
    small.write_bytes(b"12")
    for _ in range(3):
        assert file_digests(tmp_path, "large.pt") == {"large.pt": hash_file(large)}
        assert file_digests(tmp_path, str(small)) == {str(small): hash_file(small)}
    assert (read.count("large.pt"), read.count("small.pt")) == (1, 3)
    other = tmp_path / "other.pt"
    other.write_bytes(b"abcdefgh")  # as many bytes, and moved into place with its own times
    os.utime(other, ns=(large.stat().st_atime_ns, large.stat().st_mtime_ns))
    other.replace(large)
    assert file_digests(tmp_path, "large.pt") == {"large.pt": hash_file(large)}
    (tmp_path / files.DIGESTS).write_text("damaged")
    assert file_digests(tmp_path, "large.pt") == {"large.pt": hash_file(large)}


def test_what_a_file_imports_from_beside_it(tmp_path: Path) -> None:
    sources = {
        "net.py": "import os, numpy, package.deep\nfrom loose import thing\nimport absent",
        "loose.py": "def f():\n    import late",
        "late.py": "",
        "os.py": "",  # found before the library's
        "unused.py": "",
        "package/__init__.py": "from . import first",
        "package/first.py": "from .second import x",
        "package/second.py": "import package.third as third",
        "package/third.py": "",
        "package/deep/__init__.py": "from ..fourth import y",
        "package/fourth.py": "import net",
        "package/fifth.py": "",
    }
    for name, code in sources.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(code)
    found = {path.relative_to(tmp_path).as_posix() for path in imported_beside(tmp_path / "net.py")}
    assert found == sources.keys() - {"unused.py", "package/fifth.py"}
