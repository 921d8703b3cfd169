"""What every image format is made of here: one record, and what its functions take and give.

A format is one file beside this one and one row in `table.py`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cleanplate.models.types import Mask
from cleanplate.pipeline.errors import RowError
from cleanplate.pipeline.images.formats.policy import Policy

Stored = npt.NDArray[np.unsignedinteger]
Dpi = tuple[float, float]
TAIL = "bytes after the end of the image"
"""Its name in `metadata_dropped`."""

KINDS = (
    "empty",
    "not_an_image",
    "truncated",
    "too_large",
    "animated",
    "multipage",
    "unsupported",
    "corrupt",
    "edit_lost",
    "format_limit",
    "out_of_memory",
)


class ImageError(RowError):
    """An image that cannot be handled: data for its row, not a fault of the program.

    kind: one of `KINDS`. The message is short and never contains bytes of the file.
    """


@dataclass(frozen=True)
class Header:
    """What a file declares of itself; read from its bytes without decoding any.

    format: lower-case name. width, height: pixels as stored. frames: pictures in the file. pages: several are pages,
    not frames that move.
    """

    format: str
    width: int
    height: int
    frames: int
    pages: bool = False


@dataclass(frozen=True)
class Rows:
    """The pixels of a file, row by row as it stores them, and what is needed to write them back.

    stored: HWC uint8 or uint16. mode: 'L', 'LA', 'La', 'RGB', 'RGBA', 'RGBa' or 'CMYK' (`decode.Decoded`). held: how
    the file held them where that is not simply `mode`; else ''. orientation: EXIF's 1..8, which turns the rows upright.
    turned: an edit is written upright, and the orientation goes. lossy: the file's pixel data is lossily compressed.
    """

    stored: Stored
    mode: str
    held: str = ""
    icc: bytes | None = None
    dpi: Dpi | None = None
    orientation: int = 1
    turned: bool = False
    lossy: bool = False


@dataclass(frozen=True)
class Edit:
    """An edited picture that goes back into its file.

    source: the file. stored: HWC as the file's rows, the edit in it. mask: HW bool, likewise, True = edited.
    mode, held, icc, dpi, orientation, lossy: as `Rows` has them. mark: say in the file that it was edited.
    """

    source: bytes
    stored: Stored
    mask: Mask
    mode: str
    held: str
    icc: bytes | None
    dpi: Dpi | None
    orientation: int
    lossy: bool
    policy: Policy
    mark: bool

    @property
    def rewritten(self) -> str | None:
        """What a reader of the row should know of pixels that their way of storing could not take back."""
        bits = 16 if self.stored.dtype == np.uint16 else 8
        return f"{self.held} pixels written as {self.mode}, {bits} bits" if self.held else None


@dataclass(frozen=True)
class Written:
    """An edited file. dropped: names of what the policy dropped. near: HW bool as the file's rows, where pixels may
    differ, None for the mask itself. anew: all were encoded with loss. blocks_equal: compares the coefficients of the
    finished file with the source's, None where there are none."""

    data: bytes
    dropped: list[str]
    note: str | None = None
    near: Mask | None = None
    anew: bool = False
    blocks_equal: Callable[[bytes], bool | None] | None = None


@dataclass(frozen=True)
class New:
    """A picture for a new file. stored: HWC, upright, in `mode`. exif: a block, from its byte order mark on."""

    stored: Stored
    mode: str
    icc: bytes | None
    dpi: Dpi | None
    exif: bytes | None
    quality: int


@dataclass(frozen=True)
class Target:
    """A format that any picture can be converted to. longest: pixels a side, 0 = no limit. deep, alpha: does it hold
    16 bits, transparency? lossless: from this quality on; over 100 = never."""

    write: Callable[[New], bytes]
    longest: int = 0
    deep: bool = False
    alpha: bool = True
    lossless: int = 0


Cleaned = tuple[bytes, list[str]]
"""A file, and the names of what was dropped from it, in its order."""


@dataclass(frozen=True)
class Format:
    """One image format. Functions take the whole file and raise ImageError.

    suffixes: of names, the one for new names first. starts: do the first bytes name it? header: struct.error and
    IndexError mean that it ends early. decode: whatever a foreign decoder raises is a damaged file. clean: the file
    without what 'scrub' or 'strip' forbid (with 'keep': without what shows an edited picture as it was); compressed
    pixel data passes byte for byte.
    write: an edit in the format itself; None: as PNG, and `as_png` says why.
    exif: the EXIF block, from its byte order mark on. orientation: what viewers turn the picture by, 1..8, where an
    edit keeps it. with_exif: the file with that block in place of its own, so that an orientation can move there.
    mark: the file saying that it was edited, None where it cannot. signs: a C2PA manifest can be laid on it.
    turn: the file turned upright without loss, None where that cannot be. same_data: is all that makes the pixels
    byte for byte the same in two files? target: how to convert to it.
    """

    name: str
    suffixes: tuple[str, ...]
    starts: Callable[[bytes], bool]
    header: Callable[[bytes], Header]
    decode: Callable[[bytes], Rows]
    clean: Callable[[bytes, Policy], Cleaned]
    write: Callable[[Edit], Written] | None = None
    as_png: str = ""
    exif: Callable[[bytes], bytes | None] | None = None
    orientation: Callable[[bytes], int] | None = None
    with_exif: Callable[[bytes, bytes], bytes] | None = None
    mark: Callable[[bytes], bytes | None] | None = None
    signs: bool = False
    turn: Callable[[bytes, int], bytes | None] | None = None
    same_data: Callable[[bytes, bytes], bool] | None = None
    target: Target | None = None


def u32le(data: bytes, at: int) -> int:
    """The unsigned 32-bit little-endian number at `at`."""
    value: int = struct.unpack_from("<I", data, at)[0]
    return value
