"""Shapes that marks are made of: lines of text in any font that is there, and logos drawn from nothing.

A shape is its coverage: HW float32 in [0, 1], cropped to what it covers. Everything is drawn from a numpy
Generator: the same state and the same fonts give the same pixels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

Coverage = npt.NDArray[np.float32]

FONT_SUFFIXES = {".ttf", ".otf", ".ttc", ".pfb"}
HERSHEY = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
)
LETTERS = {
    "latin": "ABCDEFGHIJKLMNOPRSTUVWabcdefghiklmnoprstuvwyz",
    "cyrillic": "АБВГДЕЖИКЛМНОПРСТУФабвгдежиклмнопрсту",
    "greek": "ΑΒΓΔΕΘΛΞΠΣΦΨΩαβγδεθλμπρστφω",
    "hebrew": "אבגדהוזחטיכלמנסעפצקרשת",
    "arabic": "ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "devanagari": "अआइउएकखगघचछजटडणतथदनपफबभमयरलवशसह",
    "thai": "กขคงจฉชซดตถทนบปผพมยรลวสหอ",
    "han": "的一是不了人在有我他这中大来上国水木火山天地日月心手田目口雨風花鳥",
    "kana": "あいうえおかきくけこさしすせそたちつてとアイウエオカキクケコサシスセソ",
    "hangul": "가나다라마바사아자차카타파하한국사진서울",
    "icons": "".join(chr(code) for code in range(0xF101, 0xF1C0, 3)),
}
WORDS = """
    photo photography studio images stock sample preview proof copyright draft confidential gallery
    media press archive news design art creative pictures collection demo trial do not copy property of
    all rights reserved by www com net org the and park river mountain light north west blue red golden
    silver house market agency
