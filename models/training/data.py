"""Photographs for training: listed once, decoded once into memory as far as it goes, cropped by a seed for
each step."""

from __future__ import annotations

import csv
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.types import Image

log = logging.getLogger(__name__)

DEFAULT_MEMORY = 8 << 30
"""Bytes of decoded photographs that are kept."""
_TRIES = 20
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


@dataclass(frozen=True)
class Photo:
    """One encoded photograph. file: its name; source: the collection it belongs to, by which sampling is
    balanced; read: gives its bytes."""

    file: str
    source: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class PhotoBank:
    """Photographs to draw from. images: HWC uint8 RGB each; weights: chance of each, sums to 1."""

    names: tuple[str, ...]
    images: Sequence[Image]
    weights: npt.NDArray[np.float64]

    @cached_property
    def _rising(self) -> npt.NDArray[np.float64]:
        rising = self.weights.cumsum()
        return np.asarray(rising / rising[-1])

    def draw(self, rng: np.random.Generator) -> Image:
        """One photograph by the weights; another when the drawn one can no longer be read (logged)."""
        for _ in range(_TRIES):
            number = int(self._rising.searchsorted(rng.random(), side="right"))
            try:
                return self.images[number]
            except (ValueError, OSError) as error:
                log.warning("drawn again: %s: %s", self.names[number], error)
        raise ValueError(f"{_TRIES} photographs in a row cannot be read")


class _Kept(Sequence[Image]):
    """Photographs of which the first are in memory and the others are read at each use."""

    def __init__(self, kept: list[Image], others: Sequence[Photo], short_side: int) -> None:
        self.kept, self.others, self.short_side = kept, others, short_side

    def __len__(self) -> int:
        return len(self.kept) + len(self.others)

    def __getitem__(self, number: Any) -> Any:
        if number < len(self.kept):
            return self.kept[number]
        return decoded(self.others[number - len(self.kept)], self.short_side)


def name_of(photo: Photo) -> str:
    """source/file: what a photograph is called in lists of training data."""
    return f"{photo.source}/{photo.file}"


def names_digest(names: Sequence[str]) -> str:
    """sha256 of the sorted names: which photographs these are, not their pixels."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def choose_photos(keys: Iterable[str], index: str | None, split: str) -> list[tuple[str, str]]:
    """(key, source) of the photographs among relative paths with "/", sorted.

    index: the text of INDEX.csv (columns path, source, split), whose rows of that split they then are; without
    it every image file is one, and each sub-folder one source.
    """
    if index is not None:
        rows = csv.DictReader(index.splitlines())
        return sorted((row["path"], row["source"]) for row in rows if row["split"] == split)
    images = (key for key in keys if PurePosixPath(key).suffix.lower() in IMAGE_SUFFIXES)
    return sorted((key, str(PurePosixPath(key).parent)) for key in images)


def hold_out(photos: Sequence[Photo], share: float) -> tuple[list[Photo], list[Photo]]:
    """(training, validation): by a hash of the file's name, the same in every run; at least one in each.

    Raises ValueError for fewer than two photographs or a share outside (0, 1).
    """
    if len(photos) < 2 or not 0 < share < 1:
        raise ValueError(f"cannot hold out a share of {share} of {len(photos)} photographs")
    ranked = sorted(photos, key=lambda photo: hashlib.sha256(photo.file.encode()).hexdigest())
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


def decoded(photo: Photo, short_side: int) -> Image:
    """HWC uint8 RGB, upright, shrunk. Raises ValueError when it is no image that OpenCV can read, OSError."""
    data = np.frombuffer(photo.read(), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise ValueError(f"cannot decode {name_of(photo)}")
    return shrink(np.ascontiguousarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8), short_side)


def load_bank(
    photos: Sequence[Photo], short_side: int, source_power: float = 0.5, memory: int = DEFAULT_MEMORY
) -> PhotoBank:
    """Decode and shrink every photograph. One that cannot be read is logged and left out.

    A source with n photographs is drawn in proportion to n ** source_power: 1 treats all photographs alike,
    0 all sources alike. When the decoded ones fill `memory` bytes, the others are read again at each use.
    Raises ValueError when none can be read.
    """
    names: list[str] = []
    sources: list[str] = []
    images: list[Image] = []
    others: Sequence[Photo] = ()
    held = 0
    for number, photo in enumerate(photos):
        if held >= memory:
            others = photos[number:]
            log.info("%d photographs are in memory, %d are read at each use", len(images), len(others))
            break
        try:
            images.append(decoded(photo, short_side))
        except (ValueError, OSError) as error:
            log.warning("left out: %s", error)
            continue
        held += images[-1].nbytes
        names.append(name_of(photo))
        sources.append(photo.source)
    if not images:
        raise ValueError(f"none of {len(photos)} photographs can be read")
    names += map(name_of, others)
    sources += (photo.source for photo in others)
    counts = Counter(sources)
    weights = np.array([counts[source] ** (source_power - 1) for source in sources])
    kept = _Kept(images, others, short_side) if others else tuple(images)
    return PhotoBank(tuple(names), kept, weights / weights.sum())


def count_smaller(bank: PhotoBank, side: int) -> int:
    """How many photographs in memory have a side below `side` pixels."""
    known = bank.images.kept if isinstance(bank.images, _Kept) else bank.images
    return sum(min(image.shape[:2]) < side for image in known)


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
    grey = cv2.transform(values, np.full((1, 3), 1 / 3, np.float32))[..., None]
    recoloured = np.clip(grey + (values - grey) * saturation, 0, 255)
    return np.asarray(recoloured, np.uint8)


def draw_crop(rng: np.random.Generator, bank: PhotoBank, size: int, zoom: tuple[float, float]) -> Image:
    """One augmented crop of a photograph drawn by the bank's weights (size x size x 3 uint8 RGB)."""
    return augment(rng, random_crop(rng, bank.draw(rng), size, zoom))


def evaluation_crop(image: Image, size: int) -> Image:
    """The central size x size square of the image whose short side is first brought to size (uint8 RGB)."""
    height, width = image.shape[:2]
    factor = size / min(height, width)
    scaled_size = (max(size, round(width * factor)), max(size, round(height * factor)))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    image = np.asarray(cv2.resize(image, scaled_size, interpolation=how), np.uint8)
    y, x = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return np.ascontiguousarray(image[y : y + size, x : x + size])
