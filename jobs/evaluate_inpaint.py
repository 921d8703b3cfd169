"""Fill holes of known content in photographs and compare with what was there, as the LaMa paper does."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("inpaint", help="fill known holes and compare", description=__doc__)
    parser.add_argument("photos", metavar="PHOTOS", help="a folder of photographs")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for tables and pictures")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from pipeline.errors import ConfigError

    raise ConfigError("evaluate inpaint is not built yet")
