"""What a recipe's kinds mean: which detectors find each, which look again afterwards, made of which weights.

Everything is imported and loaded when a stage opens, in the worker that will run it; kinds that need the same
network share it. To add a kind: a word in `rules.Kind`, an entry in `_MAKERS`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from PIL import Image as PilImage

from models.devices import pick
from pipeline import attached
from pipeline.errors import ConfigError, StorageError
from pipeline.recipe import KINDS, Kind, Recipe
from pipeline.storage import open_store

if TYPE_CHECKING:
    from models.detectors.overlay import OverlayMap
    from models.detectors.text import TextDetector
    from models.detectors.watermark import WatermarkDetector
    from models.regions import Detector
    from models.sam import SamSegmenter
    from pipeline.given import Given


@dataclass(frozen=True)
class Verifier:
    """A detector that looks at results. close: kinds; it is shown the surroundings of each edit of these, and not
    the whole picture (what BlazeFace sees in a fill of text was never measured, and is no face).
    guard: what it finds below this score is no residue on its word alone."""

    detector: Detector
    close: tuple[str, ...] = ()
    guard: float = 0.0


@dataclass(frozen=True)
class _Maker:
    """How one kind is found. weights: the names or files that it loads. find: its detectors. again: the same that
    look at the result in another way. second: other models that look at it too."""

    weights: Callable[[Recipe], list[str]]
    find: Callable[[Recipe], list[Detector]]
    again: Callable[[Recipe], list[Detector]]
    second: Callable[[Recipe], list[Verifier]] = lambda recipe: []


def weights_of(recipe: Recipe) -> list[str]:
    """The names (or files) of the weights of the recipe's detectors. Raises ConfigError for a kind that this
    version has no detector of."""
    return [name for kind in _kinds(recipe) for name in _MAKERS[kind].weights(recipe)]


def detectors(recipe: Recipe) -> list[Detector]:
    """The detectors that find."""
    together, kinds = _apart(recipe)
    found: list[Detector] = [_written(False, recipe.engine.gpus)] if together else []
    return found + [one for kind in kinds for one in _MAKERS[kind].find(recipe)]


def names_of(found: Sequence[Detector]) -> list[str]:
    """What rows call these detectors; one that does the work of two has two names."""
    return [name for one in found for name in getattr(one, "names", (one.name,))]


def verifiers(recipe: Recipe) -> list[Verifier]:
    """What checks the result: the finder at another scale and tiling (see its docs for what that independence is
    worth), and another network where there is one."""
    together, kinds = _apart(recipe)
    found = [Verifier(_written(True, recipe.engine.gpus))] if together else []
    for kind in kinds:
        found += [Verifier(one) for one in _MAKERS[kind].again(recipe)]
    return found + [one for kind in _kinds(recipe) for one in _MAKERS[kind].second(recipe)]


def check(recipe: Recipe) -> None:
    """Open what only the recipe's user has: references and given regions. Raises ConfigError."""
    if "logo" in recipe.remove:
        _logos(recipe, False)
    if "person" in recipe.remove:
        opened(lambda: _persons(recipe, False), "persons.model")
    if "object" in recipe.remove:
        opened(lambda: _prompt(recipe), "prompt")
    given(recipe)


T = TypeVar("T")


def opened(make: Callable[[], T], key: str) -> T:
    """What `make` makes; what it raises becomes a ConfigError about a key of the recipe."""
    try:
        return make()
    except (ImportError, ValueError, OSError, RuntimeError) as error:
        raise ConfigError(f"{key}: {' '.join(str(error).split())}") from error


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


TOGETHER: tuple[Kind, ...] = ("text", "watermark")
"""Kinds that one detector finds in one pass when both are asked for."""


def _apart(recipe: Recipe) -> tuple[bool, list[Kind]]:
    """(are both of TOGETHER asked for, the kinds that have a detector each)."""
    kinds = _kinds(recipe)
    together = set(TOGETHER) <= set(kinds)
    return together, [kind for kind in kinds if not (together and kind in TOGETHER)]


