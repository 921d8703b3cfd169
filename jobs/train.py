"""Train a LaMa generator on a folder of photographs: `python -m jobs.train RECIPE PHOTOS OUT`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

import pydantic
import torch
import yaml

from models.training.checkpoint import CheckpointError
from models.training.data import PhotoBank, hold_out, list_photos, load_bank
from models.training.loop import TrainingDiverged, train
from models.training.recipe import TrainRecipe
from models.training.validation import Validation, make_validation

RECIPES = Path(__file__).parent / "recipes"


def read_recipe(name: str, changes: list[str] | None = None) -> TrainRecipe:
    """The training recipe of a YAML file, or of a name in jobs/recipes (`lama-lite`).

    changes: `key=value` for top-level keys, value in YAML. Raises ValueError for anything that does not fit.
    """
    path = Path(name) if Path(name).suffix else RECIPES / f"train-{name}.yaml"
    if not path.exists():
        known = sorted(p.stem.removeprefix("train-") for p in RECIPES.glob("train-*.yaml"))
        raise ValueError(f"no training recipe {name!r}: give a YAML file or one of {known}")
    fields: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(fields, dict):
        raise ValueError(f"{path} must hold a mapping of recipe fields")
    for change in changes or []:
        key, separator, value = change.partition("=")
        if not separator:
            raise ValueError(f"--set {change!r}: write KEY=VALUE")
        fields[key] = yaml.safe_load(value)
    try:
        return pydantic.TypeAdapter(TrainRecipe).validate_python(fields)
    except pydantic.ValidationError as error:
        raise ValueError(f"{path}: {error}") from error


def load_data(recipe: TrainRecipe, photos: Path) -> tuple[PhotoBank, Validation]:
    """Decode the folder's training photographs; hold some out for validation."""
    kept, held = hold_out(list_photos(photos, "train"), recipe.validation_share)
    bank = load_bank(kept, recipe.photo_short_side, recipe.source_power)
    return bank, make_validation(load_bank(held, recipe.photo_short_side).images)


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(prog="cleanplate train", description=__doc__)
    parse.add_argument("recipe", help="a YAML file, or a name: lama-lite, big-lama")
    parse.add_argument("photos", type=Path, help="folder of images; with INDEX.csv, its rows of split=train")
    parse.add_argument("out", type=Path, help="folder for checkpoints, logs and samples; the same goes on")
    parse.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's own choice)")
    parse.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parse.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a recipe field"
    )
    parse.add_argument("--stop-after", type=int, help="stop at this step (the same command goes on)")
    parse.add_argument("--allow-changed-recipe", action="store_true", help="go on with an edited recipe")
    return parse


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 trained; 2 bad recipe, data or checkpoint; 3 the loss is no longer finite."""
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if "WORLD_SIZE" in os.environ:  # started by torchrun
        torch.distributed.init_process_group("nccl" if args.device == "cuda" else "gloo")
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        recipe = read_recipe(args.recipe, args.set)
        bank, validation = load_data(recipe, args.photos)
        logging.info(
            "recipe %s, %d photographs (%d held out), %d steps, pid %d",
            recipe.digest()[:12],
            len(bank.images),
            len(validation.images),
            recipe.steps,
            os.getpid(),
        )
        train(
            recipe,
            bank,
            validation,
            args.out,
            device=args.device,
            allow_changed_recipe=args.allow_changed_recipe,
            stop_after=args.stop_after,
        )
    except (ValueError, FileNotFoundError, CheckpointError) as error:
        print(f"cleanplate train: {error}", file=sys.stderr)
        return 2
    except TrainingDiverged as error:
        print(f"cleanplate train: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
