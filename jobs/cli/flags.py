"""The flags that mirror the recipe, shared by `run`, `plan` and `inspect`."""

from __future__ import annotations

import argparse
from typing import Any

import yaml

from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.recipe.recipe import Recipe, load

MIRRORED = {
    "segmenter": "masks.segmenter",
    "checkpoint": "masks.checkpoint",
    "inpainter": "inpaint.name",
    "precision": "inpaint.precision",
    "passes": "verify.passes",
    "format": "output.format",
    "quality": "output.quality",
    "metadata": "output.metadata",
    "source_format": "source.format",
    "image_column": "source.image_column",
    "output_layout": "output.layout",
    "mark": "output.mark",
    "workers": "engine.workers",
    "gpus": "engine.gpus",
}


def add_recipe_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("recipe", "laid over the recipe file; docs/recipe.md tells every key")
    group.add_argument("--recipe", metavar="FILE", help="a YAML recipe")
    group.add_argument(
        "--remove", metavar="KINDS", help="what must go, by comma: text, faces, logos, laptop, ..."
    )
    group.add_argument(
        "--source-format", help="auto (default), objects, parquet, arrow or webdataset: what the source holds"
    )
    group.add_argument("--image-column", metavar="NAME", help="of Parquet and Arrow sources")
    group.add_argument("--segmenter", help="auto, box, ellipse, stroke, grabcut, sam, sam2 or sam3")
    group.add_argument(
        "--checkpoint",
        help="weights of sam: a name of the weights table or a file; of sam2 and sam3: a folder or hub id",
    )
    group.add_argument(
        "--inpainter",
        help="lama-lite (default), big-lama, telea, ns, patchmatch, or a LaMa checkpoint file; NAME+texture = with "
        "detail from the surroundings; pixelate, blur, stylise and fill hide",
    )
    group.add_argument("--precision", help="of LaMa: fp32, bf16, or auto (bf16 where it is native)")
    group.add_argument("--whole-image", action="store_true", help="LaMa sees whole pictures instead of crops")
    group.add_argument(
        "--refine", action="store_true", help="LaMa refines large fills; slow (docs/recipe.md)"
    )
    group.add_argument("--passes", type=int, help="repairs after verification, at most")
    group.add_argument("--format", help="output format: keep, png, jpeg or webp")
    group.add_argument("--quality", type=int, help="1 to 100, where a lossy encoder is used")
    group.add_argument("--metadata", help="scrub (default), keep or strip")
    group.add_argument("--output-layout", help="parquet (default), files or webdataset: where pictures lie")
    group.add_argument("--mark", help="edited images say so: none (default), iptc, or c2pa (docs/formats.md)")
    group.add_argument("--workers", type=int, help="most workers of the model stages")
    group.add_argument("--gpus", type=float, help="GPUs per worker; fractions share one")
    group.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any key: --set units.rows=64"
    )


def recipe_of(args: argparse.Namespace, own: dict[str, Any] | None = None) -> Recipe:
    """The recipe file with the flags laid over it. own: the keys of a run's recipe, which stand in where no file is
    named. Raises ConfigError."""
    overrides: dict[str, Any] = {
        key: getattr(args, flag) for flag, key in MIRRORED.items() if getattr(args, flag) is not None
    }
    if args.remove is not None:
        overrides["remove"] = [word.strip() for word in args.remove.split(",") if word.strip()]
    if args.whole_image:
        overrides["inpaint.whole_image"] = True
    if args.refine:
        overrides["inpaint.refine"] = True
    for item in args.set:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {item!r}: write KEY=VALUE, for example --set units.rows=64")
        overrides[key] = yaml.safe_load(value)
    return load(args.recipe, overrides if args.recipe or not own else own | overrides)
