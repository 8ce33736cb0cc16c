"""Extra images beside a data set: pseudo-labelled, generated, or found without labels."""

import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from advtrain.data.image_files import SUFFIXES, folders, images_in, listing, opened, part_of_files
from advtrain.data.source import NO_LABEL, Images, Part, part_of
from advtrain.data.store import sha256

Arrays = tuple[npt.NDArray[Any], npt.NDArray[Any]]
"""Images and labels, not yet checked."""


def read_extra(
    name: str, raw: Path, extra: str, classes: tuple[str, ...], size: int
) -> tuple[Part, dict[str, str]]:
    """Read extra images, which training mixes in and nothing else sees.

    Three things are understood:

    - `.pickle` or `.pkl`, as the 500 000 pseudo-labelled images of Carmon et al. 2019: a dict with
      `data` (N, H, W, 3) uint8 and `extrapolated_targets` (N,), and whatever else. No code of the
      file is run. The images are in memory, once.
    - `.npz`, as the generated images of Gowal et al. 2021 and Wang et al. 2023: `image`
      (N, H, W, 3) uint8 and `label` (N,). What is stored uncompressed is mapped, not loaded.
    - a folder of images of the right size: either all in the folder itself, which are without
      labels, or in folders named as the classes.

    Args:
        name: of the data set, for messages.
        raw: folder of raw data.
        extra: the file or folder, relative to `raw` or absolute.
        classes: class names of the data set.
        size: height and width of an image in pixels.

    Returns:
        The images, and `extra` -> checksum for the record: of a file its sha256, of a folder that
        of the names and sizes in it, not of their content.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        ValueError: if it is not what is described above.
    """
    path = raw / extra
    if path.is_dir():
        return _folder(name, path, extra, classes, size)
    if not path.is_file():
        raise FileNotFoundError(
            f"{name}: {path} not found; put the extra images there, or correct the parameter "
            "'extra', which is a path relative to the raw data or an absolute one"
        )
    if path.suffix not in READERS:
        raise ValueError(
            f"{name}: {path} is no kind of extra images; expected one of "
            f"{', '.join(sorted(READERS))}, or a folder of images"
        )
    where = f"{name}: {path}"
    images, labels = READERS[path.suffix](where, path)
    _check(where, images, labels, len(classes), size)
    return part_of(np.moveaxis(images, 3, 1), labels), {extra: f"sha256:{sha256(path)}"}


def _check(
    where: str, images: npt.NDArray[Any], labels: npt.NDArray[Any], classes: int, size: int
) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
        raise ValueError(
            f"{where}: the images are {images.dtype} {images.shape}, "
            f"expected uint8 (N, {size}, {size}, 3); convert them"
        )
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise ValueError(
            f"{where}: the labels are {labels.dtype} {labels.shape}, "
            "expected whole numbers (N,); convert them"
        )
    if len(images) != len(labels) or not len(images):
        raise ValueError(
            f"{where}: got {len(images)} images and {len(labels)} labels, "
            "expected as many of both, and 1 or more; make the file again"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"{where}: the labels run from {labels.min()} to {labels.max()}, expected 0 to "
            f"{classes - 1}; is the file for another data set?"
        )


# --- A folder of images -------------------------------------------------------------------------


def _folder(
    name: str, path: Path, extra: str, classes: tuple[str, ...], size: int
) -> tuple[Part, dict[str, str]]:
    found = folders(path)
    if not found:
        files = images_in(name, path)
        labels = [NO_LABEL] * len(files)
    else:
        if any(file.suffix.lower() in SUFFIXES for file in path.iterdir()):
            raise ValueError(
                f"{name}: {path} holds both images and folders; put all images into the folders "
                "of their classes, or all into the folder itself if they have no labels"
            )
        if unknown := [folder for folder in found if folder not in classes]:
            raise ValueError(
                f"{name}: {path / unknown[0]} is named as no class of {name} "
                f"({', '.join(map(repr, classes[:2]))}, ...); rename or remove that folder, or put "
                f"images without labels into {path} itself"
            )
        files, labels = [], []
        for folder in found:
            inside = images_in(name, path / folder)
            files += inside
            labels += [classes.index(folder)] * len(inside)
    decode = partial(_decode, name=name, size=size)
    part = part_of_files(files, np.asarray(labels, dtype=np.int64), decode)
    return part, {extra: listing(path, files)}


def _decode(path: Path, name: str, size: int) -> Images:
    image = opened(name, path)
    if image.size != (size, size):
        width, height = image.size
        raise ValueError(
            f"{name}: {path} is {width} x {height} pixels, expected {size} x {size}; "
            "resize the extra images first"
        )
    return np.asarray(image).transpose(2, 0, 1)


