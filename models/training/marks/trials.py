"""Pictures on which detectors are tried, with the truth: rendered marks and text, and photographs left alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.segmenters.masks import grow
from cleanplate.models.training.marks.data import lettered
from cleanplate.models.training.marks.figures import KINDS
from cleanplate.models.training.marks.fonts import Fonts
from cleanplate.models.training.marks.render import (
    DIFFICULTY,
    as_jpeg,
    changed,
    perhaps_jpeg,
    plan_mark,
    render,
)
from cleanplate.models.types import Image, Mask

HIT = 0.7
"""A mark counts as found when so much of its visible pixels is in the mask that would be edited."""
NEAR = 8
"""Edited pixels farther than this from a mark needed no edit: nearer ones are the mask policy's margin."""

OPACITIES = {"alpha .9": 0.9, "alpha .6": 0.6, "alpha .35": 0.35}
"""Levels of references laid on photographs."""
SHARES = (0.09, 0.3)
"""Their long side, of the photograph's."""


@dataclass(frozen=True)
class References:
    """The user's own marks. pictures: HWC uint8, 3 or 4 channels, by name. rotation: degrees, at most, either way."""

    pictures: Mapping[str, npt.NDArray[np.uint8]] = field(default_factory=dict)
    rotation: float = 15.0


@dataclass(frozen=True)
class Case:
    """What is laid on which photograph. kind: what a recipe is asked to remove. mark: what was rendered, "" for
    nothing. level: its difficulty; "clean" and "lettered" (scene-like lettering) have nothing to remove."""

    kind: str
    mark: str
    level: str
    photo: int
    number: int


@dataclass(frozen=True)
class Trial:
    """image: HWC uint8 RGB. mask: HW bool, what must go. seen: HW bool, False where it cannot be seen. standout: how
    far what was laid on stands out (`standout`); nan without a mark."""

    case: Case
    image: Image
    mask: Mask
    seen: Mask
    standout: float = float("nan")


def cases(
    kinds: Sequence[str],
    photos: int,
    each: int,
    seed: int,
    clean: int | None = None,
    references: Sequence[str] = (),
) -> list[Case]:
    """`each` cases of every kind of mark at every level, the photographs in a shuffled turn; then, for every kind,
    `clean` photographs as they are (None: all), and for `watermark` as many with scene-like lettering.

    `text` gets lines, stacks and large lines, opaque; `logo` each reference (their names) at each of OPACITIES; other
    kinds clean photographs only.
    """
    order = np.random.default_rng(seed).permutation(photos).tolist()
    choices: list[tuple[str, str, str]] = []
    left = photos if clean is None else min(clean, photos)
    for kind in kinds:
        of_kind: dict[str, tuple[str, ...]] = {
            "text": ("line", "stack", "large"),
            "watermark": tuple(KINDS),
            "logo": tuple(references),
        }
        marks = of_kind.get(kind, ())
        levels = ("opaque",) if kind == "text" else tuple(DIFFICULTY)
        levels = tuple(OPACITIES) if kind == "logo" else levels
        choices += [(kind, mark, level) for level in levels for mark in marks for _ in range(each)]
        choices += [(kind, "", "clean")] * left
        choices += [(kind, "", "lettered")] * (left if kind == "watermark" else 0)
    return [Case(*one, photo=order[n % photos], number=n) for n, one in enumerate(choices)]


def trial(case: Case, photo: Image, fonts: Fonts, seed: int, references: References | None = None) -> Trial:
    """The case on its photograph: the same seed and fonts give the same picture."""
    rng = np.random.default_rng([seed, case.number])
    nothing = np.zeros(photo.shape[:2], np.bool_)
    if not case.mark:
        image = lettered(rng, photo, fonts) if case.level == "lettered" else photo
        return Trial(case, image, nothing, ~nothing)
    if case.kind == "logo":
        given = references or References()
        picture = given.pictures[case.mark]
        image, mask, seen = laid(rng, photo, picture, OPACITIES[case.level], given.rotation)
        return Trial(case, as_jpeg(rng, image), mask, seen, standout(photo, image, mask & seen))
    text = case.kind == "text"
    for _ in range(20):  # a mark that happens to be unseen on this photograph is drawn again
        kind = next(kind for kind in KINDS if kind == case.mark)
        mark = plan_mark(rng, kind, (0.95, 1.0) if text else DIFFICULTY[case.level])
        if text:
            mark = replace(mark, blend="normal", hollow=False)
        marked = render(rng, photo, fonts, mark, jpeg=False)
        image = perhaps_jpeg(rng, marked.image)
        shown = marked.mask & marked.seen
        if shown.sum() > max(20, 0.3 * marked.mask.sum()):
            break
    return Trial(case, image, marked.mask, marked.seen, standout(photo, marked.image, shown))


