"""Codes for machines: QR, Data Matrix, Aztec, PDF417, and bar codes, by zxing-cpp and OpenCV.

No network and no weights. A code counts when it was decoded; one that is only seen (damaged, out of focus) counts less.
A code is gone when nobody can decode it any more, which is the strongest proof that any kind of thing here can have:
`CodeDetector(harder=True)` and `SecondCodeDetector` are for that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.detectors.views import tiles
from cleanplate.models.segmenters.masks import polygon_mask
from cleanplate.models.types import Image, Region

Quad = npt.NDArray[np.float64]
"""4 x 2: corners x, y, in order round the code, image pixels."""
QUIET = {"QRCode": 4 / 25, "MicroQRCode": 2 / 15, "RMQRCode": 2 / 27, "DataMatrix": 1 / 12, "Aztec": 1 / 19}
"""The quiet zone beside a small code of its kind, as a share of its side; a larger code's share is smaller."""
SQUARES = (
    *QUIET,
    "QRCodeModel1",
    "QRCodeModel2",
    "AztecCode",
    "AztecRune",
    "MaxiCode",
    "PDF417",
    "CompactPDF417",
    "MicroPDF417",
)
"""Forms whose corners decoders know; of bars they know a line across them."""
QUIET_OF_BARS, QUIET_OF_ROWS = 0.1, 0.03
ALIKE = 0.5
"""Correlation with the line that was read from which a line beside it is of the same bars."""
SEEN_ONLY = 0.6
"""Region.score of a code that shows a code's frame but could not be decoded."""
UNCHECKED = ("ITF", "Codabar", "Code39", "DXFilmEdge", "Telepen", "EAN2", "EAN5", "Code93", "DataBar")
"""Forms with little or no check: a pattern of stripes reads as a short one."""
LEAST_UNCHECKED = 6
"""Letters that such a form must have."""
SMALL, LARGE = 1600, 2600
"""Long sides below which a picture is also searched enlarged, and above which also reduced."""
SLANTS = (-30.0, -15.0, 15.0, 30.0, 45.0)
"""Degrees by which the picture is turned for what is read along rows and columns only: bars and PDF417."""


class CodeDetector:
    """Detector of codes, kind 'code', masks with their quiet zones; `Region.detector` ends in the form.

    harder: for the look at a result. More sizes, turns and sharpened copies, and only what was decoded counts. Holds no
    state between calls. Raises ImportError without zxing-cpp, nothing for an image's content.
    """

    def __init__(self, harder: bool = False, name: str = "codes") -> None:
        try:
            import zxingcpp
        except ImportError as error:
            raise ImportError("finding codes needs zxing-cpp: pip install zxing-cpp") from error
        self._zxing: Any = zxingcpp
        self._in_rows = zxingcpp.barcode_formats_from_str("AllLinear,PDF417")
        self.harder, self.name = harder, name
        self._seen, self._stripes = cv2.QRCodeDetectorAruco(), cv2.barcode.BarcodeDetector()

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        """One list of regions for each HWC uint8 RGB image, decoded ones first; boxes xyxy pixels."""
        return [self._regions(image) for image in images]

    def _regions(self, image: Image) -> list[Region]:
        grey = _grey(image)
        found: list[tuple[float, str, Quad]] = []
        for copy, back, level in _copies(grey, self.harder):
            for form, quad in self._decoded(copy, None if level else self._in_rows):
                whole = _mapped(quad, back)
                found.append((1.0, form, whole if form in SQUARES else whole_bars(grey, whole)))
        found += [(1.0, form, quad) for form, quad in self._straightened(grey)]
        if not self.harder:
            found += [(SEEN_ONLY, "QRCode", quad) for quad in self._frames(grey)]
        return once(image.shape, found, self.name)

    def _decoded(self, grey: npt.NDArray[np.uint8], forms: Any = None) -> Iterator[tuple[str, Quad]]:
        """(form, corners) of what can be decoded; forms: only these."""
        for one in self._zxing.read_barcodes(grey, **({} if forms is None else {"formats": forms})):
            form = one.format.name
            if form.startswith(UNCHECKED) and len(one.text) < LEAST_UNCHECKED:
                continue
            at = one.position
            corners = (at.top_left, at.top_right, at.bottom_right, at.bottom_left)
            quad = np.array([(corner.x, corner.y) for corner in corners], np.float64)
            if cv2.contourArea(quad.astype(np.float32)) > 0 or form not in QUIET:
                yield form, quad

    def _straightened(self, grey: npt.NDArray[np.uint8]) -> Iterator[tuple[str, Quad]]:
        """Patches of stripes at any angle, each turned level and decoded."""
        there, points = self._stripes.detectMulti(grey)
        for quad in _quads(there, points):
            middle, size, angle = cv2.minAreaRect(quad.astype(np.float32))
            wide = max(size)
            canvas = (round(1.5 * wide) + 40, round(1.5 * wide) + 40)
            matrix = np.asarray(cv2.getRotationMatrix2D(middle, angle, 1.0), np.float64)
            matrix[:, 2] += np.subtract(canvas, np.multiply(middle, 2)) / 2
            level = cv2.warpAffine(
                grey, matrix, canvas, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
            )
            back = np.asarray(cv2.invertAffineTransform(matrix), np.float64)
            for form, found in self._decoded(np.asarray(level, np.uint8)):
                placed = _mapped(found, back)
                yield form, placed if form in SQUARES else whole_bars(grey, placed)

    def _frames(self, grey: npt.NDArray[np.uint8]) -> list[Quad]:
        """Three corner marks of a QR code, whether or not what is between them can be decoded."""
        there, points = self._seen.detectMulti(grey)
        return [quad for quad in _quads(there, points) if _is_square(quad)]


