"""Planning, resuming and counting at scale, over a listing that is made up: time and the driver's peak memory.

    python -m cleanplate.jobs.benchmark.planning [--images 1000000] [--folder DIR]

Each step runs in a process of its own, as a driver does, and tells its peak resident memory:

    plan     list the source and cut it into units
    resume   list again, find the few new images, list what is committed
    status   count the committed rows by status and cause (a copy of one made-up part for each unit)

No image is read and nothing is cleaned; the source's own listing time comes on top (S3: 1,000 keys a page).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

STEPS = ("plan", "resume", "status")
_NEW = 1000
"""Images that the source has more of when the run is resumed."""


class Listing:
    """A source of `count` objects that exist in the listing only. Sizes are skewed: most of 20 to 200 KB, one in
    a thousand of 20 MB."""

    url = "s3://made-up"

    def __init__(self, count: int) -> None:
        self.count = count

    def uri(self, key: str) -> str:
        return f"{self.url}/{key}"

    def list(self, prefix: str = "") -> Iterator[Any]:
        from cleanplate.pipeline.storage.connect import Object

        for n in range(self.count):
            size = 20_000_000 if n % 1000 == 0 else 20_000 + n * 7919 % 180_000
            yield Object(f"photos/{n // 10_000:05}/IMG_{n:09}.jpg", size, f"{n * 2654435761 % 2**128:032x}")


def run(images: int, folder: Path) -> list[dict[str, Any]]:
    """Every step, each in a process of its own: what `step` returned, and "peak_mb"."""
    rows = []
    for name in STEPS:
        command = [
            sys.executable,
            "-m",
            "cleanplate.jobs.benchmark.planning",
            "--images",
            str(images),
            "--folder",
            str(folder),
        ]
        done = subprocess.run([*command, "--step", name], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    return rows


def step(name: str, images: int, folder: Path) -> dict[str, Any]:
    """One step in this process."""
    from cleanplate.pipeline.storage.connect import LocalStore

    output = LocalStore(folder / "out")
    before = resource.getrusage(resource.RUSAGE_SELF)
    begun = time.monotonic()
    found = {"plan": _plan, "resume": _resume, "status": _status}[name](output, images)
    seconds = time.monotonic() - begun
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if name == "resume":
        _commit_all(output, folder)
    return {
        "step": name,
        "images": images,
        "seconds": seconds,
        "cpu_s": cpu,
        "peak_mb": after.ru_maxrss / 1024,
        **found,
    }


def _plan(output: Any, images: int) -> dict[str, Any]:
    from cleanplate.pipeline.ledger import cut, plan
    from cleanplate.pipeline.recipe.recipe import Recipe

    source: Any = Listing(images)
    units = cut.cut(output, 0, plan.listed(source, Recipe()), Recipe(), "made-up")
    return {"units": len(units)}


def _resume(output: Any, images: int) -> dict[str, Any]:
    from cleanplate.pipeline.engine import run
    from cleanplate.pipeline.ledger import cut, ledger, plan
    from cleanplate.pipeline.recipe.recipe import Recipe

    source: Any = Listing(images + _NEW)
    new = cut.cut(output, 1, ledger.unseen(output, plan.listed(source, Recipe())), Recipe(), "made-up")
    units = run.planned(output)
    return {
        "units": len(units),
        "new": sum(unit.rows for unit in new),
        "missing": len(run.missing(output, units)),
    }


def _status(output: Any, images: int) -> dict[str, Any]:
    from cleanplate.pipeline.ledger import ledger

    return {"rows": ledger.tally(output).rows}


def _commit_all(output: Any, folder: Path) -> None:
    """A part for each unit: hard links to one, of as many rows as the largest unit has, without pictures."""
    import pyarrow as pa

    from cleanplate.pipeline import schema
    from cleanplate.pipeline.engine import run
    from cleanplate.pipeline.ledger import part_file

    units = run.planned(output)
    rows = max(unit.rows for unit in units)
    values: dict[str, list[Any]] = {field.name: [None] * rows for field in schema.part_schema()}
    values["image_id"] = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(rows)]
    values["source_uri"] = [f"s3://made-up/photos/{n:09}.jpg" for n in range(rows)]
    values["status"] = [("unchanged", "cleaned", "cleaned", "failed")[n % 4] for n in range(rows)]
    values["attempt"] = [1] * rows
    values["image"] = [{"bytes": os.urandom(2000), "path": "x.jpg"} for _ in range(rows)]
    values["error"] = [
        {"stage": "read", "kind": "corrupt", "message": "cut off"} if n % 4 == 3 else None
        for n in range(rows)
    ]
    part = folder / "part.parquet"
    part.write_bytes(part_file.part_bytes(pa.table(values, schema=schema.part_schema())))
    (folder / "out" / "parts").mkdir(exist_ok=True)
    for unit in units:
        # A file has at most 65,000 names on common file systems.
        os.link(part, folder / "out" / "parts" / f"{unit.name}.parquet")


def table(rows: list[dict[str, Any]]) -> Table:
    table = Table("step", "images", "units", "wall", "CPU", "peak memory")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(
            row["step"],
            f"{row['images']:,}",
            f"{row['units']:,}" if "units" in row else "",
            f"{row['seconds']:.1f} s",
            f"{row['cpu_s']:.1f} s",
            f"{row['peak_mb']:,.0f} MB",
        )
    return table


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m cleanplate.jobs.benchmark.planning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="for the made-up output (default: a temporary one)")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.step:
        print(json.dumps(step(args.step, args.images, args.folder)))
        return 0
    with tempfile.TemporaryDirectory(prefix="cleanplate-benchmark-", dir=args.folder) as folder:
        rows = run(args.images, Path(folder))
    Console(width=100).print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
