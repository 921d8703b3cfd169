"""What an audit counts: findings by kind with size and score, and in how many images something is exposed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cleanplate.pipeline.engine.audit.look import Seen
from cleanplate.pipeline.images import exposure

SIZES = (0, 16, 32, 64, 128, 256)
"""Lower ends of the classes of size: the shorter side of a box, pixels."""
EXAMPLES = 200


@dataclass
class Summary:
    """Counts over the images that were looked at. kinds: those that were looked for."""

    kinds: tuple[str, ...]
    images: int = 0
    with_finding: Counter[str] = field(default_factory=Counter)
    """kind or word of `exposure.WORDS` -> images."""
    causes: Counter[str] = field(default_factory=Counter)
    """stage/kind -> images that failed."""
    sides: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    scores: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def failed(self) -> int:
        return self.causes.total()

    def add(self, seen: Seen) -> None:
        self.images += 1
        if seen.error is not None:
            self.causes[f"{seen.error['stage']}/{seen.error['kind']}"] += 1
            return
        self.with_finding.update({region.kind for region in seen.findings} | seen.exposed)
        for region in seen.findings:
            self.sides[region.kind].append(side(region.box))
            self.scores[region.kind].append(region.score)

    def counts(self) -> dict[str, int]:
        """What a condition may ask for -> images."""
        return {
            "images": self.images,
            "failed": self.failed,
            **{word: self.with_finding[word] for word in (*self.kinds, *exposure.WORDS)},
        }

    def as_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "failed": self.failed,
            "causes": dict(self.causes.most_common()),
            "exposure": {word: self.with_finding[word] for word in (*self.kinds, *exposure.WORDS)},
            "kinds": [self._kind(kind) for kind in self.kinds],
        }

    def _kind(self, kind: str) -> dict[str, Any]:
        sides, scores = np.array(self.sides[kind]), np.array(self.scores[kind])
        counts, _ = np.histogram(sides, [*SIZES, np.inf])
        return {
            "kind": kind,
            "images": self.with_finding[kind],
            "found": len(sides),
            "side_px": _spread(sides),
            "score": _spread(scores),
            "sizes": dict(zip(map(size_class, SIZES), counts.tolist(), strict=True)),
        }


def _spread(values: Any) -> dict[str, float] | None:
    """Smallest, median and largest; None without values."""
    if not len(values):
        return None
    return {"min": float(values.min()), "median": float(np.median(values)), "max": float(values.max())}


def size_class(low: int) -> str:
    """The name of a class by its lower end."""
    above = [n for n in SIZES if n > low]
    return f"{low}-{above[0]} px" if above else f"{low} px and more"


def side(box: Iterable[float]) -> float:
    """The shorter side of an xyxy box, pixels."""
    x0, y0, x1, y1 = box
    return min(x1 - x0, y1 - y0)


def line_of(name: str, seen: Seen) -> dict[str, Any]:
    """One image as a line of findings.jsonl."""
    return {
        "image": name,
        "width": seen.width,
        "height": seen.height,
        "findings": [
            {
                "kind": region.kind,
                "detector": region.detector,
                "score": round(region.score, 4),
                "box": [round(v, 1) for v in region.box],
            }
            for region in seen.findings
        ],
        "exposed": sorted(seen.exposed),
        "error": seen.error,
    }
