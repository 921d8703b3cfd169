"""Fitting the rule that tells overlay from scene (`cleanplate.models.detectors.overlay.rule`) to rendered
marks and photographs."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cleanplate.models.detectors.lettering.lines import Line
from cleanplate.models.detectors.overlay.candidates import Candidate, candidates
from cleanplate.models.detectors.overlay.evidence import cut
from cleanplate.models.detectors.overlay.overlay_map import Looks
from cleanplate.models.detectors.overlay.rule import Rule, fit_logistic
from cleanplate.models.detectors.watermark import decided, scores
from cleanplate.models.segmenters.masks import grow
from cleanplate.models.training.marks.trials import HIT, NEAR, Trial
from cleanplate.models.types import Mask

FOLDS, PARTINGS = 5, 4
"""Folds that the photographs are put into, anew at each parting: a limit is set by one or two pictures, and what a
fold's rule says of one of those is a matter of chance."""
RIDGE = 300.0
"""Of 30 to 1,000 about the same on held-out folds; products of the evidence and small networks on it were no better."""
CLEAN = ("clean", "trained")
"""Levels of photographs as they are: held out of the training, and seen by it."""
MOST = {"clean": 0.02, "trained": 0.02, "lettered": 0.12}
"""Share of the pictures of each level that may be touched. Photographs that the network was trained on are known to
it: of those held out it touches several times as many, so each has a limit of its own."""
HARMED = 0.001
"""Share of all pixels of photographs as they are that may be touched."""
HIGHEST = 9.0
"""Logit up to which `first` is raised for the sake of pixels."""
MORE = 1.5
"""Logits by which `Rule.more` lies below `Rule.first`."""
MARGIN = 3
"""Pixels by which the masks are widened before they are judged, as about the mask policy does."""


@dataclass(frozen=True)
class Study:
    """One picture: the photograph's name, its trial's level, its candidates with the share of each that is mark, and,
    packed to bits, the mark's visible pixels and those within NEAR of it."""

    photo: str
    level: str
    shape: tuple[int, int]
    found: tuple[Candidate, ...]
    truth: tuple[float, ...]
    visible: npt.NDArray[np.uint8]
    near: npt.NDArray[np.uint8]


def study(trial: Trial, photo: str, looks: Looks, lines: Sequence[Line]) -> Study:
    """What the detector would decide on, and what is true."""
    height, width = trial.mask.shape
    touched = grow(trial.mask, 2)
    found = candidates(trial.image, looks, lines)
    truth = tuple(
        float(cut(touched, one.box)[one.mask if one.mask.any() else one.inside].mean()) for one in found
    )
    visible, near = np.packbits(trial.mask & trial.seen), np.packbits(grow(trial.mask, NEAR))
    return Study(photo, trial.case.level, (height, width), tuple(found), truth, visible, near)


def fit(
    studies: Sequence[Study], most: Mapping[str, float] = MOST, harmed: float = HARMED
) -> tuple[Rule, dict[str, float]]:
    """(the rule, what it does on folds that it was not fitted to). most: by level, the share of its pictures that may
    be touched; harmed: of the pixels of photographs as they are. `first` is the lowest score that keeps all of them, by
    the scores of rules that did not see the photograph. `more` is MORE below."""
    apart = [one for parting in range(PARTINGS) for one in _apart(studies, parting)]
    there = {one.level for one in studies}
    first = max((_limit(apart, level, share) for level, share in most.items() if level in there), default=0.0)
    clean = [(one, rule) for one, rule in apart if one.level in CLEAN]
    # What stands repeated counts at any score, so the pixels may stay above their limit.
    while first < HIGHEST and measured(_at(clean, first)).get("pixels", 0.0) > harmed:
        first += 0.25
    table = measured(_at(apart, first))
    return replace(_weights(studies), first=_chance(first), more=_chance(first - MORE)), table


def _apart(studies: Sequence[Study], parting: int) -> list[tuple[Study, Rule]]:
    """Each picture with a rule that was fitted without its photograph."""
    folds = [zlib.crc32(f"{parting}{one.photo}".encode()) % FOLDS for one in studies]
    rules = [_weights([s for s, k in zip(studies, folds, strict=True) if k != fold]) for fold in range(FOLDS)]
    return [(one, rules[fold]) for one, fold in zip(studies, folds, strict=True)]


def _at(apart: Sequence[tuple[Study, Rule]], first: float) -> list[tuple[Study, Rule]]:
    """The same with a limit, as a logit, in every rule."""
    high, low = _chance(first), _chance(first - MORE)
    return [(one, replace(rule, first=high, more=low)) for one, rule in apart]


def _limit(apart: Sequence[tuple[Study, Rule]], level: str, share: float) -> float:
    """The lowest logit that no more than this share of the level's pictures reaches."""
    tops = sorted(
        (
            max(scores(one.found, replace(rule, first=0.0), one.shape), default=0.0)
            for one, rule in apart
            if one.level == level
        ),
        reverse=True,
    )
    top = min(max(tops[int(share * len(tops))] + 1e-6, 1e-6), 1 - 1e-6)
    return float(np.log(top / (1 - top)))


def _chance(logit: float) -> float:
    return 1 / (1 + float(np.exp(-logit)))


def _weights(studies: Sequence[Study]) -> Rule:
    weights = {}
    for line in (True, False):
        rows = [
            (one.evidence, float(share >= 0.5))
            for some in studies
            for one, share in zip(some.found, some.truth, strict=True)
            if (one.line is not None) == line and not 0.2 < share < 0.5
        ]
        names = list(rows[0][0]) if rows else []
        evidence = np.array([[evidence_of[name] for name in names] for evidence_of, _ in rows], np.float64)
        fitted = fit_logistic(evidence, np.array([true for _, true in rows]), RIDGE) if rows else [-9.0]
        weights[line] = dict(zip(["bias", *names], (float(w) for w in fitted), strict=True))
    return Rule(weights[True], weights[False], 0.5, 0.5)


def measured(studies: Sequence[tuple[Study, Rule]]) -> dict[str, float]:
    """Share of marks found at each level, of photographs without one that are edited, and of pixels harmed; "pixels":
    of all photographs as they are."""
    table: dict[str, list[float]] = {}
    for one, rule in studies:
        mask = decided(one.found, one.shape, rule) > 0
        wide = grow(mask, MARGIN)
        true = _bits(one.visible, one.shape)
        if true.any():
            table.setdefault(f"{one.level} recall", []).append(float(wide[true].mean() >= HIT))
        else:
            table.setdefault(f"{one.level} edited", []).append(float(mask.any()))
        harm = float((wide & ~_bits(one.near, one.shape)).mean())
        table.setdefault(f"{one.level} harm", []).append(harm)
        if one.level in CLEAN:
            table.setdefault("pixels", []).append(harm)
    return {name: float(np.mean(some)) for name, some in sorted(table.items())}


def _bits(packed: npt.NDArray[np.uint8], shape: tuple[int, int]) -> Mask:
    return np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).astype(np.bool_)
