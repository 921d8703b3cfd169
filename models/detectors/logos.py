"""Known marks in photographs: the directions of edges, correlated over sizes and turns.

A mark laid over a picture keeps the directions of its edges whatever its opacity, and whether it is lighter or darker
than what it covers. So an image becomes a field of doubled angles (twice the gradient's angle, as unit complex
numbers, damped where the gradient is noise), a mark the same field on its own edges, and the score of a place is the
mean cosine between the two: 1 = every edge of the mark runs as it should. (Orientation correlation in the spirit of
Fitch et al., BMVC 2002, with the doubled angle of structure tensors, so that polarity does not matter.)

A coarse search (sizes in steps of 12 %, turns of 6 degrees, one Fourier transform of the image for all references and
turns) gives places. The likeliest are fitted on a finer copy, and scored by how evenly the mark's parts agree, which a
chance agreement of one strong edge does not. A place that this leaves in doubt is looked at again with the mark's
colours and the sign of its edges (`blended`): that finds faint marks on rough ground; directions alone find
marks in other colours than the reference's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
import torch

from cleanplate.models.detectors.logo_blend import CLOSE, QUICK, Looked, Pose, Render, evenly
from cleanplate.models.detectors.views import tiles
from cleanplate.models.types import Image, Mask, Region

COARSE = 40
"""Long side of a mark in the coarse search, pixels."""
FINE = 96
"""... and in the fine one, at most."""
SIZE_STEP = 1.12
TURN_STEP = 6.0
NOISE = 1.5
"""Grey levels a pixel: gradients about this large count half."""
MIN_SCORE, SURE, MARGIN = 0.32, 0.5, 0.22
"""Lowest score that counts; score that counts by itself; how far one below it must stand out from what else in the
picture resembles the mark by chance. docs/notebook.md tells what they were chosen on."""
DOUBT, MOST_DOUBTS = 0.85, 8
"""From this share of the score that is asked on it may be one: nothing is copied from there. Of one mark in one picture
the best, at most: something in every picture resembles a mark by chance."""
SLACK = 8
"""Pixels of the finer copy by which the coarse place may err."""
AT_MOST = 12
"""Places of one reference that are looked at closely for their directions; as many again may be for their colours."""
AGREES, OPACITY = 0.4, 0.1
"""Lowest agreement in sign and colour, and lowest opacity that goes with it, by which a place counts."""
PROMISING = 0.15
"""Agreement in a first, coarse test of colours from which a place is looked at closely."""

Floats = npt.NDArray[np.float32]
Angles = npt.NDArray[np.complex64]
"""HW: direction of the edge at each pixel, doubled, as a complex number; its length 0..1 is how sure it is."""


@dataclass(frozen=True)
class Mark:
    """A reference picture. pixels: HWC uint8 RGB. shape: HW uint8, 255 = the mark, 0 = clear. cover: HW bool, the
    pixels that go where it is found."""

    name: str
    pixels: Image
    shape: npt.NDArray[np.uint8]
    cover: Mask

    @property
    def side(self) -> int:
        height, width = self.shape.shape
        return int(max(height, width))


@dataclass(frozen=True)
class _Template:
    """A mark at one size and turn. field: edges' doubled angles times weights that sum to 1, conjugated.
    cells: HW int, which of 3 x 3 parts an edge pixel is in."""

    field: Angles
    weight: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Place:
    """Where a mark was seen: centre x, y in image pixels, its long side in pixels, degrees (clockwise), score.
    agrees, opacity: what `blended` says of it; 0 where it was not asked."""

    x: float
    y: float
    side: float
    turn: float
    score: float
    agrees: float = 0.0
    opacity: float = 0.0

    @property
    def pose(self) -> Pose:
        return Pose(self.x, self.y, self.side, self.turn)


def mark_of(name: str, rgba: npt.NDArray[np.uint8]) -> Mark:
    """A reference cut to its mark. rgba: HWC uint8, 3 or 4 channels.

    With alpha, the mark is what is not clear, and so are the pixels that go. Without, a ground of one colour at the
    border is no part of it, but the whole rectangle round the rest goes: it may have been laid on with its
    ground. Raises ValueError when nothing, or no edge, is left.
    """
    pixels = np.ascontiguousarray(rgba[..., :3])
    clear = rgba.shape[2] == 4 and rgba[..., 3].min() < 255
    inside = rgba[..., 3] > 12 if clear else _off_ground(pixels)
    if not inside.any():
        raise ValueError(f"{name}: nothing but background")
    ys, xs = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    at = np.s_[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    shape = np.ascontiguousarray(rgba[at][..., 3] if clear else inside[at] * np.uint8(255))
    cover = shape > 12 if clear else np.ones_like(inside[at])
    pixels = pixels[at]
    if not clear and not inside.all():  # The ground is known, so the outline counts: a clear rim shows it.
        pixels, shape, cover = (
            np.pad(pixels, ((2, 2), (2, 2), (0, 0)), "edge"),
            np.pad(shape, 2),
            np.pad(cover, 2),
        )
    mark = Mark(name, np.ascontiguousarray(pixels), shape, cover)
    if min(shape.shape) < 4 or not np.any(_template(mark, COARSE, 0.0).weight):
        raise ValueError(f"{name}: too small, or without edges; it cannot be distinguished from a picture")
    return mark


def _off_ground(pixels: Image) -> Mask:
    """True where a picture differs from the one colour of its border; everywhere when it has none."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).astype(np.int16)
    ground = np.median(border, axis=0)
    if np.mean(np.abs(border - ground).max(1) > 24) > 0.05:
        return np.ones(pixels.shape[:2], np.bool_)
    return np.asarray(np.abs(pixels.astype(np.int16) - ground).max(2) > 24)