def standout(photo: Image, image: Image, shown: Mask) -> float:
    """By how many levels a mark changes its visible pixels on average, for each level (and one more) of fine texture
    that the photograph has there and NEAR. photo, image: HWC uint8 RGB before and after, not yet saved as JPEG. shown:
    HW bool. Below 1 a mark drowns in what it lies on; nan for a mark without visible pixels."""
    if not shown.any():
        return float("nan")
    change = float(cv2.absdiff(photo, image)[shown].mean())
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32)
    texture = np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 3))[grow(shown, NEAR)]
    return change / (float(texture.mean()) + 1)


def laid(
    rng: np.random.Generator, photo: Image, picture: npt.NDArray[np.uint8], alpha: float, rotation: float
) -> tuple[Image, Mask, Mask]:
    """(the photograph with a picture laid on somewhere, at a size in SHARES and turned; the picture's pixels; where
    they can be seen). HWC uint8 RGB; HW bool."""
    height, width = photo.shape[:2]
    high, wide = picture.shape[:2]
    cover = (
        picture[..., 3:] / np.float32(255) if picture.shape[2] == 4 else np.ones((high, wide, 1), np.float32)
    )
    layer = np.dstack([picture[..., :3] * cover, cover]).astype(np.float32)
    factor = max(32.0, rng.uniform(*SHARES) * max(height, width)) / max(high, wide)
    size = (max(1, round(wide * factor)), max(1, round(high * factor)))
    layer = np.asarray(cv2.resize(layer, size, interpolation=cv2.INTER_AREA), np.float32)
    reach = math.hypot(*size) / 2
    x, y = (float(rng.uniform(min(reach, side / 2), max(side - reach, side / 2))) for side in (width, height))
    matrix = cv2.getRotationMatrix2D(
        ((size[0] - 1) / 2, (size[1] - 1) / 2), float(rng.uniform(-rotation, rotation)), 1.0
    )
    matrix[:, 2] += [x - size[0] / 2, y - size[1] / 2]
    drawn = cv2.warpAffine(layer, matrix, (width, height), flags=cv2.INTER_LINEAR)
    matte = alpha * drawn[..., 3:]
    image = np.clip(np.round(photo * (1 - matte) + alpha * drawn[..., :3]), 0, 255).astype(np.uint8)
    mask = np.asarray(drawn[..., 3] > 0.4, np.bool_)
    seen = changed(image, photo)
    return image, mask, seen | ~mask


@dataclass(frozen=True)
class Score:
    """One trial. hit: found, by HIT. recall, precision, iou: of the masks that touch the mark, before the mask policy,
    on the pixels that can be seen; nan where there is nothing to divide by. edited_recall: of the mask that would be
    edited. edited: share of the picture that would be edited; harm: share that would be edited and needed none
    (NEAR). regions, false: found, and those that touch no mark (real lettering is right for `text`)."""

    hit: bool
    recall: float
    precision: float
    iou: float
    edited_recall: float
    edited: float
    harm: float
    regions: int
    false: int


def score(given: Trial, masks: Sequence[Mask], edited: Mask) -> Score:
    """masks: one HW bool for each region found. edited: their union after the mask policy."""
    near = grow(given.mask, NEAR)
    touching = [mask for mask in masks if (mask & near).any()]
    found = np.logical_or.reduce([np.zeros_like(edited), *touching]) & given.seen
    true = given.mask & given.seen
    both = int((found & true).sum())
    edited_recall = _share(int((edited & true).sum()), int(true.sum()))
    return Score(
        hit=bool(edited_recall >= HIT),
        recall=_share(both, int(true.sum())),
        precision=_share(both, int(found.sum())),
        iou=_share(both, int((found | true).sum())),
        edited_recall=edited_recall,
        edited=float(edited.mean()),
        harm=float((edited & ~near).mean()),
        regions=len(masks),
        false=len(masks) - len(touching),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def run_trials(
    todo: Sequence[Case],
    photo_of: Callable[[int], Image],
    fonts: Fonts,
    seed: int,
    find: Callable[[Case, Image], tuple[list[Mask], Mask]],
    references: References | None = None,
) -> Iterator[tuple[Trial, Score, Mask]]:
    """Each case, its score, and the mask that would be edited. find: case, picture -> (masks, edited mask)."""
    for case in todo:
        drawn = trial(case, photo_of(case.photo), fonts, seed, references)
        masks, edited = find(case, drawn.image)
        yield drawn, score(drawn, masks, edited), edited
