"""What a line of text says: e-mail addresses, telephone numbers, IBANs, cards, plates, dates, addresses of the web.

For whoever wants only these gone, or some words kept. Numbers that carry a check are checked (cards by Luhn's sum,
IBANs by 97), so a price or a part number is none; a digit that was misread makes a card look like no card.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

MEANINGS = ("email", "phone", "iban", "card", "plate", "date", "url")
MONTHS = "jan|feb|m[aä]r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz]"
ENDINGS = "com|org|net|edu|gov|info|biz|io|co|eu|de|at|ch|fr|it|es|nl|be|uk|us|ca|au|se|no|fi|dk|pl|cz|pt|jp|cn|in|br"
AS_DIGITS = str.maketrans("OoIl|SB", "0011158")
"""Letters that a recogniser gives for digits."""

Found = tuple[int, int, str]
"""First and last but one character, and why."""


@dataclass(frozen=True)
class Meaning:
    """only, keep: words of MEANINGS, or /regular expressions/. What must go is what `only` names (all of the text
    where it names nothing), but for what `keep` names."""

    only: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    def targets(self, text: str) -> list[Found]:
        """The parts of a line that must go, in order; "" as the why of what no word of `only` names."""
        wanted = (
            _joined([one for word in self.only for one in spans(word, text)])
            if self.only
            else [(0, len(text), "")]
        )
        kept = [(start, stop) for word in self.keep for start, stop, _ in spans(word, text)]
        return [part for one in wanted for part in _without(one, kept) if text[part[0] : part[1]].strip()]


def checked(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words. Raises ValueError for one that is neither a meaning nor a regular expression between slashes."""
    for word in words:
        if len(word) > 2 and word.startswith("/") and word.endswith("/"):
            try:
                re.compile(word[1:-1])
            except re.error as error:
                raise ValueError(f"{word} is no regular expression: {error}") from error
        elif word not in MEANINGS:
            raise ValueError(f"{word!r} is none of {', '.join(MEANINGS)}, and no /regular expression/")
    return words


def spans(word: str, text: str) -> list[Found]:
    """Where a word of MEANINGS, or a /regular expression/, holds in a line."""
    if word.startswith("/"):
        return [
            (m.start(), m.end(), word) for m in _compiled(word[1:-1]).finditer(text) if m.end() > m.start()
        ]
    return [(start, stop, word) for start, stop in _FINDERS[word](text)]


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


def _matches(pattern: str) -> Callable[[str], Iterator[tuple[int, int]]]:
    return lambda text: (m.span() for m in _compiled(pattern).finditer(text))


def _cards(text: str) -> Iterator[tuple[int, int]]:
    found = set()
    for read in (text, text.translate(AS_DIGITS)):
        for m in re.finditer(r"(?<!\d)\d(?:[ .-]?\d){12,18}(?!\d)", read):
            digits = [int(char) for char in m.group() if char.isdigit()]
            if digits[0] in (2, 3, 4, 5, 6) and luhn(digits):
                found.add(m.span())
    yield from sorted(found)


def luhn(digits: list[int]) -> bool:
    """ISO/IEC 7812-1, annex B: every second digit from the right doubled, its digits summed; a multiple of ten."""
    doubled = [
        digit if n % 2 == 0 else sum(divmod(2 * digit, 10)) for n, digit in enumerate(reversed(digits))
    ]
    return sum(doubled) % 10 == 0


def _ibans(text: str) -> Iterator[tuple[int, int]]:
    for m in re.finditer(r"(?<![A-Za-z0-9])[A-Z]{2} ?[0-9OIl]{2}(?: ?[A-Z0-9]){11,30}", text):
        # What follows an IBAN may look like more of it: the longest part that checks is it.
        for stop in range(m.end(), m.start() + 14, -1):
            if text[stop - 1] != " " and iban(text[m.start() : stop]):
                yield m.start(), stop
                break


def iban(text: str) -> bool:
    """ISO 13616: the first four behind the rest, letters as 10 to 35, leave 1 when divided by 97."""
    plain = text.replace(" ", "")
    plain = plain[:2] + plain[2:4].translate(AS_DIGITS) + plain[4:]
    if not 15 <= len(plain) <= 34 or not plain.isalnum() or not plain.isascii():
        return False
    return int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97 == 1