""".split()  # noqa: SIM905 -- read as words


@dataclass(frozen=True)
class Face:
    """One font: a file, or "" for Pillow's own, or "hershey:N" for OpenCV's stroke font N."""

    path: str
    scripts: tuple[str, ...]


@dataclass(frozen=True)
class Fonts:
    """Fonts by script. faces: all; words of a script are set in one of `of_script[script]`."""

    faces: tuple[Face, ...]
    of_script: dict[str, tuple[Face, ...]] = field(default_factory=dict)

    chances: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    def draw(self, rng: np.random.Generator, script: str) -> Face:
        """A face that has the script; a folder with n of them has a chance in proportion to the root of n."""
        faces = self.of_script[script]
        return faces[int(rng.choice(len(faces), p=self.chances[script]))]


def floor_fonts() -> Fonts:
    """What is there on every machine: Pillow's built-in face and OpenCV's Hershey fonts, Latin only."""
    return _sorted_out([Face("", ("latin",)), *(Face(f"hershey:{n}", ("latin",)) for n in HERSHEY)])


def load_fonts(folder: Path | None) -> Fonts:
    """Every font file below the folder, sorted by path; None: the floor. Raises ValueError for an empty one."""
    if folder is None:
        return floor_fonts()
    found = {path.resolve() for path in folder.rglob("*") if path.suffix.lower() in FONT_SUFFIXES}
    files = sorted(path for path in found if path.is_file())
    faces = [face for path in files if (face := _face(path)) is not None]
    if not faces:
        raise ValueError(f"no usable font below {folder}; expected {sorted(FONT_SUFFIXES)}")
    return _sorted_out(faces)


def _sorted_out(faces: Sequence[Face]) -> Fonts:
    by_script = {name: tuple(face for face in faces if name in face.scripts) for name in LETTERS}
    of_script = {name: some for name, some in by_script.items() if some}
    return Fonts(tuple(faces), of_script, {name: _chances(some) for name, some in of_script.items()})


def _chances(faces: Sequence[Face]) -> npt.NDArray[np.float64]:
    folders = [str(Path(face.path).parent) for face in faces]
    counts = Counter(folders)
    weights = np.array([counts[folder] ** -0.5 for folder in folders])
    return np.asarray(weights / weights.sum(), np.float64)


def _face(path: Path) -> Face | None:
    """The file as a face with the scripts it holds (some letters tried); None when it cannot be opened."""
    try:
        font = ImageFont.truetype(str(path), 24)
        blank = _bits(font, "\U0010fffd")
        scripts = [
            name for name, letters in LETTERS.items() if _holds(font, letters[:: len(letters) // 5], blank)
        ]
    except (OSError, ValueError):
        return None
    if "icons" in scripts and len(scripts) > 1 and "awesome" not in path.name.lower():
        scripts.remove("icons")  # private-use ornaments of a text font
    return Face(str(path), tuple(scripts)) if scripts else None


def _bits(font: ImageFont.FreeTypeFont, text: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(text)
    return mask.size, bytes(mask)


def _holds(font: ImageFont.FreeTypeFont, letters: str, blank: tuple[tuple[int, int], bytes]) -> bool:
    drawn = [_bits(font, letter) for letter in letters]
    there = sum(one != blank and any(one[1]) for one in drawn)
    return len(set(drawn)) > 1 and there >= 0.8 * len(drawn)


@lru_cache(maxsize=256)
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    if path:
        return ImageFont.truetype(path, size)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def phrase(rng: np.random.Generator, script: str, most: int = 22) -> str:
    """What a mark says: words, names, addresses, dates, handles; letters at random in other scripts."""
    if script == "icons":
        return "".join(rng.choice(list(LETTERS["icons"]), size=1))
    if script != "latin":
        letters = list(LETTERS[script])
        sizes = rng.integers(2, 7, size=int(rng.integers(1, 4)))
        return " ".join("".join(rng.choice(letters, size=n)) for n in sizes)[:most]
    return _latin(rng)[:most].strip() or "sample"


def _latin(rng: np.random.Generator) -> str:
    name = _name(rng)
    other = " ".join(str(word) for word in rng.choice(WORDS, size=int(rng.integers(1, 4))))
    year = int(rng.integers(1990, 2030))
    forms = (
        other,
        name,
        f"{name} {other}",
        f"© {name} {year}",
        f"www.{name.lower()}.com",
        f"@{name.lower()}_{year % 100:02d}",
        f"{name}.{rng.choice(['jpg', 'org', 'net', 'photo', 'io'])}",
        f"{year}/{int(rng.integers(1, 13)):02d}/{int(rng.integers(1, 29)):02d} {int(rng.integers(24)):02d}:30",
        f"{int(rng.integers(10**4, 10**9))}",
        f"(c) {name} {_name(rng)}",
    )
    text = str(forms[int(rng.integers(len(forms)))])
    case = rng.random()
    return text.upper() if case < 0.35 else text.title() if case < 0.6 else text


def _name(rng: np.random.Generator) -> str:
    syllables = [f"{rng.choice(list('bcdfghklmnprstvwz'))}{rng.choice(list('aeiou'))}" for _ in range(3)]
    end = rng.choice(["n", "r", "x", "ck", "son", "", "y"])
    return ("".join(syllables[: int(rng.integers(2, 4))]) + str(end)).title()


def text(rng: np.random.Generator, fonts: Fonts, height: int, script: str | None = None) -> Coverage:
    """A line whose capital letters are about `height` pixels high, at most 4000 pixels wide."""
    if script is None:
        others = [name for name in fonts.of_script if name not in ("latin", "icons")]
        latin = "latin" in fonts.of_script and (not others or rng.random() < 0.8)
        script = "latin" if latin or not others else str(rng.choice(others))
    face = fonts.draw(rng, script)
    line = phrase(rng, script, most=max(4, 4000 // max(height, 1)))
    spread = int(rng.integers(1, 1 + max(1, height // 3))) if rng.random() < 0.12 else 0
    return set_line(face, line, height, spread)


def set_line(face: Face, text: str, height: int, spread: int = 0) -> Coverage:
    """The words in one face; spread: extra pixels between the letters. One pixel when nothing is drawn."""
    if face.path.startswith("hershey:"):
        return _hershey(int(face.path[8:]), text, height)
    font = _font(face.path, max(6, round(height * 1.35)))
    if not spread:
        left, top, right, bottom = font.getbbox(text)
        size = (max(1, math.ceil(right - left) + 2), max(1, math.ceil(bottom - top) + 2))
        canvas = PillowImage.new("L", size)
        ImageDraw.Draw(canvas).text((1 - left, 1 - top), text, fill=255, font=font)
        return trimmed(_share(canvas))
    width = round(sum(font.getlength(letter) + spread for letter in text)) + 2
    canvas = PillowImage.new("L", (max(1, width), height * 3))
    pen, x = ImageDraw.Draw(canvas), 1.0
    for letter in text:
        pen.text((x, height * 0.5), letter, fill=255, font=font)
        x += font.getlength(letter) + spread
    return trimmed(_share(canvas))


def _hershey(number: int, text: str, height: int) -> Coverage:
    plain = text.encode("ascii", "replace").decode()
    scale, thick = height / 22, max(1, round(height / 9))
    (width, high), below = cv2.getTextSize(plain, number, scale, thick)
    canvas = np.zeros((high + below + 2 * thick, width + 2 * thick), np.uint8)
    cv2.putText(canvas, plain, (thick, high + thick), number, scale, 255, thick, cv2.LINE_AA)
    return trimmed(_share(canvas))


def _share(drawn: npt.ArrayLike | PillowImage.Image) -> Coverage:
    """Levels 0-255 -> [0, 1]."""
    return np.asarray(np.asarray(drawn, np.float32) / np.float32(255), np.float32)


def trimmed(coverage: Coverage) -> Coverage:
    """Without empty rows and columns at the border; one pixel of nothing when all is empty."""
    rows, columns = np.flatnonzero(coverage.max(1)), np.flatnonzero(coverage.max(0))
    if not rows.size:
        return np.zeros((1, 1), np.float32)
    return np.ascontiguousarray(coverage[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def logo(rng: np.random.Generator, fonts: Fonts, size: int) -> Coverage:
    """A symbol about `size` pixels high: an icon of a font, or one to four shapes laid over and cut out."""
    if "icons" in fonts.of_script and rng.random() < 0.35:
        return _sized(text(rng, fonts, max(8, size), "icons"), size)
    side = max(8, size)
    big = 2 * side  # drawn twice as large, then averaged down
    canvas = np.zeros((big, big), np.uint8)
    for number in range(int(rng.integers(1, 5))):
        shape = np.zeros_like(canvas)
        _shape(rng, shape, big)
        # What comes after the first is laid on, or cut out of what is there.
        canvas = np.where(shape > 0, 0 if number and rng.random() < 0.45 else 255, canvas).astype(np.uint8)
    if rng.random() < 0.35:
        _monogram(rng, fonts, canvas)
    if canvas.mean() < 6:
        cv2.circle(canvas, (side, side), side - 2, 255, max(2, side // 8), cv2.LINE_AA)
    return trimmed(_share(cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)))


def _sized(coverage: Coverage, height: int) -> Coverage:
    high, wide = coverage.shape
    size = (max(1, round(wide * height / high)), max(1, height))
    return np.asarray(cv2.resize(coverage, size, interpolation=cv2.INTER_AREA), np.float32)


def _shape(rng: np.random.Generator, canvas: npt.NDArray[np.uint8], big: int) -> None:
    """One white figure on the canvas: a disc, ring, polygon, star, arc, bar, wave or rounded box."""
    centre = rng.uniform(0.3, 0.7, 2) * big if rng.random() < 0.5 else np.array([big / 2, big / 2])
    radius = rng.uniform(0.2, 0.48) * big
    thick = int(rng.uniform(0.03, 0.12) * big) + 1
    x, y = (int(v) for v in centre)
    kind = int(rng.integers(8))
    if kind == 0:
        cv2.circle(canvas, (x, y), int(radius), 255, -1, cv2.LINE_AA)
    elif kind == 1:
        cv2.circle(canvas, (x, y), int(radius), 255, thick, cv2.LINE_AA)
    elif kind in (2, 3):
        count, turn = int(rng.integers(3, 9)), rng.uniform(0, 2 * math.pi)
        angles = turn + np.arange(count * (kind - 1)) * 2 * math.pi / (count * (kind - 1))
        reach = np.where(
            np.arange(len(angles)) % 2 == 0, radius, radius * (1 if kind == 2 else rng.uniform(0.3, 0.6))
        )
        points = np.stack([x + reach * np.cos(angles), y + reach * np.sin(angles)], 1).astype(np.int32)
        if rng.random() < 0.6:
            cv2.fillPoly(canvas, [points], 255, cv2.LINE_AA)
        else:
            cv2.polylines(canvas, [points], True, 255, thick, cv2.LINE_AA)
    elif kind == 4:
        axes = (int(radius), int(radius * rng.uniform(0.4, 1)))
        start, sweep = rng.uniform(0, 360), rng.uniform(60, 300)
        cv2.ellipse(canvas, (x, y), axes, rng.uniform(0, 180), start, start + sweep, 255, thick, cv2.LINE_AA)
    elif kind == 5:
        ends = (centre + rng.uniform(-1, 1, (2, 2)) * radius).astype(int)
        cv2.line(canvas, tuple(ends[0].tolist()), tuple(ends[1].tolist()), 255, thick, cv2.LINE_AA)
    elif kind == 6:
        along = np.linspace(-1, 1, 40)
        wave = np.sin(along * rng.uniform(2, 6) + rng.uniform(0, 6)) * radius * rng.uniform(0.2, 0.6)
        points = np.stack([x + along * radius, y + wave], 1).astype(np.int32)
        cv2.polylines(canvas, [points], False, 255, thick, cv2.LINE_AA)
    else:
        half = radius * rng.uniform(0.5, 1, 2)
        low, high = (centre - half).astype(int).tolist(), (centre + half).astype(int).tolist()
        cv2.rectangle(canvas, tuple(low), tuple(high), 255, -1 if rng.random() < 0.4 else thick, cv2.LINE_AA)


def _monogram(rng: np.random.Generator, fonts: Fonts, canvas: npt.NDArray[np.uint8]) -> None:
    """One to three letters in the middle, cut out where the figure is full."""
    if "latin" not in fonts.of_script:
        return
    letters = "".join(rng.choice(list(LETTERS["latin"][:22]), size=int(rng.integers(1, 4))))
    big = canvas.shape[0]
    drawn = set_line(fonts.draw(rng, "latin"), letters, int(big * rng.uniform(0.25, 0.5)))
    drawn = drawn[:big, :big]
    y, x = (big - drawn.shape[0]) // 2, (big - drawn.shape[1]) // 2
    part = canvas[y : y + drawn.shape[0], x : x + drawn.shape[1]]
    part[drawn > 0.5] = 0 if part.mean() > 110 else 255
