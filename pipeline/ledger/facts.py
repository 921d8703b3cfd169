"""What can be counted of a run's rows, and the few rows that may be shown: the record that `statistics` fills."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cleanplate.pipeline import schema

COVERAGE_EDGES = (0.0, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 1.0)
"""Bins of the coverage histogram: a bin holds what is above its lower edge, up to its upper one."""
INDEX_ROWS = 100_000
"""Rows that the page can find by name or id without a picture of them: about 60 bytes each."""
RISKS = ("residual", "low score", "large mask", "random")
_QUOTAS = (0.4, 0.2, 0.2, 0.2)
Ints = npt.NDArray[np.int64]


class Pick(NamedTuple):
    """A row that may be shown. The smaller the key, the sooner. part, at: its place in the part's file."""

    key: float
    image_id: str
    part: str
    at: int


class Named(NamedTuple):
    """A row of the search index. score: of its least sure find."""

    image_id: str
    name: str
    status: str
    score: float | None
    coverage: float | None
    cause: str | None


@dataclass
class Kind:
    """One kind of thing: images that have it and finds, before the run and still there after it."""

    images: int = 0
    finds: int = 0
    left_images: int = 0
    left_finds: int = 0


@dataclass
class Left:
    """What one verifying detector still found of one kind."""

    images: int = 0
    finds: int = 0
    highest: float = 0.0


@dataclass
class Cause:
    """Rows that failed or were skipped for one reason, and one of them."""

    images: int
    message: str
    name: str


@dataclass
class Facts:
    """All that the page says about the rows, newest attempts only."""

    rows: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    inpainters: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, Kind] = field(default_factory=dict)
    left: dict[tuple[str, str], Left] = field(default_factory=dict)
    """(kind, detector) -> what it still found."""
    causes: dict[tuple[str, str, str], Cause] = field(default_factory=dict)
    """(status, stage, kind of error) -> its rows."""
    coverage: Ints = field(default_factory=lambda: np.zeros(len(COVERAGE_EDGES) - 1, np.int64))
    stage_ms: dict[str, float] = field(default_factory=lambda: dict.fromkeys(schema.STAGES, 0.0))
    committed: list[tuple[str, str, int]] = field(default_factory=list)
    """(run_id, part, rows), a part each."""
    risks: dict[str, list[Pick]] = field(default_factory=lambda: {risk: [] for risk in RISKS})
    troubled: list[Named] = field(default_factory=list)
    sound: list[Named] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    """Parts that could not be read, with the reason."""

    def index(self) -> list[Named]:
        """The rows that search knows: residual, failed and skipped ones first, at most INDEX_ROWS."""
        return (self.troubled + self.sound)[:INDEX_ROWS]


def chosen(facts: Facts, sample: int) -> list[tuple[Pick, str]]:
    """At most `sample` picks and the risk each stands for, riskiest first: a share for each risk, and what one
    leaves over goes to the others in turn. No row twice."""
    taken: dict[str, tuple[Pick, str]] = {}
    shares = [max(1, round(sample * share)) for share in _QUOTAS]
    for limits in (shares, [sample] * len(RISKS)):
        for risk, limit in zip(RISKS, limits, strict=True):
            for pick in facts.risks[risk]:
                if len(taken) >= sample or sum(r == risk for _, r in taken.values()) >= limit:
                    break
                taken.setdefault(pick.image_id, (pick, risk))
    return sorted(taken.values(), key=lambda item: (RISKS.index(item[1]), item[0]))
