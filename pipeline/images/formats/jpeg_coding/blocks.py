"""JPEG: put an edit into the file's own blocks, and write a new file where that cannot be done.

A JPEG is a grid of 8 x 8 blocks of quantised coefficients per component. An edit needs new coefficients
only in the blocks that the mask touches; all others are copied as numbers, so nothing is compressed twice.
Decoded pixels next to a replaced block may still differ, since decoders smooth ("fancy") upsampled chroma
across block borders: equality is a statement about blocks, and about pixels one MCU away.

What is kept: quantisation tables, sampling factors, frame header, restart interval, and whether the file is
baseline or progressive (a progressive file gets its own scan script: spectral selection, no successive
approximation). Arithmetic-coded files become Huffman-coded with the same coefficients. Huffman tables are
made anew.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import cv2
import jpeglib
import numpy as np
import numpy.typing as npt

from cleanplate.pipeline.errors import CleanplateError
from cleanplate.pipeline.images.formats.base import ImageError
from cleanplate.pipeline.images.formats.jpeg_coding.anew import reencode
from cleanplate.pipeline.images.formats.jpeg_coding.huffman import Component, scans
from cleanplate.pipeline.images.formats.jpeg_coding.parts import SOF, Segment, is_app, joined, jpeg_segments

_ADOBE = 0xEE  # APP14 says how the colours are coded, so it belongs to the scan
_SOS, _DHT, _DQT, _DRI, _DAC = 0xDA, 0xC4, 0xDB, 0xDD, 0xCC
# jpeglib keeps the markers that it reads in global variables, and its version switch is global.
_LOCK = threading.Lock()
_DECODER = "turbo210"  # of jpeglib's decoders one that reads arithmetic coding

Grid = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Coefficients:
    """The quantised content of a JPEG file.

    components: in the file's order; space: 'L', 'RGB', 'YCC', 'CMYK' or 'YCCK'.
    tables: for each component its 8 x 8 quantisation table, row-major. progressive, restart: of the file.
    """

    components: list[Component]
    space: str
    tables: list[npt.NDArray[np.int64]]
    progressive: bool
    restart: int


@dataclass(frozen=True)
class Splice:
    """data: the new file. touched: for each component, block rows x block columns bool, True = replaced.

    near: HW bool in the file's frame, True where decoded pixels may differ: the touched blocks of all components, and,
    where colours are subsampled, one pixel round them (see `_reached`). note: see `encode.Encoded`.
    before: the source's coefficients, None where they cannot be read.
    """

    data: bytes
    before: Coefficients | None
    touched: list[Grid]
    near: Grid
    note: str | None


class SpliceError(CleanplateError):
    """This file's blocks cannot be replaced one by one; it has to be encoded anew."""


def read(data: bytes) -> Coefficients:
    """The coefficients of a JPEG file. Raises SpliceError where jpeglib cannot read it, ImageError for a
    file that cannot be taken apart."""
    segments, _ = jpeg_segments(data)
    # Only what says how to decode goes in: jpeglib holds at most 50 markers.
    bare = [s for s in segments if not is_app(s.marker) or s.payload[:5] in (b"JFIF\0", b"Adobe")]
    with _in_a_file(joined(bare)) as path, _LOCK:
        try:
            jpeglib.version.set(_DECODER)
            found = jpeglib.read_dct(path)
            arrays = [a for a in (found.Y, found.Cb, found.Cr, found.K) if a is not None]
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise SpliceError("jpeglib cannot read the coefficients") from error
    frame = next((s for s in segments if s.marker in SOF), None)
    if frame is None or len(frame.payload) != 6 + 3 * len(arrays):
        raise SpliceError("the frame header does not fit the components")
    components = []
    for i, blocks in enumerate(arrays):
        number, factors = frame.payload[6 + 3 * i], frame.payload[7 + 3 * i]
        components.append(
            Component(number, factors >> 4, factors & 15, blocks.reshape(*blocks.shape[:2], 64))
        )
    if len(components) == 1:  # one component is never subsampled, whatever its factors say
        components = [replace(components[0], h=1, v=1)]
    tables = [np.asarray(found.qt[found.quant_tbl_no[i]], np.int64) for i in range(len(arrays))]
    if any((table == 0).any() for table in tables):
        raise SpliceError("a quantisation table holds a zero")
    restarts = [int.from_bytes(s.payload[:2], "big") for s in segments if s.marker == _DRI]
    progressive = frame.marker in (0xC2, 0xCA)
    return Coefficients(components, _space(segments, components), tables, progressive, (restarts or [0])[0])


