"""cleanplate status DST: progress of a run, read from its output; with --address, of the cluster's work too."""

from __future__ import annotations

import argparse
import json

from rich.console import Console


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "status",
        help="progress of a run, read from its output",
        description=f"{__doc__} Exit code 0 complete, 1 with failed or residual rows, 3 not complete.",
        epilog="Examples: cleanplate status cleaned/ cleanplate status s3://bucket/clean --json "
        "cleanplate status s3://bucket/clean --address http://head:8265",
    )
    parser.add_argument("output", metavar="DST", help="the output of a run")
    parser.add_argument("--json", action="store_true", help="as one JSON document: docs/pages.md")
    parser.add_argument(
        "--address", metavar="URL", help="a cluster's dashboard: adds nodes, GPUs, actors and queues"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 complete, 1 complete with failed or residual rows, 3 not complete."""
    from cleanplate.jobs.cli.summary import summary
    from cleanplate.pipeline.engine import run as runs
    from cleanplate.pipeline.errors import ConfigError
    from cleanplate.pipeline.ledger import ledger
    from cleanplate.pipeline.recipe.sections import Inpaint

    try:
        output, record = runs.open_finished(args.output)
    except ConfigError as error:
        if not args.address:
            raise
        # A job that waits for its nodes has written nothing yet: just then one wants to see the cluster.
        Console(stderr=True).print(f"{error}; the cluster:", highlight=False, soft_wrap=True, markup=False)
        _show_cluster(Console(), args.address)
        return 3
    units = runs.planned(output)
    left = runs.missing(output, units)
    tally = ledger.tally(output)
    rows, rows_left = sum(u.rows for u in units), sum(u.rows for u in left)
    failing = tally.statuses.get("failed") or tally.statuses.get("residual")
    code = 3 if left or not units else 1 if failing else 0
    if args.json:
        fields = {
            name: record[name] for name in ("source", "started", "recipe_digest", "code_version", "run_id")
        }
        fields |= {"event": "status", "output": output.url, "units": len(units), "units_left": len(left)}
        fields |= {"images": rows, "images_left": rows_left, "exit_code": code}
        print(json.dumps(fields | {"rows": tally.rows, "statuses": tally.statuses, "causes": tally.causes}))
        return code
    console = Console()
    lines = (
        f"source {record['source']}   started {record['started']}",
        f"recipe {record['recipe_digest'][:12]}   code {record['code_version']}",
        f"{len(units) - len(left):,} of {len(units):,} units committed; parts: {len(ledger.part_keys(output)):,}",
        f"{rows - rows_left:,} of {rows:,} planned rows committed",
    )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    rule = Inpaint.model_validate(record["recipe"]["inpaint"])
    console.print(summary(tally, output.url, rule.hiders(record["recipe"]["remove"])))
    if args.address:
        _show_cluster(console, args.address)
    return code


def _show_cluster(console: Console, address: str) -> None:
    from cleanplate.jobs.cluster.client import connect
    from cleanplate.jobs.cluster.status import tables

    console.print(*tables(connect(address)), sep="\n")
