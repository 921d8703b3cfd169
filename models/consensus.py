"""What many images have in common at the same place: a mark laid over a whole collection, and how to take it off.

After Dekel, Rubinstein, Liu and Freeman, "On the Effectiveness of Visible Watermarks", CVPR 2017. A mark blends as

    J = (1 - a) I + a W          a: opacity, W: colour; the same in every image, while I is another one each time

so across one edge of the mark, with L the level of I there,  dJ = (1 - a) dI + (W - L) da.  Natural images have
gradients of zero median: what the median over the images keeps is the mark (`common_edges`). The level L differs
from image to image, so a robust line through (L, dJ) over the images gives da (the slope) and d(aW) (the
intercept) apart (`_slopes`), where the median alone would mix them; a Poisson equation makes opacities of them.

Stacks are NHWC uint8 RGB: N images of one size, or windows of one size cut from the same place of N images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
import torch

from models.prefill import pyramid_fill
from models.regions import Image, Mask

Stack = npt.NDArray[np.uint8]
"""NHWC uint8 RGB."""
Floats = npt.NDArray[np.float32]
_MOST_PIXELS = 60_000_000
"""Of windows of a stack, held as floats a few times over: 3 GB at the peak."""


@dataclass(frozen=True)
class ConsensusSettings:
    """significance: an edge counts when its median is so many standard errors from zero. min_edges: a mark has so
    many of them. min_alpha: opacities below are none; 10 of 255 levels at full contrast. join: parts of a mark
    lie at most so many pixels apart. rounds: of estimating the opacity with the images that the last one gave."""

    significance: float = 4.5
    min_edges: int = 40
    min_alpha: float = 0.03
    join: int = 24
    rounds: int = 3


@dataclass(frozen=True)
class Mark:
    """An overlay. box: xyxy pixels of the stack's frame; alpha: HW float32 in [0, 1]; colour: HWC float32 RGB,
    0 to 255; both of the box's size. support: the images that it was found in."""

    box: tuple[int, int, int, int]
    alpha: Floats
    colour: Floats
    support: int

    @property
    def mask(self) -> Mask:
        """HW bool of the box: where the mark is."""
        return np.asarray(self.alpha > 0)


PRESENT = 0.5
"""An image of this `strength` and above carries the mark; the fits of marks are near 1, of their absence near 0."""


def find_marks(stack: Stack, settings: ConsensusSettings = ConsensusSettings()) -> list[Mark]:
    """The marks that the images of a stack share; none where they share nothing. At least 8 images.

    Small stacks find what is opaque; from about 30 images on, opacities of .15 are found (docs/notebook.md).
    """
    if len(stack) < 8:
        return []
    edges = common_edges(stack, settings.significance)
    marks = [_estimated(stack, edges, box, settings) for box in _boxes(edges, settings)]
    return [mark for mark in marks if mark is not None]


