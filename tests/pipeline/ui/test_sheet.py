"""The contact sheet: what it shows is looked for in its pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as Pil

from cleanplate.models.types import Image, Region
from cleanplate.pipeline.ui import contact_sheet as sheet
from cleanplate.pipeline.ui.contact_sheet import SheetRow, before_mask_after, contact_sheet, overlay
from rigs.scenes import scene


def row(seed: int = 0, status: str = "cleaned", size: tuple[int, int] = (256, 192)) -> SheetRow:
    image, things = scene(seed, size)
    mask = np.any([m for _, m in things], axis=0)
    after = image.copy()
    after[mask] = (0, 0, 255)
    return SheetRow(image, mask, after, f"photo-{seed}.jpg", status)


def pixels(jpeg: bytes) -> Image:
    return np.asarray(Pil.open(io.BytesIO(jpeg)).convert("RGB"))


def share_of(picture: Image, colour: tuple[int, int, int], tolerance: int = 40) -> float:
    """[0, 1]: the share of pixels near `colour`."""
    return float((np.abs(picture.astype(int) - colour).max(axis=2) <= tolerance).mean())


def panels(picture: Image) -> list[Image]:
    """The three columns of a sheet of 360 px thumbnails, below the page's head."""
    left = sheet.MARGIN + sheet.PAD
    step = sheet.THUMB_WIDTH + sheet.GAP
    return [picture[180:, left + i * step : left + i * step + sheet.THUMB_WIDTH] for i in range(3)]


def test_before_is_untouched_found_is_red_after_is_after() -> None:
    before, found, after = panels(pixels(contact_sheet([row()])))
    red, blue = sheet.RED, (0, 0, 255)
    assert share_of(before, red) < 0.001
    assert share_of(before, blue) < 0.001
    assert share_of(found, red, 70) > 0.01
    assert share_of(found, blue) < 0.001
    assert share_of(after, blue, 60) > 0.02


def test_the_before_picture_is_not_an_alias_of_what_was_drawn_on() -> None:
    given = row()
    region = Region("text", "drawn", 0.9, (10.0, 10.0, 90.0, 60.0))
    given = SheetRow(given.before, given.mask, given.after, given.title, given.status, [region])
    copies = [np.copy(a) for a in (given.before, given.mask, given.after) if a is not None]
    contact_sheet([given])
    before_mask_after(given)
    for kept, now in zip(copies, (given.before, given.mask, given.after), strict=True):
        np.testing.assert_array_equal(kept, now)


def test_status_has_its_colour() -> None:
    def right_edge(status: str) -> Image:
        return pixels(contact_sheet([row(status=status)]))[120:180, -160:]

    for status, colour in sheet.STATUS_COLOURS.items():
        rgb = tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
        others = [right_edge(s) for s in sheet.STATUS_COLOURS if s != status]
        assert share_of(right_edge(status), rgb, 12) > 0.05
        assert max(share_of(o, rgb, 12) for o in others) < 0.02


def test_a_stroke_of_one_pixel_is_seen_in_a_thumbnail_ten_times_smaller() -> None:
    image = np.full((2000, 3600, 3), 255, np.uint8)
    mask = np.zeros((2000, 3600), bool)
    mask[1000] = True
    small = np.asarray(overlay(image, mask, [], (360, 200)))
    assert int(small[100, :, 1].max()) < 235  # green taken from white: red shows
    assert (small[90] == 255).all()


def test_boxes_are_scaled_and_labels_keep_clear_of_each_other() -> None:
    image = np.full((400, 800, 3), 255, np.uint8)
    box = (200.0, 200.0, 600.0, 300.0)
    alone = np.asarray(overlay(image, None, [Region("text", "d", 0.9, box)], (400, 200)))
    assert tuple(alone[149, 200]) == sheet.RED  # the lower edge of the box, at half size
    assert tuple(alone[125, 100]) == sheet.RED  # its left edge
    assert (alone[125, 250] == 255).all()
    label = share_of(alone[80:100], sheet.RED)
    twice = [Region("text", "d", 0.9, box), Region("text", "e", 0.8, box)]
    both = np.asarray(overlay(image, None, twice, (400, 200)))
    assert share_of(both[80:100], sheet.RED) == pytest.approx(label)  # the second went below the box
    assert share_of(both[152:170], sheet.RED) > 0.05


def test_a_failed_row_has_frames_and_no_picture() -> None:
    page = pixels(contact_sheet([SheetRow(None, None, None, "broken.jpg", "failed")]))
    assert page.shape[1] == pixels(contact_sheet([row()])).shape[1]
    assert pixels(before_mask_after(SheetRow(None, None, None, "broken.jpg", "failed"))).size > 0


def test_no_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        contact_sheet([])


def test_more_rows_than_fit_are_counted_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet, "MAX_ROWS", 2)
    two = pixels(contact_sheet([row(0), row(1)]))
    four = pixels(contact_sheet([row(0), row(1), row(2), row(3)]))
    assert four.shape == two.shape
    assert share_of(two[-30:], (124, 128, 135), 60) == 0
    assert share_of(four[-35:], (124, 128, 135), 60) > 0


def test_the_largest_page_is_still_a_jpeg() -> None:
    # The height of a page of MAX_ROWS portraits, computed: drawing it would take a minute.
    card = 44 + sheet.THUMB_HEIGHT + sheet.PAD + sheet.GAP
    assert sheet.MAX_ROWS * card + 300 < 65_535


@pytest.mark.parametrize("size", [(1000, 8), (8, 1000), (1, 1)])
def test_extreme_shapes_are_drawn(size: tuple[int, int]) -> None:
    image = np.full((size[1], size[0], 3), 90, np.uint8)
    mask = np.ones((size[1], size[0]), bool)
    region = Region("text", "d", 1.0, (0.0, 0.0, float(size[0]), float(size[1])))
    strange = SheetRow(image, mask, image, "x" * 300, "cleaned", [region])
    assert pixels(contact_sheet([strange])).shape[1] == pixels(contact_sheet([row()])).shape[1]
    assert pixels(before_mask_after(strange)).size > 0


def test_the_large_picture_has_a_close_up_only_where_there_is_a_mask() -> None:
    marked = row()
    clean = SheetRow(marked.before, None, marked.before, "clean.jpg", "unchanged")
    high, low = (pixels(before_mask_after(r)).shape[0] for r in (marked, clean))
    assert high > low + sheet.CLOSE_UP_HEIGHT
