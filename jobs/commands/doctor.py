"""cleanplate doctor [SRC [DST]]: what is installed, reachable and missing for a recipe, and how to get it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from cleanplate.jobs.cli.console import wide

if TYPE_CHECKING:
    from cleanplate.jobs.cli.doctor_checks import Check

_MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "bad": ("BAD", "bold red")}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from cleanplate.jobs.cli.flags import add_recipe_flags

    parser = subparsers.add_parser(
        "doctor",
        help="what is installed, reachable and missing, and how to get it",
        description=f"{__doc__} Fetches nothing. In DST it puts one small object and deletes it again. "
        "Exit code 0: a run can start; 1: something is missing.",
        epilog="Examples: cleanplate doctor "
        "cleanplate doctor --inpainter big-lama --segmenter sam "
        "cleanplate doctor s3://bucket/raw s3://bucket/clean --recipe recipe.yaml --address auto "
        "cleanplate doctor --json",
    )
    parser.add_argument("source", metavar="SRC", nargs="?", help="also: can it be listed")
    parser.add_argument("output", metavar="DST", nargs="?", help="also: can it be written, once only")
    parser.add_argument("--address", help='also: this Ray cluster ("auto" or host:port)')
    parser.add_argument("--json", action="store_true", help="the checks as one JSON document")
    add_recipe_flags(parser, ["picture", "engine"])
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when nothing keeps a run from starting, else 1."""
    from cleanplate.jobs.cli.doctor_checks import examine
    from cleanplate.jobs.cli.flags import recipe_of

    checks = list(examine(recipe_of(args), args.address, args.source, args.output))
    bad = [check for check in checks if check.state == "bad"]
    if args.json:
        print(json.dumps({"ready": not bad, "checks": [asdict(check) for check in checks]}, indent=1))
        return 1 if bad else 0
    console = wide()
    console.print(_table(checks))
    summary = f"{len(bad)} problem{'s' * (len(bad) != 1)}" if bad else "ready"
    console.print(summary, style="bold red" if bad else "bold green", highlight=False)
    return 1 if bad else 0


def _table(checks: list[Check]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("", "", "", "what is there"):
        table.add_column(name, overflow="fold")
    area = ""
    for check in checks:
        if area and check.area != area:
            table.add_row()
        text = Text(check.text)
        if check.hint:
            text.append(f"\n> {check.hint}", style="bold")
        table.add_row(
            Text(check.area if check.area != area else "", style="dim"),
            check.name,
            Text(*_MARKS[check.state]),
            text,
        )
        area = check.area
    return table
