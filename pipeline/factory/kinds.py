"""One entry for each kind: its weights, its detectors, what looks at its results.

Kinds that need the same network share it, and those that one pass finds name the same detector. To add a kind: a word
in `rules.Kind`, an entry in KINDS here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.factory import attachments, things
from cleanplate.pipeline.factory import detectors as make
from cleanplate.pipeline.factory.detectors import Verifier
from cleanplate.pipeline.factory.given import Given, form_of, in_folder, in_table
from cleanplate.pipeline.factory.label_files import table_of
from cleanplate.pipeline.recipe.recipe import KINDS, Kind, Recipe
from cleanplate.pipeline.storage.connect import open_store

if TYPE_CHECKING:
    from cleanplate.models.types import Detector, Image, Region


def _nothing(recipe: Recipe) -> list[Any]:
    return []


@dataclass(frozen=True)
class Entry:
    """How one kind is found. weights: the names or files that it loads. find: its detectors. again: what looks at the
    result: the same networks in another way, then other networks. own: opens what only the recipe's user has, and
    raises ConfigError where it cannot be."""

    weights: Callable[[Recipe], list[str]] = _nothing
    find: Callable[[Recipe], list[Detector]] = _nothing
    again: Callable[[Recipe], list[Verifier]] = _nothing
    own: Callable[[Recipe], object] = _nothing


def _lettering(kind: Kind, recipe: Recipe) -> list[Detector]:
    """Of text and watermark: one detector finds both in one pass where both are asked for."""
    thorough, gpus = recipe.thorough, recipe.engine.gpus
    if {"text", "watermark"} <= set(recipe.remove):
        return [make.written(False, thorough, gpus, make.meaning(recipe))]
    if kind == "text":
        return [make.text(thorough, gpus, make.meaning(recipe))]
    return [make.watermarks(False, thorough, gpus)]


def _lettering_again(kind: Kind, recipe: Recipe) -> list[Verifier]:
    """Where one detector looks for both, what is left of the one may be seen as the other."""
    thorough, gpus = recipe.thorough, recipe.engine.gpus
    saying = make.meaning(recipe)
    of_text = make.text_again(thorough, gpus, saying) if kind == "text" else []
    # A blur or a colour laid over letters is an overlay, and is to be seen.
    left = [] if recipe.inpaint.hides(kind) else [_imprint(kind, recipe)]
    if not {"text", "watermark"} <= set(recipe.remove):
        return [*(of_text or again("watermark", make.watermarks(True, thorough, gpus))), *left]
    both = again(kind, make.written(True, thorough, gpus, saying))
    return [*both, *(one for one in of_text if one.guard), *left]


def _imprint(kind: Kind, recipe: Recipe) -> Verifier:
    named = "watermark" if "watermark" in recipe.remove else kind
    return Verifier(make.imprint(named, recipe.engine.gpus), (kind,), inside=True)


def again(kind: Kind, *detectors: Detector) -> list[Verifier]:
    """Each looks at the edits of one kind."""
    return [Verifier(one, of=(kind,)) for one in detectors]


def given(recipe: Recipe) -> Given | None:
    """What looks up the regions that the user has, when the recipe removes `given`."""
    rule = recipe.given
    if "given" not in recipe.remove or rule.file is None:
        return None
    if attachments.is_folder(rule.file):
        store = open_store(rule.file)
        form = rule.form if rule.form in ("yolo", "masks") else form_of(store)
        return Given(in_folder(store, form), rule.root or "")
    return Given(in_table(table_of(attachments.content(rule.file), rule.form, rule.shares)), rule.root or "")


ENTRIES: dict[Kind, Entry] = {
    "text": Entry(
        weights=lambda r: ["text-det", "text-rec", "strokes", "marks", "text-det-v4"],
        find=lambda r: _lettering("text", r),
        again=lambda r: _lettering_again("text", r),
    ),
    "watermark": Entry(
        weights=lambda r: ["marks", "text-det", "text-rec", "strokes"],
        find=lambda r: _lettering("watermark", r),
        again=lambda r: _lettering_again("watermark", r),
    ),
    # Looked up by `static_watermark` with the row's own group; no detector of one image can find it.
    "static-watermark": Entry(),
    "face": Entry(
        weights=lambda r: ["centerface", "blazeface", "nanodet"],
        find=lambda r: [make.faces(r.engine.gpus)],
        again=lambda r: make.faces_again(r.engine.gpus),
    ),
    "plate": Entry(
        weights=lambda r: ["plates", "nanodet", "text-rec", "text-det", "strokes"],
        find=lambda r: [make.plates(False, r.engine.gpus)],
        again=lambda r: [
            *again("plate", make.plates(True, r.engine.gpus)),
            Verifier(make.read_plates(make.lines(False, r.thorough, r.engine.gpus)), ("plate",), guard=0.75),
        ],
    ),
    "code": Entry(
        find=lambda r: [make.codes(False)],
        again=lambda r: [*again("code", make.codes(True)), Verifier(make.second_codes(), ("code",))],
        own=lambda r: make.opened(lambda: make.codes(False), "remove: code"),
    ),
    "logo": Entry(
        find=lambda r: [make.logos(r, False)],
        again=lambda r: again("logo", make.logos(r, True)),
        own=lambda r: make.logos(r, False),
    ),
    "person": Entry(
        weights=things.weights_of_persons,
        find=lambda r: things.persons(r, False),
        again=lambda r: [*again("person", *things.persons(r, True)), *things.persons_by_another(r)],
        own=lambda r: make.opened(lambda: things.persons(r, False), "persons.model"),
    ),
    "vehicle": Entry(
        weights=lambda r: ["nanodet"],
        find=lambda r: [things.things(r, False)],
        again=lambda r: again("vehicle", things.things(r, True)),
    ),
    # A model of words fixes its input; windows about the edits, mirrored, are another scale and other pixels.
    "object": Entry(
        weights=lambda r: [] if things.hub_models(r) else [r.prompt.model or "nanodet"],
        find=lambda r: [things.prompt(r)],
        again=lambda r: again(
            "object", make.mirrored(things.prompt(r)) if r.prompt.model else things.things(r, True)
        ),
        own=lambda r: make.opened(lambda: things.prompt(r), "prompt"),
    ),
    # What is left after everything is something else: looking for everything again would never end.
    "everything": Entry(weights=lambda r: [r.everything.checkpoint], find=lambda r: [things.everything(r)]),
    # Looked up by `given` with the row's own name; no detector can look for it again.
    "given": Entry(own=given),
}


def entries(recipe: Recipe) -> list[Entry]:
    """Those of the recipe's kinds, in the order in which they look. Raises ConfigError for a kind that this version
    has no detector of."""
    kinds = [kind for kind in KINDS if kind in recipe.remove]
    if absent := [kind for kind in kinds if kind not in ENTRIES]:
        raise ConfigError(
            f"this version has no detector of {absent[0]!r}; remove can be {', '.join(ENTRIES)}"
        )
    return [ENTRIES[kind] for kind in kinds]


def detectors(recipe: Recipe) -> list[Detector]:
    """The detectors that find, each once."""
    return list(dict.fromkeys(one for entry in entries(recipe) for one in entry.find(recipe)))


def seen_by(detector: Detector, pictures: list[Image]) -> list[list[Region]]:
    """What a detector finds in each picture and, doubtful, what it saw and did not believe, where it can tell."""
    return detector.with_doubts(pictures) if hasattr(detector, "with_doubts") else detector(pictures)


def names_of(found: Sequence[Detector]) -> list[str]:
    """What rows call these detectors; one that does the work of two has two names."""
    return [name for one in found for name in getattr(one, "names", (one.name,))]


def verifiers(recipe: Recipe) -> list[Verifier]:
    """What checks the result: the finder's networks, shown other pixels (see docs/detectors.md for what that
    independence is worth), and another network where there is one."""
    found = [one for entry in entries(recipe) for one in entry.again(recipe)]
    if recipe.thorough:
        # All that is shown more than close-ups looks near every edit.
        found = [one if one.close or one.inside else replace(one, of=(), view="") for one in found]
    return each_once(found)


def each_once(verifiers: Sequence[Verifier]) -> list[Verifier]:
    """A detector of several kinds looks once, at the edits of all of them."""
    found: dict[Verifier, tuple[str, ...]] = {}
    for one in verifiers:
        alone = replace(one, of=())
        found[alone] = tuple(dict.fromkeys([*found.get(alone, ()), *one.of]))
    return [replace(one, of=of) for one, of in found.items()]
