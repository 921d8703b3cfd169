"""Pictures for people: what was found and what became of it, before | found | after."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pil
from PIL import ImageDraw, ImageFont

from cleanplate.models.types import Image, Mask, Region

COLUMNS = ("before", "found", "after")
THUMB_WIDTH, THUMB_HEIGHT = 360, 400  # px; a portrait is fitted into the height and centred
PANEL_WIDTH, PANEL_HEIGHT = 640, 720
CLOSE_UP_HEIGHT = 300
MARGIN, GAP, PAD = 32, 12, 16
MAX_LABELS = 8  # a tiled mark has dozens of boxes; their labels would hide the picture
MAX_ROWS = 100  # a JPEG ends at 65,535 lines; 100 rows of portraits come to about 49,000

PAPER, CARD, LINE, INK, FAINT = "#f4f3ef", "#ffffff", "#dedcd4", "#22252b", "#7c8087"
RED = (222, 38, 48)
STATUS_COLOURS = {
    "cleaned": "#2b8a3e",
    "hidden": "#5f3dc4",
    "unchanged": "#6c757d",
    "residual": "#c76a00",
    "skipped": "#3567a8",
    "failed": "#c92a2a",
}


@dataclass(frozen=True)
class SheetRow:
    """One image's story.

    before, after: HWC uint8 RGB, upright; None where there is none (a failed row), drawn as an empty frame.
    mask: HW bool of `before`, True = removed; None = nothing. regions: the finds, for boxes and labels.
    status: `cleaned`, `hidden`, `unchanged`, `residual`, `skipped`, `failed`; any other word is drawn grey.
    """

    before: Image | None
    mask: Mask | None
    after: Image | None
    title: str
    status: str
    regions: Sequence[Region] = ()


def contact_sheet(rows: Sequence[SheetRow]) -> bytes:
    """One line per row on a light page, as JPEG bytes.

    At most `MAX_ROWS` rows are drawn; the foot of the page says how many are not.
    Raises ValueError when there are no rows.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one row")
    cards = [_card(row, THUMB_WIDTH, THUMB_HEIGHT) for row in rows[:MAX_ROWS]]
    top, foot = MARGIN + 98, MARGIN + 8
    width = cards[0].width + 2 * MARGIN
    page = Pil.new("RGB", (width, top + foot + sum(c.height + GAP for c in cards)), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN - 6), "Before, found, after", INK, _font(30))
    draw.text((MARGIN, MARGIN + 34), _summary(rows), FAINT, _font(16))
    for i, name in enumerate(COLUMNS):
        draw.text((MARGIN + PAD + i * (THUMB_WIDTH + GAP), top - 12), name, FAINT, _font(14), anchor="ls")
    y = top
    for card in cards:
        page.paste(card, (MARGIN, y))
        y += card.height + GAP
    if len(rows) > MAX_ROWS:
        draw.text((MARGIN, y + 4), f"and {len(rows) - MAX_ROWS} more rows, not drawn", FAINT, _font(14))
    return _jpeg(page)


def before_mask_after(row: SheetRow) -> bytes:
    """One row in large, as JPEG bytes; below it a close-up of the largest find where there is a mask."""
    card = _card(row, PANEL_WIDTH, PANEL_HEIGHT)
    close_up = _close_up(row)
    height = card.height + (close_up.height + GAP if close_up else 0) + 2 * MARGIN
    page = Pil.new("RGB", (card.width + 2 * MARGIN, height), PAPER)
    page.paste(card, (MARGIN, MARGIN))
    if close_up:
        page.paste(close_up, (MARGIN, MARGIN + card.height + GAP))
    return _jpeg(page)


def overlay(image: Image, mask: Mask | None, regions: Sequence[Region], size: tuple[int, int]) -> Pil.Image:
    """`image` at `size` (width, height) with the mask in red, a box for each region, the surest labelled.

    Strokes thinner than a thumbnail's pixel stay visible: a pixel's red grows twice as fast as its share.
    """
    small = _fit(image, size)
    if mask is not None and mask.any():
        share = Pil.fromarray(mask.astype(np.uint8) * 255).resize(size, Pil.Resampling.BOX)
        alpha = share.point(lambda v: min(190, 2 * v))
        small.paste(Pil.new("RGB", size, RED), (0, 0), alpha)
    scale = size[0] / image.shape[1], size[1] / image.shape[0]
    draw = ImageDraw.Draw(small)
    taken: list[tuple[float, float, float, float]] = []
    for region in sorted(regions, key=lambda r: -r.score):
        x0, y0, x1, y1 = (v * scale[i % 2] for i, v in enumerate(region.box))
        draw.rectangle(
            (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)),
            outline=RED,
            width=2 if len(regions) <= MAX_LABELS else 1,
        )
        if len(taken) < MAX_LABELS:
            _label(draw, f"{region.kind} {region.score:.2f}", (x0, y0, x1, y1), size, taken)
    return small


def _label(
    draw: ImageDraw.ImageDraw,
    text: str,
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    taken: list[tuple[float, float, float, float]],
) -> None:
    """A label on the box's upper edge, or below it; left out where it would cover another label."""
    font = _font(13)
    wide, high = draw.textlength(text, font) + 8, 17
    x = min(max(0.0, box[0]), max(0.0, size[0] - wide))
    for y in (box[1] - high, box[3], box[1]):
        place = (x, y, x + wide, y + high)
        clear = all(p[2] <= x or place[2] <= p[0] or p[3] <= y or place[3] <= p[1] for p in taken)
        if clear and y >= 0 and y + high <= size[1]:
            taken.append(place)
            draw.rectangle(place, fill=RED)
            draw.text((x + 4, y + high / 2), text, "white", font, anchor="lm")
            return


