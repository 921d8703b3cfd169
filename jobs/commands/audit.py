"""cleanplate audit SRC: what is in a set of images, without changing any: faces, plates, GPS positions, ...

With --against: what another tool's output still holds of its source, and what it changed or lost besides."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from cleanplate.jobs.cli.console import wide

if TYPE_CHECKING:
    from cleanplate.pipeline.engine.audit.compare import Comparison
    from cleanplate.pipeline.engine.audit.conditions import Condition
    from cleanplate.pipeline.engine.audit.summary import Summary
    from cleanplate.pipeline.engine.job import Spread
    from cleanplate.pipeline.recipe.recipe import Recipe

EVERY = 10.0
"""Seconds between plain lines where no terminal is."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from cleanplate.jobs.cli.flags import add_recipe_flags, literals

    parser = subparsers.add_parser(
        "audit",
        help="what is in a source, or left in another tool's output",
        description=f"{' '.join(__doc__.split())} Exit code 0: looked at all; 1: a condition of --fail-on holds, or an "
        "image could not be read; 2: wrong use.",
        epilog="Examples: cleanplate audit photos/ "
        'cleanplate audit s3://bucket/set --fail-on "face>0,gps>0" '
        "cleanplate audit blurred/ --against photos/ -o audit-of-blurred",
    )
    add = parser.add_argument
    add("source", metavar="SRC", help="a folder or s3://BUCKET/PREFIX; with --against the output of a tool")
    add("--against", metavar="SRC", help="the source that SRC was made from; images are paired by name")
    add(
        "-o",
        "--out",
        default="audit",
        metavar="FOLDER",
        help="for audit.json, audit.html, findings.jsonl (default: audit, here)",
    )
    add(
        "--fail-on",
        default="",
        metavar="CONDITIONS",
        help="exit code 1 where one holds: NAME>NUMBER of images, or NUMBER%%, by commas. Names: what is looked "
        "for, gps, serial, owner, thumbnail, failed; with --against also still, appeared, changed, resized, "
        "missing, extra, lost",
    )
    add(
        "--address",
        metavar="ADDRESS",
        help='look on Ray: "local" for all cores of this machine, or a cluster, "auto" or host:port (default: in this '
        "process)",
    )
    add("--limit", type=int, metavar="N", help="only the first N images of the listing")
    add("--json", action="store_true", help="audit.json on stdout instead of tables")
    add("--remove", metavar="KINDS", help="what to look for (default: face,plate,person,code,text)")
    add("--text-only", metavar="WORDS", help="of text only (default: email,phone,iban,card)")
    add("--source-format", choices=literals("source.format"), help="what the source holds (default: auto)")
    add(
        "--from-list",
        action="store_true",
        help="SRC is a list of addresses: https://..., s3://..., keys; .txt, .csv, .tsv or .parquet (docs/formats.md)",
    )
    add("--per-host", type=float, metavar="N", help="of a list: requests a second to one host (default: 5)")
    add("--rate", type=float, metavar="N", help="of a list: requests a second to all hosts")
    add("--image-column", metavar="NAME", help="of Parquet and Arrow sources; of a list: the addresses")
    for flag, what in (("--include", "only what matches"), ("--exclude", "not what matches")):
        add(
            flag, action="append", metavar="GLOB", help=f"{what}, of names below SRC; may stand several times"
        )
    add_recipe_flags(parser, [])
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 all looked at and no condition holds, else 1. Raises ConfigError before any work."""
    from cleanplate.jobs.cli.flags import recipe_of
    from cleanplate.pipeline.engine.audit import run as audits
    from cleanplate.pipeline.errors import ConfigError
    from cleanplate.pipeline.factory import check
    from cleanplate.pipeline.ledger.plan import check_apart
    from cleanplate.pipeline.storage.connect import open_store

    recipe = recipe_of(args, {"remove": list(audits.KINDS), "text.only": list(audits.PERSONAL)})
    conditions = _conditions(args, recipe)
    if args.against and args.from_list:
        raise ConfigError("--against compares two places, not lists: leave out --from-list")
    if args.limit is not None and (args.limit < 1 or args.against):
        raise ConfigError("--limit must be 1 or more, and does not go with --against")
    store = open_store(args.source)
    before = open_store(args.against) if args.against else None
    out = open_store(str(Path(args.out)))
    for place in filter(None, (store, before)):
        check_apart(place, out)
        place.reach()
    if before is not None:
        audits.check_foreign(store)
    _say(f"audit of {store.url}: listing ...")
    listed = audits.listed(store, recipe, args.limit)
    source = audits.listed(before, recipe) if before is not None else None
    _say(f"{len(listed.images):,} images; loading detectors of {', '.join(recipe.remove)} ...")
    weights = check.check(recipe)
    try:
        with _written(Path(args.out) / "findings.jsonl") as line, _engine(args.address) as spread:
            if source is None:
                summary, comparison = audits.audit(listed, recipe, spread, _progress(), line), None
            else:
                summary, comparison = audits.audit_against(listed, source, recipe, spread, _progress(), line)
    except KeyboardInterrupt:
        _say(f"stopped. The same command begins anew; {args.out}/findings.jsonl holds what was seen so far")
        return 3
    body = _body(store.url, before.url if before else "", recipe, weights, summary, comparison, conditions)
    _report(body, Path(args.out), args.json)
    return 1 if summary.failed or any(one["holds"] for one in body["fail_on"]) else 0


def _conditions(args: argparse.Namespace, recipe: Recipe) -> list[Condition]:
    from cleanplate.pipeline.engine.audit import compare, conditions
    from cleanplate.pipeline.images import exposure
    from cleanplate.pipeline.recipe.recipe import KINDS

    if not args.fail_on.strip():
        return []
    words = [*recipe.remove, *exposure.WORDS, "failed", *(compare.WORDS if args.against else ())]
    return conditions.parsed(args.fail_on, words, set(KINDS) - set(recipe.remove))


def _body(
    source: str,
    against: str,
    recipe: Recipe,
    weights: dict[str, str],
    summary: Summary,
    comparison: Comparison | None,
    conditions: list[Condition],
) -> dict[str, Any]:
    """audit.json."""
    from cleanplate.pipeline.recipe import provenance

    counts = summary.counts() | (comparison.all_counts() if comparison else {})
    body: dict[str, Any] = {
        "source": source,
        "time": provenance.now(),
        "version": f"cleanplate {provenance.code_version()}",
        "remove": list(recipe.remove),
        "text_only": list(recipe.text.only),
        "weights": weights,
        **summary.as_json(),
        "fail_on": [
            {"condition": one.text, "images": counts[one.word], "holds": one.holds(counts)}
            for one in conditions
        ],
    }
    return body | ({"against": {"source": against, **comparison.as_json()}} if comparison else {})


@contextmanager
def _engine(address: str | None) -> Iterator[Spread]:
    """What takes images to the detectors: this process, or a Ray."""
    from cleanplate.pipeline.engine import ray_cluster
    from cleanplate.pipeline.engine.job import spread_here

    if address is None:
        yield spread_here
        return
    _say("starting Ray ..." if address == "local" else "connecting to Ray ...")
    with ray_cluster.connected(None if address == "local" else address) as where:
        _say(f"on {where}")
        yield ray_cluster.spread_on_ray


@contextmanager
def _written(path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What writes a line of a file of JSON lines. Raises ConfigError where it cannot be written."""
    from cleanplate.pipeline.errors import ConfigError

    file: IO[str]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w", encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise ConfigError(
            f"cannot write below {path.parent}: {error.strerror}; name another folder with -o"
        ) from error
    with file:
        yield lambda one: print(json.dumps(one), file=file)


