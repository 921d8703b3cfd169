"""Who was at work on what when its process ended: how an image that kills its worker is told from a lost node.

A worker says what it begins and what it has ended. What is begun again without an end has cost a process:

    first death     the next attempt announces each batch before it touches it
    second death    the batch it had announced is suspect: its images go one at a time
    then            an image that was alone when its process died, twice, is guilty: its row fails, untried

So an image that crashes a decoder or a model, or is killed for memory, costs four processes and its own row; the
other batches of its unit are made as always. A node that goes down costs its units one careful attempt.

The witness may be killed too: a node short of memory ends the youngest of its processes, whoever took the memory. So
it notes down what it is told, and reads that again when it is started anew on the same machine.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
    """Remembers, in a process of its own. A work is any name: a unit and the stages at it. notes: a file of the
    wave's own to be found again in, one line a call; without it nothing outlives the process."""

    def __init__(self, notes: str | None = None) -> None:
        self._files: dict[str, _File] = {}
        self._notes: Path | None = None
        if notes is not None:
            self._read_again(Path(notes))

    def begin(self, work: str) -> Case:
        self._note("begin", work)
        file = self._files.setdefault(work, _File())
        if file.open:
            self._died(file)
        file.open, file.now = True, ()
        guilty = frozenset(image for image, times in file.blamed.items() if times >= GUILTY)
        return Case(file.deaths > 0, frozenset(file.alone), guilty, file.silent >= SILENT)

    def at(self, work: str, images: Sequence[str]) -> None:
        """About to do these images; nothing = past them all."""
        self._note("at", work, list(images))
        if work in self._files:
            self._files[work].now = tuple(images)

    def end(self, work: str) -> None:
        self._note("end", work)
        self._files.pop(work, None)

    def over(self) -> None:
        """The wave is done with: nobody will ask again."""
        if self._notes:
            self._notes.unlink(missing_ok=True)

    def _note(self, *words: object) -> None:
        if self._notes:
            with self._notes.open("a", encoding="utf-8") as file:
                file.write(json.dumps(words) + "\n")

    def _read_again(self, notes: Path) -> None:
        """What was noted before; a line that breaks off was being written when the process ended."""
        told = notes.read_bytes().split(b"\n")[:-1] if notes.exists() else []
        for line in told:
            verb, *words = json.loads(line)
            getattr(self, verb)(*words)
        notes.write_bytes(b"".join(line + b"\n" for line in told))
        self._notes = notes

    @staticmethod
    def _died(file: _File) -> None:
        file.deaths += 1
        file.silent = 0 if file.now else file.silent + 1
        if len(file.now) == 1:
            file.blamed[file.now[0]] += 1
        file.alone |= set(file.now)
