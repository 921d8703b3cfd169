"""cleanplate clean IN... OUT: clean a picture, or a few, into files. For many use `run`, which resumes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cleanplate.pipeline.recipe.recipe import Recipe

FORMATS = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp"}
"""What a picture may be written as, beside its own format."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from cleanplate.jobs.cli.flags import add_recipe_flags

    parser = subparsers.add_parser(
        "clean",
        help="clean a picture, or a few, into files",
        description=f"{__doc__} Exit code: 0, or 1 where a picture failed or something was left in it.",
        epilog="Examples: cleanplate clean photo.jpg clean.jpg "
        "cleanplate clean photo.jpg holiday.heic out/ --remove faces,plates "
        "cleanplate clean album/ out/",
    )
    parser.add_argument("inputs", metavar="IN", nargs="+", help="pictures, or folders of them")
    parser.add_argument("out", metavar="OUT", help="a file for one picture, else a folder")
    add_recipe_flags(parser, ["picture", "file"])
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0, or 1 where a picture failed, was skipped or has something left. Raises ConfigError before any work."""
    from cleanplate.jobs.cli.flags import recipe_of
    from cleanplate.pipeline.factory import check
    from cleanplate.pipeline.storage.connect import Object, open_store
    from cleanplate.pipeline.ui.row_pictures import one_by_one

    recipe = recipe_of(args)
    pairs = list(_pairs([Path(name) for name in args.inputs], args.out, recipe))
    recipe = _as_named(recipe, pairs)
    weights = check.check(recipe)
    listed = []
    for source, _ in pairs:
        store = open_store(str(source.parent))
        listed.append((store.uri(source.name), Object(source.name, store.stat(source.name).size, "")))
    bad = 0
    for (source, target), table in zip(pairs, one_by_one(listed, recipe, weights), strict=True):
        bad += not _written(source, target, table.to_pylist()[0])
    return 1 if bad else 0


def _pairs(inputs: list[Path], out: str, recipe: Recipe) -> Iterator[tuple[Path, Path]]:
    """(picture, its output). Raises ConfigError for what is not there and for outputs that would meet."""
    from cleanplate.pipeline.errors import ConfigError

    single = len(inputs) == 1 and not inputs[0].is_dir() and not (out.endswith("/") or Path(out).is_dir())
    taken: dict[Path, Path] = {}
    for source, below in _pictures(inputs, recipe):
        target = Path(out) if single else Path(out) / below
        if target.resolve() == source.resolve():
            raise ConfigError(f"{source}: the output would replace its own source; give another OUT")
        if target in taken:
            raise ConfigError(f"{source} and {taken[target]} would both be written to {target}")
        taken[target] = source
        yield source, target
    if not taken:
        raise ConfigError(f"no pictures in {', '.join(map(str, inputs))}")


def _pictures(inputs: list[Path], recipe: Recipe) -> Iterator[tuple[Path, Path]]:
    """(picture, its name below OUT)."""
    from cleanplate.pipeline.errors import ConfigError
    from cleanplate.pipeline.ledger import plan
    from cleanplate.pipeline.storage.connect import open_store

    for given in inputs:
        if given.is_dir():
            for row in plan.listed(open_store(str(given)), recipe, None):
                yield given / row.object.key, Path(row.object.key)
        elif given.is_file():
            yield given, Path(given.name)
        else:
            raise ConfigError(f"{given}: there is no such file or folder")


def _as_named(recipe: Recipe, pairs: list[tuple[Path, Path]]) -> Recipe:
    """The recipe with the format that OUT's name asks for. Raises ConfigError for one that is not written."""
    from cleanplate.pipeline.errors import ConfigError

    (source, target), *more = pairs
    asked, own = target.suffix.lower(), source.suffix.lower()
    if more or asked == own or FORMATS.get(asked, asked) == FORMATS.get(own, own):
        return recipe
    if asked not in FORMATS:
        raise ConfigError(f"{target}: write {', '.join(FORMATS)}, or the suffix of the picture itself")
    output = recipe.output.model_copy(update={"format": FORMATS[asked]})
    return recipe.model_copy(update={"output": output})


def _written(source: Path, target: Path, row: dict[str, Any]) -> bool:
    """Write a row's picture and say what was done; False where a person should look."""
    console = Console(stderr=True)
    error, data = row["error"], (row["image"] or {}).get("bytes")
    if row["status"] in ("failed", "skipped") or data is None:
        why = f"{error['kind']}: {error['message']}" if error else "no picture"
        console.print(
            f"{source}: {row['status']}, nothing written ({why})",
            style="red",
            highlight=False,
            soft_wrap=True,
        )
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    found = ", ".join(_counted(row["regions"] or [])) or "nothing found"
    left = ", ".join(_counted(row["residual"] or []))
    text = f"{source} -> {target}: {row['status']} ({found}{f'; still there: {left}' if left else ''})"
    console.print(text, highlight=False, soft_wrap=True, markup=False)
    return not left


def _counted(regions: list[dict[str, Any]]) -> list[str]:
    from collections import Counter

    return [f"{count} {kind}" for kind, count in Counter(region["kind"] for region in regions).items()]
