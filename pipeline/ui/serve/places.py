"""Which files the page may name: those of the recipe that the server was started with, and known words.

Whoever has the link may run recipes here. A recipe may name files of this machine, and what is wrong with a file is
repeated with a piece of its content. So a page may not choose them: the person who starts the server does.
"""

from __future__ import annotations

from collections.abc import Iterator

from cleanplate.models.weights import registry
from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.recipe.recipe import CLASSIC_INPAINTERS, Recipe
from cleanplate.pipeline.recipe.sections import form_of

_WORDS = {"nanodet", "blazepose", "both"}
"""Of persons.model: no files."""


def check(recipe: Recipe, offered: Recipe) -> None:
    """Raise ConfigError where a recipe from the page names a file or hub id that `offered` does not."""
    known = {*registry.known(), *CLASSIC_INPAINTERS, *_WORDS, *(place for _, place in _named(offered))}
    for key, place in _named(recipe):
        if place not in known and form_of(place)[0] not in known:
            raise ConfigError(
                f"{key}: the page may not name files of this machine; start the server with a recipe that names it: "
                "cleanplate serve --recipe FILE"
            )


def _named(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(key, value) of everything in a recipe that may be a file, a folder or a hub id."""
    found: dict[str, object] = {
        "logos.references": recipe.logos.references,
        "given.file": recipe.given.file,
        "given.root": recipe.given.root,
        "persons.model": recipe.persons.model,
        "prompt.model": recipe.prompt.model,
        "everything.checkpoint": recipe.everything.checkpoint,
        "masks.checkpoint": recipe.masks.checkpoint,
        "inpaint.name": recipe.inpaint.name,
        "inpaint.per_kind": tuple(recipe.inpaint.per_kind.values()),
        "inpaint.fallbacks": recipe.inpaint.fallbacks,
        "output.c2pa_cert": recipe.output.c2pa_cert,
        "output.c2pa_key": recipe.output.c2pa_key,
    }
    for key, value in found.items():
        for place in value if isinstance(value, tuple | list) else (value,):
            if place is not None:
                yield key, str(place)
