"""Detectors and verifiers as a recipe wants them: made of which weights, on which device, seeing in which way.

What each kind has is in `pipeline/factory/kinds.py`. Everything is imported and loaded when a stage opens, in the
worker that will run it; kinds and stages that share a worker share the loaded network.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from PIL import Image as PilImage

from cleanplate.models.devices import pick
from cleanplate.pipeline.errors import ConfigError, StorageError
from cleanplate.pipeline.factory import attachments
from cleanplate.pipeline.recipe.recipe import Recipe

if TYPE_CHECKING:
    from cleanplate.models.detectors.human_faces import HumanFaces
    from cleanplate.models.detectors.lettering.meaning import Meaning
    from cleanplate.models.detectors.overlay.overlay_map import OverlayMap
    from cleanplate.models.detectors.text import TextDetector
    from cleanplate.models.detectors.watermark import WatermarkDetector
    from cleanplate.models.types import Detector

T = TypeVar("T")


@dataclass(frozen=True)
class Verifier:
    """A detector that looks at results. of: the kinds whose edits it is owed, and near which it looks; () = all. view:
    only edits that this view of the first detector found ("@slanted": what its name in the row ends in). close: it is
    shown the surroundings of each such edit one by one, and not windows (what BlazeFace sees in a fill of text was
    never measured, and is no face). least: shortest side of the windows, pixels. guard: what it finds
    below this score is no residue on its word alone. inside: a find counts only where most of it lies in edits of
    these kinds, and is `LEFT` of them: what a fill left.

    Where the whole picture is asked about (`verify.scope: all`, or a person asked) kinds and views do not matter."""

    detector: Detector
    of: tuple[str, ...] = ()
    view: str = ""
    close: bool = False
    least: int = 512
    guard: float = 0.0
    inside: bool = False

    def owed(self, edit: Mapping[str, Any]) -> bool:
        """Whether an edit (a region of the row) has to be looked at. What was painted by hand has no kind."""
        if not edit["kind"]:
            return True
        return (not self.of or edit["kind"] in self.of) and str(edit["detector"]).endswith(self.view)


LINES = "ppocr-v6-small"
IMPRINT = "marks@imprint"
"""The name of the detector of what fills leave of a mark."""
LEFT = 0.08
"""Share of the edits' pixels from which what a verifier finds inside them is left of what was there."""


def opened(make: Callable[[], T], key: str) -> T:
    """What `make` makes; what it raises becomes a ConfigError about a key of the recipe."""
    try:
        return make()
    except (ImportError, ValueError, OSError, RuntimeError) as error:
        raise ConfigError(f"{key}: {' '.join(str(error).split())}") from error


def meaning(recipe: Recipe) -> Meaning | None:
    """What of a line must go; None for all of it."""
    from cleanplate.models.detectors.lettering.meaning import Meaning

    rule = recipe.text
    return Meaning(rule.only, rule.keep) if rule.only or rule.keep else None


@lru_cache(maxsize=2)
def text(thorough: bool, gpus: float, saying: Meaning | None) -> TextDetector:
    return lines(False, thorough, gpus).with_overlay(overlay(False, gpus)).saying(saying)


@lru_cache(maxsize=4)
def lines(again: bool, thorough: bool, gpus: float) -> TextDetector:
    from cleanplate.models.detectors.lettering.proposals import LineViews
    from cleanplate.models.detectors.text import TextDetector
    from cleanplate.models.weights.registry import resolve

    paths = resolve("text-det"), resolve("text-rec"), resolve("strokes")
    if again:
        other = LineViews(1280, 0.5, unlike=960, slants=(-40.0, 40.0), thorough=thorough)
        return TextDetector(*paths, views=other, device=pick(gpus), name=f"{LINES}@other-scale")
    return TextDetector(*paths, views=LineViews(thorough=thorough), device=pick(gpus))


