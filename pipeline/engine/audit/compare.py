"""Another tool's output beside its source: what is still there, what changed elsewhere, what was lost.

Pictures are paired by their names below the two roots, or by names without endings where each has one of that name.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import cv2
import numpy as np

from cleanplate.models.types import Image, Region, iou
from cleanplate.pipeline.engine.audit.look import Seen
from cleanplate.pipeline.images import exposure
from cleanplate.pipeline.schema import Row
from cleanplate.pipeline.stages.rows import decoded

WORDS = ("still", "appeared", "changed", "resized", "missing", "extra", "lost")
SAME = 0.3
"""Two findings of a kind are the same thing from this intersection over union on."""
GREY, COLOUR = (5, 8.0), (17, 12.0)
"""A picture changed where the mean of so many pixels a side differs by more than so many levels of 255, in grey or in a
channel: encoding it as JPEG anew stays below, down to quality 50 with 4:2:0 (docs/notebook.md, 2026-12-01)."""
LEAST = 25
"""Pixels: less is no change."""
ROUND, MARGIN = 0.3, 8
"""What a tool may change round a finding: this share of its shorter side, and so many pixels."""


_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Pair:
    """One picture before and after. still, gone: findings of before that are found again, or are not. appeared: of
    after alone. changed: pixels that differ outside the findings of before, None where sizes differ. lost: of ICC
    profile, EXIF, XMP, IPTC what the output has no more."""

    still: Sequence[Region]
    gone: Sequence[Region]
    appeared: Sequence[Region]
    changed: int | None
    lost: frozenset[str]

    def as_json(self) -> dict[str, Any]:
        return {
            "still": [region.kind for region in self.still],
            "not_found_again": [region.kind for region in self.gone],
            "appeared": [region.kind for region in self.appeared],
            "changed_px": self.changed,
            "lost": sorted(self.lost),
        }


@dataclass
class Comparison:
    """Counts over pairs, in images unless they say otherwise."""

    pairs: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    still: Counter[str] = field(default_factory=Counter)
    """kind -> findings, as in the next two."""
    gone: Counter[str] = field(default_factory=Counter)
    appeared: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    columns_lost: list[str] = field(default_factory=list)
    files_lost: int = 0

    def add(self, pair: Pair) -> None:
        self.pairs += 1
        self.still.update(region.kind for region in pair.still)
        self.gone.update(region.kind for region in pair.gone)
        self.appeared.update(region.kind for region in pair.appeared)
        self.lost.update(pair.lost)
        changed = pair.changed is not None and pair.changed >= LEAST
        holds = (pair.still, pair.appeared, changed, pair.changed is None, pair.lost)
        words = ("still", "appeared", "changed", "resized", "lost")
        self.counts.update(word for word, one in zip(words, holds, strict=True) if one)

    def all_counts(self) -> dict[str, int]:
        """WORDS -> images."""
        sizes = {"missing": len(self.missing), "extra": len(self.extra)}
        return {word: self.counts[word] for word in WORDS} | sizes

    def as_json(self) -> dict[str, Any]:
        return {
            "pairs": self.pairs,
            **self.all_counts(),
            "still_by_kind": dict(self.still),
            "not_found_again_by_kind": dict(self.gone),
            "appeared_by_kind": dict(self.appeared),
            "lost_by_block": dict(self.lost),
            "missing_names": self.missing,
            "extra_names": self.extra,
            "columns_lost": self.columns_lost,
            "other_files_lost": self.files_lost,
        }


def pairs_of(
    before: Iterable[str], after: Iterable[str]
) -> tuple[list[tuple[str, str]], list[str], list[str]]:
    """(names that belong together, names of before alone, names of after alone), in the order of before."""
    first, second = list(before), set(after)
    pairs = {name: name for name in first if name in second}
    rest = [name for name in first if name not in pairs]
    free = sorted(second - set(pairs.values()))
    theirs, ours = _by_stem(free), _by_stem(rest)
    for stem, names in ours.items():
        if len(names) == 1 and len(theirs.get(stem, ())) == 1:
            pairs[names[0]] = theirs[stem][0]
    taken = set(pairs.values())
    together = [(name, pairs[name]) for name in first if name in pairs]
    return together, [n for n in first if n not in pairs], [n for n in free if n not in taken]


def _by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[str(PurePosixPath(name).with_suffix(""))].append(name)
    return found


def compared(before: Seen, after: Seen, row: Row, row_after: Row) -> Pair:
    """Two pictures without an error, and their rows."""
    scale = (after.width / before.width, after.height / before.height)
    left = list(after.findings)
    still: list[Region] = []
    gone: list[Region] = []
    for region in before.findings:
        box = _scaled(region.box, scale)
        same = next((one for one in left if one.kind == region.kind and iou(box, one.box) >= SAME), None)
        (still if same is not None else gone).append(region)
        if same is not None:
            left.remove(same)
    one, other = decoded(row), decoded(row_after)
    changed = None
    if one.pixels.shape == other.pixels.shape:
        changed = changed_outside(one.pixels, other.pixels, before.findings)
    return Pair(still, gone, left, changed, _blocks(row, one.icc) - _blocks(row_after, other.icc))


def _scaled(box: tuple[float, float, float, float], scale: tuple[float, float]) -> tuple[float, ...]:
    return tuple(v * s for v, s in zip(box, (*scale, *scale), strict=True))


def _blocks(row: Row, icc: bytes | None) -> frozenset[str]:
    return exposure.blocks(row["source"], row["source_format"]) | ({"icc"} if icc else set())


def changed_outside(before: Image, after: Image, findings: Sequence[Region]) -> int:
    """Pixels that differ outside the findings' surroundings. before, after: HWC uint8 RGB of one size.

    Means over small squares are compared, so that the noise of a new encoding does not count. Colours are compared over
    larger ones: a JPEG has fewer of them."""
    one, other = (np.asarray(picture, np.float32) for picture in (before, after))
    different = _mean_differs(one @ _LUMA, other @ _LUMA, *GREY) | _mean_differs(one, other, *COLOUR).any(
        axis=2
    )
    for region in findings:
        x0, y0, x1, y1 = region.box
        more = ROUND * min(x1 - x0, y1 - y0) + MARGIN
        rows = slice(max(0, int(y0 - more)), max(0, int(np.ceil(y1 + more))))
        different[rows, max(0, int(x0 - more)) : max(0, int(np.ceil(x1 + more)))] = False
    return int(np.count_nonzero(different))


def _mean_differs(one: Any, other: Any, side: int, levels: float) -> Any:
    return np.abs(cv2.blur(one, (side, side)) - cv2.blur(other, (side, side))) > levels
