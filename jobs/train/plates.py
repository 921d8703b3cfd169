"""Train the network of number plates (`cleanplate train plates`): what differs from training a LaMa."""

from __future__ import annotations

import argparse
import json
import logging
import os
from pathlib import Path

from cleanplate.jobs.photos import open_photos, parted
from cleanplate.jobs.train.marks import font_names
from cleanplate.jobs.train.output import TrainingFolder
from cleanplate.jobs.train.weights import load_initial
from cleanplate.models.detectors.objects import coco
from cleanplate.models.detectors.objects.nanodet import NanoDetDetector, Wanted
from cleanplate.models.training.checkpoint import export_weights, load_checkpoint
from cleanplate.models.training.data import Photo, PhotoBank, load_bank, name_of, names_digest
from cleanplate.models.training.marks.fonts import load_fonts
from cleanplate.models.training.plates.data import PlateSamples, Vehicles
from cleanplate.models.training.plates.loop import MODEL, PlatesRecipe, check_recipe, train
from cleanplate.models.weights.registry import resolve

log = logging.getLogger("cleanplate.train")

SURE = 0.3
"""Chance from which NanoDet's vehicles get plates: a false one is a ground as well."""


def run(args: argparse.Namespace, recipe: PlatesRecipe) -> None:
    """Train in this process, args.loaders others rendering beside it; then args.export. Raises ValueError for flags
    that belong to other networks."""
    check_recipe(recipe)
    given = {
        "--workers": args.workers > 1,
        "--encoder": args.encoder,
        "--blend": args.blend < 1,
        "--compile": args.compile,
    }
    if wrong := [flag for flag, there in given.items() if there]:
        raise ValueError(f"{MODEL} is trained without {', '.join(wrong)}")
    train_here(args, recipe)
    if args.export:
        ship(args, recipe, args.export)


def grounds(args: argparse.Namespace, recipe: PlatesRecipe) -> tuple[list[Photo], list[Photo]]:
    """(to train on, held out): args.photos in parts, and all of args.more to train on."""
    kept, held = parted(args.photos, recipe.validation_share, args.leave_out)
    return kept + (open_photos(args.more, "train") if args.more else []), held


def train_here(args: argparse.Namespace, recipe: PlatesRecipe) -> None:
    """Train to the recipe's end or args.stop_after."""
    kept, held = grounds(args, recipe)
    bank = load_bank(kept, recipe.photo_short_side, recipe.source_power, round(args.memory_gb * 2**30))
    checks = load_bank(held, recipe.photo_short_side)
    fonts = load_fonts(args.fonts)
    out = TrainingFolder(args.out)
    out.fetch()
    size = (recipe.height, recipe.width)
    parts = [
        PlateSamples(photos, vehicles_of(photos, out.local / name, args.device), fonts, size, seed)
        for photos, name, seed in ((bank, "vehicles.json", recipe.seed), (checks, "vehicles-held.json", 7))
    ]
    log.info(
        "recipe %s, %d photographs with %d vehicles and %d held out, %d fonts, %d steps, pid %d",
        recipe.digest()[:12],
        len(bank.images),
        len(parts[0].vehicles.boxes),
        len(checks.images),
        len(fonts.faces),
        recipe.steps,
        os.getpid(),
    )
    train(
        recipe,
        parts[0],
        parts[1],
        out.local,
        device=args.device,
        renderers=args.loaders,
        saved=out.put,
        allow_changed_recipe=args.allow_changed_recipe,
        stop_after=args.stop_after,
        initial=load_initial(args.init),
    )


def vehicles_of(bank: PhotoBank, cache: Path, device: str) -> Vehicles:
    """NanoDet's vehicles in the photographs, from one look at each; kept in a file beside the training."""
    digest = names_digest(bank.names)
    if cache.exists():
        kept = json.loads(cache.read_text(encoding="utf-8"))
        if kept["photographs_sha256"] == digest:
            return Vehicles([(number, tuple(box)) for number, box in kept["boxes"]])
    wanted = {number: Wanted("vehicle", SURE) for number in coco.VEHICLES}
    find = NanoDetDetector(resolve("nanodet"), wanted, most=0, device=device)
    boxes = [
        (number, region.box)
        for number in range(len(bank.images))
        for region in find([bank.images[number]])[0]
    ]
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(json.dumps({"photographs_sha256": digest, "boxes": boxes}), encoding="utf-8")
    return Vehicles(boxes)


def ship(args: argparse.Namespace, recipe: PlatesRecipe, target: Path) -> None:
    """Write the last averaged weights as safetensors, with where they are from: the rate has fallen to nothing by then,
    and a score of few samples says less than that. Raises ValueError without a checkpoint."""
    out = TrainingFolder(args.out)
    out.fetch()
    last = load_checkpoint(out.local)
    if last is None:
        raise ValueError(f"no checkpoint in {args.out}")
    kept, _ = grounds(args, recipe)
    fonts = load_fonts(args.fonts)
    size = export_weights(
        last["average"],
        target,
        {
            "model": MODEL,
            "licence": "Apache-2.0",
            "recipe_sha256": ", ".join(last["recipes"]),
            "steps": str(last["step"]),
            "initial_sha256": last["initial"],
            "photographs": str(len(kept)),
            "photographs_sha256": names_digest([name_of(photo) for photo in kept]),
            "fonts": str(len(fonts.faces)),
            "fonts_sha256": names_digest(font_names(fonts)),
        },
    )
    print(f"{target}: {size} bytes, step {last['step']}")
