"""The recipe: the whole configuration of a run, validated before any work; its digest is its identity.

Frozen pydantic models (the parts are in `pipeline/recipe/sections.py`); unknown keys are refused. YAML in,
and a JSON schema
for editors out (`cleanplate plan --schema`). Loading a recipe executes nothing: YAML is read by the safe loader.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from cleanplate.models.detectors.objects import coco
from cleanplate.pipeline.errors import ConfigError, redacted
from cleanplate.pipeline.recipe import plain_yaml
from cleanplate.pipeline.recipe.hints import explained
from cleanplate.pipeline.recipe.kind_sections import (
    Consensus,
    Everything,
    Given,
    Logos,
    Persons,
    Prompt,
    Text,
)
from cleanplate.pipeline.recipe.run_sections import Engine, Labels, Limits, Output, Source, Units
from cleanplate.pipeline.recipe.sections import (
    CLASSIC_INPAINTERS,
    KINDS,
    PLURALS,
    Detect,
    Inpaint,
    Kind,
    Masks,
    Part,
    Verify,
)

__all__ = [
    "CLASSIC_INPAINTERS",
    "KINDS",
    "Detect",
    "Kind",
    "Limits",
    "Masks",
    "Output",
    "Recipe",
    "changed",
    "differences",
    "dump",
    "load",
]


class Recipe(Part):
    """See docs/recipe.md. Everything has a default: `cleanplate run SRC DST` needs no recipe."""

    version: Literal[1] = Field(1, description="of the recipe's own form")
    remove: tuple[Kind, ...] = Field(("text", "face"), description="what must go")
    include: tuple[str, ...] = Field(
        ("**",), description="globs on keys below the source; ** crosses folders"
    )
    exclude: tuple[str, ...] = Field((), description="globs on keys that are left out")
    source: Source = Source()
    thorough: bool = Field(
        False,
        description="every view of every picture, and every verifier near every edit; else the dear ones only where "
        "the cheap ones leave a question; what that costs and brings: docs/detectors.md",
    )
    detect: dict[Kind, Detect] = Field(default_factory=dict, description="limits for one kind, see below")
    consensus: Consensus = Consensus()
    text: Text = Text()
    logos: Logos = Logos()
    given: Given = Given()
    persons: Persons = Persons()
    prompt: Prompt = Prompt()
    everything: Everything = Everything()
    masks: Masks = Masks()
    inpaint: Inpaint = Inpaint()
    verify: Verify = Verify()
    output: Output = Output()
    labels: Labels = Labels()
    limits: Limits = Limits()
    units: Units = Units()
    engine: Engine = Engine()

    @model_validator(mode="before")
    @classmethod
    def _words_are_objects(cls, body: Any) -> Any:
        """A word of COCO's in `remove` that is no kind is an `object` of that word."""
        if not isinstance(body, dict) or not isinstance(body.get("remove"), str | list | tuple):
            return body
        remove = [body["remove"]] if isinstance(body["remove"], str) else list(body["remove"])
        words = [
            w for w in remove if PLURALS.get(str(w), w) not in KINDS and coco.number_of(str(w)) is not None
        ]
        prompt = body.get("prompt", {})
        if not words or not isinstance(prompt, dict):
            return body
        more = [word for word in words if word not in prompt.get("words", ())]
        kinds = ["object" if word in words else word for word in remove]
        return body | {"remove": kinds, "prompt": prompt | {"words": [*prompt.get("words", ()), *more]}}

    @field_validator("remove", mode="before")
    @classmethod
    def _singular(cls, remove: Any) -> Any:
        """ "faces" means "face"; one word may stand without a list."""
        words = [remove] if isinstance(remove, str) else remove
        if not isinstance(words, list | tuple):
            return remove
        return tuple(PLURALS.get(str(w), w) for w in words)

    @field_validator("remove")
    @classmethod
    def _something_once(cls, remove: tuple[Kind, ...]) -> tuple[Kind, ...]:
        if not remove:
            raise ValueError(f"nothing to remove: name some of {', '.join(KINDS)}")
        return tuple(dict.fromkeys(remove))

    @model_validator(mode="after")
    def _kinds_have_what_they_need(self) -> Recipe:
        needed = {
            "logo": (self.logos.references, "logos.references: pictures of the mark"),
            "given": (self.given.file, "given.file: where your boxes or masks are"),
            "object": (self.prompt.words, "prompt.words"),
        }
        for kind, (there, what) in needed.items():
            if kind in self.remove and not there:
                raise ValueError(f"to remove {kind!r}, name {what}")
        unknown = [word for word in self.prompt.words if coco.number_of(word) is None]
        if "object" in self.remove and self.prompt.model is None and unknown:
            raise ValueError(
                f"prompt.words: {unknown[0]!r} is none of the 80 words that the shipped detector knows "
                f"({', '.join(coco.NAMES)}); for others install the extra `prompt` and name prompt.model"
            )
        return self

    @model_validator(mode="after")
    def _sam_has_weights(self) -> Recipe:
        name = self.masks.segmenter
        if self.masks.checkpoint and not name.startswith("sam"):
            raise ValueError(f"masks.checkpoint goes with the segmenter sam, not {name!r}")
        if name in ("sam2", "sam3") and not self.masks.checkpoint:
            raise ValueError(
                f"the segmenter {name} needs masks.checkpoint: a folder with the model, or a hub id"
            )
        return self

    def detect_for(self, kind: Kind) -> Detect:
        return self.detect.get(kind, Detect())

    def digest(self, weights: dict[str, str]) -> str:
        """sha256, hex, of all that decides the rows: the recipe without `engine` and `labels`, and the weights' hashes.

        weights: name -> sha256 of every model file that the run loads, and of every attached file, whose places
        therefore do not count.
        """
        places: dict[str, Any] = {
            "engine": True,
            "labels": True,
            "logos": {"references"},
            "given": {"file", "root"},
        }
        digested = self.model_dump(mode="json", exclude=places)
        if digested["source"]["columns"] == "all":  # What digests without the key meant.
            del digested["source"]["columns"]
        if digested["source"].pop("web")["etags"]:
            digested["source"]["etags"] = True
        if "person" not in self.remove:
            # What was the default while digests already named outputs; it decides nothing here.
            digested["persons"] = {"model": "blazepose", "classes": [0]}
        if self.text == Text():
            del digested["text"]
        if not {"person", "vehicle", "object"} & set(self.remove):
            # It doubts animals' faces; runs of faces were named before it did, and go on.
            weights = {name: digest for name, digest in weights.items() if name != "nanodet"}
        body = {
            "recipe": digested,
            "weights": dict(sorted(weights.items())),
        }
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def load(path: str | Path | None, overrides: dict[str, Any] | None = None) -> Recipe:
    """A recipe from a YAML file (or the defaults), with `overrides` laid over it ("inpaint.name": "ns").

    Raises ConfigError that names the key, what is wrong with it and, for a missing file, the path.
    """
    try:
        body = plain_yaml.load(Path(path).read_text(encoding="utf-8")) if path else {}
    except OSError as error:
        raise ConfigError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"the recipe {path} is not YAML: {error}") from error
    if body is not None and not isinstance(body, dict):
        raise ConfigError(f"the recipe {path} must be a mapping of keys, not a {type(body).__name__}")
    body = body or {}
    for dotted, value in (overrides or {}).items():
        _put(body, dotted, value)
    if secret := _credentials(body):
        raise ConfigError(
            f"{secret}: a recipe must not hold credentials, because outputs and rows repeat it. "
            "Use the environment, a profile or a role"
        )
    try:
        return Recipe.model_validate(body)
    except ValidationError as error:
        raise ConfigError(
            "wrong recipe: " + "; ".join(explained(e, Recipe) for e in error.errors())
        ) from error


