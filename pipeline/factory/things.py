"""Detectors of persons, vehicles and what words name, as a recipe wants them: NanoDet, BlazePose, models of words, a
user's own files, Segment Anything's everything."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from cleanplate.models.devices import pick
from cleanplate.pipeline.factory import segmenters
from cleanplate.pipeline.factory.detectors import Verifier, faces, mirrored
from cleanplate.pipeline.recipe.recipe import Kind, Recipe

if TYPE_CHECKING:
    from cleanplate.models.types import Detector


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

    return SignOf("person", faces(gpus, "upright"))


def persons(recipe: Recipe, again: bool) -> list[Detector]:
    rule = recipe.persons
    named: dict[str, Callable[[], Detector]] = {
        "nanodet": lambda: things(recipe, again),
        "blazepose": lambda: _blazepose(again),
    }
    if rule.model in (*named, "both"):
        return [make() for name, make in named.items() if rule.model in (name, "both")]
    found = _onnx(rule.model, "person", rule.classes, recipe.detect_for("person").min_score)
    return [mirrored(found) if again else found]


def persons_by_another(recipe: Recipe) -> list[Verifier]:
    """Networks that did not find: whoever BlazePose found is shown to NanoDet, and all are to CenterFace."""
    of = ("person",)
    more = (
        [Verifier(_persons_by_nanodet(recipe.engine.gpus), of, guard=0.6)]
        if recipe.persons.model == "blazepose"
        else []
    )
    return [*more, Verifier(_person_by_face(recipe.engine.gpus), of, guard=0.6)]


def weights_of_persons(recipe: Recipe) -> list[str]:
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
    from cleanplate.models.detectors.objects.nanodet import (
        MIN_SCORE,
        MIN_SCORES,
        SIDE,
        NanoDetDetector,
        Wanted,
    )
    from cleanplate.models.weights.registry import resolve

    classes = {
        number: Wanted(kind, MIN_SCORES.get(kind, MIN_SCORE) if low is None else low)
        for number, kind, low in wanted
    }
    path, device = resolve("nanodet"), pick(gpus)
    if again:
        return NanoDetDetector(
            path, classes, SIDE + 96, 0.5, mirror=True, device=device, name="nanodet@mirrored"
        )
    return NanoDetDetector(path, classes, device=device)


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
    from cleanplate.models.detectors.objects.sam3_words import Sam3Detector, is_sam3
    from cleanplate.models.weights.hub import folder_of

    folder = folder_of(model)
    make = Sam3Detector if is_sam3(folder) else PromptDetector
    return make(folder, words, low, pick(gpus), name=model.rpartition("/")[2])


def everything(recipe: Recipe) -> Detector:
    from cleanplate.models.detectors.objects.everything import EverythingDetector

    rule = recipe.everything
    network = segmenters.sam(rule.checkpoint, recipe.engine.gpus, recipe.masks.prompts)
    return EverythingDetector(
        network, rule.points, rule.min_iou, rule.min_stability, f"everything:{network.name}"
    )