# The same networks, shown other pixels: another scale, and tiles cut elsewhere.


def _text(again: bool, gpus: float) -> TextDetector:
    return _lines(again).with_overlay(_overlay(again, gpus))


@lru_cache(maxsize=4)
def _lines(again: bool) -> TextDetector:
    from models.detectors.text import TextDetector
    from models.weights import resolve

    paths = resolve("text-det"), resolve("text-rec"), resolve("strokes")
    if again:
        return TextDetector(*paths, long_side=1280, offset=0.5, name="ppocr-v6-small@1280")
    return TextDetector(*paths)


@lru_cache(maxsize=4)
def _overlay(again: bool, gpus: float) -> OverlayMap:
    from models.detectors.overlay import OverlayMap, Sight
    from models.weights import resolve

    other = Sight(long_side=832, offset=0.5, mirror=True)
    return OverlayMap(resolve("marks"), other if again else None, pick(gpus))


@lru_cache(maxsize=1)
def _second_text() -> TextDetector:
    from models.detectors.text import TextDetector
    from models.weights import resolve

    return TextDetector(resolve("text-det-v4"), resolve("text-rec"), name="ppocr-v4-mobile")


@lru_cache(maxsize=4)
def _faces(again: bool) -> Detector:
    from models.detectors.faces import FaceDetector
    from models.weights import resolve

    path = resolve("centerface")
    return (
        FaceDetector(path, long_side=960, offset=0.5, name="centerface@960") if again else FaceDetector(path)
    )


@lru_cache(maxsize=1)
def _second_faces() -> Detector:
    from models.detectors.blaze import BlazeFaceDetector
    from models.weights import resolve

    return BlazeFaceDetector(resolve("blazeface"))


@lru_cache(maxsize=2)
def _blazepose(again: bool) -> Detector:
    from models.detectors.persons import PersonDetector
    from models.weights import resolve

    files = resolve("blazepose"), resolve("selfie")
    return PersonDetector(*files, offset=0.5, name="blazepose@shifted") if again else PersonDetector(*files)


@lru_cache(maxsize=4)
def _onnx(file: str, kind: str, classes: tuple[int, ...], low: float | None) -> Detector:
    from models.detectors.boxes import MIN_SCORE, OnnxDetector
    from models.weights import find, resolve

    found = find(file)
    return OnnxDetector(resolve(found), kind, classes, MIN_SCORE if low is None else low, name=found.name)


def _person_by_face() -> Detector:
    """CenterFace: another network, trained on other pictures, for persons who look this way."""
    from models.detectors.looks import SignOf

    return SignOf("person", _faces(False))


def _persons(recipe: Recipe, again: bool) -> Detector:
    rule = recipe.persons
    if rule.model == "blazepose":
        return _blazepose(again)
    found = _onnx(rule.model, "person", rule.classes, recipe.detect_for("person").min_score)
    return _mirrored(found) if again else found


def _mirrored(detector: Detector) -> Detector:
    """For networks that fix the size of what they see: no other scale is to be had."""
    from models.detectors.looks import Mirrored

    return Mirrored(detector)


def _plates(text: TextDetector) -> Detector:
    from models.detectors.plates import PlateDetector

    return PlateDetector(text)


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


def hub_models(recipe: Recipe) -> dict[str, str]:
    """key of the recipe -> model that is a folder, as transformers saves it."""
    model = recipe.prompt.model or ""
    return {"prompt.model": model} if "object" in recipe.remove and not model.endswith(".onnx") else {}


def _prompt(recipe: Recipe) -> Detector:
    rule, low = recipe.prompt, recipe.detect_for("object").min_score
    if hub_models(recipe):
        return _words(rule.model or "", rule.words, low, recipe.engine.gpus)
    return _onnx(rule.model or "", "object", tuple(int(word) for word in rule.words), low)


@lru_cache(maxsize=2)
def _words(model: str, words: tuple[str, ...], low: float | None, gpus: float) -> Detector:
    from models.detectors.prompt import PromptDetector
    from models.hub import folder_of

    return PromptDetector(folder_of(model), words, low, pick(gpus), name=model.rpartition("/")[2])


