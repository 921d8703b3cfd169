"""What a run shows while it goes: a live panel in a terminal or a notebook, plain lines in a log, JSON for machines.

The state is counted from receipts and from the engine's queues (cleanplate.pipeline.engine.queues); a ticker
shows it, so that
time passes on screen also while a long unit holds every worker. docs/pages.md tells the JSON's fields.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from types import TracebackType
from typing import Any, Literal, Protocol

from rich.console import Console
from rich.live import Live

from cleanplate.pipeline.engine import queues
from cleanplate.pipeline.ledger.ledger import Tally
from cleanplate.pipeline.ledger.receipt import Problem, Receipt
from cleanplate.pipeline.schema import MODEL_STAGES, STAGES
from cleanplate.pipeline.ui.terminal import as_html, line, panel

Shown = Literal["live", "notebook", "plain", "json", "none"]
_WINDOW_S = 120.0
"""The rate that the ETA believes is that of the last so many seconds: loading models is long past by then."""
_LAST_ERRORS = 3
_TICK_S: dict[Shown, float] = {"live": 0.5, "notebook": 1.0}


class Progress:
    """Counts receipts and shows them. `total` and `before` are rows: planned, and committed earlier.

    shown: None chooses: notebook or live where there is one, else plain. every: seconds between plain or JSON
    lines. title: of the panel.
    """

    def __init__(
        self, total: int, before: int, *, shown: Shown | None = None, every: float = 10.0, title: str = ""
    ) -> None:
        self.total, self.before, self.title = total, before, title
        self.tally, self.timings = Tally(), dict.fromkeys(STAGES, 0.0)
        self.errors: deque[Problem] = deque(maxlen=_LAST_ERRORS)
        self.queues: tuple[queues.Queue, ...] = ()
        self._worked: dict[str, int] = {}
        self._pass_began = 0
        self.start = time.monotonic()
        self._recent: deque[tuple[float, int]] = deque()
        self._lock, self._over = threading.Lock(), threading.Event()
        self._screen = screen(shown)
        self._every = _TICK_S.get(self._screen.shown, every)
        self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
        self._open = ExitStack()

    def __enter__(self) -> Progress:
        self._open.enter_context(queues.listening(self))
        self._screen.show(self)
        self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._over.set()
        self._ticker.join()
        self._open.close()
        self.queues = ()
        self._screen.close(self)

    def __call__(self, receipt: Receipt) -> None:
        with self._lock:
            self.tally.add(receipt.rows, receipt.statuses, receipt.causes)
            for stage, ms in receipt.timings.items():
                self.timings[stage] = self.timings.get(stage, 0.0) + ms
            self.errors.extend(receipt.problems)
            self._recent.append((time.monotonic(), receipt.rows))

    def queued(self, queues: tuple[queues.Queue, ...]) -> None:
        self.queues = queues

    def working(self, rows: Mapping[str, int]) -> None:
        # A pass counts from nothing again, and what it commits was counted by its stages too.
        if sum(rows.values()) < sum(self._worked.values()):
            self._pass_began = self.tally.rows
        self._worked = dict(rows)

    def in_work(self) -> dict[str, int]:
        """Rows that a model stage has done and that are not committed yet, by stage; about, where units were begun
        again."""
        committed = self.tally.rows - self._pass_began
        left = {stage: self._worked.get(stage, 0) - committed for stage in MODEL_STAGES}
        return {stage: rows for stage, rows in left.items() if rows > 0}

    def notice(self, text: str) -> None:
        """A sentence for people, at once: a worker was ended, nodes are gone."""
        self._screen.notice(text)

    def _tick(self) -> None:
        try:
            while not self._over.wait(self._every):
                self._screen.show(self)
        except BrokenPipeError:
            self._over.set()  # Whoever read our lines went away; the run itself goes on.

    # --- what is shown ---

    def rate(self) -> float:
        """Images a second: over the last two minutes, or since the start if that is shorter."""
        now = time.monotonic()
        with self._lock:
            while self._recent and now - self._recent[0][0] > _WINDOW_S:
                self._recent.popleft()
            rows = sum(rows for _, rows in self._recent)
        return rows / max(1e-9, min(_WINDOW_S, now - self.start))

    def state(self) -> dict[str, Any]:
        """The run as plain data: what `--json` prints and every other form is drawn from."""
        rate, done = self.rate(), self.before + self.tally.rows
        with self._lock:
            rows = max(1, self.tally.rows)
            each = {stage: ms / rows for stage, ms in self.timings.items() if ms}
            statuses, causes = dict(self.tally.statuses), dict(self.tally.causes)
            errors = [asdict(problem) for problem in self.errors]
        spent = sum(each.values())
        stages = {
            stage: {
                "ms_per_image": round(ms, 2),
                "images_per_s": round(1000 / ms, 2),
                "share": round(ms / spent, 4),
            }
            for stage, ms in each.items()
        }
        return {
            "event": "progress",
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "elapsed_s": round(time.monotonic() - self.start, 1),
            "done": done,
            "total": self.total,
            "committed_before": self.before,
            "images_per_s": round(rate, 2),
            "in_work": self.in_work(),
            "loading": not (self.tally.rows or any(stage in self._worked for stage in MODEL_STAGES)),
            "eta_s": round((self.total - done) / rate) if rate and done < self.total else None,
            "statuses": statuses,
            "causes": causes,
            "stages": stages,
            "queues": [asdict(queue) for queue in self.queues],
            "errors": errors,
        }


# --- the forms ---


class Screen(Protocol):
    """One way to show a run. show() comes from the ticker's thread, close() once at the end."""

    shown: Shown

    def show(self, progress: Progress) -> None: ...
    def notice(self, text: str) -> None: ...
    def close(self, progress: Progress) -> None: ...