def text_again(thorough: bool, gpus: float, saying: Meaning | None) -> list[Verifier]:
    """Level views of another scale and of another network; turned views and the overlay's map only where such a view
    found what was removed."""
    of = ("text",)
    again = lines(True, thorough, gpus).saying(saying)
    slanted = again.seeing(f"{LINES}@slanted-40", level=False)
    drawn = again.seeing(f"{LINES}@map@mirrored", level=False, slants=())
    return [
        Verifier(again.seeing(again.name, slants=()), of),
        Verifier(slanted, of, view="@slanted"),
        Verifier(drawn.with_overlay(overlay(True, gpus)), of, view="@map"),
        Verifier(second_text(gpus).saying(saying), of, guard=0.75),
    ]


@lru_cache(maxsize=4)
def overlay(again: bool, gpus: float) -> OverlayMap:
    from cleanplate.models.detectors.overlay.overlay_map import OverlayMap, Sight
    from cleanplate.models.weights.registry import resolve

    other = Sight(long_side=832, offset=0.5, mirror=True)
    return OverlayMap(resolve("marks"), other if again else None, pick(gpus))


@lru_cache(maxsize=1)
def second_text(gpus: float) -> TextDetector:
    from cleanplate.models.detectors.lettering.proposals import LineViews
    from cleanplate.models.detectors.text import TextDetector
    from cleanplate.models.weights.registry import resolve

    paths, views = (resolve("text-det-v4"), resolve("text-rec")), LineViews(enlarge=1.0, slants=())
    return TextDetector(*paths, views=views, device=pick(gpus), name="ppocr-v4-mobile")


@lru_cache(maxsize=4)
def faces(gpus: float, views: Literal["all", "upright", "turned"] = "all") -> HumanFaces:
    from cleanplate.models.detectors.faces import FaceDetector
    from cleanplate.models.detectors.human_faces import HumanFaces
    from cleanplate.models.weights.registry import resolve

    path, device = resolve("centerface"), pick(gpus)
    if views == "all":
        return HumanFaces(FaceDetector(path, device=device), animals(gpus))
    upright = views == "upright"
    name = "centerface" if upright else "centerface@turned"
    seen = FaceDetector(path, offset=0.5, upright=upright, turned=not upright, device=device, name=name)
    return HumanFaces(seen, animals(gpus))


@lru_cache(maxsize=1)
def animals(gpus: float) -> Detector:
    from cleanplate.models.detectors.objects import coco
    from cleanplate.models.detectors.objects.nanodet import NanoDetDetector, Wanted
    from cleanplate.models.weights.registry import resolve

    wanted = {number: Wanted("animal") for number in (*coco.ANIMALS, coco.NAMES.index("teddy bear"))}
    wanted[coco.PERSON] = Wanted("person")
    return NanoDetDetector(resolve("nanodet"), wanted, most=0, device=pick(gpus), name="nanodet@animals")


def faces_again(gpus: float) -> list[Verifier]:
    """CenterFace sees it mirrored, turned only where a turned view found it; BlazeFace is shown close-ups."""
    of = ("face",)
    return [
        Verifier(mirrored(faces(gpus, "upright")), of, least=256),
        Verifier(mirrored(faces(gpus, "turned")), of, view="@turned", least=256),
        Verifier(_second_faces(gpus), (*of, "person"), close=True, guard=0.7),
    ]


@lru_cache(maxsize=1)
def _second_faces(gpus: float) -> Detector:
    from cleanplate.models.detectors.blazeface import BlazeFaceDetector
    from cleanplate.models.weights.registry import resolve

    return BlazeFaceDetector(resolve("blazeface"), device=pick(gpus))


def mirrored(detector: Detector) -> Detector:
    """For networks that fix the size of what they see: no other scale is to be had."""
    from cleanplate.models.detectors.views.variants import Mirrored

    return Mirrored(detector)


@lru_cache(maxsize=2)
def codes(again: bool) -> Detector:
    from cleanplate.models.detectors.codes import CodeDetector

    return CodeDetector(harder=True, name="codes@harder") if again else CodeDetector()


