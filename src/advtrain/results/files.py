"""Files: written whole or not at all, read with their checksums, refused in words."""

import errno
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DamagedFileError(ValueError):
    """A result file cannot be read, or does not hold what its name says."""


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet, atomically: the whole file appears under its name, or none.

    Raises:
        OSError: naming the file and the mend.
    """
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    write_bytes(path, buffer.getvalue())


def write_bytes(path: Path, content: bytes | pa.Buffer) -> None:
    """Write a file atomically: the whole file appears under its name, or none.

    Raises:
        OSError: naming the file and the mend.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        full = error.errno in FULL
        mend = "free some space and run again" if full else "mend that and run again"
        what = "the disk is full" if full else error.strerror
        raise OSError(error.errno, f"{path}: not written, {what}; {mend}") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_table(path: Path) -> pa.Table:
    """Read a Parquet file, checking its pages.

    Raises:
        DamagedFileError: if it is damaged.
        FileNotFoundError: if it is not there.
    """
    if not path.is_file():
        raise FileNotFoundError(
            errno.ENOENT, "not there; `dvc pull` fetches it, `snakemake --cores all` makes it", path
        )
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedFileError(
            f"{path}: damaged, {reason}; delete it and run `dvc checkout` or snakemake again"
        ) from error
