"""The code digest: what moves it and what does not."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from advtrain import provenance
from advtrain.provenance import canonical, closure, code_digest, digest_files, git_commit, hash_json

BASE = '"""Doc."""\n\ndef f(x):\n    """Doc."""\n    return x + 1\n'


def digest(tmp_path: Path, text: str) -> str:
    path = tmp_path / "m.py"
    path.write_text(text)
    return digest_files(tmp_path, ["m.py"])["m.py"]


@pytest.mark.parametrize(
    "same",
    [
        BASE.replace("Doc", "Another word"),
        BASE.replace('"""Doc."""\n\n', "# a comment\n"),
        BASE.replace("return x + 1", "return (x  +  1)  # why"),
        "def f(x):\n\n    return x + 1\n",
    ],
)
def test_comments_docstrings_and_layout_do_not_count(tmp_path: Path, same: str) -> None:
    assert digest(tmp_path, same) == digest(tmp_path, BASE)


@pytest.mark.parametrize(
    "other",
    [
        BASE.replace("+ 1", "+ 2"),
        BASE.replace("+ 1", "+ 1.0"),
        BASE.replace("+ 1", "- 1"),
        BASE.replace("(x)", "(x, y=0)"),
        BASE.replace("return x", "y = x\n    return y"),
        BASE + "\nf(2)\n",
    ],
)
def test_anything_that_acts_counts(tmp_path: Path, other: str) -> None:
    assert digest(tmp_path, other) != digest(tmp_path, BASE)


def test_the_digest_is_the_same_for_every_python() -> None:
    # Computed once; ast.dump itself prints empty fields in some versions and not in others.
    import ast

    text = "def f(a, *, b=1):\n    return [x async for x in a if b] or f'{a!r:>{b}}'\n"
    assert hash_json(canonical(ast.parse(text))) == "484791f9713f84cf"


def repository(tmp_path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_the_closure_follows_imports_and_packages(tmp_path: Path) -> None:
    root = repository(
        tmp_path,
        {
            "src/advtrain/__init__.py": "",
            "src/advtrain/a/__init__.py": "",
            "src/advtrain/a/one.py": "from advtrain.a import two\nimport numpy\n",
            "src/advtrain/a/two.py": "def f():\n    import advtrain.b\n",
            "src/advtrain/b.py": "if TYPE_CHECKING:\n    import advtrain.unused\n",
            "src/advtrain/unused.py": "",
            "pipeline/__init__.py": "",
            "pipeline/step.py": "from advtrain.a.one import g\n",
        },
    )
    assert closure(root, ["pipeline/step.py"]) == (
        "pipeline/step.py",
        "src/advtrain/__init__.py",
        "src/advtrain/a/__init__.py",
        "src/advtrain/a/one.py",
        "src/advtrain/a/two.py",
        "src/advtrain/b.py",
    )


def test_a_template_counts_by_its_bytes(tmp_path: Path) -> None:
    root = repository(tmp_path, {"page.html": "<p>"})
    before = digest_files(root, ["page.html"])
    (root / "page.html").write_text("<q> ")
    assert digest_files(root, ["page.html"]) != before


def test_the_digest_of_a_step_is_that_of_its_files() -> None:
    assert code_digest({"a": "1", "b": "2"}) == code_digest({"b": "2", "a": "1"})
    assert code_digest({"a": "1"}) != code_digest({"a": "2"})


def test_the_commit_says_whether_the_code_differs(tmp_path: Path) -> None:
    assert git_commit(tmp_path) == "unknown"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    root = repository(tmp_path, {"src/a.py": "x = 1\n", "pipeline/b.py": "", "params.yaml": ""})
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "a"]):
        subprocess.run([*git, *command], cwd=root, check=True)
    clean = git_commit(root)
    assert len(clean) == 40
    (root / "src/a.py").write_text("x = 2\n")
    assert git_commit(root) == clean + "+"


def test_the_environment_names_the_versions() -> None:
    assert {"python", "torch", "pyarrow"} <= provenance.environment().keys()


@pytest.fixture
def forgetful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Stands for the start of another process."""

    def forget() -> None:
        monkeypatch.setattr(provenance, "_FILES", {})

    forget()
    return forget


def written(tmp_path: Path, text: str, age: float) -> None:
    path = tmp_path / "m.py"
    path.write_text(text)
    os.utime(path, (time.time() - age,) * 2)


def test_the_next_process_reads_no_unchanged_file(
    tmp_path: Path, forgetful: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, BASE, age=60)
    found = digest_files(tmp_path, ["m.py"])
    provenance.keep(tmp_path)
    forgetful()
    provenance.recall(tmp_path)
    monkeypatch.setattr(provenance, "canonical", lambda tree: pytest.fail("read again"))
    assert digest_files(tmp_path, ["m.py"]) == found


def test_an_edit_is_seen_by_the_next_process(tmp_path: Path, forgetful: Callable[[], None]) -> None:
    """Of the same size, too."""
    written(tmp_path, BASE, age=60)
    found = digest_files(tmp_path, ["m.py"])
    provenance.keep(tmp_path)
    forgetful()
    provenance.recall(tmp_path)
    written(tmp_path, BASE.replace("+ 1", "+ 2"), age=50)
    assert digest_files(tmp_path, ["m.py"]) != found


def test_what_was_just_written_is_not_kept(tmp_path: Path, forgetful: Callable[[], None]) -> None:
    """A second edit could bear the same time, where times are coarse."""
    written(tmp_path, BASE, age=0)
    digest_files(tmp_path, ["m.py"])
    provenance.keep(tmp_path)
    assert json.loads((tmp_path / provenance.MEMO).read_text())["files"] == {}


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"by": "another", "files": {}}', "\0"])
def test_a_damaged_memo_is_none(tmp_path: Path, forgetful: Callable[[], None], text: str) -> None:
    written(tmp_path, BASE, age=60)
    found = digest_files(tmp_path, ["m.py"])
    forgetful()
    (tmp_path / ".pipeline").mkdir()
    (tmp_path / provenance.MEMO).write_text(text)
    provenance.recall(tmp_path)
    assert digest_files(tmp_path, ["m.py"]) == found
