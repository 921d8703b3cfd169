"""Lay marks and text of known pixels over photographs, let the recipe's detectors find them, and count; or count with
boxes that somebody labelled."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cleanplate.models.training.marks.trials import Case, References, Score, Trial
    from cleanplate.models.types import Image, Mask, Region
    from cleanplate.pipeline.recipe.recipe import Recipe

    Look = Callable[[str, Image, str], tuple[list[Region], list[Mask], Mask]]

WORST = 24
"""Pictures of the worst cases."""
LARGEST = 4096
"""Photographs with a longer short side are shrunk to it."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from cleanplate.jobs import photos
    from cleanplate.jobs.cli.flags import add_recipe_flags

    parser = subparsers.add_parser(
        "detect",
        help="measure detectors on rendered marks",
        description=__doc__,
        epilog="Example: cleanplate evaluate detect photos/ out/ --remove watermark --fonts /usr/share/fonts",
    )
    add = parser.add_argument
    photos.add_arguments(parser, out="folder for table.md, trials.parquet and worst.jpg")
    add("--fonts", type=Path, help="folder of font files (default: the few that every machine has)")
    add("--each", type=int, default=3, metavar="N", help="marks of each kind and level (default 3)")
    add("--clean", type=int, metavar="N", help="photographs that are looked at unmarked (default: all)")
    add(
        "--labels",
        metavar="FILE",
        help="boxes in photographs (CSV, JSON, Parquet, COCO): nothing is rendered",
    )
    add("--scales", default="1,0.5,0.25", help="with --labels: sizes to show them at (default 1,0.5,0.25)")
    add(
        "--turns",
        default="15,45,90,180,270",
        help="with --labels: degrees clockwise (default 15,45,90,180,270)",
    )
    add("--quick", action="store_true", help="a first look: 1 of each and 10 clean photographs")
    add_recipe_flags(parser)
    parser.set_defaults(run=run, remove="text,watermark")


def run(args: argparse.Namespace) -> int:
    """0 when it was measured; 2 for folders, fonts or a recipe that cannot be used."""
    from cleanplate.jobs.cli.flags import recipe_of
    from cleanplate.jobs.evaluate.detect_tables import progress
    from cleanplate.jobs.photos import open_photos
    from cleanplate.models.training.data import decoded, name_of
    from cleanplate.models.training.marks.fonts import load_fonts
    from cleanplate.models.training.marks.trials import cases, run_trials
    from cleanplate.pipeline.errors import ConfigError
    from cleanplate.pipeline.factory import check

    recipe = recipe_of(args)
    if args.each < 1:
        raise ConfigError(f"--each must be at least 1, got {args.each}")
    if args.labels:
        from cleanplate.jobs.evaluate.labels import measure

        look, weights = looker(recipe), check.check(recipe)
        scales, turns = (numbers(getattr(args, flag), f"--{flag}") for flag in ("scales", "turns"))
        measure(look, recipe, args.photos, args.labels, args.out, scales, turns, weights)
        return 0
    photos = open_photos(args.photos, args.split)
    try:
        fonts = load_fonts(args.fonts)
    except ValueError as error:
        raise ConfigError(f"--fonts: {error}") from error
    weights = check.check(recipe)
    each, clean = (1, 10) if args.quick else (args.each, args.clean)
    references = references_of(recipe)
    todo = cases(recipe.remove, len(photos), each, args.seed, clean, list(references.pictures))
    found: list[tuple[Trial, Score, Mask]] = []
    tell = progress(len(todo))

    def photo_of(number: int) -> Image:
        return decoded(photos[number], LARGEST)

    look = looker(recipe)

    def find(case: Case, picture: Image) -> tuple[list[Mask], Mask]:
        _, masks, edited = look(case.kind, picture, case.mark)
        return masks, edited

    for one in run_trials(todo, photo_of, fonts, args.seed, find, references):
        found.append(one)
        tell(len(found))
    rows = [row(trial, score, name_of(photos[trial.case.photo])) for trial, score, _ in found]
    _write(args.out, rows, found, {"seed": str(args.seed), **weights})
    print(f"{len(rows)} pictures, {len(fonts.faces)} fonts, {args.out}/trials.parquet, {args.out}/worst.jpg")
    return 0


