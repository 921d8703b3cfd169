"""What marks say: words, names, addresses, dates, and letters of other scripts."""

from __future__ import annotations

import numpy as np

from cleanplate.models.training.marks.fonts import LETTERS

WORDS = """
    photo photography studio images stock sample preview proof copyright draft confidential gallery
    media press archive news design art creative pictures collection demo trial do not copy property of
    all rights reserved by www com net org the and park river mountain light north west blue red golden
    silver house market agency
""".split()  # noqa: SIM905 -- read as words


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
