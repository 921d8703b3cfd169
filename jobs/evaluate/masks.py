"""Draw the holes that training and evaluation use: a picture and their statistics."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cleanplate.jobs.evaluate.instances import Objects
    from cleanplate.models.training.data import PhotoBank
    from cleanplate.models.types import Image, Mask

PER_ROW, CELL = 8, 128
"""Holes shown of each kind, and the pixels of each."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from cleanplate.jobs import photos

    parser = subparsers.add_parser(
        "masks",
        help="draw the holes of every generator, with their statistics",
        description=f"{__doc__} Objects (segmentation) are pieces of the photographs, or of --instances.",
        epilog="Example: cleanplate evaluate masks photos/ masks.jpg",
    )
    add = parser.add_argument
    photos.add_arguments(parser, out="a .jpg or .png file", metavar="PICTURE", seed=0)
    add("--draws", type=int, default=200, help="holes that the statistics are taken of (default %(default)s)")
    add("--instances", metavar="FILE", help="COCO instances JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 drawn; raises ConfigError before any work."""
    from cleanplate.jobs.evaluate.instances import load_instances
    from cleanplate.jobs.photos import open_photos
    from cleanplate.models.evaluation.pictures import grid, save_picture
    from cleanplate.models.training.data import load_bank
    from cleanplate.models.training.lama.masks import MASKS, statistics
    from cleanplate.models.training.lama.recipe import SEGMENTATION
    from cleanplate.models.training.lama.validation import holed
    from cleanplate.pipeline.errors import ConfigError

    if args.draws < PER_ROW:
        raise ConfigError(f"--draws must be at least {PER_ROW}")
    objects = load_instances(args.instances)
    bank = load_bank(open_photos(args.photos, args.split)[:64], sys.maxsize)
    rows = []
    print("| holes | side | mean area | 10 % | median | 90 % | median of the largest radius |")
    print("|" + "---|" * 7)
    for number, name in enumerate([*MASKS, SEGMENTATION]):
        crops, holes = _drawn(name, bank, objects, args.draws, (args.seed, number))
        if len(holes) < PER_ROW:
            raise ConfigError(f"the photographs in {args.photos} have too few objects to draw {name} holes")
        figures, side = statistics(holes), holes[0].shape[0]
        shares = " | ".join(
            f"{share:.3f}" for share in (figures.mean, figures.low, figures.median, figures.high)
        )
        print(f"| {name} | {side} | {shares} | {figures.radius:.1f} px |")
        rows.append([holed(crop, hole) for crop, hole in zip(crops, holes, strict=True)][:PER_ROW])
    save_picture(args.out, grid([""] * PER_ROW, rows, CELL, [*MASKS, SEGMENTATION]))
    return 0


def _drawn(
    name: str, bank: PhotoBank, objects: Objects, draws: int, seed: tuple[int, int]
) -> tuple[list[Image], list[Mask]]:
    """Photographs and holes in them, at the side that the kind is made for."""
    import numpy as np

    from cleanplate.models.evaluation.pairs import whole_objects
    from cleanplate.models.training.data import evaluation_crop
    from cleanplate.models.training.lama.masks import MASKS, random_mask
    from cleanplate.models.training.lama.objects import moved_object

    side = int(name.rpartition("-")[2]) if "-" in name else 256
    rng = np.random.default_rng(seed)
    names = [file.rpartition("/")[2] for file in bank.names]
    photos = [evaluation_crop(image, side) for image in bank.images]
    if name in MASKS:
        return [photos[n % len(photos)] for n in range(draws)], [
            random_mask(rng, side, side, MASKS[name]) for _ in range(draws)
        ]
    found = [whole_objects(photo, objects(file), side) for photo, file in zip(photos, names, strict=True)]
    moved = [(photos[n % len(photos)], moved_object(rng, found[n % len(photos)])) for n in range(draws)]
    kept = [(photo, hole) for photo, hole in moved if hole is not None]
    return [photo for photo, _ in kept], [hole for _, hole in kept]
