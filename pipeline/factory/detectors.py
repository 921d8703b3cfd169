"""What a recipe's kinds mean: the detectors that find, and those that look again afterwards
(`pipeline/factory/kinds.py`).

Everything is imported and loaded when a stage opens, in the worker that will run it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.factory import attachments
from cleanplate.pipeline.factory import kinds as makers
from cleanplate.pipeline.factory.kinds import MAKERS, Verifier
from cleanplate.pipeline.recipe.recipe import KINDS, Kind, Recipe
from cleanplate.pipeline.storage.connect import open_store

if TYPE_CHECKING:
    from cleanplate.models.types import Detector
    from cleanplate.pipeline.factory.given import Given


TOGETHER: tuple[Kind, ...] = ("text", "watermark")
"""Kinds that one detector finds in one pass when both are asked for."""


def weights_of(recipe: Recipe) -> list[str]:
    """The names (or files) of the weights of the recipe's detectors. Raises ConfigError for a kind that this
    version has no detector of."""
    return [name for kind in _kinds(recipe) for name in MAKERS[kind].weights(recipe)]


def detectors(recipe: Recipe) -> list[Detector]:
    """The detectors that find."""
    together, kinds = _apart(recipe)
    found: list[Detector] = [makers.written(False, recipe.thorough, recipe.engine.gpus)] if together else []
    # Kinds that one network finds in one pass name the same detector.
    return list(dict.fromkeys(found + [one for kind in kinds for one in MAKERS[kind].find(recipe)]))


def names_of(found: Sequence[Detector]) -> list[str]:
    """What rows call these detectors; one that does the work of two has two names."""
    return [name for one in found for name in getattr(one, "names", (one.name,))]


def verifiers(recipe: Recipe) -> list[Verifier]:
    """What checks the result: the finder's networks, shown other pixels (see docs/detectors.md for what that
    independence is worth), and another network where there is one."""
    together, kinds = _apart(recipe)
    found = (
        [Verifier(makers.written(True, recipe.thorough, recipe.engine.gpus), of=TOGETHER)] if together else []
    )
    for kind in _kinds(recipe):
        again = MAKERS[kind].again(recipe)
        # Both of TOGETHER are looked for by one detector: what is left of the one may be seen as the other.
        found += again if kind in kinds else [one for one in again if one.guard]
    if recipe.thorough:
        # All that is shown more than close-ups looks near every edit.
        found = [one if one.close else replace(one, of=(), view="") for one in found]
    return _each_once(found)


def _each_once(verifiers: Sequence[Verifier]) -> list[Verifier]:
    """A detector of several kinds looks once, at the edits of all of them."""
    found: dict[Verifier, tuple[str, ...]] = {}
    for one in verifiers:
        alone = replace(one, of=())
        found[alone] = tuple(dict.fromkeys([*found.get(alone, ()), *one.of]))
    return [replace(one, of=of) for one, of in found.items()]


def check(recipe: Recipe) -> None:
    """Open what only the recipe's user has: references and given regions. Raises ConfigError."""
    if "logo" in recipe.remove:
        makers.logos(recipe, False)
    if "person" in recipe.remove:
        makers.opened(lambda: makers.persons(recipe, False), "persons.model")
    if "object" in recipe.remove:
        makers.opened(lambda: makers.prompt(recipe), "prompt")
    given(recipe)


def given(recipe: Recipe) -> Given | None:
    """What looks up the regions that the user has, when the recipe removes `given`."""
    rule = recipe.given
    if "given" not in recipe.remove or rule.file is None:
        return None
    from cleanplate.pipeline.factory.given import Given, form_of, in_folder, in_table
    from cleanplate.pipeline.factory.label_files import table_of

    if attachments.is_folder(rule.file):
        store = open_store(rule.file)
        form = rule.form if rule.form in ("yolo", "masks") else form_of(store)
        return Given(in_folder(store, form), rule.root or "")
    return Given(in_table(table_of(attachments.content(rule.file), rule.form, rule.shares)), rule.root or "")


def _kinds(recipe: Recipe) -> list[Kind]:
    kinds = [kind for kind in KINDS if kind in recipe.remove]
    if absent := [kind for kind in kinds if kind not in MAKERS]:
        raise ConfigError(f"this version has no detector of {absent[0]!r}; remove can be {', '.join(MAKERS)}")
    return kinds


def _apart(recipe: Recipe) -> tuple[bool, list[Kind]]:
    """(are both of TOGETHER asked for, the kinds that have a detector each)."""
    kinds = _kinds(recipe)
    together = set(TOGETHER) <= set(kinds)
    return together, [kind for kind in kinds if not (together and kind in TOGETHER)]
