"""cleanplate plan SRC DST: check a recipe, list the source, and say what a run would do. Writes nothing."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from cleanplate.pipeline.recipe.recipe import Recipe


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from cleanplate.jobs.cli.flags import add_recipe_flags

    parser = subparsers.add_parser(
        "plan",
        help="check the recipe and count the source; write nothing",
        description=__doc__,
        epilog="Examples: cleanplate plan photos/ cleaned/ --remove faces "
        "cleanplate plan --schema > recipe.schema.json   # for editors",
    )
    parser.add_argument(
        "source",
        metavar="SRC",
        nargs="?",
        help="a folder, s3://, gs://, az:// or hf://datasets/..., or a list",
    )
    parser.add_argument("output", metavar="DST", nargs="?", help="where a run would write")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images of the listing")
    parser.add_argument(
        "--full", action="store_true", help="print every key of the recipe, not only what differs"
    )
    parser.add_argument(
        "--allow-empty",
        action="store_true",
        help="a source without images is no error (default: exit code 2)",
    )
    parser.add_argument("--schema", action="store_true", help="print the recipe's JSON schema, for editors")
    add_recipe_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from cleanplate.jobs.cli.flags import recipe_of
    from cleanplate.pipeline.errors import ConfigError
    from cleanplate.pipeline.recipe.recipe import Recipe

    if args.schema:
        print(json.dumps(Recipe.model_json_schema(), indent=1))
        return 0
    if not args.source or not args.output:
        raise ConfigError("plan needs SRC and DST (or --schema)")
    return describe(
        args.source, args.output, recipe_of(args), args.limit, full=args.full, allow_empty=args.allow_empty
    )


def describe(
    source: str,
    output: str,
    recipe: Recipe,
    limit: int | None,
    *,
    full: bool = False,
    allow_empty: bool = False,
) -> int:
    """Print what differs from the default recipe (full: every key), the weights, and what is in the source and in the
    output."""
    from cleanplate.jobs.commands.run import beside
    from cleanplate.pipeline.errors import ConfigError
    from cleanplate.pipeline.factory import check
    from cleanplate.pipeline.ledger import ledger, plan
    from cleanplate.pipeline.recipe import recipe as recipes
    from cleanplate.pipeline.storage import columns
    from cleanplate.pipeline.storage.connect import open_store
    from cleanplate.pipeline.storage.containers import Listing

    from_store, to_store = open_store(source), open_store(output)
    plan.check_apart(from_store, to_store)
    for store in (from_store, to_store):
        store.reach()
    weights = check.check(recipe)
    carried = plan.carried(from_store, recipe)
    count = size = 0
    listing = Listing()
    for row in plan.listed(
        from_store, plan.with_carried(recipe, columns.packed(carried.schema)), limit, listing
    ):
        count, size = count + 1, size + row.object.size
    if not count and not allow_empty:
        raise ConfigError(plan.none_under(from_store, listing))
    committed = ledger.tally(to_store).rows
    console = Console()
    body = recipes.dump(recipe) if full else recipes.changed(recipe)
    console.print(body.rstrip(), highlight=False, markup=False)
    if full:
        for name, sha256 in weights.items():
            console.print(f"weights {name}  sha256 {sha256}", highlight=False, soft_wrap=True)
    elif weights:
        console.print(f"weights {', '.join(weights)}", highlight=False, soft_wrap=True)
    console.print(f"digest {recipe.digest(weights)}", highlight=False, soft_wrap=True)
    console.print(
        f"{count:,} images, {size / 2**20:,.1f} MiB in {from_store.url}; "
        f"{committed:,} rows committed in {to_store.url}",
        highlight=False,
        soft_wrap=True,
    )
    if carried.cleaned:
        console.print(f"pictures in: {', '.join(carried.cleaned)}", highlight=False, markup=False)
    if len(carried.schema):
        console.print(
            f"columns that go into the rows: {', '.join(carried.schema.names)}", highlight=False, markup=False
        )
    if carried.held_back:
        console.print(
            f"columns that may hold pictures, left out: {', '.join(carried.held_back)} (--columns names what is "
            "carried as it is; --image-column those that are cleaned, each a row; all = every Image)",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
    if listing.left_out:
        console.print(beside(listing.left_out), highlight=False)
    return 0
