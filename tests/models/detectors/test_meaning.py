"""Text by what it says: which words of a line, and where they lie in it."""

from __future__ import annotations

import numpy as np
import pytest

from cleanplate.models.detectors.lettering.lines import Line
from cleanplate.models.detectors.lettering.meaning import MEANINGS, Meaning, checked, iban, luhn, spans
from cleanplate.models.detectors.text import part_of, parts_of
from cleanplate.models.types import Region


@pytest.mark.parametrize(
    ("word", "line", "found"),
    [
        ("email", "write to jane.doe+x@mail.example.org!", ["jane.doe+x@mail.example.org"]),
        ("email", "jane @ example . org", ["jane @ example . org"]),
        ("email", "2 @ 3.50 each", []),
        ("phone", "call +49 (0)30 1234-567 now", ["+49 (0)30 1234-567"]),
        ("phone", "Tel. 030/123456", ["030/123456"]),
        ("phone", "555-0199", ["555-0199"]),
        ("phone", "on 24.12.2025 for 12.50", []),
        ("phone", "4111 1111 1111 1111", []),
        ("phone", "page 12 of 300", []),
        ("card", "pay 4111 1111 1111 1111 ok", ["4111 1111 1111 1111"]),
        ("card", "5555-5555-5555-4444", ["5555-5555-5555-4444"]),
        ("card", "41ll 1111 1I11 1111", ["41ll 1111 1I11 1111"]),
        ("card", "4111 1111 1111 1112", []),
        ("iban", "IBAN DE89 3704 0044 0532 0130 00 BIC", ["DE89 3704 0044 0532 0130 00"]),
        ("iban", "GB82WEST12345698765432", ["GB82WEST12345698765432"]),
        ("iban", "DE89 3704 0044 0532 0130 01", []),
        ("date", "24.12.2025 or 2025-12-24, 12/24/25", ["24.12.2025", "2025-12-24", "12/24/25"]),
        ("date", "May 3, 2024 and 3rd Mar 2024", ["3rd Mar 2024", "May 3, 2024"]),
        ("date", "version 1.2.3456 at 10.20", []),
        ("url", "see www.example.org/a?b and shop.example.de", ["shop.example.de", "www.example.org/a?b"]),
        ("url", "jane@example.org", []),
        ("url", "e.g. this", []),
        ("plate", "B-MW 1234", ["B-MW 1234"]),
        ("plate", "AB12 CDE", ["AB12 CDE"]),
        ("plate", "GARAGE 12", []),
        ("/inv-\\d+/", "INV-77 paid", ["INV-77"]),
    ],
)  # fmt: skip
def test_what_a_word_finds(word: str, line: str, found: list[str]) -> None:
    assert sorted(line[a:b] for a, b, _ in spans(word, line)) == sorted(found)


def test_checks() -> None:
    assert luhn([7, 9, 9, 2, 7, 3, 9, 8, 7, 1, 3])
    assert not luhn([7, 9, 9, 2, 7, 3, 9, 8, 7, 1, 4])
    assert iban("FR14 2004 1010 0505 0001 3M02 606")
    assert not iban("FR14")


def test_only_and_keep() -> None:
    line = "mail a@b.org or +49 30 123456"
    assert Meaning(("email",)).targets(line) == [(5, 12, "email")]
    assert [why for *_, why in Meaning(("phone", "email")).targets(line)] == ["email", "phone"]
    assert Meaning(keep=("/mail/",)).targets("mail me") == [(4, 7, "")]
    assert Meaning(("email",), ("/@b\\.org/",)).targets(line) == [(5, 6, "email")]
    assert Meaning(keep=("email",)).targets("a@b.org") == []
    assert Meaning(("email", "url")).targets("a@www.b.org") == [(0, 11, "email")], (
        "one part for what overlaps"
    )


@pytest.mark.parametrize("words", [("mail",), ("/(/",), ("//",)])
def test_words_that_mean_nothing(words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"regular expression"):
        checked(words)
    assert checked(MEANINGS) == MEANINGS


def test_the_part_of_a_line_lies_where_its_characters_do() -> None:
    quad = np.array([[100.0, 50], [300, 50], [300, 90], [100, 90]])
    text = "to a@b.org"
    line = Line(quad, 0.9, text, 0.9, slanted=True, places=tuple((n + 0.5) / 10 for n in range(10)))
    part = part_of(line, 3, 10)
    assert part[:, 0].min() == pytest.approx(160)
    assert part[:, 0].max() == pytest.approx(320)
    assert part[:, 1].min() == pytest.approx(40)
    mask = np.zeros((120, 400), np.bool_)
    mask[55:85, 105:295] = True
    whole = Region("text", "ocr@slanted", 0.9, (105, 55, 295, 85), mask)
    (found,) = parts_of(whole, line, Meaning(("email",)))
    assert found.detector == "ocr:email@slanted"
    assert found.mask is not None
    assert not found.mask[:, :158].any()
    assert found.mask[60, 165:295].all()
    assert parts_of(whole, line, Meaning(keep=("/xyz/",))) == [whole]
    assert parts_of(whole, line, Meaning(("card",))) == []
    back = Line(quad, 0.9, text, 0.9, places=tuple(1 - (n + 0.5) / 10 for n in range(10)))
    assert part_of(back, 3, 10)[:, 0].max() == pytest.approx(240), "a line that was read upside down"
