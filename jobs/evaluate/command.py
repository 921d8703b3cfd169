"""cleanplate evaluate: how well inpainters fill, and how well detectors find, on photographs of yours."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

DEFAULT = "inpaint"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Enter `evaluate` and what it can evaluate; without a word it is `inpaint`."""
    from cleanplate.jobs.evaluate import detect, inpaint, masks, static_watermark, utility

    parser = subparsers.add_parser(
        "evaluate",
        help="measure inpainters and detectors on photographs",
        description=__doc__,
        epilog="Example: cleanplate evaluate inpaint photos/ evaluated/",
    )
    verbs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    for module in (inpaint, masks, detect, static_watermark, utility):
        module.add_parser(verbs)


def with_default(
    words: Sequence[str], known: Sequence[str] = ("inpaint", "masks", "consensus", "detect", "utility")
) -> list[str]:
    """`evaluate PHOTOS OUT` means `evaluate inpaint PHOTOS OUT`."""
    rest = list(words[1:])
    if list(words[:1]) != ["evaluate"] or rest[:1] in ([], ["-h"], ["--help"]) or rest[0] in known:
        return list(words)
    return ["evaluate", DEFAULT, *rest]
