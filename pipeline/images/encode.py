"""Write an edit back into its file and touch nothing else; measure that it is so.

Orientation. Pixels are always given upright. With format='keep' the output is stored in the same frame as
its source and keeps the orientation tag, so that it shows as the source showed and JPEG blocks stay where
they are; an edited TIFF is written upright without the tag. orientation='bake' turns a JPEG upright without
loss where its sides allow it. With another format the output is upright and has no tag.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cleanplate.models.types import Image, Mask
from cleanplate.pipeline.images.c2pa_manifest import Marks, Sign
from cleanplate.pipeline.images.decode import (
    ALPHA,
    Decoded,
    decode,
    straight,
    to_eight_bits,
    to_rgb,
    upright,
    upright_to_stored,
)
from cleanplate.pipeline.images.formats import exif, png
from cleanplate.pipeline.images.formats.base import KINDS, Edit, ImageError, New, Written
from cleanplate.pipeline.images.formats.policy import POLICIES, Policy, policy_of
from cleanplate.pipeline.images.formats.table import FORMATS as TABLE
from cleanplate.pipeline.images.formats.table import clean, exif_block, turned_by
from cleanplate.pipeline.images.merge import all_equal, merge

__all__ = ["FORMATS", "KINDS", "POLICIES", "Decoded", "Encoded", "ImageError", "decode", "encode"]

FORMATS = ("keep", "png", "jpeg", "webp")
# A progressive JPEG whose scans are not all there: decoders smooth it, and a whole one with the same blocks not.
_OUTSIDE_NOTE = "pixels outside the mask differ from the source's"
_ALPHA_NOTE = "alpha was not searched: what it alone shows is as it was"
_CARRIED = "of metadata only EXIF, profile and resolution are carried over"


@dataclass(frozen=True)
class Encoded:
    """An output file and what was measured on it by decoding it again.

    format: of `data`; differs from what was asked only where `note` says why.
    edited: HW bool, upright: every pixel that may differ from the source's. The mask; of a JPEG the blocks that it
        touches, and one pixel round them where colours are subsampled; all of the picture where that was encoded
        anew with loss. None where no pixel may differ.
    pixels_equal: every pixel outside `edited` equals the source's (lossless formats: in full depth and with alpha).
        None where the whole picture was encoded anew with loss.
    jpeg_blocks_equal: every coefficient of every block that the mask does not touch equals the source's;
        None where source and output are not both JPEG.
    inside_changed: some pixel inside the mask differs from the source; False where nothing was edited.
    metadata_dropped: names of what the policy dropped.
    note: what a reader of the row should know, or None.
    """

    data: bytes
    format: str
    pixels_equal: bool | None
    jpeg_blocks_equal: bool | None
    metadata_dropped: list[str]
    note: str | None
    inside_changed: bool = False
    edited: Mask | None = None


def encode(
    source: bytes,
    decoded: Decoded,
    edited: Image | None,
    mask: Mask | None,
    *,
    format: str = "keep",
    quality: int = 95,
    metadata: str = "scrub",
    orientation: str = "keep",
    mark_edited: bool = False,
    sign: Sign | None = None,
) -> Encoded:
    """The output file of one image.

    source: the encoded file; decoded: `decode(source)`. edited: HWC uint8 RGB, upright; only its pixels
    inside the mask are used. mask: HW bool, upright, True = edited. No mask or an empty one means that
    nothing was found: with the format kept, the compressed image data passes byte for byte.
    format: 'keep', or 'png', 'webp' (lossless at quality 100, else lossy) or 'jpeg' to convert.
    quality: 1..100, for conversion to JPEG and lossy WebP only; a kept JPEG keeps its own tables.
    metadata: 'scrub', 'keep' or 'strip', see `cleanplate.pipeline.images.formats.policy`.
    orientation: 'keep', or 'bake' for JPEG with an orientation tag: blocks are moved and mirrored as they
    are and the tag is set to 1, also where nothing was found; what is measured is then measured against
    the turned source. Where a side is no multiple of the MCU the tag is kept and the note says so.

    mark_edited: write into an edited file that it was edited (see `formats.xmp`); where that cannot be, as in BMP,
    the note says so. sign: then lay a signed manifest on it (see `c2pa_manifest`).

    With format='keep': JPEG is spliced by blocks; PNG, TIFF, BMP and lossless WebP are written losslessly;
    lossy WebP becomes lossless WebP, since a lossy one would change every pixel; GIF, which cannot hold
    the new colours, and AVIF and HEIC, which code lossily, become PNG. Alpha is never edited.

    Raises ValueError for wrong arguments, ImageError('edit_lost') when the edit cannot be seen in the
    output, and ImageError where the file cannot be taken apart.
    """
    policy = _check(decoded, edited, mask, format, quality, metadata)
    if edited is None or mask is None or not mask.any():
        edited, mask = None, None
    if orientation not in ("keep", "bake"):
        raise ValueError(f"orientation is keep or bake, not {orientation!r}")
    turn = TABLE[decoded.format].turn
    if orientation == "bake" and turn and decoded.orientation != 1 and format in ("keep", decoded.format):
        turned = turn(source, decoded.orientation)
        note = "orientation tag kept: the sides are no multiples of the MCU"
        if turned is not None:
            source, decoded = turned, decode(turned, max_pixels=decoded.pixels.size)
            note = "turned upright without loss"
        done = encode(source, decoded, edited, mask, metadata=metadata, mark_edited=mark_edited, sign=sign)
        return replace(done, note=note if done.note is None else f"{note}; {done.note}")
    marks = Marks(mark_edited, sign)
    if format not in ("keep", decoded.format):
        _check_size(decoded, format)
        done = _converted(source, decoded, edited, mask, format, quality, policy, marks)
    elif edited is None or mask is None:
        done = _untouched(source, decoded, policy)
    else:
        done = _kept(source, decoded, edited, mask, policy, marks)
    if not _alpha_shows(decoded):
        return done
    return replace(done, note="; ".join(filter(None, (done.note, _ALPHA_NOTE))))


def _alpha_shows(decoded: Decoded) -> bool:
    # Detectors get the colours alone. An alpha that is the same everywhere draws nothing.
    return decoded.alpha is not None and int(decoded.alpha.min()) != int(decoded.alpha.max())


def _check_size(decoded: Decoded, name: str) -> None:
    # Before any work on the file.
    target = TABLE[name].target
    if target is not None and 0 < target.longest < max(decoded.width, decoded.height):
        raise ImageError(
            "format_limit",
            f"{decoded.width} x {decoded.height} pixels do not fit into {name}: at most {target.longest} a side",
        )


def _check(
    decoded: Decoded, edited: Image | None, mask: Mask | None, name: str, quality: int, policy: str
) -> Policy:
    size = (decoded.height, decoded.width)
    if name not in FORMATS and name != decoded.format:
        raise ValueError(f"format is one of {', '.join(FORMATS)}, not {name!r}")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality is 1..100, not {quality}")
    if mask is not None and (mask.dtype != np.bool_ or mask.shape != size):
        raise ValueError(f"the mask is {mask.dtype} {mask.shape}, the image needs bool {size}")
    if edited is not None and (edited.dtype != np.uint8 or edited.shape != (*size, 3)):
        raise ValueError(f"the edit is {edited.dtype} {edited.shape}, the image needs uint8 {(*size, 3)}")
    if mask is not None and mask.any() and edited is None:
        raise ValueError("a mask without an edited picture: the source would be written as if it were clean")
    return policy_of(policy)


def _untouched(source: bytes, decoded: Decoded, policy: Policy) -> Encoded:
    data, dropped = clean(source, decoded.format, policy=policy, edited=False)
    if data != source and not all_equal(decoded, decode(data, max_pixels=decoded.pixels.size), None):
        raise ImageError("corrupt", "the metadata cannot be removed without harm to the pixels")
    same_data = TABLE[decoded.format].same_data
    blocks = same_data(source, data) if same_data else None
    return Encoded(data, decoded.format, True, blocks, dropped, None)


def _kept(
    source: bytes, decoded: Decoded, edited: Image, mask: Mask, policy: Policy, marks: Marks
) -> Encoded:
    # An edit in the source's own format, or as PNG where that cannot hold it exactly.
    turn, write = decoded.orientation, TABLE[decoded.format].write
    edit = Edit(
        source=source,
        stored=upright_to_stored(merge(decoded, edited, mask), turn),
        mask=upright_to_stored(mask, turn),
        mode=decoded.mode,
        held=decoded.source_mode,
        icc=decoded.icc,
        dpi=decoded.dpi,
        orientation=turn,
        lossy=decoded.lossy,
        policy=policy,
        mark=marks.iptc,
    )
    written = write(edit) if write else _as_png(edit, decoded.format)
    name = decoded.format if write else "png"
    # The orientation may have stood in XMP that went.
    whole = turned_by(written.data, name, turn) if write else written.data
    data, note = marks.on(whole, name, written.note)
    near = mask if written.near is None else upright(written.near, turn)
    blocks = written.blocks_equal(data) if written.blocks_equal else None
    return _measured(decoded, edited, mask, near, data, name, blocks, written.dropped, note, written.anew)


def _as_png(edit: Edit, name: str) -> Written:
    one = TABLE[name]
    _, dropped = clean(edit.source, name, policy=edit.policy, edited=True)
    block = exif_block(edit.source, name)
    kept = exif.rebuild(block, policy=edit.policy, upright=True)[0] if block else None
    note = one.as_png.format(mode=edit.mode)
    if one.exif and edit.policy == "keep":
        note = f"{note}; {_CARRIED}"
    return Written(png.convert(New(edit.stored, edit.mode, edit.icc, edit.dpi, kept, 100)), dropped, note)


def _converted(
    source: bytes,
    decoded: Decoded,
    edited: Image | None,
    mask: Mask | None,
    name: str,
    quality: int,
    policy: Policy,
    marks: Marks,
) -> Encoded:
    # Another format than the source's: upright, with ICC, resolution and what EXIF the policy allows.
    target = TABLE[name].target
    if target is None:
        raise ValueError(f"{name} is no format to convert to")
    stored = decoded.stored if edited is None or mask is None else merge(decoded, edited, mask)
    stored, mode, icc = straight(stored, decoded.mode), decoded.mode.upper(), decoded.icc
    notes = [f"converted from {decoded.format}"]
    if mode == "CMYK":
        stored, mode, icc = to_rgb(stored, mode), "RGB", None
        notes.append("CMYK turned to RGB by the plain formula, its profile dropped")
    if decoded.bits == 16 and (not target.deep or decoded.mode == "CMYK"):
        stored = to_eight_bits(stored)
        notes.append("16 bits rounded to 8")
    if mode in ALPHA and not target.alpha:
        stored = stored[..., :-1]
        notes.append("alpha dropped")
    if policy == "keep":
        notes.append(_CARRIED)
    _, dropped = clean(source, decoded.format, policy=policy, edited=True)
    block = exif_block(source, decoded.format)
    kept = exif.rebuild(block, policy=policy, upright=True)[0] if block else None
    lossy = quality < target.lossless
    data = target.write(New(stored, mode, icc, decoded.dpi, kept, quality))
    note = "; ".join(notes)
    if edited is None or mask is None:
        equal = None if lossy else all_equal(decoded, decode(data, max_pixels=decoded.pixels.size), None)
        every = np.ones(decoded.pixels.shape[:2], bool) if lossy else None
        return Encoded(data, name, equal, None, dropped, note, edited=every)
    near = np.ones_like(mask) if lossy else mask
    data, noted = marks.on(data, name, note)
    return _measured(decoded, edited, mask, near, data, name, None, dropped, noted, lossy)


def _measured(
    decoded: Decoded,
    edited: Image,
    mask: Mask,
    near: Mask,
    data: bytes,
    name: str,
    blocks: bool | None,
    dropped: list[str],
    note: str | None,
    anew: bool,
) -> Encoded:
    # near: HW bool, where pixels may differ. anew: all of them, by a lossy encoder.
    out = decode(data, max_pixels=decoded.pixels.size)
    if out.pixels.shape != decoded.pixels.shape:
        raise ImageError("corrupt", "the output has another size than the source")
    before = decoded.pixels[mask]
    changed = bool((out.pixels[mask] != before).any())
    if not changed and (edited[mask] != before).any():
        raise ImageError("edit_lost", "the output shows the source inside the mask")
    equal = None if anew else all_equal(decoded, out, near)
    if equal is False:
        note = "; ".join(filter(None, (note, _OUTSIDE_NOTE)))
    return Encoded(data, name, equal, blocks, dropped, note, changed, near)
