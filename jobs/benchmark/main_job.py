"""The default job as its users run it, photograph by photograph: CPU seconds of each stage."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from cleanplate.jobs.benchmark.rivals import Rival
from cleanplate.models.devices import limit_threads
from cleanplate.pipeline import schema
from cleanplate.pipeline.engine.job import stages_of
from cleanplate.pipeline.recipe.recipe import load
from cleanplate.pipeline.stages.stage import Stage, Work, Worker

KINDS: dict[str, dict[str, Any]] = {
    "text, face": {},
    "face": {"remove": ["face"]},
    "text": {"remove": ["text"]},
    "text, face, thorough": {"thorough": True},
}
"""Recipes that are measured, the default one first."""
SIZES = (0.35, 1.0, 4.0)
"""Upper ends of the classes of size, megapixels."""


class Metered(Worker):
    """A worker that adds up the CPU seconds of each stage."""

    def __init__(self, stages: tuple[Stage, ...]) -> None:
        super().__init__(stages)
        self.cpu_s: defaultdict[str, float] = defaultdict(float)

    def _step(self, stage: Stage, work: Work, table: pa.Table) -> pa.Table:
        start = time.process_time()
        try:
            return super()._step(stage, work, table)
        finally:
            self.cpu_s[stage.name] += time.process_time() - start


def main_job(
    files: Mapping[str, bytes],
    seconds: float,
    kinds: Mapping[str, Any] = KINDS,
    others: Mapping[str, Rival] | None = None,
) -> dict[str, Any]:
    """A row for each recipe and photograph, one thread: megapixels, status, CPU seconds of each stage.

    Recipes and other programs take turns at each photograph, as long as there is time: at least one photograph.
    files: name -> JPEG.
    """
    end = time.perf_counter() + seconds
    limit_threads(1)
    workers = {
        name: Metered(stages_of(load(None, dict(settings)), last=True)) for name, settings in kinds.items()
    }
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, data) in enumerate(files.items()):
            if rows and time.perf_counter() > end:
                break
            path = Path(folder, name)
            path.write_bytes(data)
            calls: dict[str, Callable[[], dict[str, Any]]] = {
                k: partial(_ours, w, path) for k, w in workers.items()
            }
            calls |= {name: partial(_theirs, rival, data) for name, rival in (others or {}).items()}
            turns = list(calls.items())
            own = []
            for kind, call in turns if number % 2 else turns[::-1]:
                if not number:
                    call()  # The models' first pass is warmer than no other.
                own.append({"recipe": kind} | call())
            megapixels = max(row["megapixels"] for row in own)
            rows += [row | {"megapixels": megapixels} for row in own]
    return {"rows": rows, "summary": summary(rows)}


def _ours(worker: Metered, path: Path) -> dict[str, Any]:
    worker.cpu_s.clear()
    (row,) = worker(_start(path)).select(["width", "height", "status"]).to_pylist()
    megapixels = (row["width"] or 0) * (row["height"] or 0) / 1e6
    return {"megapixels": megapixels, "status": row["status"], "cpu_s": dict(worker.cpu_s)}


def _theirs(rival: Rival, data: bytes) -> dict[str, Any]:
    start = time.process_time()
    rival(data)
    return {"megapixels": 0.0, "status": None, "cpu_s": {"all": time.process_time() - start}}


def started(files: Mapping[str, bytes], folder: Path) -> pa.Table:
    """The files, written into a folder, as a unit's table before its first stage. files: name -> bytes."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return pa.concat_tables([_start(folder / name) for name in files])


def _start(path: Path) -> pa.Table:
    size = path.stat().st_size
    row = {
        "image_id": hashlib.sha256(str(path).encode()).hexdigest(),
        "source_uri": path.as_uri(),
        "source_version": "",
        "source_bytes": size,
        "attempt": 1,
    }
    return pa.Table.from_pylist([row], schema=schema.START)


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each recipe, over all photographs, those in which nothing was found, and those of each size."""
    found = []
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        own = [row for row in rows if row["recipe"] == recipe]
        groups = {"all": own, "nothing found": [row for row in own if row["status"] == "unchanged"]}
        low = 0.0
        for high in SIZES:
            groups[f"{low:g} to {high:g} Mpx"] = [row for row in own if low < row["megapixels"] <= high]
            low = high
        found += [_sums(recipe, group, some) for group, some in groups.items() if some]
    return found


def _sums(recipe: str, group: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    stages = list(dict.fromkeys(name for row in rows for name in row["cpu_s"]))
    each = {name: sum(row["cpu_s"].get(name, 0.0) for row in rows) / len(rows) for name in stages}
    total, megapixels = sum(each.values()), sum(row["megapixels"] for row in rows) / len(rows)
    return {
        "recipe": recipe,
        "group": group,
        "images": len(rows),
        "megapixels_each": megapixels,
        "cpu_s_each": total,
        "cpu_s_per_megapixel": total / max(megapixels, 1e-9),
        "images_per_cpu_s": 1 / max(total, 1e-9),
        "stages_cpu_s_each": each,
    }
