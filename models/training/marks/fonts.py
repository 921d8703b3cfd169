"""Fonts by the scripts that they hold, whatever a machine has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ImageFont

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
def font_of(path: str, size: int) -> ImageFont.FreeTypeFont:
    if path:
        return ImageFont.truetype(path, size)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