class SecondCodeDetector:
    """OpenCV's decoders of QR and bar codes, of kind 'code': another implementation for another opinion."""

    def __init__(self, name: str = "codes-by-opencv") -> None:
        self.name = name
        self._square, self._bars = cv2.QRCodeDetector(), cv2.barcode.BarcodeDetector()

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        """One list of regions for each HWC uint8 RGB image, decoded codes only; boxes xyxy pixels."""
        return [self._regions(image) for image in images]

    def _regions(self, image: Image) -> list[Region]:
        grey = _grey(image)
        found: list[tuple[float, str, Quad]] = []
        if min(grey.shape) >= 20:
            for form, decoder in (("QRCode", self._square), ("bars", self._bars)):
                there, texts, points, *_ = decoder.detectAndDecodeMulti(grey)
                pairs = zip(_quads(there, points), texts, strict=False)
                found += [(1.0, form, quad) for quad, text in pairs if text]
        return once(image.shape, found, self.name)


def _grey(image: Image) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY), np.uint8)


def _quads(there: bool, points: Any) -> list[Quad]:
    """OpenCV's N x 4 x 2 corners, or None."""
    return list(np.asarray(points, np.float64).reshape(-1, 4, 2)) if there and points is not None else []


def once(shape: tuple[int, ...], found: list[tuple[float, str, Quad]], name: str) -> list[Region]:
    """(score, form, corners) -> each code once, the surest first, with its quiet zone, inside the picture."""
    height, width = shape[:2]
    regions: list[Region] = []
    for score, form, quad in sorted(found, key=lambda one: -one[0]):
        x, y = quad.mean(0)
        if any(r.box[0] <= x <= r.box[2] and r.box[1] <= y <= r.box[3] for r in regions):
            continue
        mask = polygon_mask((height, width), with_quiet(form, quad))
        if not mask.any():
            continue
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
        regions.append(Region("code", f"{name}:{form}", score, box, mask))
    return regions


def with_quiet(form: str, quad: Quad) -> Quad:
    """The corners of a code with its quiet zone."""
    along = (quad[1] + quad[2] - quad[0] - quad[3]) / 2
    down = (quad[2] + quad[3] - quad[0] - quad[1]) / 2
    share = QUIET.get(form, QUIET_OF_ROWS if "PDF417" in form else QUIET_OF_BARS)
    high = max(float(np.hypot(*down)), 1e-6)
    # Above and below bars nothing is quiet, but what stands there (digits) tells the same.
    below = share if form in QUIET else min(1.0, share * float(np.hypot(*along)) / high)
    sides = along * share, down * below
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return np.asarray(quad + signs[:, :1] * sides[0] + signs[:, 1:] * sides[1], np.float64)


def whole_bars(grey: npt.NDArray[np.uint8], quad: Quad) -> Quad:
    """All of a bar code of which a decoder gave the line that it read, or a part: wider along the bars for as long as
    the picture there is like that line."""
    start, stop = (quad[0] + quad[3]) / 2, (quad[1] + quad[2]) / 2
    length = float(np.hypot(*(stop - start)))
    if length < 8:
        return quad
    bar = _direction_of_bars(grey, start, stop)
    steps = np.linspace(0, 1, max(16, round(length)))[:, None]
    line = start + steps * (stop - start)
    read = _profile(grey, line)
    ends = []
    for sign in (-1, 1):
        far, quiet = 0.0, 0
        for step in np.arange(1, 1.5 * length, max(1.0, length / 200)):
            alike = max(
                _correlation(read, _profile(grey, line + sign * step * bar + shift * (stop - start) / length))
                for shift in (-2.0, 0.0, 2.0)
            )
            quiet = 0 if alike > ALIKE else quiet + 1
            far = far if quiet else float(sign * step)
            if quiet > 6:
                break
        ends.append(far)
    return np.array(
        [start + ends[0] * bar, stop + ends[0] * bar, stop + ends[1] * bar, start + ends[1] * bar]
    )


