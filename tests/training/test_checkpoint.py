import logging
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from advtrain.training.checkpoint import load_resume, load_weights, save_resume, save_weights

SETTINGS = {"seed": "0", "epochs": "3"}


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).state_dict()


def test_weights_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "last.safetensors"
    save_weights(path, weights())
    loaded = load_weights(path)
    assert loaded.keys() == weights().keys()
    assert all(torch.equal(loaded[name], weights()[name]) for name in loaded)
    assert [p.name for p in path.parent.iterdir()] == ["last.safetensors"]


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    save_weights(one, weights())
    save_weights(other, dict(reversed(weights().items())))
    assert one.read_bytes() == other.read_bytes()


def test_tied_and_transposed_weights_can_be_saved(tmp_path: Path) -> None:
    tied = torch.arange(6.0).reshape(2, 3)
    save_weights(tmp_path / "w", {"a": tied, "b": tied, "c": tied.T})
    assert torch.equal(load_weights(tmp_path / "w")["c"], tied.T)


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"last.safetensors: not found; train the cell"):
        load_weights(tmp_path / "last.safetensors")


@pytest.mark.parametrize("damage", ["empty", "cut", "text"])
def test_damaged_weights_are_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "last.safetensors"
    save_weights(path, weights())
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": content[:-5], "text": b"<html>" * 100}[damage])
    with pytest.raises(ValueError, match=r"last.safetensors: not a whole safetensors file"):
        load_weights(path)


def test_a_state_comes_back_for_the_same_settings(tmp_path: Path) -> None:
    save_resume(tmp_path, SETTINGS, {"weights": weights(), "history": [{"epoch": 1}]})
    state = load_resume(tmp_path, dict(reversed(SETTINGS.items())))
    assert state is not None
    assert state["history"] == [{"epoch": 1}]
    assert torch.equal(state["weights"]["0.weight"], weights()["0.weight"])


def test_no_file_is_no_state_and_no_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert load_resume(tmp_path, SETTINGS) is None
    assert not caplog.records


def test_a_state_of_other_settings_is_not_continued(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_resume(tmp_path, SETTINGS, {"history": []})
    with caplog.at_level(logging.WARNING):
        assert load_resume(tmp_path, {"seed": "0", "epochs": "5"}) is None
    assert "other settings (epochs: 3, now 5); the training starts over" in caplog.text


TWO = {**SETTINGS, "device": "2 x cuda"}


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ("2 x cpu", "cpu", "3 epochs done by 2 processes, .* 1 process, .*ADVTRAIN_PROCESSES=2 to"),
        ("cpu", "4 x cpu", "3 epochs done by 1 process, .* 4 processes, .*ADVTRAIN_PROCESSES=1 to"),
        ("2 x cuda", "12 x cuda", "resume.pt: 3 epochs .* delete that file to start over with 12"),
    ],
)
def test_another_number_of_processes_is_refused_and_loses_nothing(
    tmp_path: Path, before: str, now: str, told: str
) -> None:
    state = {"history": [{"epoch": epoch} for epoch in (1, 2, 3)]}
    save_resume(tmp_path, SETTINGS | {"device": before}, state)
    with pytest.raises(ValueError, match=told):
        load_resume(tmp_path, SETTINGS | {"device": now})
    assert load_resume(tmp_path, SETTINGS | {"device": before}) == state


@pytest.mark.parametrize(
    ("epochs", "now"),
    [
        (0, {"device": "cuda"}),  # nothing is lost
        (3, {"device": "cpu"}),
        (3, {"device": "2 x cpu"}),
        (3, {"device": "cuda", "seed": "1"}),
    ],
)
def test_another_training_starts_over_whatever_the_number_of_processes(
    tmp_path: Path, epochs: int, now: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    save_resume(tmp_path, TWO, {"history": [{}] * epochs})
    with caplog.at_level(logging.WARNING):
        assert load_resume(tmp_path, TWO | now) is None
    assert "device: 2 x cuda, now" in caplog.text


def flipped(content: bytes) -> bytes:
    # In the middle lie the weights: torch.load alone would read them without a word.
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [lambda c: b"", lambda c: c[: len(c) // 2], lambda c: b"no zip " * 50, flipped],
    ids=["empty", "cut", "text", "one bit"],
)
def test_a_damaged_state_is_told_and_not_continued(
    tmp_path: Path, damage, caplog: pytest.LogCaptureFixture
) -> None:
    save_resume(tmp_path, SETTINGS, {"weights": torch.arange(5000.0)})
    path = tmp_path / "resume.pt"
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert load_resume(tmp_path, SETTINGS) is None
    assert "resume.pt: damaged (" in caplog.text
    assert "the training starts over" in caplog.text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_named_and_the_old_state_kept(tmp_path: Path) -> None:
    save_resume(tmp_path, SETTINGS, {"epoch": 1})
    (tmp_path / "resume.pt.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"resume.pt: cannot be written \(No space left on device\)"):
        save_resume(tmp_path, SETTINGS, {"epoch": 2})
    assert load_resume(tmp_path, SETTINGS) == {"epoch": 1}


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/run/resume.pt: cannot be written"):
        save_resume(tmp_path / "file" / "run", SETTINGS, {})


def test_what_a_killed_write_left_beside_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "resume.pt.tmp").write_bytes(b"half of a")
    assert load_resume(tmp_path, SETTINGS) is None
    save_resume(tmp_path, SETTINGS, {"epoch": 2})
    assert load_resume(tmp_path, SETTINGS) == {"epoch": 2}