def angles(channels: npt.NDArray[np.uint8], noise: float = NOISE) -> Angles:
    """Doubled angles of an image's edges. channels: HWC uint8, any number of channels."""
    smooth = cv2.GaussianBlur(channels, (0, 0), 0.8).astype(np.float32)
    if smooth.ndim == 2:
        smooth = smooth[..., None]
    total = np.zeros(smooth.shape[:2], np.complex64)
    for c in range(smooth.shape[2]):
        gx = cv2.Scharr(smooth[..., c], cv2.CV_32F, 1, 0, scale=1 / 32)
        gy = cv2.Scharr(smooth[..., c], cv2.CV_32F, 0, 1, scale=1 / 32)
        total += (gx + 1j * gy) ** 2
    energy = np.abs(total)
    return np.asarray(total / (energy + noise**2 + 1e-9), np.complex64)


def _template(mark: Mark, side: float, turn: float) -> _Template:
    """The mark with its long side at `side` pixels, turned by `turn` degrees clockwise, on a canvas that holds it."""
    height, width = mark.shape.shape
    factor = side / mark.side
    reach = math.hypot(height, width) * factor / 2 + 3
    canvas = 2 * math.ceil(reach) + 1
    image, shape = mark.pixels, mark.shape
    if factor < 0.5:  # Average first: a warp takes four pixels of the many.
        size = (max(4, round(width * factor * 2)), max(4, round(height * factor * 2)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        shape = np.asarray(cv2.resize(shape, size, interpolation=cv2.INTER_AREA), np.uint8)
    matrix = _placing(shape.shape, side / max(shape.shape), turn, (canvas / 2, canvas / 2))
    opaque = bool((mark.shape == 255).all())
    border = cv2.BORDER_REPLICATE if opaque else cv2.BORDER_CONSTANT
    flat = cv2.warpAffine(image, matrix, (canvas, canvas), flags=cv2.INTER_LINEAR, borderMode=border)
    cover = cv2.warpAffine(shape, matrix, (canvas, canvas), flags=cv2.INTER_LINEAR)
    if opaque:
        field = angles(np.asarray(flat, np.uint8), 10.0)
        # What lies round a rectangle cut from elsewhere is not known, so its own outline does not count.
        field = field * (cv2.erode(cover, np.ones((5, 5), np.uint8)) > 250)
    else:
        share = cover[..., None].astype(np.float32) / 255
        over = np.uint8(np.round(flat * share + 128 * (1 - share)))
        field = angles(np.dstack([over, cover]), 10.0)
    sure = np.abs(field)
    weight = np.where(sure > 0.25, sure, 0).astype(np.float32)
    weight /= max(float(weight.sum()), 1e-6)
    unit = field / np.maximum(sure, 1e-6)
    return _Template(np.asarray(unit * weight, np.complex64), weight)


def _placing(
    size: tuple[int, ...], factor: float, turn: float, centre: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """2x3: from a picture of size (height, width) to where it lies scaled, turned clockwise, about `centre` x, y."""
    cos, sin = factor * math.cos(math.radians(turn)), factor * math.sin(math.radians(turn))
    # Pixel centres: the middle of a picture w wide is at (w - 1) / 2.
    mid_x, mid_y = (size[1] - 1) / 2, (size[0] - 1) / 2
    to_x, to_y = centre[0] - 0.5, centre[1] - 0.5
    return np.array(
        [[cos, -sin, to_x - cos * mid_x + sin * mid_y], [sin, cos, to_y - sin * mid_x - cos * mid_y]]
    )


class LogoDetector:
    """Detector of given marks, kind 'logo', with each mark's shape as `Region.mask`.

    marks: the references. rotation: largest turn either way, degrees. smallest, largest: long side of a mark, as
        shares of the image's long side; never below 32 pixels.
    min_score: lowest score that counts, and Region.score; below SURE a place must also stand out by MARGIN.

    Not found: marks turned further, mirrored, slanted or squeezed, cut off by the picture's edge, without edges
    of their own. Holds no state between calls. Raises ValueError for settings, nothing for an image's content.
    """

    def __init__(
        self,
        marks: Sequence[Mark],
        rotation: float = 15.0,
        smallest: float = 0.04,
        largest: float = 0.5,
        min_score: float = MIN_SCORE,
        name: str = "edge-angles",
    ) -> None:
        if not marks:
            raise ValueError("give at least one reference")
        if not 0 < smallest < largest <= 1:
            raise ValueError(f"sizes must be 0 < smallest < largest <= 1, not {smallest} and {largest}")
        self.name = name
        self.marks = list(marks)
        self.smallest, self.largest, self.min_score = smallest, largest, min_score
        steps = math.ceil(2 * rotation / TURN_STEP)
        self.turns = np.linspace(-rotation, rotation, steps + 1).tolist() if steps else [0.0]
        self._coarse = [[_template(mark, COARSE, turn) for turn in self.turns] for mark in self.marks]

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        """One list of regions for each HWC uint8 RGB image, surest first; boxes xyxy pixels, masks HW bool."""
        return [[r for r in regions if not r.doubtful] for regions in self.with_doubts(images)]

    def with_doubts(self, images: list[Image]) -> list[list[Region]]:
        """As a call, and behind them, doubtful, places that score DOUBT of what is asked or do not stand out."""
        return [self._regions(image) for image in images]

    def places(self, image: Image) -> list[list[Place]]:
        """Per reference, every place that was looked at closely, best first; scores below min_score too."""
        coarse = self._search(image)
        return [
            sorted(_looked_at(image, mark, some), key=lambda place: -place.score)
            for mark, some in zip(self.marks, coarse, strict=True)
        ]

    def _search(self, image: Image) -> list[list[Place]]:
        height, width = image.shape[:2]
        long = max(height, width)
        side = max(32.0, self.smallest * long)
        found: list[list[Place]] = [[] for _ in self.marks]
        while side <= max(self.largest * long, 32.0):
            factor = COARSE / side
            size = (max(1, round(width * factor)), max(1, round(height * factor)))
            if min(size) >= 12:
                small = _resized(image, size)
                field = torch.from_numpy(angles(small))
                self._search_at(field, (width / size[0], height / size[1]), side, found)
            side *= SIZE_STEP
        return [_apart(some, alike=1.5) for some in found]

    def _search_at(
        self, field: torch.Tensor, scale: tuple[float, float], side: float, found: list[list[Place]]
    ) -> None:
        """Add the peaks of every reference at one size. scale: image pixels for one of `field`'s, x and y."""
        canvas = max(t.weight.shape[0] for some in self._coarse for t in some)
        full = (_smooth_size(field.shape[0] + canvas), _smooth_size(field.shape[1] + canvas))
        spectrum = torch.fft.fft2(field, s=full)
        for number, templates in enumerate(self._coarse):
            best, which = torch.full(full, -1.0), torch.zeros(full, dtype=torch.int32)
            for n, template in enumerate(templates):
                own = torch.fft.fft2(torch.from_numpy(template.field), s=full)
                half = template.weight.shape[0] // 2
                # Rolled by half the canvas: the score then stands at the mark's centre, and may hang over the edge.
                score = torch.roll(torch.fft.ifft2(spectrum * own.conj()).real, (half, half), (0, 1))
                better = score > best
                best, which = torch.where(better, score, best), which.masked_fill_(better, n)
            highest = best[: field.shape[0], : field.shape[1]].numpy()
            for y, x in _peaks(highest, 0.2, 9):
                found[number].append(
                    Place(
                        (x + 0.5) * scale[0],
                        (y + 0.5) * scale[1],
                        side,
                        self.turns[int(which[y, x])],
                        float(highest[y, x]),
                    )
                )

    def _regions(self, image: Image) -> list[Region]:
        height, width = image.shape[:2]
        regions = []
        for mark, places in zip(self.marks, self.places(image), strict=True):
            sure = _without_parts(_apart(standing_out(places, self.min_score)))
            doubts = [one for one in places if one not in sure and one.score >= DOUBT * self.min_score]
            for place in [*sure, *doubts[:MOST_DOUBTS]]:
                mask = shape_of(mark, place, (height, width))
                ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                if xs.size:
                    box = (float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1))
                    name, score = f"{self.name}:{mark.name}", min(1.0, place.score)
                    regions.append(Region("logo", name, score, box, mask, doubtful=place not in sure))
        return sorted(regions, key=lambda region: (region.doubtful, -region.score))


def shape_of(mark: Mark, place: Place, size: tuple[int, int]) -> Mask:
    """HW bool of an image of size (height, width): the mark's pixels where it was seen."""
    matrix = _placing(mark.shape.shape, place.side / mark.side, place.turn, (place.x, place.y))
    warped = cv2.warpAffine(
        mark.cover.astype(np.uint8) * 255, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR
    )
    return np.asarray(warped > 25)


def _resized(image: Image, size: tuple[int, int]) -> Image:
    shrinks = size[0] < image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)


def _smooth_size(least: int) -> int:
    """The smallest number of at least `least` without prime factors above 5: fast Fourier transforms."""
    while True:
        rest = least
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return least
        least += 1


def _peaks(score: npt.NDArray[np.float32], least: float, width: int) -> list[tuple[int, int]]:
    """(y, x) of the pixels that are the highest of their neighbourhood and above `least`, at most 40."""
    top = cv2.dilate(score, np.ones((width, width), np.uint8))
    ys, xs = np.nonzero((score >= top) & (score > least))
    order = np.argsort(-score[ys, xs])[:40]
    return [(int(ys[i]), int(xs[i])) for i in order]


def _apart(places: list[Place], alike: float = math.inf) -> list[Place]:
    """Of places nearer to each other than 40 % of the larger one's side, and within `alike` times of one size, the
    better; best first."""

    def near(a: int, b: int) -> float:
        one, other = places[a], places[b]
        larger, smaller = max(one.side, other.side), min(one.side, other.side)
        away = math.hypot(one.x - other.x, one.y - other.y)
        return float(away < 0.4 * larger and larger <= alike * smaller)

    kept = tiles.suppress(len(places), [p.score for p in places], near, 0.5)
    return [places[i] for i in kept]


def _without_parts(places: list[Place]) -> list[Place]:
    """Without the smaller ones inside a better one: a corner of a flat mark looks like the mark's own."""

    def inside(one: Place, other: Place) -> bool:
        away = math.hypot(one.x - other.x, one.y - other.y)
        return one.side < 0.7 * other.side and away < 0.6 * other.side

    return [one for n, one in enumerate(places) if not any(inside(one, other) for other in places[:n])]


def _looked_at(image: Image, mark: Mark, coarse: list[Place]) -> list[Place]:
    """The likeliest of the coarse search's places (best first), looked at closely: those whose edges run best, and
    those that also have the mark's colours."""
    render = _renderer(mark)
    colours = [Looked(image, render, place.pose, QUICK).test(place.pose).agreement for place in coarse]
    both = sorted(range(len(coarse)), key=lambda n: -(coarse[n].score + colours[n]))
    wanted = {*range(min(AT_MOST, len(coarse))), *(n for n in both[:AT_MOST] if colours[n] > PROMISING)}
    return [_in_colour(image, render, _fitted(image, mark, coarse[n])) for n in sorted(wanted)]


def _in_colour(image: Image, render: Render, place: Place) -> Place:
    """The place with what its colours say, moved to where they agree best when that is what speaks for it."""
    if place.score >= SURE:
        return place
    looked = Looked(image, render, place.pose, CLOSE)
    found = looked.test(place.pose)
    if found.agreement > PROMISING and found.opacity > OPACITY / 4:
        pose, better = looked.refined(place.pose)
        if better.agreement >= AGREES and better.opacity >= OPACITY:
            score = max(place.score, better.agreement)
            return Place(pose.x, pose.y, pose.side, pose.turn, score, better.agreement, better.opacity)
        found = better
    return replace(place, agrees=found.agreement, opacity=found.opacity)


def _renderer(mark: Mark) -> Render:
    """Draws the mark for `blended`: its colours times its alpha, and its alpha."""
    whole = mark.shape.astype(np.float32) / 255
    sizes = [(whole, mark.pixels * whole[..., None])]
    while min(sizes[-1][0].shape) > 32:  # halves, so that a warp skips no pixels
        size = (sizes[-1][0].shape[1] // 2, sizes[-1][0].shape[0] // 2)
        smaller = [cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in sizes[-1]]
        sizes.append((np.asarray(smaller[0], np.float32), np.asarray(smaller[1], np.float32)))

    def render(side: float, turn: float, x: float, y: float, size: tuple[int, int]) -> tuple[Floats, Floats]:
        shape, colours = next((s for s in reversed(sizes) if max(s[0].shape) >= side), sizes[0])
        matrix = _placing(shape.shape, side / max(shape.shape), turn, (x, y))
        warped = [
            cv2.warpAffine(part, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR)
            for part in (colours, shape)
        ]
        return np.asarray(warped[0], np.float32), np.asarray(warped[1], np.float32)

    return render


def standing_out(places: list[Place], min_score: float) -> list[Place]:
    """Of the places of one mark in one picture those that are no chance: sure ones, those that have the mark's colours,
    and those of at least min_score that score MARGIN above the median of the five next best that are not sure."""
    kept = []
    for n, place in enumerate(places):
        rest = sorted((p.score for m, p in enumerate(places) if m != n and p.score < SURE), reverse=True)[:5]
        chance = float(np.median(rest)) if rest else 0.0
        coloured = place.agrees >= AGREES and place.opacity >= OPACITY
        if place.score >= min_score and (place.score >= SURE or coloured or place.score - chance >= MARGIN):
            kept.append(place)
    return kept


def _fitted(image: Image, mark: Mark, place: Place) -> Place:
    """The place, its size, turn and centre corrected on a finer copy, and scored there."""
    fine = min(float(FINE), 2 * place.side)
    factor = fine / place.side
    reach = place.side * 0.85 + 6 / factor
    x0, y0 = max(0, math.floor(place.x - reach)), max(0, math.floor(place.y - reach))
    x1, y1 = min(image.shape[1], math.ceil(place.x + reach)), min(image.shape[0], math.ceil(place.y + reach))
    window = image[y0:y1, x0:x1]
    size = (max(8, round((x1 - x0) * factor)), max(8, round((y1 - y0) * factor)))
    field = angles(_resized(np.ascontiguousarray(window), size))
    middle = (round((place.x - x0) * size[0] / (x1 - x0)), round((place.y - y0) * size[1] / (y1 - y0)))
    best = (-1.0, fine, place.turn, 0.0, 0.0, -1.0)
    for sizes, turns in (
        ((0.92, 0.96, 1.0, 1.04, 1.08), (0.0,)),
        ((1.0,), (-4.0, -2.0, 2.0, 4.0)),
        ((0.98, 1.02), (0.0,)),
        ((1.0,), (-1.0, 1.0)),
    ):
        mean, side, turn, *_ = best
        if -1 < mean < 0.3:
            break  # Chance: what is there agrees still less on the finer copy.
        for s in sizes:
            for t in turns:
                best = max(best, _best_at(field, middle, mark, side * s, turn + t))
    _, side, turn, x, y, score = best
    sx, sy = (x1 - x0) / size[0], (y1 - y0) / size[1]
    return Place(x0 + x * sx, y0 + y * sy, side * (sx + sy) / 2, turn, score)


def _best_at(
    field: Angles, middle: tuple[int, int], mark: Mark, side: float, turn: float
) -> tuple[float, float, float, float, float, float]:
    """(mean cosine, side, turn, x, y, score) of the best place, within SLACK of `middle`, of a mark in a field."""
    template = _template(mark, side, turn)
    canvas = template.weight.shape[0]
    # With a rim of half a canvas, the place of a mark's centre in the field is that of its canvas's corner here.
    padded = np.pad(field, canvas // 2)
    left, top = max(0, middle[0] - SLACK), max(0, middle[1] - SLACK)
    near = padded[top : middle[1] + SLACK + canvas, left : middle[0] + SLACK + canvas]
    pairs = [np.dstack([a.real, a.imag]) for a in (near, template.field)]
    _, highest, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(pairs[0], pairs[1], cv2.TM_CCORR))
    agreement = np.real(near[y : y + canvas, x : x + canvas] * template.field.conj())
    ys, xs = np.nonzero(template.weight)
    score = evenly(ys, xs, template.weight[ys, xs], agreement[ys, xs])
    return highest, side, turn, left + x + 0.5, top + y + 0.5, score
