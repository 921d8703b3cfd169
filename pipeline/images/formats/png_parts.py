"""A PNG taken apart: chunks, checksums, and whether its pixel data is there in full.

Decoders differ in what they let pass: Pillow stops at a damaged comment, OpenCV may leave rows as the memory held
them. So they get the chunks that make pixels and nothing else, and those only when they are sound.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Iterator

from cleanplate.pipeline.images.formats import exif
from cleanplate.pipeline.images.formats.base import ImageError

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PIXELS = frozenset([b"IHDR", b"PLTE", b"IDAT", b"IEND"])
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Adam7: first column, first row, steps (PNG 8.2).
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_TEXT_LIMIT, _ICC_LIMIT = 1 << 20, 1 << 24
_PIECE = 1 << 20


def checked_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """(type, body, is its checksum right) of each chunk up to and with IEND. Raises ImageError('truncated')."""
    at = len(PNG_MAGIC)
    while True:
        if at + 8 > len(data):
            raise ImageError("truncated", "the PNG ends before its last chunk")
        length = int.from_bytes(data[at : at + 4], "big")
        stop = at + 12 + length
        if stop > len(data):
            raise ImageError("truncated", "a PNG chunk ends early")
        right = zlib.crc32(data[at + 4 : stop - 4]) == int.from_bytes(data[stop - 4 : stop], "big")
        kind = data[at + 4 : at + 8]
        yield kind, data[at + 8 : stop - 4], right
        at = stop
        if kind == b"IEND":
            return


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, body) of each chunk up to and with IEND, sound or not. Raises ImageError('truncated')."""
    return ((kind, body) for kind, body, _ in checked_chunks(data))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One PNG chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_file(chunks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The PNG of these chunks."""
    return PNG_MAGIC + b"".join(png_chunk(kind, body) for kind, body in chunks)


def bare(data: bytes) -> bytes:
    """The PNG with nothing but what makes its pixels: header, palette, transparency, pixel data.

    Raises ImageError: 'corrupt' for a wrong checksum there, 'truncated', 'unsupported' for chunks that change what
    the pixel data is. A chunk that a reader may skip is left out where its checksum is wrong.
    """
    out = [PNG_MAGIC]
    for kind, body, right in checked_chunks(data):
        name = kind.decode("latin-1")
        if kind in _PIXELS and not right:
            raise ImageError("corrupt", f"the checksum of a PNG chunk ({name}) is wrong: the file is damaged")
        if kind in _PIXELS or (kind == b"tRNS" and right):
            out.append(png_chunk(kind, body))
        elif not kind[0] & 0x20:
            raise ImageError("unsupported", "a PNG with a chunk that only its maker's programs read")
    return b"".join(out)


def check_pixel_data(data: bytes) -> None:
    """Raises ImageError unless the pixel data inflates to every row with a filter that exists. For decoders that
    would go on without it."""
    packed = b"".join(body for kind, body, _ in checked_chunks(data) if kind == b"IDAT")
    try:
        raw = zlib.decompressobj().decompress(packed, raw_size(data))
    except zlib.error as error:
        raise ImageError("corrupt", "the pixel data of the PNG does not inflate") from error
    if len(raw) < raw_size(data):
        raise ImageError("truncated", "the PNG ends before its last row")
    at = 0
    for stride, rows in _rows(data):
        if max(raw[at : at + stride * rows : stride], default=0) > 4:
            raise ImageError("corrupt", "the PNG names a row filter that does not exist")
        at += stride * rows


def raw_size(data: bytes) -> int:
    """Bytes that the pixel data of a PNG inflates to: a filter byte and the samples of each row of each pass."""
    return sum(stride * rows for stride, rows in _rows(data))


def _rows(data: bytes) -> list[tuple[int, int]]:
    # (bytes of a row with its filter, number of rows) of each pass.
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bits = depth * _CHANNELS.get(colour, 1)
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
    return [(1 + (bits * wide + 7) // 8, high) for wide, high in sizes if wide > 0 and high > 0]


def trimmed(packed: bytes, size: int) -> bytes | None:
    """Pixel data without what no picture is made of: bytes behind the deflate stream, rows behind the last.

    packed: the IDAT bodies, joined. size: `raw_size`. None where there is nothing to trim.
    """
    stream, got, waiting = zlib.decompressobj(), 0, packed
    try:
        while not stream.eof:
            piece = stream.decompress(waiting, _PIECE)
            waiting = stream.unconsumed_tail
            got += len(piece)
            if got > size:
                break
            if not piece and not waiting:
                return None  # cut short: the decoder has judged that
    except zlib.error:
        return None
    if got > size:
        return zlib.compress(zlib.decompressobj().decompress(packed, size), 6)
    return packed[: -len(stream.unused_data)] if stream.unused_data else None


def text(data: bytes, key: bytes) -> bytes | None:
    """What the first sound text chunk of that key holds, at most 1 MiB of it; None where there is none."""
    for kind, body, right in checked_chunks(data):
        if right and kind in (b"tEXt", b"zTXt", b"iTXt") and body.startswith(key + b"\0"):
            rest = body[len(key) + 1 :]
            if kind == b"tEXt":
                return rest
            packed = kind == b"zTXt" or rest[:1] == b"\1"
            rest = rest[1:] if kind == b"zTXt" else rest[2:].split(b"\0", 2)[-1]
            return inflated(rest, _TEXT_LIMIT) if packed else rest
    return None


def profile(data: bytes) -> bytes | None:
    """The ICC profile, or None."""
    for kind, body, right in checked_chunks(data):
        if kind == b"iCCP" and right:
            return inflated(body.partition(b"\0")[2][1:], _ICC_LIMIT) or None
    return None


def resolution(data: bytes) -> tuple[float, float] | None:
    """(x, y) in dots per inch, or None."""
    for kind, body, right in checked_chunks(data):
        if kind == b"pHYs" and right and len(body) == 9 and body[8] == 1:
            x, y = struct.unpack_from(">II", body)
            return (x * 0.0254, y * 0.0254) if x and y else None
    return None


def raw_profile(data: bytes) -> bytes | None:
    """The EXIF block that ImageMagick writes as a text of hexadecimal digits, or None."""
    found = text(data, b"Raw profile type exif")
    digits = re.sub(rb"\s", b"", found.split(b"\n", 3)[-1]) if found else b""
    try:
        return bytes.fromhex(digits.decode("ascii")) or None
    except ValueError:
        return None


def orientation(data: bytes) -> int | None:
    """Orientation that stands in a text chunk: of a raw profile, else of XMP; None where none does."""
    found = exif.found_orientation(exif.bare(raw_profile(data)))
    packet = text(data, b"XML:com.adobe.xmp") if found is None else None
    return exif.xmp_orientation(packet) if packet else found


def inflated(packed: bytes, limit: int) -> bytes:
    """At most `limit` bytes of a deflate stream; nothing of a damaged or larger one."""
    stream = zlib.decompressobj()
    try:
        out = stream.decompress(packed, limit)
    except zlib.error:
        return b""
    return out if stream.eof else b""
