"""Which TIFF files are read: every form that the tests decode, decided from the directory before a pixel is allocated.

TIFF 6.0, with the tags of its technical notes. A form that no test covers is refused by name, because readers
guess: they show the thumbnail of a camera's raw file, drop a band, or return what the memory held before.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

from cleanplate.pipeline.images.formats import exif
from cleanplate.pipeline.images.formats.base import ImageError
from cleanplate.pipeline.images.formats.exif import Entry

NONE, PACKBITS, JPEG = 1, 32773, 7
DEFLATE = frozenset([8, 32946])
LZW = 5
SUB_IFDS, XMP, ICC = 0x014A, 700, 34675
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
ASSOCIATED, UNASSOCIATED = 1, 2
# What libtiff unpacks to bytes and what the predictor may stand on.
_BYTES = frozenset([NONE, LZW, PACKBITS, 34925, 50000]) | DEFLATE
_PREDICTED = frozenset([LZW, 34925, 50000]) | DEFLATE
_FAX = frozenset([2, 3, 4])
_NAMES = {
    6: "JPEG of the old kind",
    7: "JPEG",
    34676: "SGI LogLuv",
    34712: "JPEG 2000",
    34887: "LERC",
    50001: "WebP",
    50002: "JPEG XL",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
}
_PHOTOMETRICS = {4: "transparency mask", 8: "CIELAB", 9: "ICCLAB", 10: "ITULAB", 32803: "raw sensor"}
_PHOTOMETRICS |= {32844: "LogL", 32845: "LogLuv", 34892: "linear raw"}
_COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}

Values = Callable[[int, list[int]], list[int]]


@dataclass(frozen=True)
class Form:
    """How the pixels of the first directory are laid out.

    order: '<' or '>'. bits: of each sample. samples: bands a pixel, `alpha` (ASSOCIATED, UNASSOCIATED or 0 for none)
    counted. planes: 2 where each band lies by itself. block: height and width of a strip or tile, which may reach
    over the edge where `tiled`. blocks: (offset, size) of each, row by row, band after band. palette: ColorMap.
    orientation: 1..8, from the tag, else from the XMP. entries: of the directory. at: of the directory in the file.
    """

    order: str
    width: int
    height: int
    bits: int
    samples: int
    photometric: int
    alpha: int
    planes: int
    compression: int
    predictor: int
    block: tuple[int, int]
    tiled: bool
    blocks: list[tuple[int, int]]
    palette: list[int]
    orientation: int
    entries: list[Entry]
    at: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of a block, unpacked."""
        across = self.block[1] * (self.samples if self.planes == 1 else 1)
        return (across * self.bits + 7) // 8

    def rows_of(self, index: int) -> int:
        """Rows that block `index` holds: the last strip is cut at the picture's edge, a tile is not."""
        if self.tiled:
            return self.block[0]
        down = -(-self.height // self.block[0])
        return min(self.block[0], self.height - index % down * self.block[0])


def numbers(order: str, entry: Entry | None) -> list[int]:
    """The values of a BYTE, SHORT, LONG or IFD entry; an empty list for another type."""
    code = {1: "B", 3: "H", 4: "I", 13: "I"}.get(entry.kind) if entry and entry.whole else None
    return list(struct.unpack(f"{order}{entry.count}{code}", entry.value)) if code and entry else []


def form(data: bytes) -> Form:
    """What the first directory says. Raises ImageError: 'unsupported' with the reason for a form that is not read,
    'truncated' where data lies outside the file, 'corrupt' where the directory contradicts itself."""
    try:
        order = exif.byte_order(data)
        (at,) = struct.unpack_from(order + "I", data, 4)
        entries, _ = exif.read_ifd(data, at)
    except (exif.ExifError, struct.error) as error:
        raise ImageError("truncated", "the TIFF ends inside its directory") from error
    tags = {entry.tag: entry for entry in reversed(entries)}

    def values(tag: int, default: list[int]) -> list[int]:
        return numbers(order, tags.get(tag)) or default

    width, height = values(256, [0])[0], values(257, [0])[0]
    _refuse_raw(data, order, tags, width * height)
    if width < 1 or height < 1:
        raise ImageError("corrupt", f"the TIFF declares {width} x {height} pixels")
    compression, photometric = values(259, [NONE])[0], values(262, [-1])[0]
    samples, planes = values(277, [1])[0], values(284, [1])[0]
    bits = _bits(values(258, [1]), values(339, [1]), samples)
    alpha = _alpha(photometric, samples, values(338, []))
    _refuse_unread(bits, samples, photometric, alpha, compression, planes)
    _refuse_odd(values, bits, compression)
    tiled = 322 in tags or 324 in tags
    strip = (min(values(278, [height])[0], height), width)
    block = (values(323, [0])[0], values(322, [0])[0]) if tiled else strip
    if min(block) < 1:
        raise ImageError("corrupt", "the TIFF declares empty strips or tiles")
    predictor = values(317, [1])[0] if compression in _PREDICTED else 1
    if predictor not in (1, 2) or (predictor == 2 and bits < 8):
        raise ImageError("unsupported", f"TIFF predictor {predictor} for {bits} bits is not handled")
    palette = values(320, [])
    if photometric == PALETTE and len(palette) != 3 << bits:
        raise ImageError(
            "corrupt", f"the TIFF palette has {len(palette)} numbers, {bits} bits need {3 << bits}"
        )
    found = Form(
        order=order,
        width=width,
        height=height,
        bits=bits,
        samples=samples,
        photometric=photometric,
        alpha=alpha,
        planes=planes if samples > 1 else 1,
        compression=compression,
        predictor=predictor,
        block=block,
        tiled=tiled,
        blocks=list(zip(values(324 if tiled else 273, []), values(325 if tiled else 279, []), strict=False)),
        palette=palette,
        orientation=_orientation(order, tags),
        entries=entries,
        at=at,
    )
    return _with_blocks(data, found, values(324 if tiled else 273, []))


def _refuse_raw(data: bytes, order: str, tags: dict[int, Entry], pixels: int) -> None:
    # DNG, NEF, ARW: a reduced picture in the first directory, the photograph in a SubIFD.
    below = numbers(order, tags.get(SUB_IFDS))
    reduced = bool((numbers(order, tags.get(254)) or [0])[0] & 1)
    for place in below:
        try:
            entries, _ = exif.read_ifd(data, place)
        except exif.ExifError:
            continue  # it cannot hold a picture that anyone could show
        inner = {entry.tag: numbers(order, entry) for entry in reversed(entries)}
        size = (inner.get(256) or [0])[0] * (inner.get(257) or [0])[0]
        if size and (reduced or size > pixels or (inner.get(262) or [0])[0] in (32803, 34892)):
            raise ImageError("unsupported", "a camera's raw file: the picture lies in a SubIFD")
    if reduced and below:
        raise ImageError("unsupported", "a camera's raw file: its first directory is a reduced picture")


def _bits(bits: list[int], formats: list[int], samples: int) -> int:
    kinds = {2: "signed", 3: "floating-point", 4: "untyped", 5: "complex", 6: "complex"}
    odd = next((kind for kind in formats if kind != 1), None)
    if odd is not None:
        raise ImageError("unsupported", f"TIFF of {kinds.get(odd, 'unknown')} samples is not handled")
    if len(bits) not in (1, samples) or len(set(bits)) != 1:
        raise ImageError("unsupported", "TIFF whose bands differ in depth is not handled")
    if bits[0] not in (1, 2, 4, 8, 16):
        raise ImageError("unsupported", f"TIFF of {bits[0]} bits a sample is not handled")
    return bits[0]


def _alpha(photometric: int, samples: int, extra: list[int]) -> int:
    if photometric not in _COLOURS:
        name = _PHOTOMETRICS.get(photometric, f"photometric {photometric}")
        raise ImageError("unsupported", f"TIFF of kind {name} is not handled")
    colours = _COLOURS[photometric]
    if samples < colours:
        raise ImageError("corrupt", f"the TIFF declares {samples} bands where its colours need {colours}")
    if samples == colours:
        return 0
    if samples > colours + 1 or len(extra) != 1 or extra[0] not in (ASSOCIATED, UNASSOCIATED):
        more = samples - colours
        raise ImageError("unsupported", f"TIFF of {samples} bands: {more} of them neither colour nor alpha")
    if photometric not in (BLACK_IS_ZERO, RGB):
        raise ImageError("unsupported", "TIFF with alpha is handled for grey (black is zero) and RGB only")
    return extra[0]


def _refuse_unread(
    bits: int, samples: int, photometric: int, alpha: int, compression: int, planes: int
) -> None:
    if planes not in (1, 2):
        raise ImageError("corrupt", f"the TIFF declares planar configuration {planes}")
    name = _NAMES.get(compression, f"kind {compression}")
    if compression == JPEG:
        if bits != 8 or alpha or planes != 1 or photometric not in (BLACK_IS_ZERO, RGB, YCBCR):
            raise ImageError(
                "unsupported", "TIFF with JPEG data is handled for 8-bit grey, RGB and YCbCr only"
            )
    elif compression in _FAX:
        if bits != 1 or samples != 1:
            raise ImageError("unsupported", "TIFF with fax compression of more than one bit is not handled")
    elif compression not in _BYTES:
        raise ImageError("unsupported", f"TIFF compression {name} is not handled")
    elif photometric == YCBCR:
        raise ImageError("unsupported", "TIFF of YCbCr without JPEG compression is not handled")
    if bits < 8 and (samples > 1 or photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, PALETTE)):
        raise ImageError("unsupported", f"TIFF of {samples} bands of {bits} bits is not handled")


