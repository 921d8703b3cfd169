"""Train a LaMa generator on photographs; the same command goes on from the last checkpoint."""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import sys
from pathlib import Path
from typing import Any

import cv2
import pydantic
import torch
import yaml

from models.lama import LAMA, build_generator, inpaint_batch
from models.regions import Image, Mask
from models.resnet import DilatedResNet50
from models.training import measure
from models.training.checkpoint import CheckpointError, export_weights, read_tensors
from models.training.data import PhotoBank, hold_out, list_photos, load_bank, name_of, names_digest
from models.training.loop import Initial, TrainingDiverged, predictor, train
from models.training.masks import MASKS
from models.training.objective import Encoder
from models.training.recipe import TrainRecipe
from models.training.validation import Validation, holed, make_validation, save_sheet

RECIPES = Path(__file__).parent / "recipes"
log = logging.getLogger("cleanplate.train")


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


def load_encoder(path: Path | None, device: str) -> Encoder | None:
    """The perceptual loss's encoder, frozen; None without a path. Raises ValueError for other weights."""
    if path is None:
        return None
    encoder = DilatedResNet50()
    try:
        encoder.load_state_dict(read_tensors(path))
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold the encoder's weights: {error}") from error
    return encoder.requires_grad_(False).eval().to(device)


def load_initial(path: Path | None) -> Initial | None:
    """The weights that a new training starts from, in fp32; None without a path. Raises ValueError."""
    if path is None:
        return None
    tensors = {n: t.float() if t.is_floating_point() else t for n, t in read_tensors(path).items()}
    return Initial(hashlib.sha256(path.read_bytes()).hexdigest(), tensors)


def train_here(args: argparse.Namespace) -> None:
    """Train in this process, which may be one of several that torch.distributed has joined."""
    if args.threads:
        torch.set_num_threads(args.threads)
    recipe = read_recipe(args.recipe, args.set)
    encoder = load_encoder(args.encoder, args.device)
    bank, validation = load_data(recipe, args.photos)
    log.info(
        "recipe %s, %d photographs and %d held out, %d steps, pid %d",
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
        encoder=encoder,
        initial=load_initial(args.init),
        device=args.device,
        allow_changed_recipe=args.allow_changed_recipe,
        stop_after=args.stop_after,
    )


def train_on_ray(args: argparse.Namespace) -> None:
    """The same in args.workers processes of a Ray cluster; args.out is a folder that all of them reach."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    args.photos, args.out = args.photos.resolve(), args.out.resolve()
    if args.encoder:
        args.encoder = args.encoder.resolve()
    TorchTrainer(
        _ray_worker,
        train_loop_config={"args": args},
        scaling_config=ScalingConfig(num_workers=args.workers, use_gpu=args.device == "cuda"),
        run_config=RunConfig(name="ray", storage_path=str(args.out)),
    ).fit()


def _ray_worker(config: dict[str, Any]) -> None:
    _set_up_logging()
    train_here(config["args"])


def ship(recipe: TrainRecipe, photos: Path, out: Path, target: Path) -> None:
    """Write the best averaged weights as safetensors, with where they are from."""
    best = _best(out)
    kept, _ = hold_out(list_photos(photos, "train"), recipe.validation_share)
    size = export_weights(
        best["average"],
        target,
        {
            "model": recipe.model,
            "prefill": "pyramid" if recipe.prefill else "none",
            "licence": "Apache-2.0",
            "recipe_sha256": recipe.digest(),
            "steps": str(best["step"]),
            "initial_sha256": best.get("initial", ""),
            "photographs": str(len(kept)),
            "photographs_sha256": names_digest([name_of(photo) for photo in kept]),
            "validation": ", ".join(f"{name} {score:.4f}" for name, score in best["scores"].items()),
        },
    )
    print(f"{target}: {size} bytes, step {best['step']}")


def _best(out: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(out / "best.pt", map_location="cpu", weights_only=True)
    return state


def measure_best(recipe: TrainRecipe, photos: Path, out: Path, masks_each: int) -> str:
    """Tables for medium and thick masks at 256 px on the photographs of split=test; writes out/test.jpg."""
    model = build_generator(LAMA[recipe.model])
    model.load_state_dict(_best(out)["average"])
    predict = predictor(recipe, model.eval())

    def lama(image: Image, mask: Mask) -> Image:
        filled: Image = inpaint_batch(predict, image[None], mask[None])[0]
        return filled

    fills = {"Telea": measure.telea, "Navier-Stokes": measure.navier_stokes, recipe.model: lama}
    images = load_bank(list_photos(photos, "test"), 1024).images
    lines, rows = [], []
    for kind in ("medium-256", "thick-256"):
        pairs = measure.masked_pairs(images, MASKS[kind], 256, masks_each, seed=2026)
        lines += [
            f"{kind}, {len(images)} photographs",
            "",
            measure.as_table(measure.measure(pairs, fills)),
            "",
        ]
        chosen = pairs[:: max(1, len(pairs) // 6)][:6]
        rows += [(holed(i, m), measure.telea(i, m), lama(i, m), i) for i, m in chosen]
    save_sheet(out / "test.jpg", rows)
    return "\n".join(lines)


def _set_up_logging() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    cv2.setNumThreads(1)


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(prog="cleanplate train", description=__doc__)
    parse.add_argument("recipe", help="a YAML file, or a name: lama-lite, big-lama")
    parse.add_argument("photos", type=Path, help="folder of images; with INDEX.csv, its rows of split=train")
    parse.add_argument("out", type=Path, help="folder for checkpoints, logs and samples")
    parse.add_argument("--workers", type=int, default=1, help="processes, on Ray when more than one")
    parse.add_argument(
        "--threads", type=int, default=0, help="CPU threads a process (default: torch's choice)"
    )
    parse.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parse.add_argument("--init", type=Path, metavar="FILE", help="weights that a new training starts from")
    parse.add_argument("--encoder", type=Path, help="ADE20K ResNet-50 weights for the perceptual loss")
    parse.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a recipe field"
    )
    parse.add_argument("--stop-after", type=int, help="stop at this step (the same command goes on)")
    parse.add_argument("--allow-changed-recipe", action="store_true", help="go on with an edited recipe")
    parse.add_argument("--export", type=Path, metavar="FILE", help="then write the best weights, safetensors")
    parse.add_argument(
        "--measure",
        type=int,
        metavar="N",
        default=0,
        help="then fill N masks on each photograph of split=test and print a table beside OpenCV's fills",
    )
    return parse


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 trained; 2 bad recipe, data or checkpoint; 3 the loss is no longer finite."""
    args = parser().parse_args(argv)
    _set_up_logging()
    if "WORLD_SIZE" in os.environ:  # started by torchrun
        torch.distributed.init_process_group("nccl" if args.device == "cuda" else "gloo")
    try:
        recipe = read_recipe(args.recipe, args.set)
        train_on_ray(args) if args.workers > 1 else train_here(args)
        if int(os.environ.get("RANK", 0)):
            return 0
        if args.export:
            ship(recipe, args.photos, args.out, args.export)
        if args.measure:
            print(measure_best(recipe, args.photos, args.out, args.measure))
    except (ValueError, FileNotFoundError, CheckpointError) as error:
        print(f"cleanplate train: {error}", file=sys.stderr)
        return 2
    except TrainingDiverged as error:
        print(f"cleanplate train: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
