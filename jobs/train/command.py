"""Train a LaMa generator, the segmenter of marks or the network of plates; run the same command again to continue."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import cv2
import pydantic
import torch
import yaml

from cleanplate.jobs.cli.parser import Parser
from cleanplate.jobs.photos import LEAVE_OUT, parted
from cleanplate.jobs.train import marks, plates
from cleanplate.jobs.train.output import TrainingFolder
from cleanplate.jobs.train.weights import load_encoder, load_initial
from cleanplate.models.detectors.unet import MARKS
from cleanplate.models.training.checkpoint import CheckpointError, blended, export_weights, load_best
from cleanplate.models.training.data import (
    DEFAULT_MEMORY,
    PhotoBank,
    count_smaller,
    load_bank,
    name_of,
    names_digest,
)
from cleanplate.models.training.lama.loop import Extras, TrainingDiverged, train
from cleanplate.models.training.lama.recipe import TrainRecipe, check_recipe
from cleanplate.models.training.lama.state import Initial
from cleanplate.models.training.lama.validation import Validation, make_validation
from cleanplate.models.training.marks.loop import MarksRecipe
from cleanplate.models.training.plates.loop import MODEL as PLATES
from cleanplate.models.training.plates.loop import PlatesRecipe
from cleanplate.models.weights.registry import WeightsError
from cleanplate.pipeline.errors import ConfigError, StorageError

if TYPE_CHECKING:
    import pyarrow.fs

RECIPES = Path(__file__).parents[1] / "recipes"
REFUSED, DIVERGED = 2, 3
Form = TypeVar("Form", TrainRecipe, MarksRecipe, PlatesRecipe)
log = logging.getLogger("cleanplate.train")


def read_recipe(name: str, changes: list[str] | None = None) -> TrainRecipe:
    """The training recipe of a YAML file, or of a name in jobs/recipes (`lama-lite`).

    changes: `key=value` with dots into lists and mappings (`phases.0.batch=2`), value in YAML. Raises
    ValueError for anything that does not fit.
    """
    return validated(TrainRecipe, name, read_fields(name, changes))


def read_fields(name: str, changes: list[str] | None = None) -> dict[str, Any]:
    """The fields of a training recipe, changed but not looked at. Raises as read_recipe."""
    path = Path(name) if Path(name).suffix else RECIPES / f"train-{name}.yaml"
    if not path.exists():
        raise ValueError(f"no training recipe {name!r}: give a YAML file or one of {recipe_names()}")
    fields: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(fields, dict):
        raise ValueError(f"{path} must hold a mapping of recipe fields")
    for change in changes or []:
        key, separator, value = change.partition("=")
        if not separator:
            raise ValueError(f"--set {change!r}: write KEY=VALUE")
        _put(fields, key, yaml.safe_load(value))
    return fields


def recipe_names() -> list[str]:
    """Of the package's training recipes."""
    return sorted(path.stem.removeprefix("train-") for path in RECIPES.glob("train-*.yaml"))


def _put(fields: Any, key: str, value: Any) -> None:
    """Set the field that a dotted key leads to: `seed`, `phases.0.batch`. Raises ValueError."""
    *way, last = (int(part) if part.isdecimal() else part for part in key.split("."))
    try:
        for part in way:
            fields = fields[part]
        if isinstance(fields, list) and not isinstance(last, int):
            raise KeyError(last)
        fields[last] = value
    except (KeyError, IndexError, TypeError):
        raise ValueError(f"--set {key}: the recipe has no such place") from None


def validated(form: type[Form], name: str, fields: dict[str, Any]) -> Form:
    """The fields as a recipe of this form. Raises ValueError."""
    try:
        return pydantic.TypeAdapter(form).validate_python(fields)
    except pydantic.ValidationError as error:
        raise ValueError(f"training recipe {name}: {error}") from error


def load_data(recipe: TrainRecipe, photos: str, memory: int = DEFAULT_MEMORY) -> tuple[PhotoBank, Validation]:
    """Decode the training photographs of a place (cleanplate.jobs.photos); hold some out for validation."""
    kept, held = parted(photos, recipe.validation_share)
    bank = load_bank(kept, recipe.photo_short_side, recipe.source_power, memory)
    crop = max(phase.crop for phase in recipe.phases)
    if small := count_smaller(bank, crop):
        log.warning("%d photographs are smaller than a crop of %d px; they are enlarged to it", small, crop)
    judged = held[: recipe.validation_limit or None]
    return bank, make_validation(load_bank(judged, recipe.photo_short_side).images)


