"""Lay marks and text of known pixels over photographs, let the recipe's detectors find them, and count."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.regions import Detector, Image, Mask
    from models.trials import Case, Score, Trial
    from pipeline.recipe import Recipe

WORST = 24
"""Pictures of the worst cases."""
LARGEST = 4096
"""Photographs with a longer short side are shrunk to it."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from jobs import photos
    from jobs.flags import add_recipe_flags

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
    add("--quick", action="store_true", help="a first look: 1 of each and 10 clean photographs")
    add_recipe_flags(parser)
    parser.set_defaults(run=run, remove="text,watermark")


def run(args: argparse.Namespace) -> int:
    """0 when it was measured; 2 for folders, fonts or a recipe that cannot be used."""
    from jobs.detect_tables import by_level, by_mark, save_worst, show, write_parquet
    from jobs.flags import recipe_of
    from jobs.photos import open_photos
    from models.training.data import decoded, name_of
    from models.training.glyphs import load_fonts
    from models.trials import cases, run_trials
    from pipeline import kit
    from pipeline.errors import ConfigError

    recipe = recipe_of(args)
    if args.each < 1:
        raise ConfigError(f"--each must be at least 1, got {args.each}")
    photos = open_photos(args.photos, args.split)
    try:
        fonts = load_fonts(args.fonts)
    except ValueError as error:
        raise ConfigError(f"--fonts: {error}") from error
    weights = kit.check(recipe)
    each, clean = (1, 10) if args.quick else (args.each, args.clean)
    todo = cases(recipe.remove, len(photos), each, args.seed, clean)
    found: list[tuple[Trial, Score, Mask]] = []
    start = time.monotonic()

    def photo_of(number: int) -> Image:
        return decoded(photos[number], LARGEST)

    for one in run_trials(todo, photo_of, fonts, args.seed, finder(recipe)):
        found.append(one)
        _tell(len(found), len(todo), start)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = [row(trial.case, score, name_of(photos[trial.case.photo])) for trial, score, _ in found]
    write_parquet(args.out / "trials.parquet", rows, {"seed": str(args.seed), **weights})
    save_worst(args.out / "worst.jpg", found, WORST)
    told = show([by_level(rows), by_mark(rows)])
    (args.out / "table.md").write_text(told, encoding="utf-8")
    print(told)
    print(f"{len(rows)} pictures, {len(fonts.faces)} fonts, {args.out}/trials.parquet, {args.out}/worst.jpg")
    return 0


def finder(recipe: Recipe) -> Callable[[str, Image], tuple[list[Mask], Mask]]:
    """kind, picture -> (mask of each region that the recipe lets count, the mask that would be edited)."""
    from pipeline import kit, masks
    from pipeline.stages.detect import wanted
    from pipeline.stages.segment import grow

    alone: dict[str, Recipe] = {kind: recipe.model_copy(update={"remove": (kind,)}) for kind in recipe.remove}
    detectors: dict[str, list[Detector]] = {kind: kit.detectors(one) for kind, one in alone.items()}
    segmenter = kit.segmenter(recipe)

    def find(kind: str, picture: Image) -> tuple[list[Mask], Mask]:
        seen = [region for detector in detectors[kind] for region in detector([picture])[0]]
        regions = [region for region in seen if wanted(region, picture, alone[kind])]
        drawn = segmenter([picture], [regions])[0]
        grown = [grow(mask, region, recipe.masks) for mask, region in zip(drawn, regions, strict=True)]
        own = [
            region.mask if region.mask is not None else mask
            for region, mask in zip(regions, drawn, strict=True)
        ]
        return own, masks.union(grown, *picture.shape[:2])

    return find


def row(case: Case, score: Score, photo: str) -> dict[str, Any]:
    """One trial as a row of trials.parquet."""
    from dataclasses import asdict

    return {"kind": case.kind, "mark": case.mark, "level": case.level, "photo": photo, **asdict(score)}


def _tell(done: int, total: int, start: float) -> None:
    """A line that overwrites itself in a terminal; every 25 pictures elsewhere."""
    rate = (time.monotonic() - start) / done
    line = f"{done} / {total} pictures, {rate:.1f} s each, {rate * (total - done) / 60:.1f} min to go"
    if sys.stderr.isatty():
        print(f"\r{line} ", end="" if done < total else "\n", file=sys.stderr, flush=True)
    elif done % 25 == 0 or done == total:
        print(line, file=sys.stderr, flush=True)
