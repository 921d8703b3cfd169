"""cleanplate verify DST [SRC]: read the ledger and every part again, and say what is wrong."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cleanplate.jobs.cli.console import wide

if TYPE_CHECKING:
    from cleanplate.pipeline.ledger.checks import Proof
    from cleanplate.pipeline.storage.connect import Store


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from cleanplate.pipeline.ledger.orphans import MIN_AGE_S

    parser = subparsers.add_parser(
        "verify",
        help="read an output again and prove it, against its source too",
        description=f"{__doc__} Exit code 0: nothing is wrong; 1: something is; 2: wrong use.",
        epilog="Example: cleanplate verify s3://bucket/clean s3://bucket/raw",
    )
    parser.add_argument("output", metavar="DST", help="the output of a run")
    parser.add_argument(
        "source",
        metavar="SRC",
        nargs="?",
        help="its source: also look for a row for every object that it lists. Without it, rows are compared with "
        "the source that run.json names, if that can still be listed",
    )
    parser.add_argument("--output-only", action="store_true", help="do not read the source again")
    parser.add_argument(
        "--sweep",
        action="store_true",
        help="remove what killed writers left behind, and the parts that `cleanplate compact` replaced; never a part "
        "that counts",
    )
    parser.add_argument(
        "--min-age",
        type=float,
        default=MIN_AGE_S,
        metavar="SECONDS",
        help=f"sweep what is at least so old (default {MIN_AGE_S:.0f}); 0 only when no run is going",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 nothing is wrong, 1 something is."""
    from cleanplate.pipeline.engine.run import open_finished
    from cleanplate.pipeline.errors import ConfigError
    from cleanplate.pipeline.ledger.proof import prove, readable
    from cleanplate.pipeline.storage.connect import open_store

    if args.output_only and args.source:
        raise ConfigError("--output-only does not go with SRC")
    if args.min_age < 0:
        raise ConfigError(f"--min-age {args.min_age:g}: must be 0 or more")
    output, record = open_finished(args.output)
    source = open_store(args.source) if args.source else None
    compare = not args.output_only and (source is not None or readable(open_store(record["source"])))
    found = prove(output, compare=compare, source=source, on_part=_progress())
    console = wide()
    console.print(_table(found, output.url))
    if not compare and not args.output_only:
        console.print(
            f"the source {record['source']} cannot be listed: not compared", soft_wrap=True, highlight=False
        )
    if args.sweep:
        # What was replaced is the only other copy: it stays while anything of the parts is wrong.
        keep = frozenset({"replaced"} if set(found.wrong) & _OF_PARTS else ())
        _sweep(output, args.min_age, keep, console)
    if {"readable", "sealed"} & set(found.wrong):
        console.print(
            "delete the parts that `readable` and `sealed` name, and run the same command again: it makes "
            "their rows anew",
            soft_wrap=True,
            highlight=False,
        )
    summary = f"wrong: {', '.join(found.wrong)}" if found.wrong else "nothing is wrong"
    console.print(f"{found.rows:,} rows; {summary}", soft_wrap=True, highlight=False)
    return 1 if found.wrong else 0


def _progress() -> Callable[[int, int], None]:
    def show(done: int, parts: int) -> None:
        if sys.stderr.isatty():
            print(
                f"\r{done:,} / {parts:,} parts",
                end="\n" if done == parts else "",
                file=sys.stderr,
                flush=True,
            )

    return show


def _table(found: Proof, title: str) -> Table:
    table = Table("check", "looked at", "wrong", "first examples", title=title, title_justify="left")
    table.columns[0].no_wrap = True
    for column in table.columns[1:3]:
        column.justify = "right"
    for name, check in found.checks.items():
        style = "red" if check.wrong else "" if check.looked else "dim"
        examples = Text("\n".join(check.examples), overflow="fold")
        looked = f"{check.looked:,}" if check.looked else "-"
        table.add_row(Text(name, style), looked, f"{check.wrong:,}", examples)
    return table


_OF_PARTS = {"planned", "readable", "sealed", "schema", "rows", "unique", "image there", "output hash"}


def _sweep(output: Store, min_age: float, keep: frozenset[str], console: Console) -> None:
    from cleanplate.pipeline.ledger.orphans import sweep

    done: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    for orphan, removed in sweep(output, min_age, keep):
        why = "something is wrong" if orphan.what in keep else f"only {orphan.age:.0f} s old"
        (done if removed else kept)[orphan.what] += 1
        if (done + kept)[orphan.what] <= _SHOWN:
            what = "removed" if removed else f"kept, {why}"
            console.print(
                f"{orphan.what} {orphan.key}: {what}", soft_wrap=True, highlight=False, markup=False
            )
    for what in sorted(done.keys() | kept.keys()):
        if done[what] + kept[what] > _SHOWN:
            console.print(f"{what}: {done[what]:,} removed, {kept[what]:,} kept in all", highlight=False)
    console.print(f"{done.total():,} orphans removed", highlight=False)


_SHOWN = 10
"""Orphans of a sort that are named; a compaction leaves thousands."""
