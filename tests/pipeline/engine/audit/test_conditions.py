"""--fail-on: what it means, and what is refused before any work."""

from __future__ import annotations

import pytest

from cleanplate.pipeline.engine.audit.conditions import parsed
from cleanplate.pipeline.errors import ConfigError

WORDS = ("face", "text", "gps", "failed")
COUNTS = {"images": 200, "face": 3, "text": 0, "gps": 4, "failed": 0}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("face>0", [True]),
        ("faces > 3, gps>=4", [False, True]),
        ("gps>=2%", [True]),
        ("gps>2 %", [False]),
        ("text=0,text==0,face<3,face<=3", [True, True, False, True]),
        ("face>2.5", [True]),
    ],
)
def test_conditions_hold_or_not(text: str, holds: list[bool]) -> None:
    assert [one.holds(COUNTS) for one in parsed(text, WORDS)] == holds


def test_a_share_of_nothing_is_nothing() -> None:
    (one,) = parsed("face>0%", WORDS)
    assert not one.holds({"images": 0, "face": 0})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fase>0", "did you mean 'face'"),
        ("face", "write NAME>NUMBER"),
        ("face>", "write NAME>NUMBER"),
        ("face>0;gps>0", "write NAME>NUMBER"),
        ("face>0,", "write NAME>NUMBER"),
        ("face>-1", "write NAME>NUMBER"),
        ("logo>0", "logo is not looked for"),
        ("__import__('os')>0", "write NAME>NUMBER"),
    ],
)
def test_what_is_no_condition_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parsed(text, WORDS, {"logo"})
