"""What the benchmark's runs read, planned over it, and the clocks on them."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cleanplate.pipeline.engine import run as runs
from cleanplate.pipeline.recipe.recipe import Recipe


def photographs(count: int, place: str | None) -> dict[str, bytes]:
    """So many JPEGs, name -> bytes: those of a folder or URL (of an INDEX.csv: `split=test`), or the demo's with a
    caption, all different."""
    if place is not None:
        from cleanplate.jobs.photos import open_photos

        some = (p for p in open_photos(str(place), "test") if p.file.lower().endswith((".jpg", ".jpeg")))
        return {f"{n:05d}.jpg": p.read() for n, p in enumerate(itertools.islice(some, count))}
    demo = list(demo_photographs().values())
    return {f"{n:05d}.jpg": _captioned(demo[n % len(demo)], n) for n in range(count)}


def demo_photographs() -> dict[str, bytes]:
    """The demo's JPEGs, name -> bytes."""
    found = (
        p
        for p in resources.files("cleanplate.jobs").joinpath("demo_photos").iterdir()
        if p.name.endswith(".jpg")
    )
    return {p.name: p.read_bytes() for p in sorted(found, key=lambda p: p.name)}


def _captioned(jpeg: bytes, number: int) -> bytes:
    picture = np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), np.uint8).copy()
    place = (20, picture.shape[0] - 24)
    cv2.putText(picture, f"Nordwind {number}", place, cv2.FONT_HERSHEY_SIMPLEX, 1.1, (255, 255, 255), 3)
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1])


@contextmanager
def planned(files: dict[str, bytes], recipe: Recipe) -> Iterator[tuple[runs.Run, list[Any]]]:
    """A run over these files, name -> bytes, and its units; its folder goes with the `with`."""
    with tempfile.TemporaryDirectory(prefix="cleanplate-bench-") as folder:
        source = Path(folder) / "in"
        source.mkdir()
        for name, data in files.items():
            (source / name).write_bytes(data)
        run = runs.start(str(source), str(Path(folder) / "out"), recipe)
        yield run, runs.plan_new(run)


def statuses_of(run: runs.Run) -> dict[str, int]:
    """status -> rows that the run has committed."""
    from cleanplate.pipeline.ledger import ledger

    return dict(ledger.tally(run.output).statuses)


def clocked(call: Callable[[], Any]) -> dict[str, float]:
    """Seconds that a call takes, by the wall and by this process's CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def tiny(count: int) -> dict[str, bytes]:
    """So many PNGs of 16 x 16 pixels, all different."""
    rng = np.random.default_rng(0)
    return {
        f"{n % 100:02d}-{n:06d}.png": bytes(
            cv2.imencode(".png", rng.integers(0, 256, (16, 16, 3), np.uint8))[1]
        )
        for n in range(count)
    }
