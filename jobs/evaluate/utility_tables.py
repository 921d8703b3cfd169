"""What `evaluate utility` prints: average precision of each way, with intervals over draws of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cleanplate.models.evaluation.average_precision import Matches, Precision, precision

DRAWS = 500
HEADER = ["", "pictures", "labels", "AP", "95 %", "AP50", "AP - before", "95 %"]
LEGEND = (
    "AP: average precision over intersections over union .5 to .95, AP50 at .5, as COCO defines them, mean over the "
    "labelled kinds.\n95 %: of draws of whole pictures with replacement. Labels carried: those are left out of which "
    "more than labels.drop_above\nwas edited or hidden. Dropped: pictures in which something would be edited are left "
    "out, with their labels.\n'AP - before' is over the kinds of which both have labels."
)


@dataclass
class Measured:
    """One way: a picture's matches each. labels: that count."""

    pictures: list[dict[str, Matches] | None] = field(default_factory=list)
    """None where the picture is dropped."""
    labels: int = 0


def line(name: str, way: Measured, before: Measured, seed: int) -> dict[str, Any]:
    """A way's cells and figures, with intervals over draws of pictures."""
    here = [one for one in way.pictures if one is not None]
    ours, first = precision(here), precision([one for one in before.pictures if one is not None])
    dice, draws, less = np.random.default_rng(seed), [], []
    for _ in range(DRAWS):
        places = dice.integers(0, len(way.pictures), len(way.pictures))
        one, other = (
            precision([p for p in (which.pictures[n] for n in places) if p is not None])
            for which in (way, before)
        )
        draws.append(one.ap)
        less.append(_difference(one, other))
    interval, of_less = _interval(draws), _interval(less)
    figures = {
        "pictures": len(here),
        "labels": way.labels,
        "ap": _finite(ours.ap),
        "ap_95": interval,
        "ap50": _finite(ours.ap50),
        "difference": _finite(_difference(ours, first)),
        "difference_95": of_less,
        "kinds": {kind: {"ap": ap, "ap50": ap50} for kind, (ap, ap50) in ours.kinds.items()},
    }
    cells = [
        name,
        str(len(here)),
        str(way.labels),
        _cell(ours.ap),
        _cells(interval),
        _cell(ours.ap50),
        "" if way is before else _cell(_difference(ours, first), "+.3f"),
        "" if way is before else _cells(of_less, "+.3f"),
    ]
    return {"figures": figures, "cells": cells}


def _difference(one: Precision, other: Precision) -> float:
    """Of AP, over the kinds that both have labels of: a kind that is gone is no change of the others."""
    both = [kind for kind in one.kinds if kind in other.kinds]
    apart = [one.kinds[kind][0] - other.kinds[kind][0] for kind in both]
    return sum(apart) / len(apart) if apart else float("nan")


def by_kind(lines: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A line a kind: its AP in each way."""
    every = [one["figures"]["kinds"] for one in lines]
    return [
        [kind, *(_cell(kinds[kind]["ap"]) if kind in kinds else "-" for kinds in every)] for kind in every[0]
    ]


def _interval(values: Sequence[float]) -> list[float] | None:
    known = np.array([v for v in values if np.isfinite(v)])
    return [float(v) for v in np.percentile(known, (2.5, 97.5))] if len(known) else None


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


def _cell(value: float, form: str = ".3f") -> str:
    return f"{value:{form}}" if abs(value) < float("inf") else "-"


def _cells(values: Sequence[float] | None, form: str = ".3f") -> str:
    return f"{values[0]:{form}} to {values[1]:{form}}" if values else "-"