def _credentials(value: Any, name: str = "") -> str | None:
    """The first key below `value` whose text holds credentials, and that text without them."""
    if isinstance(value, str) and redacted(value) != value:
        return f"{name}: {redacted(value)}"
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list | tuple)
        else ()
    )
    each = (_credentials(v, f"{name}.{key}" if name else str(key)) for key, v in inner)
    return next((found for found in each if found), None)


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def changed(recipe: Recipe) -> str:
    """What differs from the defaults, as YAML; `remove` in any case."""
    own, usual = recipe.model_dump(mode="json"), Recipe().model_dump(mode="json")
    body = {"remove": own["remove"]} | _apart(own, usual)
    return yaml.safe_dump(body, sort_keys=False, allow_unicode=True)


def _apart(own: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """The keys of `own` whose values are not those of `usual`, mapping by mapping."""
    fields: dict[str, Any] = {}
    for key, value in own.items():
        other = usual.get(key)
        if isinstance(value, dict) and isinstance(other, dict) and value:
            if inner := _apart(value, other):
                fields[key] = inner
        elif value != other:
            fields[key] = value
    return fields


def differences(stored: Mapping[str, Any], new: Mapping[str, Any], below: str = "") -> list[str]:
    """The keys in which two recipes, or two records' parts, differ: "inpaint.name: blur -> pixelate". `engine` is no
    part of a run's identity and left out."""
    changed = []
    for key in dict.fromkeys((*new, *stored)):
        old, now, name = stored.get(key), new.get(key), f"{below}{key}"
        if old == now or name == "engine":
            continue
        if isinstance(old, Mapping) and isinstance(now, Mapping):
            changed += differences(old, now, f"{name}.")
        else:
            changed.append(f"{name}: {_short(old)} -> {_short(now)}")
    return changed


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_short, value))}]"
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:12]}..."


def _put(body: dict[str, Any], dotted: str, value: Any) -> None:
    *path, last = dotted.split(".")
    for name in path:
        inner = body.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"wrong recipe: {name} must be a mapping of keys")
        body = inner
    body[last] = value
