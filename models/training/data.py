"""Photographs for training: listed once, decoded once into memory, cropped by a seed for each step."""

from __future__ import annotations

import csv
import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from models.regions import Image

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


@dataclass(frozen=True)
class Photo:
    """One photograph on disk. source: the collection it belongs to, by which sampling is balanced."""

    path: Path
    source: str


@dataclass(frozen=True)
class PhotoBank:
    """Decoded photographs in memory. images: HWC uint8 RGB each; weights: chance of each, sums to 1."""

    names: tuple[str, ...]
    images: tuple[Image, ...]
    weights: npt.NDArray[np.float64]


def name_of(photo: Photo) -> str:
    """source/file: what a photograph is called in lists of training data."""
    return f"{photo.source}/{photo.path.name}"


def names_digest(names: Sequence[str]) -> str:
    """sha256 of the sorted names: which photographs these are, not their pixels."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def list_photos(folder: Path, split: str = "train") -> list[Photo]:
    """The photographs of a folder, sorted by path.

    A folder with INDEX.csv (columns path, source, split) gives its rows of that split; any other gives every
    image file below it, each sub-folder being one source. Raises FileNotFoundError when there is no folder,
    ValueError when nothing is found.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder of photographs: {folder}")
    index = folder / "INDEX.csv"
    if index.exists():
        with index.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        photos = [Photo(folder / row["path"], row["source"]) for row in rows if row["split"] == split]
    else:
        files = [p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES]
        photos = [Photo(p, str(p.parent.relative_to(folder))) for p in files]
    if not photos:
        raise ValueError(f"no photographs of split {split!r} in {folder}; expected {sorted(IMAGE_SUFFIXES)}")
    return sorted(photos, key=lambda photo: str(photo.path))


def hold_out(photos: Sequence[Photo], share: float) -> tuple[list[Photo], list[Photo]]:
    """(training, validation): by a hash of the file's name, the same in every run; at least one in each.

    Raises ValueError for fewer than two photographs or a share outside (0, 1).
    """
    if len(photos) < 2 or not 0 < share < 1:
        raise ValueError(f"cannot hold out a share of {share} of {len(photos)} photographs")
    ranked = sorted(photos, key=lambda photo: hashlib.sha256(photo.path.name.encode()).hexdigest())
    count = min(max(1, round(share * len(photos))), len(photos) - 1)
    return ranked[count:], ranked[:count]


def shrink(image: Image, short_side: int) -> Image:
    """HWC uint8 RGB with its short side at most short_side, by area averaging; never enlarged."""
    height, width = image.shape[:2]
    factor = short_side / min(height, width)
    if factor >= 1:
        return image
    size = (max(short_side, round(width * factor)), max(short_side, round(height * factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def read_rgb(path: Path) -> Image:
    """HWC uint8 RGB, upright. Raises ValueError when the file is no image that OpenCV can read."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"cannot decode {path}")
    return np.ascontiguousarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def load_bank(photos: Sequence[Photo], short_side: int, source_power: float = 0.5) -> PhotoBank:
    """Decode and shrink every photograph. One that cannot be read is logged and left out.

    A source with n photographs is drawn in proportion to n ** source_power: 1 treats all photographs alike,
    0 all sources alike. Raises ValueError when none can be read.
    """
    names: list[str] = []
    sources: list[str] = []
    images: list[Image] = []
    for photo in photos:
        try:
            images.append(shrink(read_rgb(photo.path), short_side))
        except ValueError as error:
            log.warning("left out: %s", error)
            continue
        names.append(name_of(photo))
        sources.append(photo.source)
    if not images:
        raise ValueError(f"none of {len(photos)} photographs can be read")
    counts = Counter(sources)
    weights = np.array([counts[source] ** (source_power - 1) for source in sources])
    return PhotoBank(tuple(names), tuple(images), weights / weights.sum())


def random_crop(rng: np.random.Generator, image: Image, size: int, zoom: tuple[float, float]) -> Image:
    """size x size x 3 uint8 RGB from a random square of the image.

    zoom: the square's side as multiples of size, drawn uniformly, at most the image's short side: above 1
    shrinks. A square smaller than size is enlarged.
    """
    height, width = image.shape[:2]
    side = min(round(size * rng.uniform(*zoom)), height, width)
    y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    crop = image[y : y + side, x : x + side]
    if side == size:
        return crop
    how = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(crop, (size, size), interpolation=how), np.uint8)


def augment(rng: np.random.Generator, crop: Image) -> Image:
    """A mirrored and slightly recoloured copy (HWC uint8 RGB): brightness, contrast and saturation +-10 %."""
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    if rng.random() < 0.5:
        return np.ascontiguousarray(crop, np.uint8)
    gain, contrast, saturation = rng.uniform(0.9, 1.1, size=3)
    values = crop.astype(np.float32)
    mean = values.mean()
    values = (values - mean) * contrast + mean * gain
    grey = values.mean(axis=2, keepdims=True)
    recoloured = np.clip(grey + (values - grey) * saturation, 0, 255)
    return np.asarray(recoloured, np.uint8)


def draw_crop(rng: np.random.Generator, bank: PhotoBank, size: int, zoom: tuple[float, float]) -> Image:
    """One augmented crop of a photograph drawn by the bank's weights (size x size x 3 uint8 RGB)."""
    image = bank.images[int(rng.choice(len(bank.images), p=bank.weights))]
    return augment(rng, random_crop(rng, image, size, zoom))


def evaluation_crop(image: Image, size: int) -> Image:
    """The central size x size square of the image whose short side is first brought to size (uint8 RGB)."""
    height, width = image.shape[:2]
    factor = size / min(height, width)
    scaled_size = (max(size, round(width * factor)), max(size, round(height * factor)))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    image = np.asarray(cv2.resize(image, scaled_size, interpolation=how), np.uint8)
    y, x = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return np.ascontiguousarray(image[y : y + size, x : x + size])
