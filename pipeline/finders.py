"""What a recipe's kinds mean: which detectors find each, which look again afterwards, made of which weights.

Everything is imported and loaded when a stage opens, in the worker that will run it; kinds that need the same
network share it. To add a kind: a word in `rules.Kind`, an entry in `_MAKERS`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as PilImage

from pipeline import attached
from pipeline.errors import ConfigError, StorageError
from pipeline.recipe import KINDS, Kind, Recipe
from pipeline.storage import open_store

if TYPE_CHECKING:
    from models.detectors.text import TextDetector
    from models.regions import Detector
    from pipeline.given import Given


@dataclass(frozen=True)
class _Maker:
    """How one kind is found. weights: the names or files that it loads. find: its detectors. again: those that
    look at the result."""

    weights: Callable[[Recipe], list[str]]
    find: Callable[[Recipe], list[Detector]]
    again: Callable[[Recipe], list[Detector]]


def weights_of(recipe: Recipe) -> list[str]:
    """The names (or files) of the weights of the recipe's detectors. Raises ConfigError for a kind that this
    version has no detector of."""
    return [name for kind in _kinds(recipe) for name in _MAKERS[kind].weights(recipe)]


def detectors(recipe: Recipe) -> list[Detector]:
    """The detectors that find."""
    return [one for kind in _kinds(recipe) for one in _MAKERS[kind].find(recipe)]


def verifiers(recipe: Recipe) -> list[Detector]:
    """The detectors that check the result: another network where there is one, else the same at another scale and
    tiling (see their docs for what that independence is worth)."""
    return [one for kind in _kinds(recipe) for one in _MAKERS[kind].again(recipe)]


def check(recipe: Recipe) -> None:
    """Open what only the recipe's user has: references and given regions. Raises ConfigError."""
    if "logo" in recipe.remove:
        _logos(recipe, False)
    given(recipe)


def given(recipe: Recipe) -> Given | None:
    """What looks up the regions that the user has, when the recipe removes `given`."""
    rule = recipe.given
    if "given" not in recipe.remove or rule.file is None:
        return None
    from pipeline.given import Given, form_of, in_folder, in_table
    from pipeline.given_files import table_of

    if attached.is_folder(rule.file):
        store = open_store(rule.file)
        form = rule.form if rule.form in ("yolo", "masks") else form_of(store)
        return Given(in_folder(store, form), rule.root or "")
    return Given(in_table(table_of(attached.content(rule.file), rule.form, rule.shares)), rule.root or "")


def _kinds(recipe: Recipe) -> list[Kind]:
    kinds = [kind for kind in KINDS if kind in recipe.remove]
    if absent := [kind for kind in kinds if kind not in _MAKERS]:
        raise ConfigError(
            f"this version has no detector of {absent[0]!r}; remove can be {', '.join(_MAKERS)}"
        )
    return kinds


# The same networks, shown other pixels: another scale, and tiles cut elsewhere.


@lru_cache(maxsize=4)
def _text(again: bool) -> TextDetector:
    from models.detectors.text import TextDetector
    from models.weights import resolve

    paths = resolve("text-det"), resolve("text-rec")
    if again:
        return TextDetector(*paths, long_side=1280, offset=0.5, name="ppocr-v6-small@1280")
    return TextDetector(*paths)


@lru_cache(maxsize=4)
def _faces(again: bool) -> Detector:
    from models.detectors.faces import FaceDetector
    from models.weights import resolve

    path = resolve("centerface")
    return (
        FaceDetector(path, long_side=960, offset=0.5, name="centerface@960") if again else FaceDetector(path)
    )


def _plates(again: bool) -> Detector:
    from models.detectors.plates import PlateDetector

    return PlateDetector(_text(again))


def _logos(recipe: Recipe, again: bool) -> Detector:
    """Again: sizes between those of the first search, so that a chance of its grid is not repeated."""
    from models.detectors.logos import SIZE_STEP

    rule = recipe.logos
    low = recipe.detect_for("logo").min_score
    smallest = min(rule.smallest * (SIZE_STEP**0.5 if again else 1), rule.largest)
    return _opened_logos(rule.references, rule.rotation, smallest, rule.largest, low, again)


@lru_cache(maxsize=4)
def _opened_logos(
    places: tuple[str, ...], rotation: float, smallest: float, largest: float, low: float | None, again: bool
) -> Detector:
    from models.detectors.logos import MIN_SCORE, LogoDetector, mark_of

    marks = []
    for place in places:
        try:
            with PilImage.open(io.BytesIO(attached.content(place))) as image:
                marks.append(mark_of(attached.stem(place), np.asarray(image.convert("RGBA"))))
        except (OSError, ValueError, StorageError, PilImage.DecompressionBombError) as error:
            raise ConfigError(f"logos.references: {place}: {error}") from error
    name = "edge-angles@between" if again else "edge-angles"
    return LogoDetector(marks, rotation, smallest, largest, MIN_SCORE if low is None else low, name=name)


def _nothing(recipe: Recipe) -> list[Any]:
    return []


_MAKERS: dict[Kind, _Maker] = {
    "text": _Maker(lambda r: ["text-det", "text-rec"], lambda r: [_text(False)], lambda r: [_text(True)]),
    "face": _Maker(lambda r: ["centerface"], lambda r: [_faces(False)], lambda r: [_faces(True)]),
    "plate": _Maker(
        lambda r: ["text-det", "text-rec"], lambda r: [_plates(False)], lambda r: [_plates(True)]
    ),
    "logo": _Maker(_nothing, lambda r: [_logos(r, False)], lambda r: [_logos(r, True)]),
    # Looked up by `given` with the row's own name; no detector can look for it again.
    "given": _Maker(_nothing, _nothing, _nothing),
}
