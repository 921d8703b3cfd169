"""JPEGs of other makers, by the hundred: whatever is edited where, no other block changes and every reader agrees."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cleanplate.pipeline.images import encode
from cleanplate.pipeline.images.formats.jpeg_coding import blocks as jpeg_blocks
from rigs.bad_images import picture, save, scene

CJPEG = shutil.which("cjpeg")
_SAMPLINGS = (
    "1x1",
    "2x1",
    "1x2",
    "2x2",
    "4x1",
    "1x4",
    "4x2",
    "2x2,2x1,2x1",
    "2x2,1x2,1x2",
    "2x1,1x1,2x1",
    "3x1",
)
_CV_SAMPLINGS = (0x411111, 0x221111, 0x211111, 0x121111, 0x111111)


def by_pillow(draw: st.DrawFn, width: int, height: int) -> bytes:
    mode = draw(st.sampled_from(["RGB", "RGB", "L", "CMYK"]))
    options = {"progressive": draw(st.booleans()), "optimize": draw(st.booleans())}
    options |= {"quality": draw(st.integers(1, 100)), "subsampling": draw(st.sampled_from([0, 1, 2]))}
    if restarts := draw(st.sampled_from([0, 1, 7])):
        options["restart_marker_blocks"] = restarts
    return save(picture(mode, width, height), "JPEG", **options)


def by_opencv(draw: st.DrawFn, width: int, height: int) -> bytes:
    fields = {
        cv2.IMWRITE_JPEG_QUALITY: draw(st.integers(1, 100)),
        cv2.IMWRITE_JPEG_PROGRESSIVE: draw(st.integers(0, 1)),
        cv2.IMWRITE_JPEG_RST_INTERVAL: draw(st.sampled_from([0, 1, 5])),
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR: draw(st.sampled_from(_CV_SAMPLINGS)),
    }
    done, out = cv2.imencode(
        ".jpg", scene(width, height)[..., ::-1], [n for pair in fields.items() for n in pair]
    )
    assert done
    return out.tobytes()


def by_cjpeg(draw: st.DrawFn, width: int, height: int) -> bytes:
    colour = draw(st.sampled_from([*(["-sample", s] for s in _SAMPLINGS), ["-grayscale"], ["-rgb"]]))
    coding = draw(st.sampled_from([[], ["-progressive"], ["-arithmetic"], ["-arithmetic", "-progressive"]]))
    restarts = draw(st.sampled_from([[], ["-restart", "1"], ["-restart", "3B"]]))
    quality = draw(st.sampled_from(["10", "75", "95", "90,30"]))
    ppm = b"P6 %d %d 255\n" % (width, height) + scene(width, height).tobytes()
    command = [str(CJPEG), "-quality", quality, *colour, *coding, *restarts]
    return subprocess.run(command, input=ppm, capture_output=True, check=True).stdout


def check(data: bytes, seed: int) -> None:
    """Edit some boxes. Coefficients, the source's own readers and a second cleaning are the judges."""
    decoded = encode.decode(data)
    height, width = decoded.pixels.shape[:2]
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool)
    for _ in range(int(rng.integers(1, 4))):
        y, x = int(rng.integers(height)), int(rng.integers(width))
        mask[y : y + int(rng.integers(1, 40)), x : x + int(rng.integers(1, 40))] = True
    edited = rng.integers(0, 256, decoded.pixels.shape).astype(np.uint8)
    edited[mask] = np.where(decoded.pixels[mask] < 128, 255, 0)  # seen at any quality
    out = encode.encode(data, decoded, edited, mask)
    assert (out.pixels_equal, out.jpeg_blocks_equal, out.inside_changed) == (True, True, True)
    before, after = jpeg_blocks.read(data), jpeg_blocks.read(out.data)
    assert [(c.h, c.v) for c in before.components] == [(c.h, c.v) for c in after.components]
    assert (before.progressive, before.restart, before.space) == (
        after.progressive,
        after.restart,
        after.space,
    )
    high, wide = (8 * max(getattr(c, side) for c in before.components) for side in ("v", "h"))
    far = cv2.dilate(mask.astype(np.uint8), np.ones((4 * high + 1, 4 * wide + 1))) == 0
    for shown in (by_cv2, by_pil):
        one, other = shown(data), shown(out.data)
        if one is not None:  # neither library's reader is built with arithmetic coding
            assert other is not None
            assert (one[far] == other[far]).all()
    again = encode.encode(out.data, encode.decode(out.data), None, None)
    assert (again.data, again.metadata_dropped) == (out.data, [])


def by_cv2(data: bytes) -> np.ndarray | None:
    return (
        None
        if jpeg_blocks.is_arithmetic(data)
        else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    )


def by_pil(data: bytes) -> np.ndarray | None:
    return (
        None if jpeg_blocks.is_arithmetic(data) else np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    )


@st.composite
def encoded(draw: st.DrawFn, maker: Callable[[st.DrawFn, int, int], bytes]) -> bytes:
    return maker(draw, draw(st.integers(1, 130)), draw(st.integers(1, 130)))


@given(encoded(by_pillow), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_jpegs_by_pillow(data: bytes, seed: int) -> None:
    check(data, seed)


@given(encoded(by_opencv), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_jpegs_by_opencv(data: bytes, seed: int) -> None:
    check(data, seed)


@pytest.mark.slow
@pytest.mark.skipif(CJPEG is None, reason="no cjpeg: apt-get install libjpeg-turbo-progs")
@given(encoded(by_cjpeg), st.integers(0, 2**32))
@settings(max_examples=400, deadline=None)
def test_jpegs_by_cjpeg(data: bytes, seed: int) -> None:
    check(data, seed)
