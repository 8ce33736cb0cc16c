"""The images of an epoch, minibatch by minibatch: rows of a tensor, or photographs decoded ahead.

Data of CIFAR's size are one tensor on the device. Those of ImageNet's are photographs: processes
beside the training decode and crop them, and each minibatch is on its way to the device while the
one before it is trained on.
"""

import contextlib
import ctypes
import math
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from advtrain.data.image_files import centre_crop, checksum, opened, resized_crop
from advtrain.data.source import Images
from advtrain.data.store import Photographs
from advtrain.noise import Noise
from advtrain.params.environment import counted

CROP = 3
"""Stream of random numbers, beside those of `augment`."""

TRIES = 10
"""Random boxes that are tried before the centre is taken, as torchvision has it."""

RATIOS = (3 / 4, 4 / 3)
"""The range of a random box's width / height, as torchvision has it."""

WORKERS = "ADVTRAIN_WORKERS"

Box = tuple[int, int, int, int]


def fetch(
    images: Tensor | Photographs,
    chosen: Sequence[Tensor],
    *,
    noise_of: Callable[[Tensor], Noise] | None,
    device: torch.device,
    views: int = 1,
) -> Iterator[Tensor]:
    """Yield the images of some minibatches, in their order.

    A photograph becomes the same pixels whatever minibatch it is in, however many processes decode,
    and wherever a resumed epoch begins: its crop depends on its noise alone. The global generators
    are not drawn from. The processes are as many as `workers` says.

    Args:
        images: of a split, row by row (`Split.stored`).
        chosen: the rows of each minibatch, (n,) int64.
        noise_of: rows (M,) -> the noise of their `views * M` images, view after view; photographs
            are cropped at random by it. None is for their centres. Pixels are yielded as they are.
        device: where the minibatches go.
        views: how many images to make of each row.

    Yields:
        (views * n, C, H, W) uint8 on the device, view after view.

    Raises:
        ValueError: if a photograph is damaged or not the one that was prepared.
        FileNotFoundError: if it is not there.
        RuntimeError: if a process that decodes dies.
    """
    if isinstance(images, Photographs):
        batches = _decoded(images, chosen, noise_of, device, views)
        yield from _ahead(batches, device) if device.type == "cuda" else batches
        return
    for rows in chosen:
        found = images[rows].to(device)
        yield found.repeat(views, 1, 1, 1) if views > 1 else found


def workers() -> int:
    """How many processes decode: `ADVTRAIN_WORKERS`, or one per core that this process may use.

    With 0 the training itself decodes. No number depends on it.

    Raises:
        ValueError: if the variable is not a whole number.
    """
    usable = getattr(os, "sched_getaffinity", None)
    cores = len(usable(0)) if usable else os.cpu_count() or 1
    return counted(WORKERS, cores, what="whole number of processes", least=0)


def random_box(width: int, height: int, numbers: npt.NDArray[np.float32], least_area: float) -> Box:
    """Choose what part of a photograph to look at, as torchvision's `RandomResizedCrop` does.

    Its share of the area is uniform in [least_area, 1], the logarithm of its ratio is uniform
    between those of `RATIOS`, and its place is uniform; of `TRIES` boxes the first that lies in the
    photograph is taken, else the largest in the centre of an allowed ratio.

    Args:
        width: of the photograph in pixels.
        height: likewise.
        numbers: (TRIES + 1, 2) in [0, 1): of area and ratio for each try; of the place.
        least_area: in [0, 1].

    Returns:
        Left, top, right and bottom in pixels.
    """
    low, high = (math.log(ratio) for ratio in RATIOS)
    across, down = numbers[-1].tolist()
    for area, ratio in numbers[:-1].tolist():
        pixels = width * height * (least_area + area * (1 - least_area))
        shape = math.exp(low + ratio * (high - low))
        wide, tall = round(math.sqrt(pixels * shape)), round(math.sqrt(pixels / shape))
        if 0 < wide <= width and 0 < tall <= height:
            left, top = int(across * (width - wide + 1)), int(down * (height - tall + 1))
            return left, top, left + wide, top + tall
    wide = min(width, max(1, round(height * RATIOS[1])))
    tall = min(height, max(1, round(width / RATIOS[0])))
    left, top = (width - wide) // 2, (height - tall) // 2
    return left, top, left + wide, top + tall


class _Batch(NamedTuple):
    """What a process gets: rows (n,), and the examples (views, n) of the noise of their images."""

    rows: npt.NDArray[np.int64]
    examples: npt.NDArray[np.int64] | None


