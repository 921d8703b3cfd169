"""cleanplate export DST: what a run found and masked, as COCO, YOLO, CSV or Label Studio."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from cleanplate.pipeline.labels.export import FORMATS

    parser = subparsers.add_parser(
        "export",
        help="found regions as COCO, YOLO, CSV or Label Studio",
        description=__doc__,
        epilog="Examples: cleanplate export cleaned/ --format coco -o regions/ "
        "cleanplate export s3://bucket/clean --format yolo -o labels/",
    )
    parser.add_argument("output", metavar="DST", help="the output of a run")
    parser.add_argument("--format", choices=sorted(FORMATS), default="coco", help="default: coco")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("regions"), metavar="FOLDER", help="default: regions, here"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when all was written. Raises ConfigError for an output without a run."""
    from cleanplate.pipeline.engine.run import open_finished
    from cleanplate.pipeline.errors import ConfigError, StorageError
    from cleanplate.pipeline.labels.export import FORMATS, rows_of
    from cleanplate.pipeline.storage.connect import LocalStore, open_store

    output, record = open_finished(args.output)
    root = open_store(record["source"]).uri("").rstrip("/") + "/"
    files, place = 0, LocalStore(args.out)
    try:
        for name, data in FORMATS[args.format](rows_of(output, root)):
            place.put(name, data)
            files += 1
    except StorageError as error:
        raise ConfigError(f"cannot write below {args.out}: {error}; name another folder with -o") from error
    Console().print(f"{files:,} file{'s' * (files != 1)} in {args.out}", highlight=False, markup=False)
    return 0
