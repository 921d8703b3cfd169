"""The flags that mirror the recipe. Each command lists those that do something there."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel

from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.recipe import plain_yaml
from cleanplate.pipeline.recipe.recipe import CLASSIC_INPAINTERS, KINDS, Recipe, load
from cleanplate.pipeline.recipe.sections import HIDING

MIRRORED = {
    "segmenter": "masks.segmenter",
    "checkpoint": "masks.checkpoint",
    "inpainter": "inpaint.name",
    "faces": "inpaint.per_kind.face",
    "precision": "inpaint.precision",
    "passes": "verify.passes",
    "format": "output.format",
    "quality": "output.quality",
    "metadata": "output.metadata",
    "source_format": "source.format",
    "per_host": "source.web.per_host",
    "rate": "source.web.rate",
    "output_layout": "output.layout",
    "carry_labels": "labels.file",
    "mark": "output.mark",
    "workers": "engine.workers",
    "gpus": "engine.gpus",
}
Part = Literal["picture", "file", "source", "engine"]
"""What a flag is about: what is done to a picture, how a picture is written, where many lie, who does the work."""
ALL: tuple[Part, ...] = get_args(Part)


def add_recipe_flags(parser: argparse.ArgumentParser, parts: Sequence[Part] = ALL) -> None:
    group = parser.add_argument_group("recipe", "laid over the recipe file; docs/recipe.md has every key")
    add = group.add_argument
    which = group.add_mutually_exclusive_group()
    which.add_argument("--recipe", metavar="FILE", help="a YAML recipe")
    which.add_argument("--preset", choices=sorted(presets()), help="a recipe of the package: jobs/recipes")
    for part in ALL:
        if part in parts:
            {"picture": _picture, "file": _file, "source": _source, "engine": _engine}[part](group)
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="any key: --set masks.grow=8")


def _picture(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    kinds = f"{', '.join(KINDS)}; or of COCO's 80 words: laptop, dog, ..."
    add("--remove", metavar="KINDS", help=f"what to remove, separated by commas: {kinds}")
    add(
        "--text-only",
        metavar="WORDS",
        help="of text only: email, phone, iban, card, plate, date, url, /regex/",
    )
    add("--text-keep", metavar="WORDS", help="of text keep: the same words, or a /regex/")
    add("--segmenter", choices=literals("masks.segmenter"), help="what draws the masks (default: auto)")
    add(
        "--checkpoint",
        help="of sam: a name from `weights list`, or a file; of sam2 and sam3: a folder or hub id",
    )
    classic = ", ".join(CLASSIC_INPAINTERS)
    add(
        "--inpainter",
        metavar="NAME",
        help=f"auto, lama-lite, big-lama, {classic}, or a LaMa checkpoint file; NAME+texture, NAME+strokes",
    )
    hiding = ", ".join(HIDING)
    add(
        "--faces",
        metavar="NAME",
        help=f"what fills faces: {hiding} hide (default {HIDING[0]}); others remove",
    )
    add("--precision", choices=literals("inpaint.precision"), help="of LaMa; auto: bf16 where it is native")
    add("--whole-image", action="store_true", help="LaMa sees whole pictures instead of crops")
    add("--refine", action="store_true", help="LaMa refines large fills; slow (docs/recipe.md)")
    add("--passes", type=int, metavar="N", help="repairs after verification, at most N")


def _file(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--format", choices=literals("output.format"), help="of pictures (default: keep)")
    add("--quality", type=int, metavar="N", help="1 to 100, where a lossy encoder is used")
    add("--metadata", choices=literals("output.metadata"), help="default: scrub (docs/formats.md)")
    add(
        "--mark",
        choices=literals("output.mark"),
        help="edited pictures say that they are edited (docs/formats.md)",
    )


def _source(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--source-format", choices=literals("source.format"), help="what the source holds (default: auto)")
    add(
        "--from-list",
        action="store_true",
        help="SRC is a list of addresses: https://..., s3://..., keys; .txt, .csv, .tsv or .parquet (docs/formats.md)",
    )
    add("--per-host", type=float, metavar="N", help="of a list: requests a second to one host (default: 5)")
    add("--rate", type=float, metavar="N", help="of a list: requests a second to all hosts")
    add(
        "--image-column",
        metavar="NAMES",
        help="of Parquet and Arrow sources, several by commas, or all; of a list: the addresses",
    )
    add(
        "--columns",
        metavar="NAMES",
        help="that go into the rows unchanged, by commas; none, or all (default)",
    )
    for flag, what in (("--include", "only what matches"), ("--exclude", "not what matches")):
        add(
            flag, action="append", metavar="GLOB", help=f"{what}, of names below SRC; may stand several times"
        )
    add("--output-layout", choices=literals("output.layout"), help="where pictures lie (default: parquet)")


def _engine(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--workers", type=int, metavar="N", help="most workers of the model stages")
    add("--gpus", type=float, metavar="SHARE", help="GPUs per worker; several may share one: 0.25")


def presets() -> dict[str, Path]:
    """Name -> file of the recipes for runs that the package has; those of trainings lie beside them."""
    folder = Path(__file__).parent.parent / "recipes"
    return {path.stem: path for path in folder.glob("*.yaml") if not path.stem.startswith("train-")}


def literals(key: str, model: type[BaseModel] = Recipe) -> list[str] | None:
    """The words that a key of the recipe may have; None where it takes other values."""
    name, _, rest = key.partition(".")
    annotation = model.model_fields[name].annotation
    if rest:
        part = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        return literals(rest, annotation) if part else None  # type: ignore[arg-type]
    return [str(word) for word in get_args(annotation)] if get_origin(annotation) is Literal else None


def recipe_of(args: argparse.Namespace, own: dict[str, Any] | None = None) -> Recipe:
    """The recipe file or preset with the flags laid over it. own: the keys of a run's recipe, which stand in where
    neither is named. Raises ConfigError."""
    given = vars(args)
    file = presets()[args.preset] if args.preset else args.recipe
    overrides: dict[str, Any] = {
        key: given[flag] for flag, key in MIRRORED.items() if given.get(flag) is not None
    }
    if (remove := given.get("remove")) is not None:
        overrides["remove"] = [word.strip() for word in remove.split(",") if word.strip()]
    if (names := given.get("image_column")) is not None:
        several = [name for name in names.split(",") if name]
        overrides["source.image_column"] = several if len(several) > 1 else names
    if given.get("from_list"):
        if given.get("source_format") not in (None, "list"):
            raise ConfigError(f"--from-list and --source-format {given['source_format']}: give one of them")
        overrides["source.format"] = "list"
    if (names := given.get("columns")) is not None:
        overrides["source.columns"] = names if names in ("all", "none") else names.split(",")
    for flag, key in (("text_only", "text.only"), ("text_keep", "text.keep")):
        if (words := given.get(flag)) is not None:
            # A regular expression may hold a comma.
            overrides[key] = [words] if words.startswith("/") else [one.strip() for one in words.split(",")]
    for globs in ("include", "exclude"):
        if given.get(globs):
            overrides[globs] = given[globs]
    if given.get("whole_image"):
        overrides["inpaint.whole_image"] = True
    if given.get("refine"):
        overrides["inpaint.refine"] = True
    for item in args.set:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {item!r}: write KEY=VALUE, for example --set units.rows=64")
        try:
            overrides[key] = plain_yaml.load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {key}: the value is not YAML: {error}") from error
    return load(file, overrides if file or not own else own | overrides)