def _phones(text: str) -> Iterator[tuple[int, int]]:
    """7 to 15 digits with +, 00, 0 or brackets before them or in groups; no date, card or IBAN."""
    taken = [*_dates(text), *_cards(text), *_ibans(text)]
    for m in re.finditer(r"(?<![\w.,])[+(]?\d[\d ()./\u2013-]{5,20}\d(?!\w)", text):
        count = sum(char.isdigit() for char in m.group())
        groups = len(re.findall(r"\d+", m.group()))
        called = m.group()[0] in "+(0" or groups >= 3 or (groups == 2 and count >= 7) or 9 <= count <= 12
        if 7 <= count <= 15 and called and not any(a < m.end() and m.start() < b for a, b in taken):
            yield m.span()


def _dates(text: str) -> Iterator[tuple[int, int]]:
    for m in re.finditer(r"(?<!\d)(\d{1,4})([./-])(\d{1,2})\2(\d{1,4})(?!\d)", text):
        first, second, last = (int(m.group(n)) for n in (1, 3, 4))
        years = [len(m.group(n)) for n in (1, 4)]
        day, month = (last, second) if years[0] == 4 else (first, second)
        year = first if years[0] == 4 else last
        plain = year < 100 or 1900 <= year < 2100
        if plain and 3 not in years and years != [4, 4] and (_is_day(day, month) or _is_day(month, day)):
            yield m.span()
    behind = rf"\d{{1,2}}(?:st|nd|rd|th|\.)? ?(?:{MONTHS})[a-zä]*\.?,? ?\d{{2,4}}"
    before = rf"(?:{MONTHS})[a-zä]*\.? ?\d{{1,2}},? ?\d{{4}}"
    named = rf"(?<!\w)(?:{behind}|{before})(?!\d)"
    yield from (m.span() for m in _compiled(named).finditer(text))


def _is_day(day: int, month: int) -> bool:
    return 1 <= day <= 31 and 1 <= month <= 12


def _plates(text: str) -> Iterator[tuple[int, int]]:
    """4 to 10 capitals and digits, with both, two digits or more, in at most four groups, and no word among them."""
    for m in re.finditer(r"(?<![\w-])[A-ZÄÖÜ0-9]{1,8}(?:[ .\u00b7:-]{1,2}[A-Z0-9]{1,6}){0,3}(?![\w-])", text):
        signs = [char for char in m.group() if char.isalnum()]
        digits = sum(char.isdigit() for char in signs)
        words = any(len(group) > 3 for group in re.findall(r"[^\W\d]+", m.group()))
        if 4 <= len(signs) <= 10 and 2 <= digits < len(signs) and not words:
            yield m.span()


_FINDERS: dict[str, Callable[[str], Iterator[tuple[int, int]]]] = {
    "email": _matches(r"[\w.+%-]+ ?@ ?[\w-]+(?: ?\. ?[\w-]+)* ?\. ?[a-z]{2,}"),
    "phone": _phones,
    "iban": _ibans,
    "card": _cards,
    "plate": _plates,
    "date": _dates,
    "url": _matches(
        rf"(?:https?:/?/?|www\.)\S+|(?<![\w@.])[a-z0-9-]+(?:\.[a-z0-9-]+)*\.(?:{ENDINGS})(?![\w@])(?:/\S*)?"
    ),
}


def _joined(found: list[Found]) -> list[Found]:
    """Parts that overlap as one, which has the first one's why."""
    out: list[Found] = []
    for start, stop, why in sorted(found):
        if out and start < out[-1][1]:
            out[-1] = (out[-1][0], max(stop, out[-1][1]), out[-1][2])
        else:
            out.append((start, stop, why))
    return out


def _without(one: Found, kept: list[tuple[int, int]]) -> list[Found]:
    """A part in the pieces that are left without what is kept."""
    pieces, (start, stop, why) = [], one
    for first, last in sorted(kept):
        if first < stop and start < last:
            pieces.append((start, first, why))
            start = max(start, last)
    return [piece for piece in [*pieces, (start, stop, why)] if piece[1] > piece[0]]