@lru_cache(maxsize=2)
def sam(name: str, gpus: float, prompts: Literal["boxes", "points", "both"]) -> SamSegmenter:
    """Segment Anything, by its name in the weights table or its file."""
    from models import sam as sams
    from models import weights
    from models.checkpoints import load_tensors

    found = weights.find(name)
    tensors = load_tensors(weights.resolve(found))
    params = sams.SAM[found.model] if found.model in sams.SAM else sams.params_of(tensors)
    return sams.SamSegmenter(sams.load_sam(params, tensors), pick(gpus), prompts=prompts, name=found.name)


def _everything(recipe: Recipe) -> Detector:
    from models.detectors.everything import EverythingDetector

    rule = recipe.everything
    network = sam(rule.checkpoint, recipe.engine.gpus, recipe.masks.prompts)
    return EverythingDetector(
        network, rule.points, rule.min_iou, rule.min_stability, f"everything:{network.name}"
    )


def _nothing(recipe: Recipe) -> list[Any]:
    return []


@lru_cache(maxsize=4)
def _watermarks(again: bool, gpus: float) -> WatermarkDetector:
    from models.detectors.watermark import WatermarkDetector

    return WatermarkDetector(_overlay(again, gpus), _lines(again), name="marks@832" if again else "marks")


@lru_cache(maxsize=4)
def _written(again: bool, gpus: float) -> Detector:
    from models.detectors.written import WrittenDetector

    return WrittenDetector(_lines(again), _watermarks(again, gpus))


_MAKERS: dict[Kind, _Maker] = {
    "watermark": _Maker(
        lambda r: ["marks", "text-det", "text-rec", "strokes"],
        lambda r: [_watermarks(False, r.engine.gpus)],
        lambda r: [_watermarks(True, r.engine.gpus)],
    ),
    # Looked up by `consensus` with the row's own group; no detector of one image can find it.
    "static-watermark": _Maker(_nothing, _nothing, _nothing),
    "text": _Maker(
        lambda r: ["text-det", "text-rec", "strokes", "marks", "text-det-v4"],
        lambda r: [_text(False, r.engine.gpus)],
        lambda r: [_text(True, r.engine.gpus)],
        lambda r: [Verifier(_second_text(), guard=0.75)],
    ),
    "face": _Maker(
        lambda r: ["centerface", "blazeface"],
        lambda r: [_faces(False)],
        lambda r: [_faces(True)],
        lambda r: [Verifier(_second_faces(), close=("face", "person"), guard=0.7)],
    ),
    "person": _Maker(
        lambda r: [
            *(["blazepose", "selfie"] if r.persons.model == "blazepose" else [r.persons.model]),
            "centerface",
        ],
        lambda r: [_persons(r, False)],
        lambda r: [_persons(r, True)],
        lambda r: [Verifier(_person_by_face(), guard=0.6)],
    ),
    "plate": _Maker(
        lambda r: ["text-det", "text-rec", "strokes", "text-det-v4"],
        lambda r: [_plates(_lines(False))],
        lambda r: [_plates(_lines(True))],
        lambda r: [Verifier(_plates(_second_text()), guard=0.75)],
    ),
    "logo": _Maker(_nothing, lambda r: [_logos(r, False)], lambda r: [_logos(r, True)]),
    # The network fixes its input; windows about the edits, mirrored, are another scale and other pixels.
    "object": _Maker(
        lambda r: [] if hub_models(r) else [r.prompt.model or ""],
        lambda r: [_prompt(r)],
        lambda r: [_mirrored(_prompt(r))],
    ),
    # What is left after everything is something else: looking for everything again would never end.
    "everything": _Maker(lambda r: [r.everything.checkpoint], lambda r: [_everything(r)], _nothing),
    # Looked up by `given` with the row's own name; no detector can look for it again.
    "given": _Maker(_nothing, _nothing, _nothing),
}
