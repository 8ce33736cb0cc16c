import hashlib
from pathlib import Path

import pytest

from advtrain.data.published_files import found_or_downloaded

CONTENT = {"set/a": b"first", "set/b": b"second"}
MD5 = {file: hashlib.md5(content).hexdigest() for file, content in CONTENT.items()}


def put(raw: Path, *files: str) -> None:
    for file in files:
        (raw / file).parent.mkdir(exist_ok=True)
        (raw / file).write_bytes(CONTENT[file])


def refuse() -> None:
    raise AssertionError("nothing is missing")


def test_found_files_are_not_downloaded(tmp_path: Path) -> None:
    put(tmp_path, *CONTENT)
    got = found_or_downloaded("letters", tmp_path, MD5, refuse)
    assert got == {file: f"md5:{digest}" for file, digest in MD5.items()}


def test_missing_files_are_downloaded(tmp_path: Path) -> None:
    found_or_downloaded("letters", tmp_path, MD5, lambda: put(tmp_path, *CONTENT))
    assert (tmp_path / "set/b").read_bytes() == b"second"


@pytest.mark.parametrize("error", [ConnectionError("no route\nto host"), RuntimeError("bad file")])
def test_failed_download_names_the_place_and_the_mend(tmp_path: Path, error: Exception) -> None:
    put(tmp_path, "set/a")

    def fail() -> None:
        raise error

    with pytest.raises(FileNotFoundError) as caught:
        found_or_downloaded("letters", tmp_path, MD5, fail)
    message = str(caught.value)
    assert f"letters: {tmp_path / 'set/b'} not found, and the download failed" in message
    assert f"put set/a, set/b under {tmp_path}, or run again with network" in message
    assert "\n" not in message


def test_damaged_file_is_named_and_kept(tmp_path: Path) -> None:
    put(tmp_path, *CONTENT)
    (tmp_path / "set/b").write_bytes(b"sec0nd")
    with pytest.raises(ValueError, match=r"set/b is damaged, md5 is \w+, expected \w+; delete it"):
        found_or_downloaded("letters", tmp_path, MD5, refuse)
    assert (tmp_path / "set/b").read_bytes() == b"sec0nd"


def test_downloaded_files_are_checked_too(tmp_path: Path) -> None:
    def wrong() -> None:
        put(tmp_path, *CONTENT)
        (tmp_path / "set/a").write_bytes(b"fake")

    with pytest.raises(ValueError, match="set/a is damaged"):
        found_or_downloaded("letters", tmp_path, MD5, wrong)


def test_download_that_brings_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="though the download reported success"):
        found_or_downloaded("letters", tmp_path, MD5, lambda: None)
