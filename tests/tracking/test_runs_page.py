import pytest

from advtrain.tracking.ledger import Shown
from advtrain.tracking.runs_page import PAGE, write

ADDRESS = "http://127.0.0.1:9"
TRAINING, EVALUATION, OTHER = "a" * 16, "e" * 16, "2" * 16


def run(key, name, *, study="digits", stage="train", parent="", page=None):
    address = f"#/experiments/1/runs/{study}{key}?of=it" if page is None else page
    return Shown(
        *("digest", address, study, name, key, parent, "FINISHED"), stage=stage, cell="a cell"
    )


def delivered(*runs):
    return {f"{one.study}/{one.key}": one for one in runs}


RUNS = delivered(
    run(EVALUATION, "pgd_20-linf-0.2", stage="attack", parent=TRAINING),
    run(TRAINING, "trades-linf-0.2-s0"),
    run(OTHER, "digits: tables", stage="summary"),
)


def test_each_run_has_a_link_under_its_study_and_key(tmp_path):
    write(tmp_path, RUNS, ADDRESS, "mlflow ui")
    text = (tmp_path / PAGE).read_text(encoding="utf-8")
    for key in (TRAINING, EVALUATION, OTHER):
        link = f'href="{ADDRESS}/#/experiments/1/runs/digits{key}?of=it"'
        assert f'id="digits/{key}" data-key="{key}" {link}' in text
    assert text.index("digits: tables") < text.index("trades-linf-0.2-s0")
    assert "<summary>1 evaluation</summary>" in text
    assert "<code>mlflow ui</code>" in text


def test_an_evaluation_whose_training_is_not_shown_is_listed(tmp_path):
    write(tmp_path, delivered(run(EVALUATION, "pgd_20", parent="9" * 16)), ADDRESS, "")
    assert f'id="digits/{EVALUATION}"' in (tmp_path / PAGE).read_text(encoding="utf-8")


def test_the_same_key_in_two_studies_is_two_links(tmp_path):
    both = delivered(run(TRAINING, "one"), run(TRAINING, "two", study="survey"))
    write(tmp_path, both, ADDRESS, "")
    text = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert f'id="digits/{TRAINING}"' in text
    assert f'id="survey/{TRAINING}"' in text


def test_names_are_text(tmp_path):
    write(tmp_path, delivered(run(TRAINING, "<b>bold")), ADDRESS, "")
    assert "&lt;b&gt;bold" in (tmp_path / PAGE).read_text(encoding="utf-8")


@pytest.mark.parametrize("runs", [{}, delivered(run(TRAINING, "one", page=""))])
def test_without_a_run_that_has_an_address_there_is_no_page(tmp_path, runs):
    write(tmp_path, runs, ADDRESS, "")
    assert not (tmp_path / PAGE).exists()


@pytest.mark.parametrize("change", ["nothing", "order", "address", "start", "run"])
def test_the_page_is_written_only_where_it_says_something_else(tmp_path, change):
    write(tmp_path, RUNS, ADDRESS, "mlflow ui")
    path = tmp_path / PAGE
    before = path.stat().st_ino
    runs = dict(reversed(RUNS.items())) if change == "order" else RUNS
    further = delivered(run("7" * 16, "further")) if change == "run" else {}
    write(
        tmp_path,
        runs | further,
        "http://elsewhere" if change == "address" else ADDRESS,
        "" if change == "start" else "mlflow ui",
    )
    assert (path.stat().st_ino == before) == (change in ("nothing", "order"))