# --- NumPy's archive ----------------------------------------------------------------------------


def _archived(where: str, path: Path) -> Arrays:
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"the checksum of {damaged} is wrong")
        with np.load(path, allow_pickle=False) as content:
            if missing := {"image", "label"} - set(content.files):
                raise ValueError(_misses(content.files, missing))
            images = _mapped(path, "image.npy")
            return content["image"] if images is None else images, content["label"]
    except MemoryError:
        raise
    # What zipfile and zlib raise for a damaged file is not of one kind.
    except Exception as error:
        raise ValueError(
            f"{where}: not an archive of the arrays 'image' and 'label' ({error}); "
            "fetch or make it again"
        ) from error


def _mapped(path: Path, member: str) -> Images | None:
    """Map an array of bytes that lies uncompressed in an archive; None if it does not."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
        with archive.open(info) as stored:
            version = np.lib.format.read_magic(stored)
            if info.compress_type != zipfile.ZIP_STORED or version != (1, 0):
                return None
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stored)
            inside = stored.tell()
    if dtype != np.uint8:
        return None
    with path.open("rb") as file:
        # The local header has 30 bytes and two fields, whose lengths it states at byte 26.
        file.seek(info.header_offset + 26)
        fields = sum(struct.unpack("<HH", file.read(4)))
    offset = info.header_offset + 30 + fields + inside
    return np.memmap(path, np.uint8, "r", offset, shape, "F" if fortran else "C")


# --- A pickle of arrays -------------------------------------------------------------------------


class _Kind:
    """Stands for `numpy.dtype` in a pickle."""

    def __init__(self, text: str, *_: object) -> None:
        self.text, self.byte_order = text, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.byte_order = state[1]


class _Array:
    """Stands for `numpy.ndarray` in a pickle: what the array is made of, not yet made."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    @classmethod
    def of_buffer(cls, content: bytes, kind: _Kind, shape: tuple[int, ...], order: str) -> "_Array":
        array = cls()
        array.state = (1, shape, kind, order == "F", content)
        return array


STANDS_FOR: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Kind,
    ("numpy", "ndarray"): None,  # only an argument of `_reconstruct`
    ("_codecs", "encode"): lambda text, _: text.encode("latin1"),  # bytes before protocol 3
    **{
        (f"{core}.{module}", function): stand_in
        for core in ("numpy.core", "numpy._core")  # NumPy 1 and 2
        for module, function, stand_in in (
            ("multiarray", "_reconstruct", _Array),
            ("multiarray", "scalar", lambda *_: None),
            ("numeric", "_frombuffer", _Array.of_buffer),
        )
    },
}


class _Unpickler(pickle.Unpickler):
    """Reads dicts, texts, numbers and arrays; a file that names anything else is refused.

    A pickle can call whatever it names. Here every name stands for one of the classes above, which
    only hold what they are given; NumPy itself is called afterwards, on checked values.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name."""
        if (module, name) not in STANDS_FOR:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of an array")
        return STANDS_FOR[module, name]


def _pickled(where: str, path: Path) -> Arrays:
    keys = ("data", "extrapolated_targets")
    try:
        with path.open("rb") as file:
            content = _Unpickler(file).load()
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
        if missing := set(keys) - set(content):
            raise ValueError(_misses(content, missing))
        images, labels = (_made(content[key]) for key in keys)
        return images, labels
    except MemoryError:
        raise
    # What a damaged pickle raises is not of one kind.
    except Exception as error:
        raise ValueError(
            f"{where}: not a pickled dict of the arrays 'data' and 'extrapolated_targets' "
            f"({error}); fetch or make it again"
        ) from error


def _made(stored: Any) -> npt.NDArray[Any]:
    if not isinstance(stored, _Array):
        raise ValueError(f"it holds a {type(stored).__name__} where an array is expected")
    _, shape, kind, fortran, content = stored.state
    dtype = np.dtype(kind.text).newbyteorder(kind.byte_order)
    if dtype.kind not in "biuf":
        raise ValueError(f"it holds an array of {dtype}, expected numbers")
    # The bytes of the pickle are the memory of the array: nothing is copied.
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def _misses(found: Any, missing: set[str]) -> str:
    return f"it holds {', '.join(sorted(map(repr, found))) or 'nothing'}, no {min(missing)!r}"


READERS: dict[str, Callable[[str, Path], Arrays]] = {
    ".pickle": _pickled,
    ".pkl": _pickled,
    ".npz": _archived,
}
