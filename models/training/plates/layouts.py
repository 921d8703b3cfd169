"""Layouts of number plates: what stands on them, in which colours and proportions. Data, and texts drawn from it.

After what is seen on roads, loosely: a detector has to know a plate of a country that it was never shown, so colours,
bands and patterns vary more than any law allows, and one plate in six is invented.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Colour = tuple[int, int, int]
"""RGB, 0 to 255."""
Side = Literal["left", "right", "top", ""]

WHITE, BLACK, YELLOW, RED = (244, 244, 240), (22, 22, 24), (246, 196, 30), (176, 28, 36)
BLUE, GREEN, SILVER, NAVY = (28, 62, 150), (18, 110, 70), (176, 178, 180), (26, 36, 92)
ON_WHITE = (WHITE, BLACK)

LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"
SCRIPTS = {
    "han": "京沪粤浙苏川鲁津渝晋辽吉黑皖闽赣豫鄂湘琼",
    "kana": "あいうえかきくけこさすせそたちつてとなにぬねのはひふほまみむめもやゆよらりるれろ",
    "place": "品川横浜名古屋大阪神戸福岡札幌千葉練馬湘南京都広島",
    "hangul": "가나다라마거너더러머버서어저고노도로모보소오조하허호",
    "arabic": "ابحدرسصطعقلمنهوي",
    "thai": "กขคงจฉชฌญฎฐณดตถทธนบปผพฟภมยรลวศสหอฮ",
    "devanagari": "कखगचजटडतदनपबमयरलवशसह",
}
"""Letters that stand beside or over the Latin ones."""


@dataclass(frozen=True)
class Layout:
    """aspect: least and most width over height. lines: patterns of each line, one of which is drawn; L a Latin letter,
    D a digit, A either, S a letter of `script`, P of its places, other signs themselves. colours: (ground, ink).
    band: where a coloured strip is, in `band_colours`. header, footer: small words above and below. heights: of the
    lines' letters, as shares of the plate's. held: kept from training, to measure on."""

    name: str
    aspect: tuple[float, float]
    lines: tuple[tuple[str, ...], ...]
    colours: tuple[tuple[Colour, Colour], ...] = (ON_WHITE,)
    band: Side = ""
    band_colours: tuple[Colour, ...] = (BLUE,)
    band_chance: float = 0.8
    header: tuple[str, ...] = ()
    footer: tuple[str, ...] = ()
    heights: tuple[float, ...] = (0.68,)
    script: str = ""
    held: bool = False


_STATES = [
    "CALIFORNIA",
    "TEXAS",
    "FLORIDA",
    "NEVADA",
    "OHIO",
    "IOWA",
    "MAINE",
    "OREGON",
    "VERMONT",
    "MONTANA",
    "ALASKA",
    "KANSAS",
    "UTAH",
    "INDIANA",
    "ONTARIO",
    "QUEBEC",
    "ALBERTA",
    "MICHIGAN",
    "VIRGINIA",
    "COLORADO",
    "ARIZONA",
    "JALISCO",
    "SONORA",
    "HIDALGO",
]
_SLOGANS = (
    "SUNSHINE STATE",
    "GARDEN STATE",
    "LIVE FREE",
    "GREAT LAKES",
    "10,000 LAKES",
    "dmv.gov",
    "WILD",
    "2026",
    "",
)
_STATE_COLOURS = (
    ON_WHITE,
    (WHITE, NAVY),
    (WHITE, RED),
    (WHITE, GREEN),
    (YELLOW, BLACK),
    (NAVY, WHITE),
    ((160, 200, 232), NAVY),
    ((232, 214, 170), (120, 40, 30)),
    (GREEN, WHITE),
    (BLACK, YELLOW),
    ((250, 224, 180), NAVY),
)

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "europe",
        (4.3, 4.9),
        (
            (
                "LL LL DDD",
                "L LL DDDD",
                "LL-DDD-LL",
                "DDDD LLL",
                "LL DDD LL",
                "LLL DDDD",
                "LL DDDDD",
                "DDL DDDD",
                "D-LLL-DDD",
            ),
        ),
        (ON_WHITE, ON_WHITE, ON_WHITE, (YELLOW, BLACK), (WHITE, RED), (WHITE, NAVY)),
        band="left",
    ),
    Layout(
        "europe, two lines",
        (1.15, 1.6),
        (("LL", "LL DD", "L LL", "DDDD", "LLL"), ("DDDD", "L DDD", "LLL", "LL DD", "DDD")),
        (ON_WHITE, ON_WHITE, (YELLOW, BLACK)),
        band="left",
        band_chance=0.5,
        heights=(0.37, 0.37),
    ),
    Layout(
        "britain", (4.4, 4.8), (("LLDD LLL",),), (ON_WHITE, (YELLOW, BLACK)), band="left", band_chance=0.4
    ),
    Layout(
        "britain, two lines",
        (1.3, 1.6),
        (("LLDD",), ("LLL",)),
        (ON_WHITE, (YELLOW, BLACK)),
        heights=(0.38, 0.38),
    ),
    Layout(
        "states",
        (1.95, 2.05),
        (("LLL DDDD", "DLLLDDD", "LLL-DDD", "DDD LLL", "LL DDDDD", "AAA AAA", "DDDLLL", "L DDDDDD"),),
        _STATE_COLOURS,
        header=tuple(_STATES),
        footer=_SLOGANS,
        heights=(0.47,),
    ),
    Layout(
        "states, motorcycle",
        (1.6, 1.8),
        (("DDLDD", "AAAAA", "LLDDD"),),
        _STATE_COLOURS,
        header=tuple(_STATES),
        heights=(0.45,),
    ),
    Layout(
        "mercosur",
        (2.9, 3.2),
        (("LLLDLDD", "LL DDD LL", "LLL DDDD"),),
        (ON_WHITE, ON_WHITE, (WHITE, RED), (WHITE, BLUE)),
        band="top",
        band_chance=1.0,
        heights=(0.56,),
    ),
    Layout(
        "mercosur, motorcycle",
        (1.1, 1.3),
        (("LLL",), ("DLDD", "DDD")),
        band="top",
        band_chance=1.0,
        heights=(0.34, 0.34),
    ),
    Layout(
        "brazil, grey",
        (3.0, 3.2),
        (("LLL-DDDD",),),
        ((SILVER, BLACK), (RED, WHITE)),
        header=("SP-SAO PAULO", "RJ-RIO DE JANEIRO", "MG-BELO HORIZONTE"),
        heights=(0.58,),
    ),
    Layout(
        "india",
        (4.0, 4.8),
        (("LL DD LL DDDD", "LL-DD-L-DDDD", "LLDDLLDDDD"),),
        (ON_WHITE, ON_WHITE, (YELLOW, BLACK), (GREEN, WHITE)),
        band="left",
        band_chance=0.3,
    ),
    Layout(
        "india, two lines",
        (1.4, 2.0),
        (("LL DD", "LL DD L", "LL-DDLL"), ("DDDD", "L DDDD")),
        (ON_WHITE, (YELLOW, BLACK)),
        heights=(0.36, 0.38),
    ),
    Layout(
        "japan",
        (1.9, 2.1),
        (("PP DDD", "PP DD"), ("S DD-DD", "S ・D-DD", "S DDDD")),
        ((WHITE, GREEN), (WHITE, GREEN), (YELLOW, BLACK), (GREEN, WHITE), (BLACK, YELLOW)),
        heights=(0.24, 0.5),
        script="kana",
    ),
    Layout(
        "china",
        (3.0, 3.3),
        (("SL·AAAAA", "SL·DDDDD"),),
        ((BLUE, WHITE), (BLUE, WHITE), (YELLOW, BLACK), (BLACK, WHITE)),
        script="han",
    ),
    Layout(
        "china, green",
        (3.2, 3.5),
        (("SL·LDDDDD", "SLLDDDDD"),),
        (((150, 220, 170), BLACK), ((190, 235, 200), BLACK)),
        script="han",
    ),
    Layout(
        "china, two lines",
        (1.7, 2.1),
        (("SL", "S·L"), ("AAAAA",)),
        ((YELLOW, BLACK),),
        heights=(0.3, 0.5),
        script="han",
    ),
    Layout(
        "russia",
        (4.4, 4.8),
        (("LDDDLL DD", "LDDDLL DDD"),),
        band="right",
        band_colours=(WHITE,),
        band_chance=0.6,
    ),
    Layout(
        "australia",
        (2.6, 2.9),
        (("LLL-DDL", "DDD LLL", "LL DD LL", "SDDD-LLL"),),
        ((WHITE, NAVY), (YELLOW, BLACK), (WHITE, GREEN), (BLACK, WHITE)),
        header=("VICTORIA", "QUEENSLAND", "NSW", "TASMANIA"),
        footer=("THE GARDEN STATE", "SUNSHINE", "EDUCATION", ""),
        heights=(0.52,),
        script="han",
    ),
    Layout("turkey", (4.4, 4.8), (("DD LLL DDD", "DD L DDDD", "DD LL DDDD"),), band="left", band_chance=1.0),
    Layout(
        "black",
        (3.6, 4.8),
        (("LLL DDDD", "L DDDD LL", "LLDDDD", "LLL DDD"),),
        ((BLACK, WHITE), (BLACK, SILVER), (NAVY, WHITE)),
    ),
    Layout(
        "black, two lines",
        (1.3, 2.0),
        (("LLL", "LL", "L DDD"), ("DDDD", "DDD LL")),
        ((BLACK, WHITE), (BLACK, SILVER)),
        heights=(0.37, 0.37),
    ),
    Layout(
        "gulf",
        (4.2, 4.7),
        (("DDDDD S", "S DDDDD", "DD DDDDD", "DDDD SSS"),),
        (ON_WHITE, (YELLOW, BLACK), (WHITE, NAVY)),
        band="right",
        band_chance=0.6,
        script="arabic",
    ),
    Layout(
        "egypt",
        (1.9, 2.2),
        (("DDDD SSS", "DDD SS"),),
        (ON_WHITE,),
        band="top",
        band_chance=1.0,
        band_colours=((120, 180, 220), (220, 130, 60)),
        heights=(0.5,),
        script="arabic",
    ),
    Layout(
        "nepal",
        (1.5, 2.0),
        (("S D S",), ("DDDD",)),
        ((RED, WHITE), (BLACK, WHITE)),
        heights=(0.36, 0.4),
        script="devanagari",
    ),
    # Kept from training: to measure whether a layout that was never shown is found.
    Layout(
        "korea",
        (4.3, 4.8),
        (("DDDSDDDD", "DDS DDDD"),),
        (ON_WHITE, ((170, 210, 235), BLACK)),
        band="left",
        band_chance=0.5,
        script="hangul",
        held=True,
    ),
    Layout(
        "thailand",
        (2.2, 2.4),
        (("SS DDDD", "DSS DDDD", "DSS DD"),),
        (ON_WHITE, (YELLOW, BLACK)),
        footer=("กรุงเทพ",),
        heights=(0.5,),
        script="thai",
        held=True,
    ),
    Layout("switzerland", (1.5, 1.7), (("LL",), ("DDD·DDD", "DDDDD")), heights=(0.38, 0.4), held=True),
    Layout(
        "south africa",
        (4.0, 4.6),
        (("LL DD LL LL", "LL DDDD LL", "LLL DDD LL"),),
        ((WHITE, GREEN), (WHITE, NAVY), (YELLOW, BLACK)),
        held=True,
    ),
    Layout(
        "israel",
        (4.3, 4.8),
        (("DD-DDD-DD", "DDD-DD-DDD"),),
        ((YELLOW, BLACK),),
        band="left",
        band_chance=0.9,
        held=True,
    ),
    Layout(
        "saudi arabia",
        (2.0, 2.2),
        (("DDDD SSS", "DDDD SS"), ("DDDD LLL", "DDDD LL")),
        band="right",
        band_colours=((210, 210, 205),),
        band_chance=1.0,
        heights=(0.36, 0.36),
        script="arabic",
        held=True,
    ),
    Layout(
        "colombia",
        (1.95, 2.1),
        (("LLL·DDD",),),
        ((YELLOW, BLACK), ON_WHITE),
        footer=("BOGOTA D.C.", "MEDELLIN", "CALI"),
        heights=(0.52,),
        held=True,
    ),
    Layout(
        "indonesia",
        (2.9, 3.2),
        (("L DDDD LLL", "LL DDDD LL"),),
        ((BLACK, WHITE), ON_WHITE, (YELLOW, BLACK)),
        footer=("08·27", "11·28"),
        heights=(0.48,),
        held=True,
    ),
)


def choose(rng: np.random.Generator, held: bool = False) -> Layout:
    """A layout of those that are held out or of the others; one in six of the others invented."""
    some = [layout for layout in LAYOUTS if layout.held is held]
    layout = some[int(rng.integers(len(some)))]
    return layout if held or rng.random() > 1 / 6 else _invented(rng, layout)


def _invented(rng: np.random.Generator, layout: Layout) -> Layout:
    """The layout in other colours, proportions and with another band."""
    dark, light = rng.integers(0, 90, 3), rng.integers(150, 256, 3)
    ground, ink = (light, dark) if rng.random() < 0.7 else (dark, light)
    low, high = layout.aspect
    return replace(
        layout,
        name="invented",
        aspect=(low * 0.8, high * 1.15),
        colours=((_rgb(ground), _rgb(ink)),),
        band=("left", "right", "top", "")[int(rng.integers(4))],
        band_colours=(_rgb(rng.integers(0, 256, 3)),),
        band_chance=0.5,
    )


def _rgb(values: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Colour:
    return int(values[0]), int(values[1]), int(values[2])


def written(rng: np.random.Generator, pattern: str, script: str) -> str:
    """A text of the pattern (see Layout)."""
    out = []
    for sign in pattern:
        if sign == "A":
            sign = "LD"[int(rng.integers(2))]
        letters = {
            "L": LETTERS,
            "D": "0123456789",
            "S": SCRIPTS.get(script, LETTERS),
            "P": SCRIPTS["place"],
        }.get(sign)
        out.append(letters[int(rng.integers(len(letters)))] if letters else sign)
    return "".join(out)
