"""cleanplate weights: list, fetch, verify and add the files that models are read from."""

from __future__ import annotations

import argparse
from typing import get_args

from rich.table import Table

from cleanplate.jobs.cli.console import wide
from cleanplate.models.weights.registry import (
    Kind,
    Weights,
    WeightsError,
    add,
    cache_folder,
    cached_path,
    describe,
    fetch,
    known,
    resolve,
)
from cleanplate.pipeline.errors import ConfigError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Enter `weights` and its four verbs."""
    parser = subparsers.add_parser(
        "weights",
        help="list, fetch, verify or add model weights",
        description=f"{__doc__} The cache folder is $CLEANPLATE_WEIGHTS, else ~/.cache/cleanplate/weights.",
        epilog="Examples: cleanplate weights list cleanplate weights fetch big-lama sam-vit-h",
    )
    parser.set_defaults(run=run)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    verbs.add_parser(
        "list",
        help="every known name, its size and licence, and whether it is cached",
        epilog="Example: cleanplate weights list",
    )

    one = verbs.add_parser(
        "fetch",
        help="bring weights into the cache folder",
        epilog="Examples: cleanplate weights fetch big-lama sam-vit-h "
        "cleanplate weights fetch --for recipe.yaml   # everything that this recipe loads",
    )
    one.add_argument("names", nargs="*", metavar="NAME")
    one.add_argument(
        "--for",
        dest="recipes",
        action="append",
        default=[],
        metavar="RECIPE",
        help="all that this recipe loads: a YAML file, a preset, or `default`; may be repeated",
    )

    one = verbs.add_parser(
        "verify",
        help="hash what is cached; remove what is not the pinned file",
        epilog="Example: cleanplate weights verify",
    )
    one.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all that are cached)")

    one = verbs.add_parser(
        "add",
        help="name, pin and cache a weights file of your own",
        epilog="Examples: cleanplate weights add big-lama s3://bucket/weights/best.ckpt "
        "cleanplate weights add my-lama ./my-lama.safetensors --kind lama --licence CC0-1.0",
    )
    one.add_argument("name", metavar="NAME")
    one.add_argument("source", metavar="PATH_OR_URL", help="a path, file://, https:// or s3://bucket/key")
    one.add_argument("--sha256", help="refuse the file if it has another (default: pin what is found now)")
    kinds = [kind for kind in get_args(Kind) if kind != "file"]
    one.add_argument("--kind", choices=kinds, help="what reads it; needed for a new name")
    one.add_argument("--model", default="", help='which size of the kind, e.g. "big-lama" or "vit_b"')
    one.add_argument("--licence", default="unknown", help="kept in every row that these weights touch")


def run(args: argparse.Namespace) -> int:
    """0 when all is well, 2 when `verify` found a bad file. Raises WeightsError for everything else."""
    verb = str(args.verb)
    if verb == "list":
        return _list()
    if verb == "fetch":
        return _fetch([*args.names, *(name for recipe in args.recipes for name in _needed(recipe))])
    if verb == "verify":
        return _verify(args.names)
    return _add(args)


def _list() -> int:
    table = Table("name", "kind", "bytes", "licence", "cached")
    table.columns[0].no_wrap = True
    table.columns[2].justify = "right"
    for name, weights in sorted(known().items()):
        size = "?" if weights.bytes is None else f"{weights.bytes:,}"
        table.add_row(name, weights.kind, size, weights.licence, _where(weights))
    console = wide()
    console.print(table)
    console.print(f"cache folder: {cache_folder()}", soft_wrap=True, highlight=False)
    return 0


def _where(weights: Weights) -> str:
    if any(source.startswith("package:") for source in weights.sources):
        return "shipped"
    return "yes" if cached_path(weights).is_file() else "no"


def _needed(recipe: str) -> list[str]:
    """The names of the weights that a recipe loads: a file, a preset, or "default". Raises ConfigError."""
    from cleanplate.jobs.cli.flags import presets
    from cleanplate.pipeline.factory import check
    from cleanplate.pipeline.recipe.recipe import load

    return list(check.weights_of(load(None if recipe == "default" else presets().get(recipe, recipe))))


def _fetch(names: list[str]) -> int:
    if not names:
        raise ConfigError("name weights, or a recipe: cleanplate weights fetch --for default")
    for name in dict.fromkeys(names):
        path = fetch(name)
        print(f"{name}  {describe(name)[1]}  {path}")
    return 0


def _verify(names: list[str]) -> int:
    table = known()
    cached = [name for name, weights in sorted(table.items()) if cached_path(weights).is_file()]
    bad = 0
    for name in names or cached:
        try:
            path = resolve(name, download=False)
        except WeightsError as error:
            bad += 1
            print(f"{name}: BAD: {error}")
        else:
            print(f"{name}: ok  {path}")
    if not names and not cached:
        print(f"nothing is cached in {cache_folder()}")
    return 2 if bad else 0


def _add(args: argparse.Namespace) -> int:
    weights = add(
        args.name,
        args.source,
        kind=args.kind,
        model=args.model,
        licence=args.licence,
        sha256=args.sha256,
    )
    print(f"{weights.name}  {weights.sha256}  {cached_path(weights)}")
    return 0