def _report(body: dict[str, Any], out: Path, machine: bool) -> None:
    """The files, and what is printed."""
    from cleanplate.pipeline.ui.audit_page import counted, page

    text = json.dumps(body, indent=1)
    (out / "audit.json").write_text(text + "\n", encoding="utf-8")
    (out / "audit.html").write_text(page(body), encoding="utf-8", errors="replace")
    if machine:
        print(text)
        return
    console = wide()
    for table in _tables(body):
        console.print(table)
    for cause, count in body["causes"].items():
        console.print(f"could not be read: {count:,} {cause}", highlight=False, markup=False)
    for one in body["fail_on"]:
        says = "holds" if one["holds"] else "does not hold"
        line = f"{one['condition']}: {counted(one['images'])}, {says}"
        console.print(line, highlight=False, markup=False)
    console.print(f"{out}/audit.html, audit.json, findings.jsonl", highlight=False, markup=False)


def _tables(body: dict[str, Any]) -> Iterator[Table]:
    from cleanplate.pipeline.ui import audit_page

    exposed = Table(
        "images with", "images", "share", title=f"{body['images']:,} images", title_justify="left"
    )
    for name, count in audit_page.exposure_rows(body):
        exposed.add_row(name, f"{count:,}", f"{count / max(1, body['images']):.1%}")
    kinds = Table(
        "kind", "found", "images", "shorter side, px", "score", title="findings", title_justify="left"
    )
    for kind in body["kinds"]:
        kinds.add_row(*audit_page.kind_row(kind)[:5])
    tables = [exposed, kinds]
    if against := body.get("against"):
        compared = Table("against the source", "images", "of which", title_justify="left")
        compared.title = audit_page.against_title(against)
        for what, count, which in audit_page.against_rows(against):
            compared.add_row(what, f"{count:,}", which)
        tables.append(compared)
    for table in tables:
        for column in table.columns[1:3]:
            column.justify = "right" if column.header != "of which" else "left"
    yield from tables


def _say(line: str) -> None:
    Console(stderr=True).print(line, highlight=False, soft_wrap=True, markup=False)


def _progress() -> Callable[[int, int], None]:
    """A line that overwrites itself in a terminal; elsewhere one every 10 seconds."""
    start = time.monotonic()
    last = [start]

    def tell(done: int, total: int) -> None:
        now = time.monotonic()
        rate = done / max(1e-6, now - start)
        line = f"{done:,} / {total:,} images, {rate:.1f} a second, {(total - done) / rate / 60:.1f} min to go"
        if sys.stderr.isatty():
            print(f"\r{line} ", end="" if done < total else "\n", file=sys.stderr, flush=True)
        elif now - last[0] >= EVERY or done == total:
            last[0] = now
            print(line, file=sys.stderr, flush=True)

    return tell