def screen(shown: Shown | None) -> Screen:
    """The form asked for, or the one that fits where stderr goes."""
    console = Console(stderr=True)
    if shown is None:
        shown = "notebook" if console.is_jupyter else "live" if console.is_terminal else "plain"
    if shown == "live":
        return _Live(console)
    forms: dict[Shown, Callable[[], Screen]] = {
        "notebook": Notebook,
        "plain": _Plain,
        "json": _Json,
        "none": _Nothing,
    }
    return forms[shown]()


class _Live:
    shown: Shown = "live"

    def __init__(self, console: Console) -> None:
        self.live = Live(console=console, auto_refresh=False)
        # A terminal echoes "^C" behind the last line: if that wrapped, the panel would be redrawn a line too low.
        self.width = max(20, console.width - 3)

    def show(self, progress: Progress) -> None:
        if not self.live.is_started:
            self.live.start()
        self.live.update(panel(progress.state(), progress.title, self.width), refresh=True)

    def notice(self, text: str) -> None:
        self.live.console.print(text, style="yellow", markup=False, highlight=False)

    def close(self, progress: Progress) -> None:
        # The panel leaves one line behind: the closing table says the rest.
        self.live.update(line(progress.state()), refresh=True)
        self.live.stop()


class Notebook:
    """One output cell, updated in place through IPython's display ids: needs no widgets."""

    shown: Shown = "notebook"

    def __init__(self, display: Callable[..., Any] | None = None) -> None:
        self.display = display or import_module("IPython.display").display
        self.handle: Any = None

    def show(self, progress: Progress, hint: str = "interrupt the cell to stop") -> None:
        bundle = as_html(panel(progress.state(), progress.title, hint=hint))
        if self.handle is None:
            self.handle = self.display(bundle, raw=True, display_id=True)
        else:
            self.handle.update(bundle, raw=True)

    def notice(self, text: str) -> None:
        print(text, file=sys.stderr)

    def close(self, progress: Progress) -> None:
        self.show(progress, hint="")


class _Plain:
    """Lines in a log. Also while nothing is done yet: who reads it wants to know that it goes on."""

    shown: Shown = "plain"

    def __init__(self) -> None:
        self.last = 0
        self.begun = False

    def show(self, progress: Progress) -> None:
        if self.begun:
            self.last = progress.tally.rows
            print(line(progress.state()).plain, file=sys.stderr, flush=True)
        self.begun = True

    def notice(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def close(self, progress: Progress) -> None:
        if progress.tally.rows != self.last:
            self.show(progress)


class _Json:
    shown: Shown = "json"

    def show(self, progress: Progress) -> None:
        print(json.dumps(progress.state()), flush=True)

    def notice(self, text: str) -> None:
        print(json.dumps({"event": "notice", "message": text}), flush=True)

    def close(self, progress: Progress) -> None:
        self.show(progress)


class _Nothing:
    shown: Shown = "none"

    def show(self, progress: Progress) -> None:
        """Nobody looks."""

    def notice(self, text: str) -> None:
        """Nobody looks."""

    def close(self, progress: Progress) -> None:
        """Nobody looks."""