def write(source: bytes, coefficients: Coefficients) -> bytes:
    """The source's file with other coefficients: its segments as they are, its scans made anew.

    Raises SpliceError where a quantisation table changes between scans.
    """
    segments, _ = jpeg_segments(source)
    first = next(i for i, s in enumerate(segments) if s.marker == _SOS)
    if any(s.marker == _DQT for s in segments[first:]):
        raise SpliceError("quantisation tables change between scans")
    head = [s for s in segments[:first] if s.marker not in (_DHT, _DAC)]
    head += [s for s in segments[first:] if is_app(s.marker)]
    head = [replace(s, marker={0xC9: 0xC1, 0xCA: 0xC2}.get(s.marker, s.marker)) for s in head]
    body = scans(coefficients.components, progressive=coefficients.progressive, restart=coefficients.restart)
    return b"\xff\xd8" + b"".join(s.to_bytes() for s in head) + body + b"\xff\xd9"


def is_arithmetic(data: bytes) -> bool:
    """Is the file arithmetic-coded (SOF9, SOF10)?"""
    return any(s.marker in (0xC9, 0xCA) for s in jpeg_segments(data)[0])


def to_huffman(data: bytes) -> bytes:
    """An arithmetic-coded file as a Huffman-coded one with the same coefficients. Raises ImageError."""
    try:
        return write(data, read(data))
    except SpliceError as error:
        raise ImageError("unsupported", "this arithmetic-coded JPEG cannot be read") from error


def splice(source: bytes, stored: npt.NDArray[np.unsignedinteger], mask: Grid) -> Splice:
    """The source with the blocks that the mask touches taken from an edited picture.

    stored: HWC uint8 in the file's frame and colour model (1 grey, 3 RGB, 4 CMYK as Pillow gives it).
    mask: HW bool in the file's frame, not empty. Where blocks cannot be replaced the picture is encoded
    anew with the source's tables and the note says so.
    """
    try:
        old = read(source)
        touched = [_touched(mask, old.components, c) for c in old.components]
        spliced = []
        for i, component in enumerate(old.components):
            blocks = component.blocks.copy()
            rows, columns = np.nonzero(touched[i])
            blocks[rows, columns] = _blocks(stored, old, i, rows, columns)
            spliced.append(replace(component, blocks=blocks))
        data = write(source, replace(old, components=spliced))
    except SpliceError as error:
        note = f"encoded anew with the source's tables, every block may differ: {error}"
        return Splice(reencode(source, stored), None, [], np.ones_like(mask), note)
    how = "arithmetic coding written as Huffman coding" if is_arithmetic(source) else None
    return Splice(data, old, touched, _reached(touched, old.components, mask.shape), how)


def blocks_equal(old: Coefficients | None, after: bytes, touched: list[Grid]) -> bool | None:
    """Has a file the same tables, sampling and coefficients as `old`, outside `touched`?

    None where one of them cannot be read. `touched` empty means that no block may differ.
    """
    try:
        new = read(after)
    except SpliceError:
        return None
    if old is None:
        return None
    if len(old.components) != len(new.components) or old.space != new.space:
        return False
    for i, (one, other) in enumerate(zip(old.components, new.components, strict=True)):
        if (one.h, one.v, one.blocks.shape) != (other.h, other.v, other.blocks.shape):
            return False
        if not np.array_equal(old.tables[i], new.tables[i]):
            return False
        different = (one.blocks != other.blocks).any(axis=2)
        if (different & ~touched[i] if touched else different).any():
            return False
    return True


def same_scans(before: bytes, after: bytes) -> bool:
    """Is everything that makes the pixels (tables, frame, scans) byte for byte the same?"""
    one, other = (
        [s.to_bytes() for s in jpeg_segments(data)[0] if not is_app(s.marker)] for data in (before, after)
    )
    return one == other


def _touched(mask: Grid, components: list[Component], component: Component) -> Grid:
    # Which blocks of a component cover a pixel of the mask.
    high, wide = footprint(components, component)
    rows, columns = component.blocks.shape[:2]
    padded = np.zeros((rows * high, columns * wide), bool)
    part = mask[: rows * high, : columns * wide]
    padded[: part.shape[0], : part.shape[1]] = part
    return np.asarray(padded.reshape(rows, high, columns, wide).any(axis=(1, 3)), bool)


