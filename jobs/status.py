"""cleanplate status DST: how far a run is, from its ledger alone; with --address, what the cluster does too."""

from __future__ import annotations

import argparse

from rich.console import Console


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "status",
        help="how far a run is, from its ledger alone",
        description=__doc__,
        epilog="Example: cleanplate status s3://bucket/clean --address http://head:8265",
    )
    parser.add_argument("output", metavar="DST", help="the output of a run")
    parser.add_argument(
        "--address", metavar="URL", help="a cluster's dashboard: adds nodes, GPUs, actors and queues"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 complete, 1 complete with failed or residual rows, 3 not complete."""
    from jobs.progress import summary
    from pipeline import ledger
    from pipeline import run as runs

    output, record = runs.open_finished(args.output)
    units = runs.planned(output)
    left = runs.missing(output, units)
    tally = ledger.tally(output)
    console = Console()
    console.print(f"source {record['source']}   started {record['started']}", highlight=False)
    console.print(f"recipe {record['recipe_digest'][:12]}   code {record['code_version']}", highlight=False)
    rows, rows_left = sum(u.rows for u in units), sum(u.rows for u in left)
    console.print(f"{len(units) - len(left):,} of {len(units):,} units committed", highlight=False)
    console.print(f"{rows - rows_left:,} of {rows:,} planned rows committed", highlight=False)
    console.print(summary(tally, output.url))
    if args.address:
        from jobs.cluster_status import tables
        from jobs.submit import connect

        console.print(*tables(connect(args.address)), sep="\n")
    if left or not units:
        return 3
    return 1 if tally.statuses.get("failed") or tally.statuses.get("residual") else 0
