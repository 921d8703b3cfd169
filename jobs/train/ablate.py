"""Train small variants of LaMa alike and compare them as the paper's tables 2-4 do; run it again to continue."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cleanplate.models.evaluation.ablation import Variant
    from cleanplate.models.evaluation.pairs import Pair
    from cleanplate.models.training.data import PhotoBank
    from cleanplate.models.training.lama.objective import Encoder
    from cleanplate.models.training.lama.recipe import TrainRecipe
    from cleanplate.models.training.lama.validation import Validation


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "ablate",
        help="train small variants of LaMa and compare them as the paper does",
        description=f"{__doc__} Each variant trains in a folder of OUT and is measured on held-out photographs with "
        "narrow and wide holes. What small networks show in a few hundred steps need not hold at the paper's size.",
        epilog="Example: cleanplate ablate photos/ ablation/ --steps 300 --threads 1",
    )
    add = parser.add_argument
    add("photos", metavar="PHOTOS", help="a folder or s3://..., as for train")
    add("out", type=Path, metavar="OUT", help="folder for the trainings and the table")
    add("--recipe", default="ablation", help="training recipe of every variant (default: a small one)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change a recipe field")
    add("--steps", type=int, metavar="N", help="steps of the recipe's phases together, in proportion")
    add(
        "--ngf",
        type=int,
        default=8,
        help="channels of the first layer; 64 in the paper (default %(default)s)",
    )
    add(
        "--blocks",
        type=int,
        default=3,
        help="blocks of the base generators; 9 in the paper (default %(default)s)",
    )
    add(
        "--tables",
        default="2,4",
        metavar="LIST",
        help="some of 2, 3, 4; 3 needs --encoder (default %(default)s)",
    )
    add("--encoder", metavar="WEIGHTS", help="ADE20K ResNet-50 (name or file) for the perceptual loss")
    add("--size", type=int, default=128, metavar="PX", help="side of measured images (default %(default)s)")
    add("--limit", type=int, metavar="N", help="measure on the first N photographs only")
    add("--threads", type=int, metavar="N", help="CPU threads (default: one a core)")
    add("--device", default="cpu", help="cpu or cuda (default %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 compared; raises ConfigError before any work, RunStopped when a loss is not finite."""
    from cleanplate.jobs.train.command import load_data, set_up_logging
    from cleanplate.models.devices import limit_threads
    from cleanplate.models.evaluation import ablation
    from cleanplate.models.evaluation.judges import fid_embedding, pair_metrics
    from cleanplate.models.evaluation.tables import Scores

    limit_threads(args.threads or os.cpu_count() or 1)
    base, tables, recipes, encoder = check(args)
    set_up_logging()
    bank, validation = load_data(base, args.photos)
    # A few for the log: the variants are judged at the end, on other holes.
    validation = replace(validation, images=validation.images[:8], masks=validation.masks[:8])
    pairs = _pairs(args, base)
    scores = Scores(pair_metrics(args.device), fid_embedding(args.device))
    for variant, recipe in recipes.items():
        weights = _trained(args, recipe, bank, validation, encoder)
        filler = ablation.inpainter_of(recipe, weights)
        for pair in pairs:
            (fill,) = filler([pair.image], [pair.mask])
            scores.add("ablation", pair, {variant.name: (fill, 0.0)})
    rows = scores.summary("ablation", "masks", "inpainter")
    text = ablation.as_tables(list(recipes), base.steps, rows, scores.columns(), tables)
    text += f"\n\n{len(pairs) // 2} photographs that no variant was trained on, {args.size} px."
    (args.out / "ablation.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


def check(
    args: argparse.Namespace,
) -> tuple[TrainRecipe, tuple[int, ...], dict[Variant, TrainRecipe], Encoder | None]:
    """(base recipe, tables, every variant's recipe, encoder). Raises ConfigError, saying what to change."""
    from cleanplate.jobs.train.command import read_recipe
    from cleanplate.jobs.train.weights import load_encoder
    from cleanplate.models.evaluation import ablation
    from cleanplate.models.training.lama.recipe import check_recipe
    from cleanplate.pipeline.errors import ConfigError

    try:
        tables = tuple(int(word) for word in args.tables.split(","))
        base = _with_steps(read_recipe(args.recipe, args.set), args.steps)
        recipes = {
            variant: variant.recipe(base) for variant in ablation.variants(args.ngf, args.blocks, tables)
        }
        for recipe in recipes.values():
            check_recipe(recipe)
            ablation.parameters(recipe.params)
        encoder = load_encoder(args.encoder, args.device)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if set(tables) - set(ablation.TITLES):
        raise ConfigError(f"--tables {args.tables}: choose from 2, 3 and 4")
    if 3 in tables and encoder is None:
        raise ConfigError("--tables 3 compares perceptual losses and needs --encoder")
    if args.size < 64 or args.size % 8:
        raise ConfigError(f"--size {args.size}: must be a multiple of 8, and at least 64")
    return base, tables, recipes, encoder


def _with_steps(recipe: TrainRecipe, steps: int | None) -> TrainRecipe:
    """The recipe with its phases shortened or stretched to so many steps together."""
    if steps is None:
        return recipe
    phases = tuple(
        replace(phase, steps=max(1, round(phase.steps * steps / recipe.steps))) for phase in recipe.phases
    )
    return replace(recipe, phases=phases)


def _trained(
    args: argparse.Namespace,
    recipe: TrainRecipe,
    bank: PhotoBank,
    validation: Validation,
    encoder: Encoder | None,
) -> dict[str, Any]:
    """A variant's averaged weights on the CPU; trained, or gone on with, in its own folder."""
    from cleanplate.models.training.checkpoint import CheckpointError
    from cleanplate.models.training.lama.loop import Extras, TrainingDiverged, train
    from cleanplate.pipeline.errors import ConfigError, RunStopped

    out = args.out / recipe.model
    try:
        weights = train(recipe, bank, validation, out, extras=Extras(encoder=encoder), device=args.device)
    except CheckpointError as error:
        raise ConfigError(str(error)) from error
    except TrainingDiverged as error:
        raise RunStopped(f"{recipe.model}: {error}") from error
    return {name: tensor.cpu() for name, tensor in weights.items()}


def _pairs(args: argparse.Namespace, base: TrainRecipe) -> list[Pair]:
    """Narrow and wide holes in the photographs that training holds out."""
    from cleanplate.jobs.photos import parted
    from cleanplate.models.evaluation.pairs import make_pair
    from cleanplate.models.training.data import load_bank

    _, held = parted(args.photos, base.validation_share)
    bank = load_bank(held[: args.limit], args.size)
    pairs = [
        make_pair(name, image, kind, args.size, (2026, number, place))
        for number, (name, image) in enumerate(zip(bank.names, bank.images, strict=True))
        for place, kind in enumerate(("narrow", "wide"))
    ]
    return [pair for pair in pairs if pair is not None]
