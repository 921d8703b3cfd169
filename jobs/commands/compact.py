"""cleanplate compact DST: many small parts into few large ones; may be killed, and runs beside a run.

A unit is small because a kill or a slow image costs one. This copies the rows of committed units into parts of about
256 MB or 10,000 rows, and then says so in one conditional put. cleanplate's own readers follow at once; the small parts
stay until `cleanplate verify DST --sweep`.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from cleanplate.pipeline.storage.connect import Store


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from cleanplate.pipeline.engine.compaction import BYTES, ROWS

    parser = subparsers.add_parser(
        "compact",
        help="copy many small parts into few large ones; run it again to continue",
        description=__doc__,
        epilog="Examples: cleanplate compact cleaned/ cleanplate compact s3://bucket/clean --address auto",
    )
    parser.add_argument("output", metavar="DST", help="the output of a run")
    parser.add_argument(
        "--rows", type=int, default=ROWS, metavar="N", help=f"maximum rows of a large part (default {ROWS:,})"
    )
    parser.add_argument(
        "--mb",
        type=float,
        default=BYTES / 2**20,
        metavar="MB",
        help=f"maximum size of a large part in MiB (default {BYTES >> 20})",
    )
    parser.add_argument("--address", help='a Ray cluster: "auto" or host:port; default: this process')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when no two small parts are left that fit together."""
    from cleanplate.pipeline.engine import ray_cluster
    from cleanplate.pipeline.engine.compaction import compact
    from cleanplate.pipeline.engine.job import spread_here
    from cleanplate.pipeline.engine.run import open_finished
    from cleanplate.pipeline.errors import ConfigError
    from cleanplate.pipeline.ledger import dataset_card, ledger

    if args.rows < 1 or not args.mb > 0:
        raise ConfigError("--rows must be 1 or more, and --mb above 0")
    output, _ = open_finished(args.output)
    before = len(ledger.part_keys(output))
    with ray_cluster.connected(args.address) if args.address else nullcontext():
        spread = ray_cluster.spread_on_ray if args.address else spread_here
        units = rows = 0
        for part in compact(output, spread, rows=args.rows, size=int(args.mb * 2**20)):
            units, rows = units + part.units, rows + part.rows
            if sys.stderr.isatty():
                print(f"\r{units:,} of {before:,} parts copied", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty() and units:
        print(file=sys.stderr)
    if units:
        dataset_card.write(output)
    _say(output, before, rows)
    return 0


def _say(output: Store, before: int, rows: int) -> None:
    from cleanplate.pipeline.ledger import ledger

    console = Console(soft_wrap=True, highlight=False, markup=False)
    after = len(ledger.part_keys(output))
    if not rows:
        console.print(f"{before:,} parts: no two of them fit together, nothing to do")
        return
    console.print(
        f"merged {before:,} parts into {after:,} ({rows:,} rows copied); README.md there says how to read them"
    )
    console.print(f"delete the old parts, after 10 minutes, with: cleanplate verify {output.url} --sweep")