def _direction_of_bars(grey: npt.NDArray[np.uint8], start: Quad, stop: Quad) -> Quad:
    """Unit vector along the bars about a line across them: square to where grey levels change most."""
    rim = 3 + 0.03 * float(np.hypot(*(stop - start)))
    low = np.maximum(np.minimum(start, stop) - rim, 0).astype(int)
    high = np.ceil(np.maximum(start, stop) + rim).astype(int) + 1
    part = grey[low[1] : high[1], low[0] : high[0]].astype(np.float32)
    along = (stop - start) / max(float(np.hypot(*(stop - start))), 1e-6)
    if min(part.shape) < 3:
        return np.array([-along[1], along[0]])
    x, y = cv2.Sobel(part, cv2.CV_32F, 1, 0), cv2.Sobel(part, cv2.CV_32F, 0, 1)
    # Only near the line: a slanted line's window holds more than the code.
    rows, columns = np.mgrid[low[1] : low[1] + part.shape[0], low[0] : low[0] + part.shape[1]]
    apart = np.abs((columns - start[0]) * along[1] - (rows - start[1]) * along[0])
    near = apart <= rim
    tensor = np.array(
        [[(x * x)[near].sum(), (x * y)[near].sum()], [(x * y)[near].sum(), (y * y)[near].sum()]]
    )
    _, vectors = np.linalg.eigh(tensor)
    bar = np.asarray(vectors[:, 0], np.float64)  # Least change.
    return bar if bar @ np.array([-along[1], along[0]]) >= 0 else -bar


def _profile(grey: npt.NDArray[np.uint8], line: Quad) -> npt.NDArray[np.float32]:
    """Grey levels at points N x 2, 0 outside the picture."""
    at = line.astype(np.float32)
    found = cv2.remap(grey, at[:, :1], at[:, 1:], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(found[:, 0], np.float32)


def _correlation(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    a, b = one - one.mean(), other - other.mean()
    return float(a @ b / max(float(np.sqrt((a @ a) * (b @ b))), 1e-6))


def _copies(
    grey: npt.NDArray[np.uint8], harder: bool
) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64], bool]]:
    """Copies of the picture in which to look, each with the 2 x 3 matrix from its x, y back to the picture's, and
    whether it is level."""
    height, width = grey.shape
    long = max(height, width)
    scales = [1.0, *([2.0] if long < SMALL else []), *([SMALL / long] if long > LARGE else [])]
    if harder:
        scales += [0.5, 1.5, *([3.0] if long < SMALL // 2 else [])]
    for scale in scales:
        copy = _resized(grey, scale)
        matrix = np.array([[1 / scale, 0, 0], [0, 1 / scale, 0]])
        yield copy, matrix, True
        if harder:
            soft = cv2.GaussianBlur(copy, (0, 0), 2.0)
            yield np.asarray(cv2.addWeighted(copy, 3.0, soft, -2.0, 0), np.uint8), matrix, True
    turned = np.repeat(grey[..., None], 3, 2)
    for degrees in SLANTS:
        canvas, back = tiles.slanted(turned, degrees, min(long, SMALL))
        yield np.ascontiguousarray(canvas[..., 0]), back, False


def _resized(grey: npt.NDArray[np.uint8], scale: float) -> npt.NDArray[np.uint8]:
    if scale == 1:
        return grey
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(grey, size, interpolation=how), np.uint8)


def _mapped(quad: Quad, back: npt.NDArray[np.float64]) -> Quad:
    return np.asarray(quad @ back[:, :2].T + back[:, 2], np.float64)


def _is_square(quad: Quad) -> bool:
    """Whether four corners could be a square seen at a slant: convex, with sides of like length, 15 pixels or more."""
    sides = np.hypot(*(np.roll(quad, -1, 0) - quad).T)
    convex = cv2.isContourConvex(quad.astype(np.float32))
    return bool(convex and sides.min() >= 15 and sides.max() < 2 * sides.min() and math.isfinite(sides.sum()))
