"""`advtrain evaluate`: from a command line to a study, and one model through the real graph."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from advtrain import cli, evaluate_command
from advtrain.models.external import external
from advtrain.params.reader import read
from advtrain.results.files import read_table
from tests.graph.conftest import MakeGraph, make_graph
from tests.pipeline.workspace import Workspace, make_workspace

__all__ = ["make_graph"]

OWN = Path(__file__).parent / "models"
FILES = ("own_network.py", "own_blocks.py")
Made = dict[str, Any]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in the scratch root, which holds a user's files."""
    (tmp_path / "Snakefile").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_use_code_of", lambda root: None)
    for name in ("DVC_ROOT", "ADVTRAIN_STORE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "own").mkdir()
    for name in FILES:
        shutil.copy(OWN / name, tmp_path / "own" / name)
    (tmp_path / "own/wrn-28 (best).pt").write_bytes(b"weights")
    return tmp_path


@pytest.fixture
def dry(make_graph: MakeGraph, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Return a function that runs `advtrain evaluate --dry-run` in a repository of studies.

    It returns what would be laid over params.yaml, or what was said if there was an error.
    """
    make_graph()

    def run(*arguments: str, code: int = 0, **changed: str) -> Any:
        given = {
            "model": "own/own_network.py:build",
            "weights": "own/wrn-28 (best).pt",
            "dataset": "digits",
            "attacks": "fgsm",
        } | changed
        options = [word for name, value in given.items() if value for word in (f"--{name}", value)]
        assert cli.main(["evaluate", *options, *arguments, "--dry-run"]) == code
        said = capsys.readouterr()
        return said.err if code else yaml.safe_load(said.out.split("\n\n")[0])

    return run


def test_a_command_line_is_a_study(dry: Callable[..., Made]) -> None:
    assert dry() == {
        "run": ["wrn_28_best"],
        "models": {
            "wrn_28_best": {"module": "external", "file": "own/own_network.py", "build": "build"}
        },
        "methods": {"wrn_28_best": {"module": "given", "weights": "own/wrn-28 (best).pt"}},
        "studies": {
            "wrn_28_best": {
                "title": "Evaluation of wrn_28_best",
                "dataset": "digits",
                "model": "wrn_28_best",
                "norm": "linf",
                "epsilons": ["8/255"],
                "methods": ["wrn_28_best"],
                "attacks": ["fgsm"],
                "weights": ["last"],
            }
        },
    }


def test_every_option_reaches_the_study(dry: Callable[..., Made]) -> None:
    made = dry(
        *("--name", "mine", "--norm", "l2", "--epsilon", "0.5", "128/255", "--examples", "9"),
        *("--batch-size", "7", "--curve", "0.25", "1/2", "--part", "ema"),
        *("--mean", "0.5", "--std", "63.75/255"),
        attacks="fgsm, pgd",
        model="own/own_network.py",
    )
    study = made["studies"]["mine"]
    assert (study["norm"], study["epsilons"]) == ("l2", [0.5, "128/255"])
    assert study["attacks"] == ["fgsm", "pgd"]
    assert study["curve"] == {"attack": "pgd", "epsilons": [0.25, "1/2"]}
    assert (study["attack_examples"], study["attack_batch_size"]) == (9, 7)
    assert made["methods"]["mine"]["part"] == "ema"
    assert made["models"]["mine"] == {
        "module": "external",
        "file": "own/own_network.py",
        "build": "build",
        "mean": [0.5],
        "std": [0.25],
    }
    assert made["attacks"] == {"pgd": {}}  # a module that params.yaml has no entry of
    assert "datasets" not in made


def test_a_data_set_without_an_entry(dry: Callable[..., Made]) -> None:
    assert dry(dataset="cifar10")["datasets"] == {"cifar10": {}}


def test_a_network_of_the_project(dry: Callable[..., Made]) -> None:
    made = dry("--name", "mine", model="small_cnn")
    assert made["studies"]["mine"]["model"] == "small_cnn"
    assert "models" not in made


def test_paths_are_those_of_the_folder_that_the_command_runs_in(
    dry: Callable[..., Made], here: Path, tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "net.py"
    elsewhere.write_text("def build(): ...")
    monkeypatch.chdir(here / "own")
    made = dry(model=f"{elsewhere}:build", weights="wrn-28 (best).pt")
    assert made["models"]["wrn_28_best"]["file"] == str(elsewhere)
    assert made["methods"]["wrn_28_best"]["weights"] == "own/wrn-28 (best).pt"
    assert dry(model="own_network.py", weights="")["run"] == ["own_network"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"attacks": "fgsmm"}, "--attacks: there is no 'fgsmm'; did you mean 'fgsm'?"),
        ({"attacks": ","}, "--attacks: expected one name at least, such as autoattack"),
        ({"dataset": "digit"}, "--dataset: there is no 'digit'; did you mean 'digits'?"),
        ({"model": "small_cn"}, "expected FILE.py:FUNCTION or a model of params.yaml; did you mea"),
        ({"model": "own/absent.py:build"}, "--model: there is no file "),
        ({"weights": "absent.pt"}, "--weights: there is no file "),
        ({"name": "tiny"}, "params.yaml has studies.tiny already; `advtrain select tiny` and `sna"),
        ({"name": "trades"}, "params.yaml has methods.trades already; choose another --name"),
        ({"name": "small_cnn"}, "params.yaml has models.small_cnn already; choose another --name"),
        (
            {"epsilon": "8"},
            "epsilons[0]: linf epsilon is in [0, 1] pixel units, got 8; did you",
        ),
        ({"model": "small_cnn", "mean": "0.5"}, "--mean, --std: are for a network of a file; mode"),
        ({"name": "a-b"}, "studies.a-b: a name holds letters, digits, '_' and '.'"),
    ],
)
def test_mistakes_are_named(dry: Callable[..., str], changed: dict[str, str], told: str) -> None:
    assert told in dry(code=2, **changed)


def test_earlier_evaluations_are_studies_that_wait(
    make_graph: MakeGraph, dry: Callable[..., Made], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = dry()
    kept = here / "results/train/wrn_28_best/wrn_28_best-s0"
    kept.mkdir(parents=True)
    orphan = f"orphan   {kept.relative_to(here)}\n"

    def status(*arguments: str) -> str:
        cli.main(["status", *arguments])
        return capsys.readouterr().out

    assert orphan in status()
    path = evaluate_command.write_overlay(here, "wrn_28_best", made)
    assert path == Path(".pipeline/evaluate/wrn_28_best.yaml")
    assert orphan not in status()
    assert "missing  train    wrn_28_best/wrn_28_best-s0" in status("--study", "wrn_28_best")
    (here / "own/wrn-28 (best).pt").unlink()
    assert orphan not in status()  # nothing runs that needs it
    (here / path).write_text("studies: {wrn_28_best: {attacks: [gone]}}")
    assert orphan in status()


def test_the_overlay_is_read_as_it_was_meant(dry: Callable[..., Made], here: Path) -> None:
    made = dry("--name", "mine", "--epsilon", "0.1", "8/255")
    params = read(here / "params.yaml")
    path = evaluate_command.write_overlay(here, "mine", made)
    again = yaml.safe_load((here / path).read_text())
    study = evaluate_command.merged(here, params, again).studies["mine"]
    assert [one.text for one in study.epsilons] == ["0.1", "8/255"]
    assert evaluate_command.with_evaluations(here, params).run == params.run


@pytest.mark.workflow
def test_a_model_through_the_real_graph(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("user")
    workspace = make_workspace(tmp_path_factory.mktemp("evaluate"))
    for name in FILES:
        shutil.copy(OWN / name, folder / name)
    torch.manual_seed(0)
    network = external(channels=1, size=8, classes=10, file=str(folder / FILES[0]))[1]
    weights = {f"module.{name}": one for name, one in network.state_dict().items()}
    torch.save({"epoch": 3, "model_state_dict": weights}, folder / "mine.pt")
    command = ("advtrain", "evaluate", "--model", f"{folder}/{FILES[0]}:build", "--weights",
               f"{folder}/mine.pt", "--dataset", "digits", "--epsilon", "0.1", "0.2", "--mean",
               "0.5", "--std", "0.25", "--examples", "30", "--cores", "2", "--attacks")  # fmt: skip

    def evaluated(attacks: str) -> tuple[dict[str, str], str]:
        told: list[str] = []
        done = workspace.done_by(lambda: told.append(workspace.run(*command, attacks).stdout))
        return done, told[0]

    done, told = evaluated("fgsm,pgd_2")
    cell = "mine/mine-s0"
    expected = {f"attack:{cell}/{attack}-linf-{epsilon}" for attack in ("fgsm", "pgd_2")
                for epsilon in ("0.1", "0.2")}  # fmt: skip
    assert {id for id in done if id.startswith(("train", "attack"))} == {f"train:{cell}", *expected}
    for name in ("audits", "results"):
        table = (workspace.root / f"reports/tables/mine/{name}.md").read_text()
        assert table in told
    assert "| mine | " in table
    assert "page: reports/index.html" in told
    rows = read_table(workspace.root / f"results/attack/{cell}/fgsm-linf-0.1/outcomes.parquet")
    assert rows.num_rows == 30
    assert "Evaluation of mine" in (workspace.root / "reports/index.html").read_text()
    assert "mine: " in workspace.run("advtrain", "status", "--study", "mine").stdout
    # Another attack is all that is left to do; other bytes of the file make all anew.
    done, _ = evaluated("fgsm,pgd_2,pgd")
    assert {id for id in done if id.startswith(("train", "attack"))} == {
        f"attack:{cell}/pgd-linf-{epsilon}" for epsilon in ("0.1", "0.2")
    }
    (folder / FILES[1]).write_text((folder / FILES[1]).read_text().replace(".relu()", ".tanh()"))
    done, _ = evaluated("fgsm")
    assert {id for id in done if id.startswith(("train", "attack"))} == {
        f"train:{cell}", *(one for one in expected if "fgsm" in one)
    }  # fmt: skip
    pasted_study_is_the_same(workspace)


def pasted_study_is_the_same(workspace: Workspace) -> None:
    """What was printed to be kept, merged into params.yaml, finds everything done."""
    made = yaml.safe_load((workspace.root / ".pipeline/evaluate/mine.yaml").read_text())

    def paste(params: Made) -> None:
        for section, entries in made.items():
            if section == "run":
                params["run"] = entries
            else:
                params.setdefault(section, {}).update(entries)

    workspace.edit(paste)
    assert workspace.is_finished()