def common_edges(stack: Stack, significance: float) -> Mask:
    """HW bool: pixels at a gradient whose median over the images is not zero, by its own standard error.

    Two neighbours both count where the gradient between them does. Works in strips: a stack of differences
    would be twice the stack.
    """
    count, height, width = stack.shape[:3]
    out = np.zeros((height, width), np.bool_)
    strip = max(1, (64 << 20) // (count * width * 3 * 2))
    for y in range(0, height, strip):
        rows = stack[:, y : y + strip + 1].astype(np.int16)
        own = min(strip, height - y)
        across = _steady(np.diff(rows[:, :own], axis=2), significance)
        out[y : y + own, :-1] |= across
        out[y : y + own, 1:] |= across
        if rows.shape[1] > 1:
            down = _steady(np.diff(rows, axis=1), significance)
            out[y : y + len(down)] |= down
            out[y + 1 : y + 1 + len(down)] |= down
    return out


def _steady(differences: npt.NDArray[np.int16], significance: float) -> Mask:
    """N x h x w x 3 differences -> h x w: some channel's median is beyond its noise, and at least one level."""
    median = np.median(differences, axis=0)
    spread = 1.4826 * np.median(np.abs(differences - median), axis=0)
    # The median of n normal numbers has 1.2533 times the standard error of their mean.
    error = 1.2533 * np.maximum(spread, 1.0) / np.sqrt(len(differences))
    return np.asarray(((np.abs(median) >= 1) & (np.abs(median) > significance * error)).any(axis=-1))


def _boxes(edges: Mask, settings: ConsensusSettings) -> list[tuple[int, int, int, int]]:
    """xyxy boxes, with a rim, of the groups of edges that are large enough to be a mark."""
    reach = 2 * (settings.join // 2) + 1
    joined = cv2.dilate(edges.astype(np.uint8), np.ones((reach, reach), np.uint8))
    count, labels = cv2.connectedComponents(joined)
    height, width = edges.shape
    boxes = []
    for label in range(1, count):
        ys, xs = np.nonzero((labels == label) & edges)
        if len(ys) < settings.min_edges:
            continue
        rim = 16
        x0, y0 = max(0, int(xs.min()) - rim), max(0, int(ys.min()) - rim)
        boxes.append((x0, y0, min(width, int(xs.max()) + rim + 1), min(height, int(ys.max()) + rim + 1)))
    return boxes


# --- opacity and colour ---


@dataclass(frozen=True)
class _Edges:
    """Pairs of neighbours that the mark may separate: flat indices p, q = p + 1 or p + width, into a box."""

    p: npt.NDArray[np.intp]
    q: npt.NDArray[np.intp]
    shape: tuple[int, int]

    def differences(self, images: Floats) -> Floats:
        """N x HW x 3 -> N x E x 3."""
        return np.asarray(images[:, self.q] - images[:, self.p])

    def levels(self, images: Floats) -> Floats:
        return np.asarray((images[:, self.q] + images[:, self.p]) / 2)


def _edges_in(support: Mask) -> _Edges:
    height, width = support.shape
    flat = np.arange(height * width).reshape(height, width)
    across, down = support[:, 1:] & support[:, :-1], support[1:] & support[:-1]
    p = np.concatenate([flat[:, :-1][across], flat[:-1][down]])
    q = np.concatenate([flat[:, 1:][across], flat[1:][down]])
    return _Edges(p, q, (height, width))


def _estimated(
    stack: Stack, edges: Mask, box: tuple[int, int, int, int], settings: ConsensusSettings
) -> Mark | None:
    x0, y0, x1, y1 = box
    near = cv2.dilate(edges[y0:y1, x0:x1].astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    hole = _filled(near)
    # Floats of a large mark over many images: every second or third image will do.
    every = 1 + near.size * len(stack) // _MOST_PIXELS
    images = stack[::every, y0:y1, x0:x1].astype(np.float32)
    pairs = _edges_in(near)
    seen = images.reshape(len(images), -1, 3)
    steps = pairs.differences(seen)
    guess = _inpainted(images, hole).reshape(seen.shape)
    slope, cross, error = _slopes(steps, pairs.levels(guess))
    sure = np.abs(slope) > 3 * error
    if np.count_nonzero(sure & (np.abs(slope) > settings.min_alpha)) < settings.min_edges:
        return None
    alpha = _opacity(pairs, slope, sure, hole, settings)
    colour, several = _colours(pairs, slope, cross, error, alpha, hole)
    for _ in range(settings.rounds):
        levels = pairs.levels(_taken_off(seen, alpha, colour, guess))
        if several.any():
            # One colour is known well from the start, and would drift with the opacity; several are not.
            again = _colours(pairs, *_slopes(steps, levels), alpha, hole)[0]
            colour = np.where(several[..., None], again, colour)
        slope, error = _slopes_given(steps, levels, pairs, alpha, colour)
        alpha = _opacity(pairs, slope, np.abs(slope) > 2 * error, hole, settings)
    if not (alpha > 0).any():
        return None
    mark = Mark(box, alpha, colour, 0)
    return replace(mark, support=sum(strength(image, mark) > PRESENT for image in stack))


def _slopes(steps: Floats, levels: Floats) -> tuple[Floats, Floats, Floats]:
    """Robust lines step = cross - slope * level over N images, one slope an edge, one intercept a channel.

    steps, levels: N x E x 3. Gives slope E (= da), cross E x 3 (= d(aW)) and the slope's standard error E.
    """
    weight = np.ones((*steps.shape[:2], 1), np.float32)
    for _ in range(4):
        total = weight.sum(0)
        mean_step, mean_level = (weight * steps).sum(0) / total, (weight * levels).sum(0) / total
        off = levels - mean_level
        spread = (weight * off * off).sum((0, 2)) + 1e-3
        slope = -(weight * (steps - mean_step) * off).sum((0, 2)) / spread
        cross = mean_step + slope[:, None] * mean_level
        weight, error = _reweighted(steps - cross + slope[:, None] * levels, weight, spread)
    return slope, cross, error


def _slopes_given(
    steps: Floats, levels: Floats, pairs: _Edges, alpha: Floats, colour: Floats
) -> tuple[Floats, Floats]:
    """The same where the colour is known: step = (colour - level) slope + alpha * (step of the colour)."""
    at_p, at_q = colour.reshape(-1, 3)[pairs.p], colour.reshape(-1, 3)[pairs.q]
    between = (alpha.ravel()[pairs.p] + alpha.ravel()[pairs.q])[:, None] / 2
    steps = steps - between * (at_q - at_p)
    contrast = (at_p + at_q) / 2 - levels
    weight = np.ones((*steps.shape[:2], 1), np.float32)
    for _ in range(4):
        spread = (weight * contrast * contrast).sum((0, 2)) + 1e-3
        slope = (weight * contrast * steps).sum((0, 2)) / spread
        weight, error = _reweighted(steps - slope[:, None] * contrast, weight, spread)
    return slope, error


def _reweighted(residual: Floats, weight: Floats, spread: Floats) -> tuple[Floats, Floats]:
    """Cauchy weights for the next round (an image with an edge of its own there counts little), and the
    standard error of the slopes of this one."""
    size = np.sqrt((residual * residual).mean(2, keepdims=True))
    error = np.sqrt(3 * (weight * size * size).sum((0, 2)) / weight.sum((0, 2)) / spread)
    scale = 1.2 * np.median(size, axis=0) + 0.3
    return (1 / (1 + (size / scale) ** 2)).astype(np.float32), error


def _opacity(
    pairs: _Edges, slope: Floats, sure: npt.NDArray[np.bool_], hole: Mask, settings: ConsensusSettings
) -> Floats:
    """HW float32: the opacities whose differences are the sure slopes, 0 at the rim and outside the hole."""
    field = _integrated(pairs, np.where(sure, slope, 0))
    field[~hole | (field < settings.min_alpha)] = 0
    return np.clip(field, 0, 1).astype(np.float32)


def _integrated(pairs: _Edges, steps: Floats) -> npt.NDArray[np.float64]:
    """The field with these differences between neighbours (0 for pairs not named), by least squares: a Poisson
    equation with free borders, solved by cosine transforms. The median of its rim is 0."""
    height, width = pairs.shape
    even = (height + height % 2, width + width % 2)  # cv2.dct wants even sides.
    flow = np.zeros(height * width)
    np.add.at(flow, pairs.p, steps)
    np.subtract.at(flow, pairs.q, steps)
    flow = np.pad(flow.reshape(height, width), ((0, even[0] - height), (0, even[1] - width)))
    rows, columns = (2 * np.cos(np.pi * np.arange(n) / n) - 2 for n in even)
    divisor = rows[:, None] + columns[None]
    divisor[0, 0] = 1
    waves = np.asarray(cv2.dct(flow)) / divisor
    waves[0, 0] = 0
    field = np.asarray(cv2.idct(waves), np.float64)[:height, :width]
    rim = np.concatenate([field[0], field[-1], field[:, 0], field[:, -1]])
    return np.asarray(field - np.median(rim))


def _colours(
    pairs: _Edges, slope: Floats, cross: Floats, error: Floats, alpha: Floats, hole: Mask
) -> tuple[Floats, Mask]:
    """HWC float32: the colour of each connected part; where a part has several, that of each place in it (HW
    bool tells where)."""
    premultiplied = np.stack([_integrated(pairs, cross[:, c]) for c in range(3)], axis=-1)
    rough = np.clip(premultiplied / np.maximum(alpha, 0.02)[..., None], 0, 255).astype(np.uint8)
    local: Floats = cv2.medianBlur(rough, 5).astype(np.float32)
    out, several = local.copy(), np.zeros_like(hole)
    count, labels = cv2.connectedComponents(hole.astype(np.uint8))
    flat = labels.ravel()
    for label in range(1, count):
        mine = (flat[pairs.p] == label) & (np.abs(slope) > 0.03) & (np.abs(slope) > 3 * error)
        core = (labels == label) & (alpha > 0.5 * alpha[labels == label].max(initial=0))
        if not mine.any() or not core.any():
            continue
        weight = 1 / error[mine] ** 2
        fit = (weight[:, None] * cross[mine] * slope[mine, None]).sum(0) / (weight * slope[mine] ** 2).sum()
        one = np.asarray(fit, np.float32)
        if np.median(np.abs(local[core] - one).max(axis=-1)) < 40:
            out[labels == label] = np.clip(one, 0, 255)
        else:
            several |= labels == label
            out[labels == label] = _flat(local, core)[labels == label]
    return out, several


def _flat(colours: Floats, core: Mask) -> Floats:
    """HWC colours, each replaced by the nearest of the two or three that the core is made of: marks are drawn in
    flat colours, and their estimates are not."""
    samples = colours[core]
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 30, 0.5)
    cv2.setRNGSeed(0)
    for k in (2, 3):
        own = np.zeros((len(samples), 1), np.int32)
        _, _, found = cv2.kmeans(samples, k, own, stop, 4, cv2.KMEANS_PP_CENTERS)
        centres = np.asarray(found, np.float32)
        if np.median(np.abs(samples - centres[own.ravel()]).max(axis=-1)) < 40:
            nearest = np.linalg.norm(colours[:, :, None] - centres, axis=-1).argmin(axis=-1)
            return np.asarray(centres[nearest], np.float32)
    return colours


def _filled(mask: Mask) -> Mask:
    """The mask with its holes: what lies inside an outline may be under the mark too."""
    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    _, labels = cv2.connectedComponents(outside)
    return np.asarray(labels != labels[0, 0])[1:-1, 1:-1]


def _inpainted(images: Floats, hole: Mask) -> Floats:
    """N x H x W x 3, 0 to 255: the images with the hole filled smoothly from outside."""
    mask = torch.from_numpy(hole.astype(np.float32))[None, None]
    filled = []
    with torch.inference_mode():
        for image in images:
            known = torch.from_numpy(image / 255).permute(2, 0, 1)[None] * (1 - mask)
            filled.append(pyramid_fill(torch.cat([known, mask], 1))[0].permute(1, 2, 0).numpy() * 255)
    return np.stack(filled).astype(np.float32)


def _taken_off(images: Floats, alpha: Floats, colour: Floats, guess: Floats) -> Floats:
    """N x HW x 3: I = (J - aW) / (1 - a); towards `guess` where so little of I came through that noise is left."""
    a = alpha.reshape(-1, 1)
    trust = np.clip((0.85 - a) / 0.2, 0, 1)
    found = np.clip((images - a * colour.reshape(-1, 3)) / np.maximum(1 - a, 0.1), 0, 255)
    return np.asarray(trust * found + (1 - trust) * guess, np.float32)


# --- one image ---


def strength(image: Image, mark: Mark) -> float:
    """How strongly an image carries the mark: about 1 with it, about 0 without (or after it was taken off).

    image: HWC uint8 RGB, the frame that mark.box lies in. A robust fit of the image's gradients by those that
    the mark would make; nan where the mark would make none (its own colour everywhere).
    """
    x0, y0, x1, y1 = mark.box
    window = image[y0:y1, x0:x1].astype(np.float32)
    rim = cv2.dilate(mark.mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    pairs = _edges_in(rim)
    flat, alpha = window.reshape(1, -1, 3), mark.alpha.ravel()
    colour = mark.colour.reshape(-1, 3)
    under = pairs.levels(_inpainted(window[None], rim).reshape(1, -1, 3))[0]
    made = (alpha[pairs.q] - alpha[pairs.p])[:, None] * ((colour[pairs.p] + colour[pairs.q]) / 2 - under)
    steps = pairs.differences(flat)[0]
    if float((made * made).sum()) < 1:
        return float("nan")
    weight = np.ones((len(steps), 1), np.float32)
    fit = 0.0
    for _ in range(6):
        fit = float((weight * steps * made).sum() / ((weight * made * made).sum() + 1e-6))
        size = np.sqrt(((steps - fit * made) ** 2).mean(1, keepdims=True))
        weight = 1 / (1 + (size / (np.median(size) + 1)) ** 2)
    return fit


def scaled(mark: Mark, frame: tuple[int, int], size: tuple[int, int]) -> Mark:
    """The mark of a frame of (width, height) pixels as it lies in one of another size: same place, in shares."""
    if frame == size:
        return mark
    fx, fy = size[0] / frame[0], size[1] / frame[1]
    x0, y0 = round(mark.box[0] * fx), round(mark.box[1] * fy)
    x1, y1 = min(size[0], round(mark.box[2] * fx)), min(size[1], round(mark.box[3] * fy))
    to = (max(1, x1 - x0), max(1, y1 - y0))
    way = cv2.INTER_AREA if fx * fy < 1 else cv2.INTER_LINEAR
    alpha = np.asarray(cv2.resize(mark.alpha, to, interpolation=way), np.float32)
    colour = np.asarray(cv2.resize(mark.colour, to, interpolation=way), np.float32)
    return replace(mark, box=(x0, y0, x0 + to[0], y0 + to[1]), alpha=alpha, colour=colour)


def take_off(image: Image, mark: Mark, most: float = 0.7) -> tuple[Image, Mask]:
    """Undo the blend where the opacity allows it.

    image: HWC uint8 RGB, the frame that mark.box lies in. Gives the image without the mark (equal to the input
    outside it), and HW bool of the whole image: where the opacity is `most` or more, too little of the picture
    came through, and what stands there has to be inpainted.
    """
    x0, y0, x1, y1 = mark.box
    out = image.copy()
    rest = np.zeros(image.shape[:2], np.bool_)
    rest[y0:y1, x0:x1] = mark.alpha >= most
    a = mark.alpha[..., None]
    kept = (a > 0) & (a < most)
    window = image[y0:y1, x0:x1].astype(np.float32)
    clean = np.clip(np.rint((window - a * mark.colour) / np.maximum(1 - a, 0.05)), 0, 255).astype(np.uint8)
    out[y0:y1, x0:x1] = np.where(kept, clean, image[y0:y1, x0:x1])
    return out, rest