def second_codes() -> Detector:
    from cleanplate.models.detectors.codes import SecondCodeDetector

    return SecondCodeDetector()


@lru_cache(maxsize=2)
def plates(again: bool, gpus: float) -> Detector:
    """Again: another scale, mirrored, tiles cut elsewhere, vehicles found in the mirrored picture."""
    from cleanplate.models.detectors.lettering.reading import Reader
    from cleanplate.models.detectors.objects.plate_finder import AGAIN, PlateFinder
    from cleanplate.models.detectors.onnx_session import open_session
    from cleanplate.models.weights.registry import resolve

    device = pick(gpus)
    reader = Reader(open_session(resolve("text-rec"), device=device))
    vehicles = _vehicles(again, gpus)
    if again:
        return PlateFinder(resolve("plates"), vehicles, reader, AGAIN, device, "plates@mirrored")
    return PlateFinder(resolve("plates"), vehicles, reader, device=device)


def _vehicles(again: bool, gpus: float) -> Detector:
    """Where plates are looked for enlarged: doubtful ones too, for a miss costs more than a look."""
    from cleanplate.models.detectors.objects import coco
    from cleanplate.models.detectors.objects.nanodet import NanoDetDetector, Wanted
    from cleanplate.models.weights.registry import resolve

    wanted = {number: Wanted("vehicle", 0.3) for number in coco.VEHICLES}
    offset = 0.5 if again else 0.0
    return NanoDetDetector(resolve("nanodet"), wanted, offset=offset, mirror=again, most=4, device=pick(gpus))


def read_plates(text: TextDetector) -> Detector:
    from cleanplate.models.detectors.plates import PlateDetector

    return PlateDetector(text)


def logos(recipe: Recipe, again: bool) -> Detector:
    """Again: sizes between those of the first search, so that a chance of its grid is not repeated."""
    from cleanplate.models.detectors.logos import SIZE_STEP

    rule = recipe.logos
    low = recipe.detect_for("logo").min_score
    smallest = min(rule.smallest * (SIZE_STEP**0.5 if again else 1), rule.largest)
    return _opened_logos(rule.references, rule.rotation, smallest, rule.largest, low, again)


@lru_cache(maxsize=4)
def _opened_logos(
    places: tuple[str, ...], rotation: float, smallest: float, largest: float, low: float | None, again: bool
) -> Detector:
    from cleanplate.models.detectors.known_marks.places import MIN_SCORE
    from cleanplate.models.detectors.known_marks.reference import mark_of
    from cleanplate.models.detectors.logos import LogoDetector

    marks = []
    for place in places:
        try:
            with PilImage.open(io.BytesIO(attachments.content(place))) as image:
                marks.append(mark_of(attachments.stem(place), np.asarray(image.convert("RGBA"))))
        except (OSError, ValueError, StorageError, PilImage.DecompressionBombError) as error:
            raise ConfigError(f"logos.references: {place}: {error}") from error
    name = "edge-angles@between" if again else "edge-angles"
    return LogoDetector(marks, rotation, smallest, largest, MIN_SCORE if low is None else low, name=name)


@lru_cache(maxsize=4)
def watermarks(again: bool, thorough: bool, gpus: float) -> WatermarkDetector:
    from cleanplate.models.detectors.watermark import WatermarkDetector

    proposed = lines(again, thorough, gpus)
    return WatermarkDetector(overlay(again, gpus), proposed, name="marks@832" if again else "marks")


@lru_cache(maxsize=4)
def imprint(kind: str, gpus: float) -> Detector:
    from cleanplate.models.detectors.overlay.imprint import ImprintDetector

    return ImprintDetector(overlay(True, gpus), kind, name=IMPRINT)


@lru_cache(maxsize=4)
def written(again: bool, thorough: bool, gpus: float, saying: Meaning | None = None) -> Detector:
    from cleanplate.models.detectors.text_and_watermark import WrittenDetector

    return WrittenDetector(lines(again, thorough, gpus).saying(saying), watermarks(again, thorough, gpus))