def train_here(args: argparse.Namespace) -> None:
    """Train in this process, which may be one of several that torch.distributed has joined."""
    if args.threads:
        torch.set_num_threads(args.threads)
    recipe = read_recipe(args.recipe, args.set)
    out = TrainingFolder(args.out)
    extras = Extras(
        encoder=load_encoder(args.encoder, args.device),
        initial=load_initial(args.init),
        loaders=args.loaders,
        tensorboard=args.tensorboard,
        saved=out.put,
    )
    bank, validation = load_data(recipe, args.photos, round(args.memory_gb * 2**30))
    log.info(
        "recipe %s, %d photographs and %d held out, %d steps, pid %d",
        recipe.digest()[:12],
        len(bank.images),
        len(validation.images),
        recipe.steps,
        os.getpid(),
    )
    out.fetch()
    train(
        recipe,
        bank,
        validation,
        out.local,
        extras=extras,
        device=args.device,
        allow_changed_recipe=args.allow_changed_recipe,
        stop_after=args.stop_after,
    )


def train_on_ray(args: argparse.Namespace) -> None:
    """The same in args.workers processes of a Ray cluster; args.out is a folder that all of them reach, or S3.

    Ray starts the group again when a worker dies, and it goes on from the last checkpoint. What training it
    again would not mend (a bad recipe, a loss that is no number) comes back as the exception it is here.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    for name in ("photos", "out"):
        url = getattr(args, name)
        setattr(args, name, url if urlsplit(url).scheme else str(Path(url).resolve()))
    path, filesystem = _ray_storage(args.out)
    worker: Any = _ray_worker  # Ray's annotation knows no value, its Result has one
    result: Any = TorchTrainer(
        worker,
        train_loop_config={"args": args},
        scaling_config=ScalingConfig(num_workers=args.workers, use_gpu=args.device == "cuda"),
        run_config=RunConfig(
            name="ray",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=3),
        ),
    ).fit()
    if result.return_value is not None:
        kind, message = result.return_value
        raise _REFUSALS[kind](message)


_REFUSALS: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (ValueError, FileNotFoundError, ConfigError, CheckpointError, WeightsError, TrainingDiverged)
}


def _ray_worker(config: dict[str, Any]) -> tuple[str, str] | None:
    """None, or what was refused: (an exception's name, its message)."""
    set_up_logging()
    try:
        train_here(config["args"])
    except tuple(_REFUSALS.values()) as error:
        return type(error).__name__, str(error)
    return None


def _ray_storage(out: str) -> tuple[str, pyarrow.fs.FileSystem | None]:
    """Where Ray keeps its own notes of the run, in its terms."""
    from pyarrow.fs import S3FileSystem

    parts = urlsplit(out)
    if parts.scheme != "s3":
        return out, None
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return out.removeprefix("s3://"), S3FileSystem(endpoint_override=endpoint)


def ship(
    recipe: TrainRecipe,
    photos: str,
    out: Path,
    target: Path,
    blend: float = 1.0,
    initial: Initial | None = None,
) -> None:
    """Write the best averaged weights as safetensors, with where they are from.

    blend below 1: that share of them and the rest of the weights that the training started from, tensor by
    tensor, which often fills better than either (Wortsman et al. 2022, arXiv 2109.01903). Raises ValueError
    when `initial` is not what it started from.
    """
    best = load_best(out)
    weights = best["average"]
    if blend < 1:
        if initial is None or initial.sha256 != best.get("initial"):
            raise ValueError("--blend: give --init the file that this training started from")
        weights = blended(initial.tensors, weights, blend)
    kept, _ = parted(photos, recipe.validation_share)
    size = export_weights(
        weights,
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
            "blend": f"{blend:g}",
        },
    )
    print(f"{target}: {size} bytes, step {best['step']}")