class _Decoder(Dataset[Tensor | Exception]):
    """Minibatches of photographs, decoded. An error is returned, to be raised as it is."""

    def __init__(self, photographs: Photographs, seed: int, views: int) -> None:
        self.photographs, self.seed, self.views = photographs, seed, views

    def __getitem__(self, batch: _Batch) -> Tensor | Exception:
        try:
            return torch.from_numpy(self._decoded(batch))
        except (OSError, ValueError) as error:
            return error

    def _decoded(self, batch: _Batch) -> Images:
        known = self.photographs
        images = np.empty((self.views, len(batch.rows), 3, known.size, known.size), np.uint8)
        numbers = self._numbers(batch.examples)
        for place, row in enumerate(batch.rows):
            photograph = self._open(int(row))
            for view in range(self.views):
                if batch.examples is None:
                    crop = centre_crop(photograph, known.size, known.shorter_side)
                else:
                    box = random_box(*photograph.size, numbers[view, place], known.least_area)
                    crop = resized_crop(photograph, box, known.size)
                images[view, place] = crop
        return images.reshape(-1, *images.shape[2:])

    def _numbers(self, examples: npt.NDArray[np.int64] | None) -> npt.NDArray[np.float32]:
        """(views, n, TRIES + 1, 2), what `random_box` needs; nothing for the centres."""
        if examples is None:
            return np.empty(0, np.float32)
        noise = Noise(self.seed, torch.from_numpy(examples.reshape(-1)))
        drawn: npt.NDArray[np.float32] = noise.uniform((TRIES + 1, 2)).numpy()
        return drawn.reshape(*examples.shape, TRIES + 1, 2)

    def _open(self, row: int) -> Image.Image:
        """Read one photograph; its content has to be what it was when it was listed."""
        known = self.photographs
        path, size = known.raw / known.files[row].as_py(), int(known.sizes[row])
        mend = "put back what was there, or delete the prepared folder and run the prepare step"
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{known.name}: {path} not found, but it was listed when the data set was "
                f"prepared; correct raw_data in params.yaml, {mend} again"
            ) from None
        if len(content) != size:
            raise ValueError(
                f"{known.name}: {path} has {len(content)} bytes, but had {size} when the data set "
                f"was prepared; {mend} again"
            )
        if (got := checksum(content)) != (listed := int(known.checksums[row])):
            raise ValueError(
                f"{known.name}: {path} has as many bytes as when the data set was prepared, but "
                f"other content: its CRC32 is {got:08x}, but was {listed:08x}; {mend} again"
            )
        return opened(known.name, path, content)


def _decoded(
    photographs: Photographs,
    chosen: Sequence[Tensor],
    noise_of: Callable[[Tensor], Noise] | None,
    device: torch.device,
    views: int,
) -> Iterator[Tensor]:
    """Yield the minibatches in the memory of the host, pinned for a CUDA device."""
    seed, batches = _batches(chosen, noise_of, views)
    loader: DataLoader[Tensor | Exception] = DataLoader(
        _Decoder(photographs, seed, views),
        batch_size=None,  # an item is a whole minibatch
        sampler=batches,
        num_workers=min(workers(), len(batches)),
        worker_init_fn=_end_with_parent,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # it draws a seed, which must not move the global ones
    )
    found: Iterator[Tensor | Exception] = iter(loader)
    try:
        while (images := _next(found)) is not None:
            if isinstance(images, Exception):
                raise images
            yield images
    finally:
        del found  # which ends the workers, also where a traceback keeps this frame


def _next(found: Iterator[Tensor | Exception]) -> Tensor | Exception | None:
    try:
        return next(found, None)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise RuntimeError(
            f"a process that decodes photographs died ({' '.join(str(error).split())}); if memory "
            f"or /dev/shm is short, set {WORKERS} to a lower number than {workers()}"
        ) from error


def _batches(
    chosen: Sequence[Tensor], noise_of: Callable[[Tensor], Noise] | None, views: int
) -> tuple[int, list[_Batch]]:
    """Bring the rows and the keys of their noise to the host: once, for all minibatches."""
    if not chosen:
        return 0, []
    ends = np.cumsum([len(rows) for rows in chosen])[:-1]
    rows = torch.cat(tuple(chosen))
    places = np.split(rows.cpu().numpy(), ends)
    if noise_of is None:
        return 0, [_Batch(some, None) for some in places]
    noise = noise_of(rows).fold_in(CROP)
    examples = noise.examples.cpu().numpy().reshape(views, len(rows))
    keys = np.split(examples, ends, axis=1)
    return noise.seed, [_Batch(*both) for both in zip(places, keys, strict=True)]


def _end_with_parent(worker: int) -> None:
    """Let Linux kill a worker with the training, whose locks it would else hold for seconds."""
    set_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def _ahead(batches: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Copy each minibatch to the device while the one before it is trained on."""
    copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    waiting: tuple[Tensor, torch.cuda.Event] | None = None
    for images in batches:
        with torch.cuda.stream(copies):
            copied = images.to(device, non_blocking=True), copies.record_event()
        if waiting is not None:
            yield _handed_over(*waiting)
        waiting = copied
    if waiting is not None:
        yield _handed_over(*waiting)


def _handed_over(images: Tensor, copied: torch.cuda.Event) -> Tensor:
    current = torch.cuda.current_stream(images.device)
    current.wait_event(copied)
    images.record_stream(current)  # its memory is not reused before the training is through with it
    return images
