"""What a line says, and whether that makes it believable as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from cleanplate.models.detectors.lettering.letters import Lettering
from cleanplate.models.detectors.lettering.lines import Line, Quad
from cleanplate.models.detectors.onnx_session import Floats, Session, levels, planes
from cleanplate.models.types import Image

LEVELS = levels((127.5,) * 3, (127.5,) * 3)
READ_HEIGHT = 48
"""Pixels; what the recogniser was trained on."""
READ_WIDTHS = (96, 160, 320, 480, 640, 960, 1280, 1920, 2560)
"""Widths of its input; few, so that batches fill."""


SKETCH, INK_IF_DRAWN = 0.5, 0.92
"""Of a line found in an overlay's map: how well it reads there, or how sure its strokes are, at least. Of 72 texts on
photographs held out 69 keep such a line, of 20 photographs without one that had one (most are lettered) 8."""
INK_IF_READ, INK_IF_NOT, LEAST_INK, MOST_INK = 0.7, 0.84, 0.05, 0.65
"""Of a line that does not read well: lowest certainty of its strokes, least and most of the line that they may
take. docs/notebook.md tells what they were chosen on."""
INK_IF_BESIDE, MOST_IF_BESIDE = 0.78, 0.5
"""The same of one beside a line that is text: of 120 texts and 50 photographs without one, held out, these take five
lines of text more and none that is not."""

WINDOWS = frozenset("日目田口回国曰囗困四百品吕昌晶由甲申")
"""Glyphs as which windows, shutters and tiles are read: a line of nothing else is not read at all."""
REPEATED = 0.3
"""Different letters by all of a line of five or more: a chain or a fence reads as OOIOIO."""
LONG = 2.5
"""How many times as long as high a line of one letter is at most: a letter does not fill more."""
LARGE, HUGE = 0.05, 0.12
"""Shares of the picture from which a line of which two letters were read at most must have surer strokes
(INK_IF_NOT), and from which more than one letter of it must be read."""
INK_IF_ONE = 0.945
"""Of a line found in an overlay's map of which at most one letter was read: buttons and leaves are such."""


