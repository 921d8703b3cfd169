"""What must be true of one committed row, looked at from its bytes alone and, where it can be had, its source.

Nothing here trusts what the row says of itself (`untouched`, `status`): hashes are made anew, pictures and masks
are decoded, blocks and pixels are compared again, by code of its own rather than the writer's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cleanplate.models.types import Mask
from cleanplate.pipeline import schema
from cleanplate.pipeline.images import encode
from cleanplate.pipeline.images import rle as masks
from cleanplate.pipeline.images.decode import Decoded, upright, upright_to_stored
from cleanplate.pipeline.images.formats.jpeg_coding import blocks as jpeg_blocks
from cleanplate.pipeline.images.formats.jpeg_coding import rotate as jpeg_rotate
from cleanplate.pipeline.ledger import plan

Row = dict[str, Any]
Finding = tuple[str, str | None]
"""A check's name, and what is wrong in words, or None where it was looked at and found right."""


def of_row(row: Row, digest: str) -> Iterator[Finding]:
    """The checks that need no source. row: a row of a part, every column. digest: the run's recipe digest."""
    right = plan.image_id(row["source_uri"], row["source_version"]) == row["image_id"]
    yield "identity", None if right else "image_id is not the hash of source_uri and source_version"
    yield "recipe", None if row["recipe_digest"] == digest else "recipe_digest is not run.json's"
    yield "status", _status(row)
    yield from _masks(row)
    image = (row["image"] or {}).get("bytes")
    if image is None:
        return
    right = hashlib.sha256(image).hexdigest() == row["output_sha256"]
    yield "output hash", None if right else "output_sha256 is not the hash of image.bytes"
    if row["status"] in ("cleaned", "hidden", "residual") and row["mask_rle"]:
        same = row["output_sha256"] == row["source_sha256"]
        yield "edited", "masked, but the output is the source's very bytes" if same else None
    try:
        found = encode.decode(image)
    except encode.ImageError as error:
        yield "image", f"the output does not decode: {error}"
        return
    stored, is_so = (
        _kind(row["output_format"], row),
        _kind(found.format, {"width": found.width, "height": found.height}),
    )
    yield "image", None if stored == is_so else f"the output is {is_so}, the row says {stored}"


def _kind(name: str | None, row: Row) -> str:
    return f"{name} {row['width']}x{row['height']}"


def _status(row: Row) -> str | None:
    status, has_image = row["status"], bool((row["image"] or {}).get("bytes"))
    if status not in schema.STATUSES:
        return f"unknown status {status!r}"
    if (row["error"] is not None) != (status in ("failed", "skipped")):
        return f"{status}, but error is {'set' if row['error'] else 'empty'}"
    if has_image != (status not in ("failed", "skipped")) and status != "skipped":
        return f"{status}, but there is {'an' if has_image else 'no'} output image"
    if status in ("cleaned", "hidden") and not row["mask_rle"]:
        return f"{status}, but there is no mask"
    if status == "unchanged" and row["mask_rle"]:
        return "unchanged, but there is a mask"
    if (status == "residual") != bool(row["residual"]) and status in (
        "cleaned",
        "hidden",
        "unchanged",
        "residual",
    ):
        return f"{status}, but residual holds {len(row['residual'] or [])} finds"
    return None


def _masks(row: Row) -> Iterator[Finding]:
    """Every mask decodes, covers what it says, and no region lies outside the row's own mask."""
    named = [(r["rle"], r["area_px"]) for r in row["regions"] or [] if r["rle"]]
    if not row["mask_rle"] and not row["edited_rle"] and not named:
        return
    try:
        whole = mask_of(row)
        _edited(row)
        inside = [(masks.from_rle(rle, row["height"], row["width"]), area) for rle, area in named]
    except (ValueError, TypeError) as error:  # TypeError: a mask on a row without a size
        yield "masks", f"a mask does not decode: {error}"
        return
    if any(masks.area(mask) != area for mask, area in inside):
        yield "masks", "a region's mask has not area_px pixels"
    elif any((mask & ~whole).any() for mask, _ in inside):
        yield "masks", "a region's mask reaches outside mask_rle"
    elif not np.isclose(masks.coverage(whole), row["mask_coverage"] or 0.0, atol=1e-6):
        yield (
            "masks",
            f"mask_coverage says {row['mask_coverage']}, the mask covers {masks.coverage(whole):.6f}",
        )
    else:
        yield "masks", None


def mask_of(row: Row) -> Mask:
    """HW bool: every pixel that was allowed to change. Raises ValueError for runs that do not fit."""
    if not row["mask_rle"]:
        return np.zeros((row["height"], row["width"]), bool)
    return masks.from_rle(row["mask_rle"], row["height"], row["width"])


# --- against the source ---