def footprint(components: list[Component], component: Component) -> tuple[int, int]:
    """Rows and columns of pixels under one block of a component. Raises SpliceError."""
    h, v = max(c.h for c in components), max(c.v for c in components)
    if h % component.h or v % component.v:
        raise SpliceError("sampling factors that do not divide each other")
    return 8 * v // component.v, 8 * h // component.h


def _blocks(
    stored: npt.NDArray[np.unsignedinteger],
    old: Coefficients,
    index: int,
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
) -> npt.NDArray[np.int16]:
    # Quantised coefficients, n x 64, of a component's blocks from an edited picture (T.81 A.3.3, A.3.4).
    high, wide = footprint(old.components, old.components[index])
    height, width = stored.shape[:2]
    y = np.minimum(rows[:, None] * high + np.arange(high), height - 1)
    x = np.minimum(columns[:, None] * wide + np.arange(wide), width - 1)
    patches = stored[y[:, :, None], x[:, None, :]].astype(np.float32)
    samples = _plane(patches, old.space, index)
    samples = samples.reshape(len(rows), 8, high // 8, 8, wide // 8).mean(axis=(2, 4)) - 128
    k = np.arange(8)
    basis = np.cos((2 * k[None, :] + 1) * k[:, None] * np.pi / 16) / 2
    basis[0] /= np.sqrt(2)
    found = np.rint((basis @ samples @ basis.T) / old.tables[index])
    return np.asarray(np.clip(found, -1023, 1023), np.int16).reshape(-1, 64)


def _plane(patches: npt.NDArray[np.float32], space: str, index: int) -> npt.NDArray[np.float32]:
    # One component of n x high x wide x C pixels; the conversion is JFIF's (BT.601, full range).
    if space in ("L", "RGB"):
        return patches[..., index]
    if space == "CMYK" or (space == "YCCK" and index == 3):
        return 255 - patches[..., index]  # Pillow gives ink inverted, as Adobe writes it
    weights = (
        (0.299, 0.587, 0.114, 0.0),
        (-0.168735892, -0.331264108, 0.5, 128.0),
        (0.5, -0.418687589, -0.081312411, 128.0),
    )[index]
    # YCCK codes the complement of inverted ink: that is ink itself, as Pillow gives it.
    plane = patches[..., 0] * weights[0] + patches[..., 1] * weights[1] + patches[..., 2] * weights[2]
    return np.asarray(np.clip(plane + weights[3], 0, 255), np.float32)


def _space(segments: list[Segment], components: list[Component]) -> str:
    # How libjpeg tells colour models apart (default_decompress_parms): by marker, then by identifiers.
    adobe = next((s.payload for s in segments if s.marker == _ADOBE and s.payload[:5] == b"Adobe"), b"")
    transform = adobe[11] if len(adobe) >= 12 else None
    if len(components) == 1:
        return "L"
    if len(components) == 4:
        return "YCCK" if transform == 2 else "CMYK"
    if len(components) != 3:
        raise SpliceError(f"{len(components)} components")
    if any(s.marker == 0xE0 and s.payload[:5] == b"JFIF\0" for s in segments):
        return "YCC"
    if transform is not None:
        return "RGB" if transform == 0 else "YCC"
    return "RGB" if [c.number for c in components] == [82, 71, 66] else "YCC"


def _reached(touched: list[Grid], components: list[Component], shape: tuple[int, ...]) -> Grid:
    # HW bool: pixels under the touched blocks. A decoder that smooths subsampled colours (libjpeg's triangle filter)
    # mixes the nearest sample of the next block into one more row and column of pixels, never further.
    height, width = shape
    out = np.zeros((height, width), bool)
    for component, grid in zip(components, touched, strict=True):
        high, wide = footprint(components, component)
        under = np.repeat(np.repeat(grid, high, axis=0), wide, axis=1)[:height, :width]
        out[: under.shape[0], : under.shape[1]] |= under
    if len({(c.h, c.v) for c in components}) > 1:
        out = cv2.dilate(out.view(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    return out


@contextmanager
def _in_a_file(data: bytes) -> Iterator[str]:
    """A path to these bytes for the length of a `with`: jpeglib reads files only. In memory where the system can
    do that, without a name, so that a worker that is killed leaves nothing behind."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("cleanplate"), "wb") as file:
            file.write(data)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile(prefix="cleanplate-", suffix=".jpg") as file:
            file.write(data)
            file.flush()
            yield file.name
