"""Words for people who mistyped: what a recipe's error means, and the known word that is near."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel

from cleanplate.models.detectors.objects.coco import NAMES

_PREFIX = "Value error, "
OTHER_WORDS = (
    "; COCO's 80 words (laptop, cell phone, dog, ...) may stand here too; any other goes into prompt.words, with "
    "prompt.model and the extra `prompt`"
)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "; did you mean 'face'?" when a known word is near, else ""."""
    near = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def explained(error: Any, model: type[BaseModel]) -> str:
    """One of pydantic's errors (`ValidationError.errors()`) of `model`, as a sentence that says what to change."""
    where = ".".join(str(part) for part in error["loc"])
    got = error["input"]
    if error["type"] == "extra_forbidden":
        keys = keys_at(model, error["loc"][:-1])
        hint = did_you_mean(str(error["loc"][-1]), keys) or f"; known keys: {', '.join(keys)}"
        return f"{where}: no such key{hint}"
    if error["type"] == "literal_error":
        words = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        more = OTHER_WORDS if error["loc"][0] == "remove" else ""
        near = did_you_mean(str(got), [*words, *NAMES] if more else words)
        return f"{where}: {got!r} is none of {', '.join(words)}{near}{more}"
    message = error["msg"].removeprefix(_PREFIX)
    value = "" if isinstance(got, dict) or error["type"] == "value_error" else f" (got {got!r})"
    return f"{where}: {message}{value}" if where else f"{message}{value}"


def keys_at(model: type[BaseModel], path: Iterable[Any]) -> list[str]:
    """The keys that may stand at a place of the recipe; [] where the path leaves the models."""
    found: type[BaseModel] | None = model
    for name in path:
        if found is None:
            return []
        field = found.model_fields.get(str(name))
        # A key of `dict[Kind, Detect]` is no field: the model stays that of the values.
        found = found if field is None else _model_in(field.annotation)
    return list(found.model_fields) if found else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for part in get_args(annotation) if (m := _model_in(part)) is not None), None)
