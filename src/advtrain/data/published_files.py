"""Files of a published data set: found under `raw` or downloaded, checked either way."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path


def found_or_downloaded(
    name: str, raw: Path, md5: Mapping[str, str], download: Callable[[], object]
) -> dict[str, str]:
    """Make sure that every file is there and is the published one.

    Files that are there are never replaced: a damaged one may be somebody's only copy.

    Args:
        name: of the data set, for messages.
        raw: folder of raw data.
        md5: file, relative to `raw` -> md5 of the published file.
        download: puts the files there; called if one is missing.

    Returns:
        file -> `md5:...`, for the record.

    Raises:
        FileNotFoundError: if a file is missing and cannot be downloaded.
        ValueError: if a file differs from the published one.
    """
    missing = [file for file in md5 if not (raw / file).is_file()]
    _check(name, raw, {file: digest for file, digest in md5.items() if file not in missing})
    if missing:
        try:
            download()
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise FileNotFoundError(
                f"{name}: {raw / missing[0]} not found, and the download failed ({reason}); "
                f"put {', '.join(md5)} under {raw}, or run again with network"
            ) from error
        _check(name, raw, {file: md5[file] for file in missing})
    return {file: f"md5:{digest}" for file, digest in md5.items()}


def _check(name: str, raw: Path, md5: Mapping[str, str]) -> None:
    for file, expected in md5.items():
        path = raw / file
        if not path.is_file():
            raise FileNotFoundError(
                f"{name}: {path} not found, though the download reported success; put it there"
            )
        with path.open("rb") as content:
            got = hashlib.file_digest(content, "md5").hexdigest()
        if got != expected:
            raise ValueError(
                f"{name}: {path} is damaged, md5 is {got}, expected {expected}; "
                "delete it and run again with network, or put the published file there"
            )
