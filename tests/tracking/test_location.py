from pathlib import Path

import pytest

from advtrain.tracking.location import (
    database,
    ledger_path,
    lock_path,
    start_command,
    tracking_uri,
    web_address,
    without_password,
)


def test_by_default_the_runs_are_in_a_file_at_the_top(tmp_path):
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"


def test_the_environment_names_another_place(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    assert tracking_uri(tmp_path) == "http://localhost:5000"


def test_an_empty_environment_variable_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("DVC_ROOT", "")
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.parametrize("given", ["sqlite:///runs/all.db", "sqlite:///runs/all.db?timeout=5"])
def test_a_relative_file_lies_in_the_repository(tmp_path, monkeypatch, given):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "parent"))
    uri = tracking_uri(tmp_path / "copy")
    assert uri == given.replace("runs", f"{tmp_path}/parent/runs")
    assert database(uri) == tmp_path / "parent/runs/all.db"


def test_an_absolute_file_stays_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////elsewhere/all.db")
    assert tracking_uri(tmp_path) == "sqlite:////elsewhere/all.db"


@pytest.mark.parametrize("uri", ["http://localhost", "postgresql://x/y", "sqlite:///:memory:"])
def test_others_name_no_file(uri):
    assert database(uri) is None


def test_who_shares_a_file_shares_its_lock(tmp_path):
    uri = "sqlite:////shared/mlflow.db"
    assert lock_path(tmp_path / "a", uri) == lock_path(tmp_path / "b", uri)
    assert lock_path(tmp_path, uri) == Path("/shared/mlflow.db.lock")


def test_each_copy_and_each_place_has_its_own_ledger(tmp_path):
    paths = {
        ledger_path(tmp_path / root, uri)
        for root in ("a", "b")
        for uri in ("http://localhost:1", "http://localhost:2")
    }
    assert len(paths) == 4


def test_passwords_are_taken_out():
    text = "http://me:secret@host/x and postgresql://you:hidden@db failed"
    assert without_password(text) == "http://***@host/x and postgresql://***@db failed"


def test_the_runs_are_looked_at_where_mlflow_serves_them(monkeypatch):
    assert web_address("sqlite:////repository/mlflow.db") == "http://127.0.0.1:5000"
    assert web_address("http://me:secret@tracking:8080/") == "http://tracking:8080"
    monkeypatch.setenv("MLFLOW_UI", "https://runs.example/mlflow/")
    assert web_address("sqlite:////repository/mlflow.db") == "https://runs.example/mlflow"


def test_the_command_that_shows_the_runs_names_no_password(tmp_path):
    assert start_command(tmp_path, tracking_uri(tmp_path)) == "mlflow ui"
    assert start_command(tmp_path, "http://me:secret@tracking:8080") == ""
    for elsewhere in ("sqlite:////elsewhere/mlflow.db", "postgresql://me:secret@host/runs"):
        command = start_command(tmp_path, elsewhere)
        assert command == 'mlflow ui --backend-store-uri "$MLFLOW_TRACKING_URI"'