class Reader:
    """Reads lines: each is straightened to a strip 48 pixels high and decoded as CTC."""

    def __init__(self, session: Session) -> None:
        self._session = session
        characters = session.get_modelmeta().custom_metadata_map["character"].split("\n")
        self._characters = ["", *characters, " "]

    def __call__(self, images: Sequence[Image], lines: Sequence[Sequence[Line]]) -> list[list[Line]]:
        """The lines of each image with text and score; a line that runs up or down is read both ways. Lines of
        all images share the recogniser's batches."""
        turns = [(n, i, line.quad, False) for n, some in enumerate(lines) for i, line in enumerate(some)]
        turns += [(n, i, np.roll(quad, -2, 0), True) for n, i, quad, _ in turns if _steep(quad)]
        best = [list(some) for some in lines]
        readings = self.read([strip(images[n], quad) for n, _, quad, _ in turns])
        for (n, i, quad, back), (text, score, columns) in zip(turns, readings, strict=True):
            if score > best[n][i].read:
                shares = [min(1.0, column / _width_of(quad)) for column in columns]
                places = tuple(1 - share if back else share for share in shares)
                best[n][i] = replace(best[n][i], text=text, read=score, places=places)
        return best

    def read(self, strips: Sequence[Image]) -> list[tuple[str, float, list[float]]]:
        """Strips (48 x W x 3 uint8 RGB, W in READ_WIDTHS) -> (text, mean probability of its characters, the column of
        each)."""
        out: list[tuple[str, float, list[float]]] = [("", 0.0, [])] * len(strips)
        for width in READ_WIDTHS:
            of_width = [i for i, one in enumerate(strips) if one.shape[1] == width]
            count = max(1, 2560 // width)
            for start in range(0, len(of_width), count):
                some = of_width[start : start + count]
                feeds = {"x": planes([strips[i] for i in some], LEVELS, bgr=True)}
                for i, probabilities in zip(some, self._session.run(None, feeds)[0], strict=True):
                    out[i] = self._decode(probabilities, width)
        return out

    def _decode(self, probabilities: Floats, width: int) -> tuple[str, float, list[float]]:
        """T x C probabilities of a strip so wide; class 0 is the blank, repeats collapse."""
        best = probabilities.argmax(1)
        fresh = (best != 0) & np.concatenate([[True], best[1:] != best[:-1]])
        if not fresh.any():
            return "", 0.0, []
        fresh &= best < len(self._characters)
        text = "".join(self._characters[k] for k in best[fresh])
        columns = (np.flatnonzero(fresh) + 0.5) * width / len(best)
        return text, float(probabilities.max(1)[fresh].mean()), columns.tolist()


def _width_of(quad: Quad) -> int:
    """Columns of a strip that show the line itself."""
    along = float(np.linalg.norm(quad[1] - quad[0]))
    across = max(1.0, float(np.linalg.norm(quad[3] - quad[0])))
    return min(max(16, math.ceil(READ_HEIGHT * along / across)), READ_WIDTHS[-1])


def strip(image: Image, quad: Quad) -> Image:
    """The line straightened to 48 pixels high, padded on the right with grey to a width of READ_WIDTHS.

    So what is read does not depend on the line's neighbours in a batch.
    """
    across = max(1.0, float(np.linalg.norm(quad[3] - quad[0])))
    wanted = _width_of(quad)
    padded = next(width for width in READ_WIDTHS if width >= wanted)
    image, corners = _shrunk(image, quad, across / READ_HEIGHT)
    target = np.array([[0, 0], [wanted, 0], [wanted, READ_HEIGHT], [0, READ_HEIGHT]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), target)
    warped = cv2.warpPerspective(
        image, matrix, (wanted, READ_HEIGHT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    out = np.full((READ_HEIGHT, padded, 3), 127, np.uint8)
    out[:, :wanted] = warped
    return out


def _shrunk(image: Image, quad: Quad, factor: float) -> tuple[Image, Quad]:
    """The part of the image around the line, averaged down when a warp would skip pixels (factor > 2)."""
    height, width = image.shape[:2]
    x0, y0 = np.clip(np.floor(quad.min(0)).astype(int) - 2, 0, [width - 1, height - 1])
    x1, y1 = np.clip(np.ceil(quad.max(0)).astype(int) + 2, [x0 + 1, y0 + 1], [width, height])
    part = np.ascontiguousarray(image[y0:y1, x0:x1])
    corners = quad - [x0, y0]
    if factor > 2:
        size = (max(1, round((x1 - x0) / factor)), max(1, round((y1 - y0) / factor)))
        corners = corners * [size[0] / (x1 - x0), size[1] / (y1 - y0)]
        part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
    return part, corners


def _steep(quad: Quad) -> bool:
    across, down = np.abs(quad[1] - quad[0])
    return bool(down > across)


def is_text(line: Line, image_area: float) -> bool:
    """Whether a reading makes the line believable; image_area in square pixels.

    Two letters or digits read well (`reads_well`), or one read fairly in a line below 3 % of the image and at least 8
    pixels high (dots of 4 pixels read as a sure "2").
    """
    if reads_well(line, image_area):
        return True
    area = line.height * line.width
    return line.read >= 0.5 and line.letters >= 1 and area < 0.03 * image_area and line.height >= 8


def reads_well(line: Line, image_area: float) -> bool:
    """Two letters or digits, sure; never more than half of the image (a frame reads as "OR"), nor a pattern."""
    if is_pattern(line):
        return False
    return line.read >= 0.7 and line.letters >= 2 and line.height * line.width <= 0.5 * image_area


def is_pattern(line: Line) -> bool:
    """Whether what was read is what patterns read as: windows, or a few letters again and again."""
    letters = [char for char in line.text.lower() if char.isalnum()]
    if letters and WINDOWS.issuperset(letters):
        return True
    return len(letters) >= 5 and len(set(letters)) <= REPEATED * len(letters) and not _number(letters)


def _number(letters: Sequence[str]) -> bool:
    return all(char.isdigit() for char in letters)


def is_lettering(line: Line, seen: Lettering, image_area: float, beside: bool = False) -> bool:
    """Whether the strokes of a line that does not read well make it believable as text; image_area in square pixels.

    The network of strokes must be sure of ink that neither fills the line nor is hardly there: less sure where
    two letters or more were read (`is_text`, or three fairly in a line of any size), quite sure where nothing was, as
    with a script or a face that the recogniser does not know, and where one was: a flower, a loudspeaker and a tuft of
    grass each read as one. Less sure again when it lies `beside` text. Never more than half of the image.
    """
    area = line.height * line.width
    inked = LEAST_INK <= seen.share <= MOST_INK and area <= 0.5 * image_area
    if not beside and _is_thing(line, seen, area / image_area):
        return False
    read = (
        not is_pattern(line)
        and line.letters > 1
        and (is_text(line, image_area) or (line.letters > 2 and line.read >= 0.6))
    )
    if beside and inked and seen.share <= MOST_IF_BESIDE and seen.sure >= INK_IF_BESIDE:
        return True
    return inked and seen.sure >= (INK_IF_READ if read else INK_IF_NOT)


def _is_thing(line: Line, seen: Lettering, share: float) -> bool:
    """Whether a line that does not read well and stands alone is something else of the scene, of this share of it:
    windows, a wheel, a rim of a bowl."""
    if is_pattern(line) and line.letters <= 2:
        return True
    if share > HUGE and line.letters <= 1:
        return True
    if line.letters == 1 and line.width > LONG * line.height and seen.sure < INK_IF_ONE:
        return True
    if line.drawn:
        return line.letters <= 1 and seen.sure < INK_IF_ONE
    return share > LARGE and line.letters <= 2 and seen.sure < INK_IF_NOT


def reads_in_map(line: Line, seen: Lettering | None) -> bool:
    """Whether a line found in an overlay's map is worth asking the picture about: two letters or more that read there,
    or strokes in the picture that are very sure, as of scripts that the recogniser does not know."""
    return line.sketch >= SKETCH or (seen is not None and seen.sure >= INK_IF_DRAWN)
