"""One entry for each kind: which detectors find it, which look again afterwards, made of which weights.

Kinds that need the same network share it. To add a kind: a word in `rules.Kind`, an entry in MAKERS.
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
from cleanplate.pipeline.recipe.recipe import Kind, Recipe

if TYPE_CHECKING:
    from cleanplate.models.detectors.faces import FaceDetector
    from cleanplate.models.detectors.overlay.overlay_map import OverlayMap
    from cleanplate.models.detectors.text import TextDetector
    from cleanplate.models.detectors.watermark import WatermarkDetector
    from cleanplate.models.segmenters.sam import SamSegmenter
    from cleanplate.models.types import Detector


@dataclass(frozen=True)
class Verifier:
    """A detector that looks at results. of: the kinds whose edits it is owed, and near which it looks; () = all. view:
    only edits that this view of the first detector found ("@slanted": what its name in the row ends in). close: it is
    shown the surroundings of each such edit one by one, and not windows (what BlazeFace sees in a fill of text was
    never measured, and is no face). least: shortest side of the windows, pixels. guard: what it finds
    below this score is no residue on its word alone.

    Where the whole picture is asked about (`verify.scope: all`, or a person asked) kinds and views do not matter."""

    detector: Detector
    of: tuple[str, ...] = ()
    view: str = ""
    close: bool = False
    least: int = 512
    guard: float = 0.0

    def owed(self, edit: Mapping[str, Any]) -> bool:
        """Whether an edit (a region of the row) has to be looked at. What was painted by hand has no kind."""
        if not edit["kind"]:
            return True
        return (not self.of or edit["kind"] in self.of) and str(edit["detector"]).endswith(self.view)


@dataclass(frozen=True)
class Maker:
    """How one kind is found. weights: the names or files that it loads. find: its detectors. again: what looks at
    the result: the same networks in another way, then other networks."""

    weights: Callable[[Recipe], list[str]]
    find: Callable[[Recipe], list[Detector]]
    again: Callable[[Recipe], list[Verifier]]


LINES = "ppocr-v6-small"

T = TypeVar("T")


def opened(make: Callable[[], T], key: str) -> T:
    """What `make` makes; what it raises becomes a ConfigError about a key of the recipe."""
    try:
        return make()
    except (ImportError, ValueError, OSError, RuntimeError) as error:
        raise ConfigError(f"{key}: {' '.join(str(error).split())}") from error


# The same networks, shown other pixels: another scale, and tiles cut elsewhere.


def _text(recipe: Recipe) -> TextDetector:
    return _lines(False, recipe.thorough, recipe.engine.gpus).with_overlay(
        _overlay(False, recipe.engine.gpus)
    )


@lru_cache(maxsize=4)
def _lines(again: bool, thorough: bool, gpus: float) -> TextDetector:
    from cleanplate.models.detectors.lettering.proposals import LineViews
    from cleanplate.models.detectors.text import TextDetector
    from cleanplate.models.weights.registry import resolve

    paths = resolve("text-det"), resolve("text-rec"), resolve("strokes")
    if again:
        other = LineViews(1280, 0.5, unlike=960, slants=(-40.0, 40.0), thorough=thorough)
        return TextDetector(*paths, views=other, device=pick(gpus), name=f"{LINES}@other-scale")
    return TextDetector(*paths, views=LineViews(thorough=thorough), device=pick(gpus))


def _text_again(recipe: Recipe) -> list[Verifier]:
    """Level views of another scale and of another network; turned views and the overlay's map only where such a view
    found what was removed."""
    of = ("text",)
    lines = _lines(True, recipe.thorough, recipe.engine.gpus)
    slanted = lines.seeing(f"{LINES}@slanted-40", level=False)
    drawn = lines.seeing(f"{LINES}@map@mirrored", level=False, slants=())
    return [
        Verifier(lines.seeing(lines.name, slants=()), of),
        Verifier(slanted, of, view="@slanted"),
        Verifier(drawn.with_overlay(_overlay(True, recipe.engine.gpus)), of, view="@map"),
        Verifier(_second_text(recipe.engine.gpus), of, guard=0.75),
    ]


@lru_cache(maxsize=4)
def _overlay(again: bool, gpus: float) -> OverlayMap:
    from cleanplate.models.detectors.overlay.overlay_map import OverlayMap, Sight
    from cleanplate.models.weights.registry import resolve

    other = Sight(long_side=832, offset=0.5, mirror=True)
    return OverlayMap(resolve("marks"), other if again else None, pick(gpus))


@lru_cache(maxsize=1)
def _second_text(gpus: float) -> TextDetector:
    from cleanplate.models.detectors.lettering.proposals import LineViews
    from cleanplate.models.detectors.text import TextDetector
    from cleanplate.models.weights.registry import resolve

    paths = resolve("text-det-v4"), resolve("text-rec")
    return TextDetector(
        *paths, views=LineViews(enlarge=1.0, slants=()), device=pick(gpus), name="ppocr-v4-mobile"
    )


@lru_cache(maxsize=4)
def _faces(gpus: float, views: Literal["all", "upright", "turned"] = "all") -> FaceDetector:
    from cleanplate.models.detectors.faces import FaceDetector
    from cleanplate.models.weights.registry import resolve

    path = resolve("centerface")
    if views == "all":
        return FaceDetector(path, device=pick(gpus))
    upright = views == "upright"
    name = "centerface" if upright else "centerface@turned"
    return FaceDetector(path, offset=0.5, upright=upright, turned=not upright, device=pick(gpus), name=name)


def _faces_again(gpus: float) -> list[Verifier]:
    """CenterFace sees it mirrored, turned only where a turned view found it; BlazeFace is shown close-ups."""
    of = ("face",)
    return [
        Verifier(_mirrored(_faces(gpus, "upright")), of, least=256),
        Verifier(_mirrored(_faces(gpus, "turned")), of, view="@turned", least=256),
        Verifier(_second_faces(gpus), (*of, "person"), close=True, guard=0.7),
    ]


@lru_cache(maxsize=1)
def _second_faces(gpus: float) -> Detector:
    from cleanplate.models.detectors.blazeface import BlazeFaceDetector
    from cleanplate.models.weights.registry import resolve

    return BlazeFaceDetector(resolve("blazeface"), device=pick(gpus))


@lru_cache(maxsize=2)
def _blazepose(again: bool) -> Detector:
    from cleanplate.models.detectors.objects.persons import PersonDetector
    from cleanplate.models.weights.registry import resolve

    files = resolve("blazepose"), resolve("selfie")
    return PersonDetector(*files, offset=0.5, name="blazepose@shifted") if again else PersonDetector(*files)


@lru_cache(maxsize=4)
def _onnx(file: str, kind: str, classes: tuple[int, ...], low: float | None) -> Detector:
    from cleanplate.models.detectors.onnx_boxes import MIN_SCORE, OnnxDetector
    from cleanplate.models.weights.registry import find, resolve

    found = find(file)
    return OnnxDetector(resolve(found), kind, classes, MIN_SCORE if low is None else low, name=found.name)


def _person_by_face(gpus: float) -> Detector:
    """CenterFace: another network, trained on other pictures, for persons who look this way."""
    from cleanplate.models.detectors.views.variants import SignOf

    return SignOf("person", _faces(gpus, "upright"))


def persons(recipe: Recipe, again: bool) -> list[Detector]:
    rule = recipe.persons
    named: dict[str, Callable[[], Detector]] = {
        "nanodet": lambda: things(recipe, again),
        "blazepose": lambda: _blazepose(again),
    }
    if rule.model in (*named, "both"):
        return [make() for name, make in named.items() if rule.model in (name, "both")]
    found = _onnx(rule.model, "person", rule.classes, recipe.detect_for("person").min_score)
    return [_mirrored(found) if again else found]


def _persons_by_another(recipe: Recipe) -> list[Verifier]:
    """Networks that did not find: whoever BlazePose found is shown to NanoDet, and all are to CenterFace."""
    of = ("person",)
    more = (
        [Verifier(_persons_by_nanodet(recipe.engine.gpus), of, guard=0.6)]
        if recipe.persons.model == "blazepose"
        else []
    )
    return [*more, Verifier(_person_by_face(recipe.engine.gpus), of, guard=0.6)]


def _weights_of_persons(recipe: Recipe) -> list[str]:
    rule = recipe.persons
    poses = ["blazepose", "selfie"]
    own = {"nanodet": ["nanodet"], "blazepose": [*poses, "nanodet"], "both": ["nanodet", *poses]}
    return [*own.get(rule.model, [rule.model]), "centerface"]


def things(recipe: Recipe, again: bool) -> Detector:
    """NanoDet for all that the recipe asks of it: one pass finds every kind, so all kinds have this same detector."""
    from cleanplate.models.detectors.objects import coco

    asked: dict[Kind, tuple[int, ...]] = {
        "person": (coco.PERSON,) if recipe.persons.model in ("nanodet", "both") else (),
        "vehicle": coco.VEHICLES,
        "object": ()
        if recipe.prompt.model
        else tuple(number for word in recipe.prompt.words if (number := coco.number_of(word)) is not None),
    }
    wanted = [
        (number, kind, recipe.detect_for(kind).min_score)
        for kind, numbers in asked.items()
        if kind in recipe.remove
        for number in numbers
    ]
    return _nanodet(tuple(wanted), again, recipe.engine.gpus)


def _persons_by_nanodet(gpus: float) -> Detector:
    from cleanplate.models.detectors.objects.coco import PERSON

    return _nanodet(((PERSON, "person", None),), False, gpus)


@lru_cache(maxsize=4)
def _nanodet(wanted: tuple[tuple[int, str, float | None], ...], again: bool, gpus: float) -> Detector:
    """Again: everything mirrored, shown larger, and tiles cut elsewhere."""
    from cleanplate.models.detectors.objects.nanodet import MIN_SCORE, SIDE, NanoDetDetector, Wanted
    from cleanplate.models.weights.registry import resolve

    classes = {number: Wanted(kind, MIN_SCORE if low is None else low) for number, kind, low in wanted}
    path, device = resolve("nanodet"), pick(gpus)
    if again:
        return NanoDetDetector(
            path, classes, SIDE + 96, 0.5, mirror=True, device=device, name="nanodet@mirrored"
        )
    return NanoDetDetector(path, classes, device=device)


def _mirrored(detector: Detector) -> Detector:
    """For networks that fix the size of what they see: no other scale is to be had."""
    from cleanplate.models.detectors.views.variants import Mirrored

    return Mirrored(detector)


def _plates(text: TextDetector) -> Detector:
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
    from cleanplate.models.detectors.logos import MIN_SCORE, LogoDetector, mark_of

    marks = []
    for place in places:
        try:
            with PilImage.open(io.BytesIO(attachments.content(place))) as image:
                marks.append(mark_of(attachments.stem(place), np.asarray(image.convert("RGBA"))))
        except (OSError, ValueError, StorageError, PilImage.DecompressionBombError) as error:
            raise ConfigError(f"logos.references: {place}: {error}") from error
    name = "edge-angles@between" if again else "edge-angles"
    return LogoDetector(marks, rotation, smallest, largest, MIN_SCORE if low is None else low, name=name)


def hub_models(recipe: Recipe) -> dict[str, str]:
    """key of the recipe -> model that is a folder, as transformers saves it."""
    model = recipe.prompt.model
    wanted = "object" in recipe.remove and model is not None and not model.endswith(".onnx")
    return {"prompt.model": model} if wanted and model is not None else {}


def prompt(recipe: Recipe) -> Detector:
    rule, low = recipe.prompt, recipe.detect_for("object").min_score
    if rule.model is None:
        return things(recipe, False)
    if hub_models(recipe):
        return _words(rule.model, rule.words, low, recipe.engine.gpus)
    return _onnx(rule.model, "object", tuple(int(word) for word in rule.words), low)


@lru_cache(maxsize=2)
def _words(model: str, words: tuple[str, ...], low: float | None, gpus: float) -> Detector:
    from cleanplate.models.detectors.objects.prompt import PromptDetector
    from cleanplate.models.weights.hub import folder_of

    return PromptDetector(folder_of(model), words, low, pick(gpus), name=model.rpartition("/")[2])


@lru_cache(maxsize=2)
def sam(name: str, gpus: float, prompts: Literal["boxes", "points", "both"]) -> SamSegmenter:
    """Segment Anything, by its name in the weights table or its file."""
    from cleanplate.models.segmenters import sam as sams
    from cleanplate.models.weights import registry as weights
    from cleanplate.models.weights.checkpoints import load_tensors

    found = weights.find(name)
    tensors = load_tensors(weights.resolve(found))
    params = sams.SAM[found.model] if found.model in sams.SAM else sams.params_of(tensors)
    return sams.SamSegmenter(sams.load_sam(params, tensors), pick(gpus), prompts=prompts, name=found.name)


def _everything(recipe: Recipe) -> Detector:
    from cleanplate.models.detectors.objects.everything import EverythingDetector

    rule = recipe.everything
    network = sam(rule.checkpoint, recipe.engine.gpus, recipe.masks.prompts)
    return EverythingDetector(
        network, rule.points, rule.min_iou, rule.min_stability, f"everything:{network.name}"
    )


def _nothing(recipe: Recipe) -> list[Any]:
    return []


@lru_cache(maxsize=4)
def _watermarks(again: bool, thorough: bool, gpus: float) -> WatermarkDetector:
    from cleanplate.models.detectors.watermark import WatermarkDetector

    lines = _lines(again, thorough, gpus)
    return WatermarkDetector(_overlay(again, gpus), lines, name="marks@832" if again else "marks")


@lru_cache(maxsize=4)
def written(again: bool, thorough: bool, gpus: float) -> Detector:
    from cleanplate.models.detectors.text_and_watermark import WrittenDetector

    return WrittenDetector(_lines(again, thorough, gpus), _watermarks(again, thorough, gpus))


def _again(kind: Kind, *detectors: Detector) -> list[Verifier]:
    """Each looks at the edits of one kind."""
    return [Verifier(one, of=(kind,)) for one in detectors]


MAKERS: dict[Kind, Maker] = {
    "watermark": Maker(
        lambda r: ["marks", "text-det", "text-rec", "strokes"],
        lambda r: [_watermarks(False, r.thorough, r.engine.gpus)],
        lambda r: _again("watermark", _watermarks(True, r.thorough, r.engine.gpus)),
    ),
    # Looked up by `consensus` with the row's own group; no detector of one image can find it.
    "static-watermark": Maker(_nothing, _nothing, _nothing),
    "text": Maker(
        lambda r: ["text-det", "text-rec", "strokes", "marks", "text-det-v4"],
        lambda r: [_text(r)],
        lambda r: _text_again(r),
    ),
    "face": Maker(
        lambda r: ["centerface", "blazeface"],
        lambda r: [_faces(r.engine.gpus)],
        lambda r: _faces_again(r.engine.gpus),
    ),
    "person": Maker(
        _weights_of_persons,
        lambda r: persons(r, False),
        lambda r: [*_again("person", *persons(r, True)), *_persons_by_another(r)],
    ),
    "vehicle": Maker(
        lambda r: ["nanodet"], lambda r: [things(r, False)], lambda r: _again("vehicle", things(r, True))
    ),
    "plate": Maker(
        lambda r: ["text-det", "text-rec", "strokes", "text-det-v4"],
        lambda r: [_plates(_lines(False, r.thorough, r.engine.gpus))],
        lambda r: [
            *_again("plate", _plates(_lines(True, r.thorough, r.engine.gpus))),
            Verifier(_plates(_second_text(r.engine.gpus)), ("plate",), guard=0.75),
        ],
    ),
    "logo": Maker(_nothing, lambda r: [logos(r, False)], lambda r: _again("logo", logos(r, True))),
    # The network fixes its input; windows about the edits, mirrored, are another scale and other pixels.
    "object": Maker(
        lambda r: [] if hub_models(r) else [r.prompt.model or "nanodet"],
        lambda r: [prompt(r)],
        lambda r: _again("object", _mirrored(prompt(r)) if r.prompt.model else things(r, True)),
    ),
    # What is left after everything is something else: looking for everything again would never end.
    "everything": Maker(lambda r: [r.everything.checkpoint], lambda r: [_everything(r)], _nothing),
    # Looked up by `given` with the row's own name; no detector can look for it again.
    "given": Maker(_nothing, _nothing, _nothing),
}
