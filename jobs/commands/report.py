"""cleanplate report DST: one HTML file that shows what a run did: counts, causes, and pictures to judge."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "report",
        help="one HTML page of what a run did, with pictures to judge",
        description=__doc__,
        epilog="Example: cleanplate report cleaned/ -o report.html --sample 200",
    )
    parser.add_argument("output", metavar="DST", help="the output of a run")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("report.html"), help="default: report.html, here"
    )
    parser.add_argument(
        "--sample", type=int, default=60, metavar="N", help="images shown with pictures, riskiest first (60)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="which random images are shown (0)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when the page was written, 3 when it lacks damaged parts. Raises ConfigError for an output without a run."""
    from cleanplate.pipeline.engine import run as runs
    from cleanplate.pipeline.errors import ConfigError
    from cleanplate.pipeline.ui import report

    if args.sample < 0:
        raise ConfigError(f"--sample {args.sample}: must be 0 or more")
    output, record = runs.open_finished(args.output)
    damaged: list[str] = []
    page = report.page(output, record, sample=args.sample, seed=args.seed, on_damage=damaged.append)
    note = "" if args.out.parent.exists() else f"; made the folder {args.out.parent}"
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {args.out}: {error.strerror}; name another file with -o") from error
    Console().print(
        f"report: {args.out} ({len(page) / 1e6:.1f} MB); open it in a browser{note}", highlight=False
    )
    for damage in damaged:
        Console(stderr=True).print(
            f"not in the report: {damage}", highlight=False, soft_wrap=True, markup=False
        )
    return 3 if damaged else 0
