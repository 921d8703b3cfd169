"""Nothing is decoded twice in one process, however large the pictures are: counted on real runs."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from cleanplate.pipeline.images import decode
from cleanplate.pipeline.stages import rows
from rigs.flow_rig import clean, faces, folder, rows_of

PHOTOS = sorted((Path(__file__).parents[3] / "jobs" / "demo_photos").glob("*.jpg"))[:5]


class Decodes:
    """Counts calls of pixels.decode in this thread, by what was decoded."""

    def __init__(self) -> None:
        self.counts: Counter[bytes] = Counter()

    def __enter__(self) -> Counter[bytes]:
        sys.setprofile(self._event)
        return self.counts

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _event(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code is decode.decode.__code__:
            self.counts[bytes(frame.f_locals["data"])] += 1


@pytest.mark.parametrize("kept", [rows.KEPT_PIXELS, 1_000_000])
def test_each_source_is_decoded_once(tmp_path: Path, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "KEPT_PIXELS", kept)
    rows.forget()
    source = folder(tmp_path / "in")
    for photo in PHOTOS:
        (tmp_path / "in" / photo.name).write_bytes(photo.read_bytes())
    with Decodes() as counts:
        clean(source, str(tmp_path / "out"), faces(**{"engine.batch": 32}))
    done = rows_of(str(tmp_path / "out"))
    sources = {photo.read_bytes() for photo in PHOTOS}
    assert {counts[data] for data in sources} == {1}
    # What was written is decoded once, to see that nothing else changed; what was not edited is not.
    edited = {row["image"]["bytes"] for row in done if row["mask_rle"]}
    assert edited
    assert {counts[data] for data in edited} == {1}
    assert sum(counts.values()) == len(sources) + len(edited)
    assert len(done) == len(PHOTOS)


def test_what_is_kept_is_bounded_in_pixels_and_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    rows.forget()
    picture = PHOTOS[0].read_bytes()
    shown = decode.decode(picture)
    size = {"width": shown.width, "height": shown.height, "source": picture}
    monkeypatch.setattr(rows, "KEPT_PIXELS", 3 * shown.width * shown.height)
    with Decodes() as counts:
        for name in "abcd":
            rows.decoded({"source_sha256": name, **size})
        for name in "dcb":
            rows.decoded({"source_sha256": name, **size})
        assert counts[picture] == 4, "the last three are kept"
        rows.decoded({"source_sha256": "a", **size})
        assert counts[picture] == 5
        monkeypatch.setattr(rows, "KEPT_PICTURES", 2)
        rows.decoded({"source_sha256": "e", **size})
        rows.decoded({"source_sha256": "a", **size})
        rows.decoded({"source_sha256": "b", **size})
        assert counts[picture] == 7
    rows.forget()