def set_up_logging() -> None:
    """Lines of progress on stderr; OpenCV in one thread, for the batches are small."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    cv2.setNumThreads(1)


def parser() -> argparse.ArgumentParser:
    parse = Parser(
        prog="cleanplate train",
        description=f"{__doc__} Measure what comes out with `cleanplate evaluate`.",
        epilog="Example: cleanplate train lama-lite photos/ out/ --export mine.safetensors",
    )
    add = parse.add_argument
    add("recipe", help=f"a YAML file, or a name: {', '.join(recipe_names())}")
    add("photos", help="a folder or s3://... of images or Parquet parts; with INDEX.csv, its split=train")
    add("out", help="folder or s3://... for checkpoints, logs and samples")
    add("--workers", type=int, default=1, help="processes, on Ray when more than one")
    add("--threads", type=int, default=0, help="CPU threads a process (default: torch's choice)")
    add("--loaders", type=int, default=0, metavar="N", help="threads that draw batches ahead (default 0)")
    add(
        "--memory-gb",
        type=float,
        default=DEFAULT_MEMORY / 2**30,
        metavar="GB",
        help="decoded photographs to keep; others are read at each use (default %(default)g, a process)",
    )
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--init", metavar="WEIGHTS", help="weights (name or file) that a new training starts from")
    add(
        "--encoder",
        metavar="WEIGHTS",
        help="ADE20K ResNet-50 or VGG-16 (name or file) for the perceptual loss",
    )
    add("--compile", action="store_true", help="marks: fuse steps first (minutes; needs a C++ compiler)")
    add(
        "--fonts",
        type=Path,
        metavar="FOLDER",
        help="marks, plates: font files (default: those of every machine)",
    )
    add("--more", metavar="FOLDER", help="marks, plates: more pictures to train on, none of them held out")
    add("--leave-out", type=Path, metavar="FILE", help=f"marks, plates: {LEAVE_OUT}")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a field: seed=3, phases.0.batch=2",
    )
    add("--stop-after", type=int, help="stop at this step (run the same command again to continue)")
    add("--allow-changed-recipe", action="store_true", help="continue with an edited recipe")
    add("--tensorboard", action="store_true", help="write event files too (pip install '.[train]')")
    add("--export", type=Path, metavar="FILE", help="then write the best weights, safetensors")
    add(
        "--blend",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="export so much of them, the rest of --init's",
    )
    return parse


def check_flags(args: argparse.Namespace) -> TrainRecipe:
    """The recipe, after all that can be seen to be wrong before any work. Raises ValueError, ConfigError."""
    recipe = read_recipe(args.recipe, args.set)
    check_recipe(recipe, args.workers)
    if not 0 < args.blend <= 1 or (args.blend < 1 and not (args.export and args.init)):
        raise ConfigError("--blend is a share above 0, of at most 1, and needs --export and --init")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch sees no GPU here")
    if args.tensorboard:
        from importlib.util import find_spec

        if find_spec("tensorboardX") is None:
            raise ConfigError("--tensorboard needs tensorboardX: pip install '.[train]'")
    return recipe


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 trained; 2 bad recipe, data or checkpoint; 3 the loss is no longer finite."""
    args = parser().parse_args(argv)
    set_up_logging()
    if "WORLD_SIZE" in os.environ:  # started by torchrun
        torch.distributed.init_process_group("nccl" if args.device == "cuda" else "gloo")
    try:
        fields = read_fields(args.recipe, args.set)
        if fields.get("model") in MARKS:
            marks.run(args, validated(MarksRecipe, args.recipe, fields))
            return 0
        if fields.get("model") == PLATES:
            if args.threads:
                torch.set_num_threads(args.threads)
            plates.run(args, validated(PlatesRecipe, args.recipe, fields))
            return 0
        recipe = check_flags(args)
        train_on_ray(args) if args.workers > 1 else train_here(args)
        if args.export and not int(os.environ.get("RANK", 0)):
            out = TrainingFolder(args.out)
            out.fetch()
            ship(recipe, args.photos, out.local, args.export, args.blend, load_initial(args.init))
    except (ValueError, FileNotFoundError, CheckpointError, ConfigError, WeightsError, StorageError) as error:
        print(f"cleanplate train: {error}", file=sys.stderr)
        return REFUSED
    except TrainingDiverged as error:
        print(f"cleanplate train: {error}", file=sys.stderr)
        return DIVERGED
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