def _write(
    out: Path, rows: list[dict[str, Any]], found: list[tuple[Trial, Score, Mask]], record: dict[str, str]
) -> None:
    """trials.parquet with the record in its footer, worst.jpg, and table.md, which is printed too."""
    from cleanplate.jobs.evaluate.detect_tables import (
        LEGEND,
        by_level,
        by_mark,
        by_standout,
        save_worst,
        show,
        write_parquet,
    )

    out.mkdir(parents=True, exist_ok=True)
    write_parquet(out / "trials.parquet", rows, record)
    save_worst(out / "worst.jpg", found, WORST)
    table = show([by_level(rows), by_standout(rows), by_mark(rows)], LEGEND)
    (out / "table.md").write_text(table, encoding="utf-8")
    print(table)


def numbers(words: str, flag: str) -> list[float]:
    """Numbers apart by commas. Raises ConfigError."""
    from cleanplate.pipeline.errors import ConfigError

    try:
        return [float(word) for word in words.split(",")]
    except ValueError as error:
        raise ConfigError(f"{flag} {words!r}: write numbers, apart by commas") from error


def references_of(recipe: Recipe) -> References:
    """The pictures that `logo` looks for, by file name; none without that kind."""
    import io

    import numpy as np
    from PIL import Image as PilImage

    from cleanplate.models.training.marks.trials import References
    from cleanplate.pipeline.factory import attachments

    pictures = {}
    for place in recipe.logos.references if "logo" in recipe.remove else ():
        with PilImage.open(io.BytesIO(attachments.content(place))) as image:
            pictures[attachments.stem(place)] = np.asarray(image.convert("RGBA"))
    return References(pictures, recipe.logos.rotation)


def looker(recipe: Recipe) -> Look:
    """kind, picture, reference ("" for all) -> (regions that the recipe lets count, the mask of each, the mask that
    would be edited)."""
    from cleanplate.pipeline.factory import attachments, kinds, segmenters
    from cleanplate.pipeline.images import rle as masks
    from cleanplate.pipeline.stages.detect import wanted
    from cleanplate.pipeline.stages.segment import grow

    alone: dict[tuple[str, str], Recipe] = {
        (kind, ""): recipe.model_copy(update={"remove": (kind,)}) for kind in recipe.remove
    }
    for place in recipe.logos.references if "logo" in recipe.remove else ():
        one = recipe.logos.model_copy(update={"references": (place,)})
        alone["logo", attachments.stem(place)] = recipe.model_copy(update={"remove": ("logo",), "logos": one})
    detectors = {key: kinds.detectors(one) for key, one in alone.items()}
    segmenter = segmenters.segmenter(recipe)

    def look(kind: str, picture: Image, mark: str = "") -> tuple[list[Region], list[Mask], Mask]:
        key = (kind, mark) if (kind, mark) in alone else (kind, "")
        seen = [region for detector in detectors[key] for region in detector([picture])[0]]
        regions = [region for region in seen if wanted(region, picture, alone[key])]
        drawn = segmenter([picture], [regions])[0]
        grown = [grow(mask, region, recipe.masks) for mask, region in zip(drawn, regions, strict=True)]
        tight = [
            region.mask if region.mask is not None else mask
            for region, mask in zip(regions, drawn, strict=True)
        ]
        return regions, tight, masks.union(grown, *picture.shape[:2])

    return look


def row(trial: Trial, score: Score, photo: str) -> dict[str, Any]:
    """One trial as a row of trials.parquet."""
    from dataclasses import asdict

    case = trial.case
    fields = {"kind": case.kind, "mark": case.mark, "level": case.level, "photo": photo}
    return fields | {"standout": trial.standout} | asdict(score)
