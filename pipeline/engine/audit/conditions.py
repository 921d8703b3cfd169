"""`--fail-on "face>0,gps>=1%"`: conditions on what an audit counted, for whoever checks data sets by machine."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.recipe.hints import did_you_mean
from cleanplate.pipeline.recipe.sections import PLURALS

_FORM = re.compile(r"([a-z][a-z_-]*)\s*(>=|<=|==|=|>|<)\s*(\d+(?:\.\d+)?)\s*(%?)")
_COMPARES: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "==": operator.eq,
}


@dataclass(frozen=True)
class Condition:
    """word: what is counted, in images. share: the limit is in percent of the images."""

    text: str
    word: str
    compare: str
    limit: float
    share: bool

    def holds(self, counts: Mapping[str, int]) -> bool:
        value: float = counts[self.word]
        if self.share:
            value = 100 * value / counts["images"] if counts["images"] else 0.0
        return _COMPARES[self.compare](value, self.limit)


def parsed(text: str, words: Sequence[str], absent: Collection[str] = ()) -> list[Condition]:
    """The conditions, apart by commas. words: what will be counted. absent: what could be, and is not looked for.
    Raises ConfigError."""
    found = []
    for part in (part.strip() for part in text.split(",")):
        match = _FORM.fullmatch(part.lower())
        if match is None:
            raise ConfigError(f"--fail-on {part!r}: write NAME>NUMBER, as face>0 or gps>=1%, apart by commas")
        word = match[1] if match[1] in words else PLURALS.get(match[1], match[1])
        if word in absent:
            raise ConfigError(f"--fail-on {part!r}: {word} is not looked for; name it in --remove as well")
        if word not in words:
            hint = did_you_mean(word, words)
            raise ConfigError(f"--fail-on {part!r}: {word!r} is none of {', '.join(words)}{hint}")
        found.append(Condition(part, word, match[2], float(match[3]), bool(match[4])))
    return found
