"""Train the segmenter of overlaid marks (`cleanplate train marks`): what differs from training a LaMa."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

import torch

from cleanplate.jobs.photos import open_photos, parted
from cleanplate.jobs.train.output import TrainingFolder
from cleanplate.jobs.train.weights import load_initial
from cleanplate.models.training.checkpoint import export_weights, load_best
from cleanplate.models.training.data import Photo, load_bank, name_of, names_digest
from cleanplate.models.training.marks.fonts import Fonts, load_fonts
from cleanplate.models.training.marks.loop import MarksRecipe, check_recipe, train

log = logging.getLogger("cleanplate.train")


def run(args: argparse.Namespace, recipe: MarksRecipe) -> None:
    """Train in this process, args.loaders others rendering beside it; then args.export. Raises ValueError for flags
    that belong to a LaMa."""
    if args.threads:
        torch.set_num_threads(args.threads)
    train_here(args, recipe)
    if args.export:
        ship(args, recipe, args.export)


def train_here(args: argparse.Namespace, recipe: MarksRecipe) -> None:
    """Train to the recipe's end or args.stop_after."""
    check_recipe(recipe)
    given = {"--workers": args.workers > 1, "--encoder": args.encoder, "--blend": args.blend < 1}
    if wrong := [flag for flag, there in given.items() if there]:
        raise ValueError(f"{recipe.model} is trained without {', '.join(wrong)}")
    kept, held = grounds(args, recipe)
    memory = round(args.memory_gb * 2**30)
    bank = load_bank(kept, recipe.photo_short_side, recipe.source_power, memory)
    checks = load_bank(held, recipe.photo_short_side)
    fonts = load_fonts(args.fonts)
    log.info(
        "recipe %s, %d photographs and %d held out, %d fonts, %d steps, pid %d",
        recipe.digest()[:12],
        len(bank.images),
        len(checks.images),
        len(fonts.faces),
        recipe.steps,
        os.getpid(),
    )
    out = TrainingFolder(args.out)
    out.fetch()
    train(
        recipe,
        bank,
        checks,
        fonts,
        out.local,
        device=args.device,
        renderers=args.loaders,
        compiled=args.compile,
        saved=out.put,
        allow_changed_recipe=args.allow_changed_recipe,
        stop_after=args.stop_after,
        initial=load_initial(args.init),
    )


def grounds(args: argparse.Namespace, recipe: MarksRecipe) -> tuple[list[Photo], list[Photo]]:
    """(to train on, held out): args.photos in parts, and all of args.more to train on."""
    kept, held = parted(args.photos, recipe.validation_share, args.leave_out)
    return kept + (open_photos(args.more, "train") if args.more else []), held


def ship(args: argparse.Namespace, recipe: MarksRecipe, target: Path) -> None:
    """Write the best averaged weights as safetensors, with where they are from."""
    out = TrainingFolder(args.out)
    out.fetch()
    best = load_best(out.local)
    kept, _ = grounds(args, recipe)
    fonts = load_fonts(args.fonts)
    size = export_weights(
        best["average"],
        target,
        {
            "model": recipe.model,
            "licence": "Apache-2.0",
            "recipe_sha256": recipe.digest(),
            "steps": str(best["step"]),
            "initial_sha256": best.get("initial", ""),
            "photographs": str(len(kept)),
            "photographs_sha256": names_digest([name_of(photo) for photo in kept]),
            "fonts": str(len(fonts.faces)),
            "fonts_sha256": names_digest(font_names(fonts)),
            "validation": ", ".join(f"{name} {score:.4f}" for name, score in best["scores"].items()),
        },
    )
    print(f"{target}: {size} bytes, step {best['step']}")


def font_names(fonts: Fonts) -> list[str]:
    """File names of the fonts; "" is Pillow's own."""
    return [Path(face.path).name for face in fonts.faces]
