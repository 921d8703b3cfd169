"""Average precision of a detector on labelled boxes, as COCO defines it.

Lin et al. 2014, arXiv:1405.0312, and the evaluation of cocodataset.org: for each kind, detections of all pictures in
the order of their scores, matched at ten intersections over union from .5 to .95; precision read at 101 recalls; all
areas, at most 100 detections of a picture and kind. A crowd is no miss where nothing is found in it, and no false
alarm where something is. Kinds without a label do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cleanplate.models.types import Region

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MOST = 100
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """A labelled box. box: xyxy pixels. crowd: of many things, see above."""

    kind: str
    box: tuple[float, float, float, float]
    crowd: bool = False


@dataclass(frozen=True)
class Matches:
    """The detections of one picture and kind, surest first. right, ignored: thresholds x detections. labels: that
    count, crowds left out."""

    scores: Floats
    right: Bools
    ignored: Bools
    labels: int


@dataclass(frozen=True)
class Precision:
    """ap: mean over thresholds .5 to .95 and kinds. ap50: at .5. kinds: kind -> (ap, ap50). NaN without a label."""

    ap: float
    ap50: float
    kinds: dict[str, tuple[float, float]]


def matched(truth: Sequence[Truth], found: Sequence[Region], kinds: Sequence[str]) -> dict[str, Matches]:
    """kind -> what of one picture's detections is right. found: regions of those kinds."""
    return {
        kind: _matched([one for one in truth if one.kind == kind], [r for r in found if r.kind == kind])
        for kind in kinds
    }


def _matched(truth: list[Truth], found: list[Region]) -> Matches:
    truth = sorted(truth, key=lambda one: one.crowd)
    found = sorted(found, key=lambda region: -region.score)[:MOST]
    crowd = np.array([one.crowd for one in truth], np.bool_)
    right = np.zeros((len(THRESHOLDS), len(found)), np.bool_)
    ignored = np.zeros_like(right)
    labels = int((~crowd).sum())
    scores = np.array([region.score for region in found], np.float64)
    if not truth or not found:
        return Matches(scores, right, ignored, labels)
    shared = _shared(np.array([r.box for r in found]), np.array([one.box for one in truth]), crowd)
    free = np.ones((len(THRESHOLDS), len(truth)), np.bool_)
    for n in range(len(found)):
        # The one that it shares most with, the later of two alike; a crowd only where no other fits, and often.
        fits = (shared[n] >= THRESHOLDS[:, None]) & (free | crowd)
        own = np.where(fits & ~crowd, shared[n], -1.0)
        of_crowd = np.where(fits & crowd, shared[n], -1.0)
        best = len(truth) - 1 - own[:, ::-1].argmax(axis=1)
        right[:, n] = own.max(axis=1) >= 0
        ignored[:, n] = ~right[:, n] & (of_crowd.max(axis=1) >= 0)
        free[right[:, n], best[right[:, n]]] = False
    return Matches(scores, right, ignored, labels)


def _shared(found: Floats, truth: Floats, crowd: Bools) -> Floats:
    """Detections x labels: intersection over union; of a crowd, over the detection."""
    low = np.maximum(found[:, None, :2], truth[None, :, :2])
    high = np.minimum(found[:, None, 2:], truth[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (found, truth)]
    union = np.where(crowd, areas[0][:, None], areas[0][:, None] + areas[1] - both)
    return np.asarray(both / np.maximum(union, 1e-12), np.float64)


def precision(pictures: Sequence[dict[str, Matches]]) -> Precision:
    """Of the detections of all pictures (`matched`)."""
    kinds = list(dict.fromkeys(kind for picture in pictures for kind in picture))
    each = {kind: _of_kind([picture[kind] for picture in pictures if kind in picture]) for kind in kinds}
    labelled = {kind: values for kind, values in each.items() if values is not None}
    ap = float(np.mean([values.mean() for values in labelled.values()])) if labelled else float("nan")
    ap50 = float(np.mean([values[0] for values in labelled.values()])) if labelled else float("nan")
    return Precision(ap, ap50, {kind: (float(v.mean()), float(v[0])) for kind, v in labelled.items()})


def _of_kind(pictures: Sequence[Matches]) -> Floats | None:
    """Average precision at each threshold; None without a label."""
    labels = sum(one.labels for one in pictures)
    if not labels:
        return None
    order = np.argsort(-np.concatenate([one.scores for one in pictures]), kind="stable")
    right = np.concatenate([one.right for one in pictures], axis=1)[:, order]
    ignored = np.concatenate([one.ignored for one in pictures], axis=1)[:, order]
    hits = np.cumsum(right, axis=1)
    false = np.cumsum(~right & ~ignored, axis=1)
    return np.array([_at(hit, wrong, labels) for hit, wrong in zip(hits, false, strict=True)])


def _at(hits: npt.NDArray[np.int64], false: npt.NDArray[np.int64], labels: int) -> float:
    """Mean precision at RECALLS, each the best that a recall so high or higher has; 0 beyond the highest."""
    if not len(hits):
        return 0.0
    precise = hits / np.maximum(hits + false, 1)
    best = np.maximum.accumulate(precise[::-1])[::-1]
    at = np.searchsorted(hits / labels, RECALLS, side="left")
    return float(np.where(at < len(best), best[np.minimum(at, len(best) - 1)], 0.0).mean())