def _card(row: SheetRow, width: int, max_height: int) -> Pil.Image:
    """A white card: title, status and coverage above three pictures of `width` px."""
    head = 44
    shape = next((i.shape for i in (row.before, row.after) if i is not None), None)
    size = _size(shape, width, max_height)
    card = Pil.new("RGB", (3 * width + 2 * GAP + 2 * PAD, head + size[1] + PAD), CARD)
    draw = ImageDraw.Draw(card)
    draw.rectangle((0, 0, card.width - 1, card.height - 1), outline=LINE)
    right = _pill(card, row.status, card.width - PAD, 12)
    note = _note(row)
    draw.text((right - 12, 22), note, FAINT, _font(14), anchor="rm")
    room = right - 24 - draw.textlength(note, _font(14)) - PAD
    draw.text((PAD, 22), _shorten(draw, row.title, room), INK, _font(17), anchor="lm")
    found = None if row.before is None else overlay(row.before, row.mask, row.regions, size)
    pictures = (_picture(row.before, size), found, _picture(row.after, size))
    for i, picture in enumerate(pictures):
        x = PAD + i * (width + GAP)
        draw.rectangle((x, head, x + width - 1, head + size[1] - 1), fill=PAPER)
        if picture is None:
            draw.text((x + width / 2, head + size[1] / 2), "no image", FAINT, _font(15), anchor="mm")
        else:
            card.paste(picture, (x + (width - size[0]) // 2, head))
    return card


def _close_up(row: SheetRow) -> Pil.Image | None:
    """The same cut of all three pictures around the largest region, or the whole mask without regions."""
    if row.before is None or row.mask is None or not row.mask.any():
        return None
    ys, xs = np.nonzero(row.mask)
    box = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
    if row.regions:
        box = max((r.box for r in row.regions), key=lambda b: (b[2] - b[0]) * (b[3] - b[1]))
    height, width = row.before.shape[:2]
    aspect = PANEL_WIDTH / CLOSE_UP_HEIGHT
    high = max(1.3 * (box[3] - box[1]), 1.3 * (box[2] - box[0]) / aspect, 24.0)
    high = min(high, height, width / aspect)
    x0 = round(min(max(0.0, (box[0] + box[2] - high * aspect) / 2), width - high * aspect))
    y0 = round(min(max(0.0, (box[1] + box[3] - high) / 2), height - high))
    cut = slice(y0, y0 + max(1, int(high))), slice(x0, x0 + max(1, int(high * aspect)))
    after = row.after[cut] if row.after is not None and row.after.shape == row.before.shape else None
    part = SheetRow(row.before[cut], row.mask[cut], after, f"close-up at x {x0}, y {y0}", row.status)
    return _card(part, PANEL_WIDTH, CLOSE_UP_HEIGHT)


def _summary(rows: Sequence[SheetRow]) -> str:
    statuses = [row.status for row in rows]
    counts = [
        f"{statuses.count(s)} {s}" for s in dict.fromkeys([*STATUS_COLOURS, *statuses]) if s in statuses
    ]
    return f"{len(rows)} image{'s' * (len(rows) != 1)}: {', '.join(counts)}"


def _note(row: SheetRow) -> str:
    finds = [f"{len(row.regions)} find{'s' * (len(row.regions) != 1)}"] if row.regions else []
    if row.mask is not None and row.mask.any():
        share = 100 * float(row.mask.mean())
        finds.append(f"{share:.1f} % masked" if share >= 0.1 else "under 0.1 % masked")
    return ", ".join(finds)


def _pill(card: Pil.Image, text: str, right: int, top: int) -> int:
    """A rounded label ending at `right`, drawn four times too large and shrunk; returns its left edge."""
    font = _font(13 * 4)
    wide = int(ImageDraw.Draw(card).textlength(text, font)) + 22 * 4
    big = Pil.new("L", (wide, 22 * 4), 0)
    ImageDraw.Draw(big).rounded_rectangle((0, 0, wide - 1, 22 * 4 - 1), radius=11 * 4, fill=255)
    size = (wide // 4, 22)
    colour = Pil.new("RGB", size, STATUS_COLOURS.get(text, FAINT))
    card.paste(colour, (right - size[0], top), big.resize(size, Pil.Resampling.LANCZOS))
    draw = ImageDraw.Draw(card)
    draw.text((right - size[0] / 2, top + 11), text, "white", _font(13), anchor="mm")
    return right - size[0]


def _shorten(draw: ImageDraw.ImageDraw, text: str, room: float) -> str:
    """Cuts the middle out of a long name: a path's both ends say most."""
    font, keep = _font(17), len(text)
    short = text
    while keep > 8 and draw.textlength(short, font) > room:
        keep -= 1
        short = f"{text[: keep // 2]}…{text[len(text) - keep // 2 :]}"
    return short


def _size(shape: tuple[int, ...] | None, width: int, max_height: int) -> tuple[int, int]:
    """(width, height) of the drawn picture: as wide as allowed, unless it would be too high."""
    if shape is None:
        return width, max_height // 2
    scale = min(width / shape[1], max_height / shape[0])
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def _picture(image: Image | None, size: tuple[int, int]) -> Pil.Image | None:
    return None if image is None else _fit(image, size)


def _fit(image: Image, size: tuple[int, int]) -> Pil.Image:
    return Pil.fromarray(np.ascontiguousarray(image)).resize(size, Pil.Resampling.LANCZOS)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own typeface: present wherever Pillow is."""
    return ImageFont.load_default(size)


def _jpeg(page: Pil.Image) -> bytes:
    buffer = io.BytesIO()
    page.save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue()
