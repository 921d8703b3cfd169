"""Pairs by name, and what changed outside: a new encoding is no change, a small drawing is one."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

from cleanplate.models.types import Region
from cleanplate.pipeline.engine.audit.compare import changed_outside, pairs_of

PHOTOS = sorted(Path("jobs/demo_photos").glob("*.jpg"))[:4]


def test_names_are_paired_exactly_or_without_their_ending() -> None:
    pairs, missing, extra = pairs_of(
        ["a.jpg", "b.jpg", "d/c.png", "e.jpg", "e.png", "gone.jpg"],
        ["d/c.webp", "a.jpg", "b.png", "e.webp", "new.jpg"],
    )
    assert pairs == [("a.jpg", "a.jpg"), ("b.jpg", "b.png"), ("d/c.png", "d/c.webp")]
    assert missing == ["e.jpg", "e.png", "gone.jpg"], "two of one name: neither is guessed"
    assert extra == ["e.webp", "new.jpg"]


@pytest.mark.parametrize("quality", [75, 50])
@pytest.mark.parametrize("photo", PHOTOS, ids=lambda path: path.stem)
def test_a_new_encoding_is_no_change(photo: Path, quality: int) -> None:
    before = np.asarray(Pil.open(photo).convert("RGB"))
    out = io.BytesIO()
    Pil.fromarray(before).save(out, "JPEG", quality=quality)
    assert changed_outside(before, np.asarray(Pil.open(out)), []) < 25


def test_a_drawing_is_a_change_unless_it_covers_a_finding() -> None:
    before = np.asarray(Pil.open(PHOTOS[0]).convert("RGB"))
    after = before.copy()
    after[100:130, 100:130] = 255 - after[100:130, 100:130] // 2
    assert changed_outside(before, after, []) >= 25
    found = Region("face", "x", 0.9, (95.0, 95.0, 135.0, 135.0))
    assert changed_outside(before, after, [found]) == 0
    elsewhere = Region("face", "x", 0.9, (200.0, 200.0, 240.0, 240.0))
    assert changed_outside(before, after, [elsewhere]) >= 25
