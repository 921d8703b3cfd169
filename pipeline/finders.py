"""What a recipe's kinds mean: which detectors find each, which look again afterwards, made of which weights.

Everything is imported and loaded when a stage opens, in the worker that will run it; kinds that need the same
network share it. To add a kind: a word in `rules.Kind`, an entry in `_MAKERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.recipe import KINDS, Kind, Recipe

if TYPE_CHECKING:
    from models.detectors.text import TextDetector
    from models.regions import Detector


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


def _nothing(recipe: Recipe) -> list[Any]:
    return []


_MAKERS: dict[Kind, _Maker] = {
    # Looked up by `consensus` with the row's own group; no detector of one image can find it.
    "static-watermark": _Maker(_nothing, _nothing, _nothing),
    "text": _Maker(lambda r: ["text-det", "text-rec"], lambda r: [_text(False)], lambda r: [_text(True)]),
    "face": _Maker(lambda r: ["centerface"], lambda r: [_faces(False)], lambda r: [_faces(True)]),
    "plate": _Maker(
        lambda r: ["text-det", "text-rec"], lambda r: [_plates(False)], lambda r: [_plates(True)]
    ),
}
