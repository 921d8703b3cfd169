"""A label of the user, what becomes of it, and what a form of labels offers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from cleanplate.pipeline.factory.label_files import Entry

REMOVED = "cleanplate_removed"
"""The column, or the key of a label, that holds the removed share of a flagged one."""


@dataclass(frozen=True)
class Label:
    """name: its image, as the file has it. entry: where it lies, None for one without a place. ident: its id, or its
    place in the file. what: its class."""

    name: str
    entry: Entry | None
    ident: str
    what: str


@dataclass(frozen=True)
class Verdict:
    """What becomes of a label. share: of it that was removed, 0..1, None where that is not known. why: "" where there
    is nothing to say."""

    kept: bool
    share: float | None = 0.0
    why: str = ""

    @property
    def flagged(self) -> bool:
        return self.kept and bool(self.why)


class Labels(Protocol):
    """names: key of an image -> numbers of its labels, in `labels`; also of images without labels."""

    labels: list[Label]
    names: dict[str, list[int]]

    def keys(self, name: str, uri: str) -> Iterable[str]:
        """What an image of this name and uri may be called in `names`."""
        ...

    def files(self, verdicts: Sequence[Verdict], pictures: dict[str, str]) -> Iterator[tuple[str, bytes]]:
        """(name, content) of the files to write. pictures: key in `names` -> name of the picture in the output, of the
        images that have one."""
        ...
