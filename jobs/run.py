"""cleanplate run SRC DST: clean every image of a source into committed Parquet parts; resumes by itself."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from pipeline.ledger import Tally
    from pipeline.review import Marks
    from pipeline.run import Run


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from jobs.flags import add_recipe_flags

    parser = subparsers.add_parser(
        "run",
        help="clean a source into an output; the same command resumes",
        description=__doc__,
        epilog="Examples: cleanplate run photos/ cleaned/     "
        "cleanplate run s3://bucket/raw s3://bucket/clean --remove faces --address auto     "
        "cleanplate run photos/ cleaned/ --review marks.json",
    )
    parser.add_argument("source", metavar="SRC", help="a folder or s3://BUCKET/PREFIX")
    parser.add_argument("output", metavar="DST", help="a folder or s3://BUCKET/PREFIX, outside SRC")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images of the listing")
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, list and count; write nothing"
    )
    parser.add_argument("--retry-failed", action="store_true", help="plan the failed rows once more")
    parser.add_argument(
        "--review", metavar="FILE", help="marks that the report exported: redo with larger masks, or restore"
    )
    parser.add_argument(
        "--new-run", action="store_true", help="give another recipe a folder of its own in DST"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--address", help='a Ray cluster: "auto" or host:port; default: Ray on this machine')
    where.add_argument(
        "--here", action="store_true", help="no Ray: one image after the other in this process"
    )
    add_recipe_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 complete, 1 complete with failed or residual rows. Raises what `jobs.__main__` turns into 2 and 3."""
    from jobs.flags import recipe_of
    from pipeline import run as runs

    marks, own = review_of(args) if args.review else (None, None)
    recipe = recipe_of(args, own)
    if args.limit is not None and args.limit < 1:
        from pipeline.errors import ConfigError

        raise ConfigError(f"--limit {args.limit}: must be 1 or more")
    if args.dry_run:
        from jobs.plan import describe

        return describe(args.source, args.output, recipe, args.limit)
    started = runs.start(args.source, args.output, recipe, new_run=args.new_run)
    return carry_out(
        started,
        limit=args.limit,
        retry_failed=args.retry_failed,
        marks=marks,
        address=args.address,
        here=args.here,
    )


def review_of(args: argparse.Namespace) -> tuple[Marks, dict[str, Any]]:
    """The marks of --review, checked against the run that they judge, and that run's recipe; says what they ask for."""
    from pipeline import review
    from pipeline import run as runs
    from pipeline.errors import ConfigError

    if args.new_run:
        raise ConfigError("--review goes on with the run that was looked at: leave out --new-run")
    marks = review.read(args.review)
    output, record = runs.open_finished(args.output)
    counts = review.asked(output, marks).counts
    told = ", ".join(f"{count:,} {word}" for word, count in counts.items())
    Console(stderr=True).print(f"review {args.review}: {told or 'no marks'}", highlight=False)
    return marks, record["recipe"]


def carry_out(
    run: Run,
    *,
    limit: int | None = None,
    retry_failed: bool = False,
    marks: Marks | None = None,
    address: str | None = None,
    here: bool = False,
) -> int:
    """Plan, do what is not committed, and print the closing table. Returns the exit code."""
    from contextlib import nullcontext

    from jobs.progress import Progress
    from pipeline import graph, ledger
    from pipeline import run as runs

    console = Console(stderr=True)
    console.print(f"source {run.source.url}   output {run.output.url}   run {run.run_id}", highlight=False)
    console.print(_loudly(run), highlight=False)
    units = runs.plan_new(run, limit=limit, retry_failed=retry_failed, marks=marks)
    todo = runs.missing(run.output, units)
    rows, left = sum(u.rows for u in units), sum(u.rows for u in todo)
    console.print(
        f"{rows:,} images in {len(units):,} units; {rows - left:,} committed before", highlight=False
    )
    runs.event(run, "started", rows=rows, todo=left)
    if todo:
        with (
            nullcontext("this process") if here else graph.connected(address) as where,
            Progress(rows, rows - left) as progress,
        ):
            console.print(f"on {where}", highlight=False)
            runs.execute(run, units, "here" if here else "ray", progress)
    tally = ledger.tally(run.output)
    runs.event(run, "complete", rows=tally.rows, statuses=tally.statuses, causes=tally.causes)
    return close(tally, run.output.url)


def _loudly(run: Run) -> str:
    """What fills the masks, said on screen: a classic filler smears, and nobody should be surprised by it."""
    from pipeline.recipe import CLASSIC_INPAINTERS

    name = run.recipe.inpaint.name
    classic = name in CLASSIC_INPAINTERS
    told = f"inpainter {name}" + (
        " (OpenCV, no neural network; --inpainter lama-lite for LaMa)" if classic else ""
    )
    return f"remove {', '.join(run.recipe.remove)}   masks {run.recipe.masks.segmenter}   {told}"


def close(tally: Tally, url: str) -> int:
    """Print the closing table; 1 when rows failed or residue was left, else 0."""
    from jobs.progress import summary

    Console().print(summary(tally, url))
    return 1 if tally.statuses.get("failed") or tally.statuses.get("residual") else 0
