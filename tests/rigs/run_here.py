"""Whole runs of the command line in this process, over a few small pictures in which nothing is to be found."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from cleanplate.jobs.__main__ import main
from cleanplate.pipeline.storage.connect import LocalStore

FLAGS = ["--remove", "given", "--inpainter", "fill", "--here", "--recall", "0", "--set", "units.rows=2"]


def picture(seed: int) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def clean(place: Path, *more: str, code: int = 1, source: Path | None = None) -> LocalStore:
    """Clean `in` (or another source) below a place into its `out`."""
    words = [
        "run",
        str(source or place / "in"),
        str(place / "out"),
        *FLAGS,
        "--set",
        f"given.file={place / 'none'}",
        *more,
    ]
    if not (place / "none").exists():
        (place / "none").mkdir()
        (place / "none" / "nobody.txt").write_text("")
    assert main(words) == code
    return LocalStore(place / "out")