def against_source(row: Row, source: bytes, version: str = schema.VERSION) -> Iterator[Finding]:
    """Is the source what it was, is the edit to be seen in it, and is everything outside the mask equal?

    source: the bytes behind row's source_uri, read again. version: of the row's part; part/1 had no edited_rle, so the
    area that its edit can reach is taken for it.
    """
    if row["source_sha256"] is None:
        return
    same = hashlib.sha256(source).hexdigest() == row["source_sha256"]
    yield "source hash", None if same else "the source's bytes are not what was read"
    image = (row["image"] or {}).get("bytes")
    if not same or image is None:
        return
    try:
        before, after, mask = encode.decode(source), encode.decode(image), mask_of(row)
        _edited(row)
    except (encode.ImageError, ValueError, TypeError):
        return  # The checks of the row itself report it.
    if before.orientation != 1 and (before.format, after.format, after.orientation) == ("jpeg", "jpeg", 1):
        turned = jpeg_rotate.turn(source, before.orientation)
        if turned is not None:  # The recipe had it stored upright: compare with the source turned likewise.
            source, before = turned, encode.decode(turned)
    if before.pixels.shape != after.pixels.shape or mask.shape != before.pixels.shape[:2]:
        yield "outside", "source, output and mask differ in size"
        return
    if mask.any() and row["status"] != "skipped":
        changed = bool((before.pixels[mask] != after.pixels[mask]).any())
        yield "edit seen", None if changed else "no pixel inside the mask differs from the source"
    yield from _outside(row, source, image, (before, after), mask, version)


def _outside(
    row: Row, source: bytes, image: bytes, pictures: tuple[Decoded, Decoded], mask: Mask, version: str
) -> Iterator[Finding]:
    """Does edited_rle hold no more than the file's format needs, and does nothing differ outside of it?"""
    before, after = pictures
    edited = _edited(row)
    if row["status"] == "skipped":  # Its mask says what was found; nothing was filled.
        mask = np.zeros_like(mask)
    if _anew(row, source, image, after):
        # A lossy encoder wrote every pixel anew: nothing can be equal, and the row must say so.
        if version != "part/1":
            wrong = None if edited.all() else "encoded anew with loss, but edited_rle leaves pixels out"
            yield "edited area", wrong
        return
    blocks: bool | None = None
    needed = mask
    if before.format == after.format == "jpeg" and before.orientation == after.orientation and mask.any():
        try:
            blocks, needed = _jpeg(source, image, before, mask)
        except jpeg_blocks.SpliceError:
            return
    if version == "part/1":
        edited = needed
    if (mask & ~edited).any():
        yield "edited area", "edited_rle leaves out pixels of mask_rle"
    else:
        more = int(np.count_nonzero(edited & ~needed))
        yield "edited area", f"edited_rle holds {more} pixels that no edit reaches" if more else None
    if blocks is False:
        yield "outside", "a JPEG block that the mask does not touch has changed"
        return
    differ = _different(before, after) & ~edited
    count = int(np.count_nonzero(differ))
    yield "outside", f"{count} pixels outside edited_rle differ from the source" if count else None


def _anew(row: Row, source: bytes, image: bytes, after: Decoded) -> bool:
    """Was the whole picture encoded anew with loss, as the row's note says?"""
    note = row["note"] or ""
    claims = (row["untouched"] or {}).get("pixels_equal") is not None
    return after.lossy and image != source and not claims and ("encoded anew" in note or "converted" in note)


def _edited(row: Row) -> Mask:
    """HW bool: every pixel that the row says may differ. Raises ValueError for runs that do not fit."""
    if not row["edited_rle"]:
        return np.zeros((row["height"], row["width"]), bool)
    return masks.from_rle(row["edited_rle"], row["height"], row["width"])


def _different(before: Decoded, after: Decoded) -> npt.NDArray[np.bool_]:
    """HW bool, in full depth where both files hold the same mode."""
    if (before.mode, before.bits) == (after.mode, after.bits):
        return np.asarray((before.stored != after.stored).any(axis=2))
    return np.asarray((before.pixels != after.pixels).any(axis=2))


def _jpeg(source: bytes, image: bytes, before: Decoded, mask: Mask) -> tuple[bool | None, Mask]:
    """Are the blocks that the mask does not touch equal, and (HW bool, upright) the pixels that an edit can
    reach: those under touched blocks, and one more round them where colours are subsampled: decoders smooth them."""
    turned = upright_to_stored(mask, before.orientation)
    old = jpeg_blocks.read(source)
    across, down = max(c.h for c in old.components), max(c.v for c in old.components)
    touched, reached = [], np.zeros_like(turned)
    for c in old.components:
        high, wide = 8 * down // c.v, 8 * across // c.h
        cells = _cells(turned, high, wide, c.blocks.shape[:2])
        touched.append(cells)
        more = int(any((o.h, o.v) != (c.h, c.v) for o in old.components))
        for y, x in zip(*(axis.tolist() for axis in np.nonzero(cells)), strict=True):
            reached[
                max(0, y * high - more) : (y + 1) * high + more,
                max(0, x * wide - more) : (x + 1) * wide + more,
            ] = True
    return jpeg_blocks.blocks_equal(old, image, touched), upright(reached, before.orientation)


def _cells(mask: Mask, high: int, wide: int, shape: tuple[int, ...]) -> Mask:
    """shape bool: which cells of high x wide pixels hold a pixel of the mask."""
    out = np.zeros(shape, bool)
    ys, xs = np.nonzero(mask)
    ys, xs = ys // high, xs // wide
    fits = (ys < shape[0]) & (xs < shape[1])
    out[ys[fits], xs[fits]] = True
    return out
