"""Images in folders, one a class, as ImageNet is laid out."""

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from advtrain.data.image_files import (
    Checksums,
    ListedPart,
    centre_crop,
    checksums,
    folders,
    images_in,
    listing,
    opened,
    part_of_files,
)
from advtrain.data.source import Images, Part, Positions, Source
from advtrain.params.quantities import Count, Share


def imagefolder(
    raw: Path,
    *,
    folder: str = "imagenet",
    image_size: Count = 224,
    shorter_side: Count | None = None,
    decode: Literal["once", "every_epoch"] = "once",
    least_area: Share = 0.08,
) -> Source:
    """Read `raw/<folder>/train/<class>/*` and, as the test part, `raw/<folder>/val/<class>/*`.

    The shorter side is resized (bilinear, antialiased) and the centre cropped, as torchvision's
    `Resize` and `CenterCrop` do on a Pillow image. Only the images in hand are in memory.

    Args:
        raw: folder of raw data.
        folder: name of the data set's folder.
        image_size: height and width of the crop in pixels.
        shorter_side: length in pixels that the shorter side is resized to first; None is 8/7 of
            `image_size`, which is ImageNet's 256 for 224.
        decode: `once`, when the data set is prepared, or `every_epoch`, for data that are too large
            to be kept as pixels: training and validation photographs are then listed with the size
            and the CRC32 of their content, and decoded whenever they are used. Training meets
            random crops (torchvision's `RandomResizedCrop`), validation the centre; the test split
            is prepared as ever.
        least_area: the smallest share of a photograph's area that a random crop covers, with
            `decode: every_epoch`.

    Returns:
        The data set; classes are the folders of `train` by name. Its checksums are those of the
        list of files and sizes, not of their content: prepared pixels carry that, and a prepared
        list carries its CRC32, to which each photograph is held when it is decoded.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if a folder holds no images, the classes of the two parts differ, or, when it
            is read, an image is damaged.
    """
    root = raw / folder
    resized = image_size * 8 // 7 if shorter_side is None else shorter_side
    if resized < image_size:
        raise ValueError(
            f"imagefolder: shorter_side {resized} is less than image_size {image_size}; "
            "a crop cannot be larger than the image"
        )
    if not (root / "train").is_dir():
        raise FileNotFoundError(
            f"imagefolder: {root / 'train'} not found; put one folder per class there, "
            "or correct the parameter 'folder'"
        )
    classes = folders(root / "train")
    if not classes:
        raise ValueError(f"imagefolder: {root / 'train'} holds no folders; put one per class there")
    parts: dict[str, Part] = {}
    listings: dict[str, str] = {}
    for name in ("train", "val"):
        if not (root / name).is_dir():
            continue
        if (found := folders(root / name)) != classes:
            unlike = sorted(set(found) ^ set(classes))
            raise ValueError(
                f"imagefolder: {root / name} and {root / 'train'} hold different classes, "
                f"such as {unlike[0]!r}; they must be the same"
            )
        files, labels = _files(root / name, classes)
        part = part_of_files(
            files,
            np.asarray(labels, dtype=np.int64),
            partial(_decode, size=image_size, shorter_side=resized),
        )
        if name == "train" and decode == "every_epoch":
            part = _listed(part, raw, files, {"shorter_side": resized, "least_area": least_area})
        parts[name] = part
        listings[f"{folder}/{name}"] = listing(root, files)
    return Source(
        name=folder,
        classes=classes,
        channels=3,
        size=image_size,
        train=parts["train"],
        test=parts.get("val"),
        citation=(
            "O. Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, "
            "IJCV 115(3), 2015"
        ),
        checksums=listings,
    )


def _files(path: Path, classes: tuple[str, ...]) -> tuple[list[Path], list[int]]:
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        inside = images_in("imagefolder", path / name)
        files += inside
        labels += [label] * len(inside)
    return files, labels


def _listed(part: Part, raw: Path, files: list[Path], crops: dict[str, float]) -> ListedPart:
    def checksums_at(positions: Positions) -> Checksums:
        return checksums([files[position] for position in positions])

    return ListedPart(
        part.labels,
        part.read,
        files=[file.relative_to(raw).as_posix() for file in files],
        sizes=np.asarray([file.stat().st_size for file in files], dtype=np.int64),
        checksums=checksums_at,
        crops=crops,
    )


def _decode(path: Path, size: int, shorter_side: int) -> Images:
    return centre_crop(opened("imagefolder", path), size, shorter_side)
