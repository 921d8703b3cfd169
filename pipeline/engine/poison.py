"""Which image ends its worker's process: how a poisoned image is known from a lost node and a slow machine.

A worker announces what it begins and what it has ended. What is begun again without an end has cost a process:

    first death     the next attempt announces each batch before it touches it
    second death    the batch it had announced is suspect: its images go one at a time, with `LONGER` patience
    then            an image that was alone when its process died, twice, is guilty: its row fails, untried

So an image that crashes a decoder or a model, or is killed for memory, costs four processes and its own row; the
other batches of its unit are processed as always. A node that goes down costs its units one careful attempt.

A worker that gives no sign of progress for `engine.patience` seconds ends itself and reports that first. Such a death
alone is certain, so one is enough: the image has had its one try alone, and the longer limit.

The memory of it may be killed too: a node short of memory ends the youngest of its processes, whoever took the memory.
So each call is appended to a journal, which is read again when the process is started anew on the same machine.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

GUILTY = 2
"""Deaths alone that make an image guilty: one may be a node's."""
LONGER = 4
"""An image alone has so many times the patience of a batch."""
SILENT = 8
"""Deaths before any batch was announced, in a row, after which a unit is given up: its models cannot be loaded here."""


@dataclass(frozen=True)
class Verdict:
    """What is known of a piece of work before it is begun (again). Image ids throughout; hung are those of the guilty
    that gave no sign of progress."""

    careful: bool = False
    alone: frozenset[str] = frozenset()
    guilty: frozenset[str] = frozenset()
    hung: frozenset[str] = frozenset()
    hopeless: bool = False


@dataclass(frozen=True)
class Death:
    """One process that ended before its work did. silent_s: so long had it given no sign of progress, where that is
    why it ended; 0 for a crash, a kill or a lost node. images: what it had announced, () where it had not."""

    work: str
    silent_s: float = 0.0
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class News:
    """What the driver has not heard yet. signs: of progress, counted since the start; rows: done by stage, since the
    start, also those of units that are not committed yet."""

    signs: int = 0
    deaths: tuple[Death, ...] = ()
    rows: dict[str, int] = field(default_factory=dict)


class Tracker(Protocol):
    """What a worker reports of its attempts, wherever the memory of them lives."""

    def begin(self, work: str) -> Verdict: ...
    def announce(self, work: str, images: Sequence[str]) -> None: ...
    def progress(self, work: str, rows: dict[str, int]) -> None: ...
    def give_up(self, work: str, silent_s: float) -> None: ...
    def end(self, work: str, rows: dict[str, int]) -> None: ...


@dataclass
class _Attempt:
    open: bool = False
    deaths: int = 0
    silent: int = 0
    gave_up: bool = False
    announced: tuple[str, ...] = ()
    alone: set[str] = field(default_factory=set)
    blamed: Counter[str] = field(default_factory=Counter)
    hung: set[str] = field(default_factory=set)

    def verdict(self) -> Verdict:
        guilty = frozenset(image for image, times in self.blamed.items() if times >= GUILTY)
        return Verdict(
            self.deaths > 0, frozenset(self.alone), guilty, guilty & self.hung, self.silent >= SILENT
        )


class Attempts:
    """A Tracker that remembers, in a process of its own. A work is any name: a unit and the stages at it.

    journal: a file of the wave's own, one line a call; without it nothing outlives the process."""

    def __init__(self, journal: str | None = None) -> None:
        self._attempts: dict[str, _Attempt] = {}
        self._journal: Path | None = None
        self._signs, self._rows = 0, Counter[str]()
        self._unheard: list[Death] = []
        if journal is not None:
            self._replay(Path(journal))

    def begin(self, work: str) -> Verdict:
        """Work is begun; the verdict of its earlier attempts."""
        self._write("begin", work)
        attempt = self._attempts.setdefault(work, _Attempt())
        if attempt.open:
            self._died(work, attempt)
        attempt.open, attempt.gave_up, attempt.announced = True, False, ()
        return attempt.verdict()

    def announce(self, work: str, images: Sequence[str]) -> None:
        """About to do these images; nothing = past them all."""
        self._write("announce", work, list(images))
        if work in self._attempts:
            self._attempts[work].announced = tuple(images)

    def progress(self, work: str, rows: dict[str, int]) -> None:
        """A sign of progress. rows: stage -> rows it has done since the last sign. Not in the journal."""
        self._signs += 1
        self._rows.update(rows)

    def give_up(self, work: str, silent_s: float) -> None:
        """The worker ends itself: no sign of progress for so long."""
        self._write("give_up", work, silent_s)
        if attempt := self._attempts.get(work):
            attempt.gave_up = True
            self._unheard.append(Death(work, silent_s, attempt.announced))

    def end(self, work: str, rows: dict[str, int] | None = None) -> None:
        """The work is done with, for now at least. rows: as for `progress`."""
        self._write("end", work)
        self._rows.update(rows or {})
        self._attempts.pop(work, None)

    def news(self) -> News:
        """What happened, the deaths since the last call."""
        deaths, self._unheard = tuple(self._unheard), []
        return News(self._signs, deaths, dict(self._rows))

    def close(self) -> None:
        """The wave is over: nobody will ask again."""
        if self._journal:
            self._journal.unlink(missing_ok=True)

    def _write(self, call: str, *arguments: Any) -> None:
        self._signs += 1
        if self._journal:
            with self._journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps([call, *arguments]) + "\n")

    def _replay(self, journal: Path) -> None:
        """What was written before; a line that breaks off was being written when the process ended."""
        calls: dict[str, Callable[..., Any]] = {
            "begin": self.begin,
            "announce": self.announce,
            "give_up": self.give_up,
            "end": self.end,
        }
        lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
        for line in lines:
            call, *arguments = json.loads(line)
            calls[call](*arguments)
        journal.write_bytes(b"".join(line + b"\n" for line in lines))
        self._unheard.clear()  # The driver has heard of these.
        self._journal = journal

    def _died(self, work: str, attempt: _Attempt) -> None:
        attempt.deaths += 1
        attempt.silent = 0 if attempt.announced else attempt.silent + 1
        if len(attempt.announced) == 1:
            (image,) = attempt.announced
            if not attempt.gave_up:
                attempt.blamed[image] += 1
            elif image in attempt.alone:
                # It was tried with the longer limit. A hang is no node's fault: once is enough.
                attempt.blamed[image] += GUILTY
                attempt.hung.add(image)
        attempt.alone |= set(attempt.announced)
        if not attempt.gave_up:
            self._unheard.append(Death(work, 0.0, attempt.announced))