def _refuse_odd(values: Values, bits: int, compression: int) -> None:
    if values(266, [1])[0] != 1:
        raise ImageError("unsupported", "TIFF with reversed bit order is not handled")
    if values(332, [1])[0] != 1:
        raise ImageError("unsupported", "TIFF of inks other than cyan, magenta, yellow, black is not handled")
    if values(336, [0, (1 << bits) - 1])[:2] != [0, (1 << bits) - 1]:
        raise ImageError("unsupported", "TIFF with a dot range is not handled")
    if values(32997, [1])[0] != 1 or values(32998, [1])[0] != 1:
        raise ImageError("unsupported", "TIFF of volumes is not handled")


def _orientation(order: str, tags: dict[int, Entry]) -> int:
    found = numbers(order, tags.get(exif.ORIENTATION))
    if found:
        return found[0] if 1 <= found[0] <= 8 else 1
    return exif.xmp_orientation(tags[XMP].value) if XMP in tags else 1


def _with_blocks(data: bytes, found: Form, offsets: list[int]) -> Form:
    # Every block has to be there, in full: a missing one would show as black, or as what the memory held.
    down, across = -(-found.height // found.block[0]), -(-found.width // found.block[1])
    count = down * across * (found.samples if found.planes == 2 else 1)
    needed = [found.row_bytes * found.rows_of(i) for i in range(count)] if count <= len(offsets) else []
    blocks = found.blocks
    if found.compression == NONE and len(offsets) >= count > 0:
        sizes = [size for _, size in blocks]
        if len(sizes) < count or sizes[:count] == [0] * count:  # some writers leave the sizes out
            blocks = list(zip(offsets, needed, strict=False))
        if any(size < need for (_, size), need in zip(blocks, needed, strict=False)):
            raise ImageError("truncated", "a TIFF strip is shorter than its rows")
    if len(blocks) < count:
        raise ImageError("truncated", f"the TIFF has {len(blocks)} strips or tiles, its size needs {count}")
    blocks = blocks[:count]
    if any(start < 8 or size < 1 or start + size > len(data) for start, size in blocks):
        raise ImageError("truncated", "a TIFF strip lies outside the file")
    return replace(found, blocks=blocks)
