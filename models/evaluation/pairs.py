"""Which holes in which photographs: the evaluation sets of LaMa's paper, made from any photographs.

As in the paper the photograph's short side is brought to the size, a square is cut (here the central one), and
masks of more than half the area are drawn again. Everything follows from (seed, photograph's number, repeat).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from cleanplate.models.training.data import evaluation_crop
from cleanplate.models.training.lama.letters import letters_mask
from cleanplate.models.training.lama.masks import MASKS, MaskRecipe, bounded_mask, scaled
from cleanplate.models.training.lama.objects import coloured_pieces, moved_object
from cleanplate.models.types import Image, Mask

KINDS = ("narrow", "medium", "wide", "segm", "thin", "blob")
"""narrow, medium and wide are the released configurations thin, medium and thick; thin are strokes of letters and
blob one or two compact holes, as most edits are."""
_CONFIGS = {"narrow": "thin", "medium": "medium", "wide": "thick"}
BUCKETS = 5
"""Of 10 % of the area each; no mask covers more than half."""


@dataclass(frozen=True)
class Pair:
    """image: SxSx3 uint8 RGB, the truth; mask: SxS bool, True = hole."""

    photo: str
    kind: str
    image: Image
    mask: Mask

    @property
    def size(self) -> int:
        return int(self.image.shape[0])

    @property
    def coverage(self) -> float:
        return float(self.mask.mean())

    @property
    def bucket(self) -> str:
        """'0-10', '10-20', ...: per cent of the area, the upper bound included."""
        low = min(int(np.ceil(self.coverage * 10 - 1e-9)) - 1, BUCKETS - 1)
        return f"{10 * low}-{10 * low + 10}"


def mask_recipe(kind: str, size: int) -> MaskRecipe:
    """The paper's parameters at 256 and 512 px, those of 256 scaled for other sizes."""
    exact = f"{_CONFIGS[kind]}-{size}"
    return MASKS[exact] if exact in MASKS else scaled(MASKS[f"{_CONFIGS[kind]}-256"], size / 256)


def make_pair(
    photo: str,
    image: Image,
    kind: str,
    size: int,
    seed: Sequence[int],
    objects: Callable[[], list[Mask]] | None = None,
) -> Pair | None:
    """One hole of a kind in a photograph (HWC uint8 RGB); None when 'segm' finds no object to move.

    objects: gives the HW bool instance masks of the whole photograph; without it pieces of one colour stand
    in for them.
    """
    crop = evaluation_crop(image, size)
    rng = np.random.default_rng(list(seed))
    if kind in SHAPES:
        return Pair(photo, kind, crop, SHAPES[kind](rng, size))
    if kind != "segm":
        return Pair(photo, kind, crop, bounded_mask(rng, size, size, mask_recipe(kind, size)))
    mask = moved_object(rng, whole_objects(crop, objects, size))
    return None if mask is None else Pair(photo, kind, crop, mask)


def blob_mask(rng: np.random.Generator, size: int) -> Mask:
    """One or two round things with waves in their outline, about 6 % of the picture together (size x size bool)."""
    drawn = np.zeros((size, size), np.uint8)
    count = int(rng.integers(1, 3))
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    for _ in range(count):
        radius = np.sqrt(0.06 * size * size / count / np.pi)
        stretch = np.sqrt(rng.uniform(0.6, 1.6))
        waves = (0.15 * np.cos(2 * turn + rng.uniform(0, 6)), 0.1 * np.cos(3 * turn + rng.uniform(0, 6)))
        reach = radius * (1 + waves[0] + waves[1])
        x, y = rng.uniform(0.15 * size, 0.85 * size, 2)
        outline = np.stack([x + reach * stretch * np.cos(turn), y + reach / stretch * np.sin(turn)], 1)
        cv2.fillPoly(drawn, [outline.astype(np.int32)], 1)
    return drawn > 0


SHAPES: dict[str, Callable[[np.random.Generator, int], Mask]] = {"thin": letters_mask, "blob": blob_mask}


def whole_objects(crop: Image, objects: Callable[[], list[Mask]] | None, size: int) -> list[Mask]:
    """The objects of an evaluation crop, size x size bool: the given ones cut alike, or pieces of colour."""
    return coloured_pieces(crop) if objects is None else [_crop_mask(mask, size) for mask in objects()]


def _crop_mask(mask: Mask, size: int) -> Mask:
    return evaluation_crop(np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2), size)[..., 0] > 127


def enlarged(pair: Pair, image: Image, factor: int) -> Pair:
    """The same hole in the same photograph at factor times the size: one point of a curve over resolution."""
    size = pair.size * factor
    mask = cv2.resize(pair.mask.astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST) > 0
    return Pair(pair.photo, pair.kind, evaluation_crop(image, size), np.asarray(mask))
