"""Who was at work on what when its process ended: how an image that kills its worker is told from a lost node.

A worker says what it begins and what it has ended. What is begun again without an end has cost a process:

    first death     the next attempt announces each batch before it touches it
    second death    the batch it had announced is suspect: its images go one at a time
    then            an image that was alone when its process died, twice, is guilty: its row fails, untried

So an image that crashes a decoder or a model, or is killed for memory, costs four processes and its own row; the
other batches of its unit are made as always. A node that goes down costs its units one careful attempt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

GUILTY = 2
"""Deaths alone that make an image guilty: one may be a node's."""
SILENT = 8
"""Deaths before any batch was announced, in a row, after which a unit is given up: its models cannot be loaded here."""


@dataclass(frozen=True)
class Case:
    """What is known of a piece of work before it is begun (again). Image ids throughout."""

    careful: bool = False
    alone: frozenset[str] = frozenset()
    guilty: frozenset[str] = frozenset()
    hopeless: bool = False


@dataclass
class _File:
    open: bool = False
    deaths: int = 0
    silent: int = 0
    now: tuple[str, ...] = ()
    alone: set[str] = field(default_factory=set)
    blamed: Counter[str] = field(default_factory=Counter)


class Witness:
    """Remembers, in a process of its own. A work is any name: a unit and the stages at it."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}

    def begin(self, work: str) -> Case:
        file = self._files.setdefault(work, _File())
        if file.open:
            self._died(file)
        file.open, file.now = True, ()
        guilty = frozenset(image for image, times in file.blamed.items() if times >= GUILTY)
        return Case(file.deaths > 0, frozenset(file.alone), guilty, file.silent >= SILENT)

    def at(self, work: str, images: Sequence[str]) -> None:
        """About to do these images; nothing = past them all."""
        if work in self._files:
            self._files[work].now = tuple(images)

    def end(self, work: str) -> None:
        self._files.pop(work, None)

    @staticmethod
    def _died(file: _File) -> None:
        file.deaths += 1
        file.silent = 0 if file.now else file.silent + 1
        if len(file.now) == 1:
            file.blamed[file.now[0]] += 1
        file.alone |= set(file.now)
