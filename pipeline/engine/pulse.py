"""Signs of progress of a worker's process: reported to the driver, and the end of a process that gives none.

Progress is counted, not time: each pass of a network and each image gives a sign (`models.devices.progressed`), so a
batch may take hours on a slow machine. A call that never returns gives none, and holds its worker for ever.
"""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from types import TracebackType

from cleanplate.models import devices
from cleanplate.pipeline.engine.poison import Tracker

EVERY_S = 0.5
"""Between two reports at least."""
_MARGIN_S = 20.0


class Pulse:
    """Watches one piece of work of this process for the length of a `with`. rows: by stage, not reported yet."""

    def __init__(self, tracker: Tracker, work: str, patience: float) -> None:
        """patience: seconds without a sign after which this process is ended."""
        self.tracker, self.work, self.patience = tracker, work, patience
        self.rows: dict[str, int] = {}
        self._last = self._reported = time.monotonic()
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="pulse", daemon=True)

    def __enter__(self) -> Pulse:
        self._guard()
        devices.watch(self.beat)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        devices.watch(None)
        self._over.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def beat(self) -> None:
        """A sign of progress."""
        self._last = time.monotonic()

    def allow(self, patience: float) -> None:
        """Another patience from now on."""
        self.patience = patience
        self.beat()

    def did(self, stage: str, rows: int) -> None:
        """A stage has done so many rows."""
        with self._lock:
            self.rows[stage] = self.rows.get(stage, 0) + rows
        self.beat()

    def _watch(self) -> None:
        while not self._over.wait(min(EVERY_S, self.patience / 4)):
            silent = time.monotonic() - self._last
            if silent > self.patience:
                self._end(silent)
            if self._last > self._reported:
                self._guard()
                self._reported = time.monotonic()
                with self._lock:
                    rows, self.rows = self.rows, {}
                self.tracker.progress(self.work, rows)

    def _guard(self) -> None:
        """A thread in C, which needs no interpreter lock: a call that never returns may hold it, and this class's own
        thread then never runs."""
        faulthandler.dump_traceback_later(self.patience + _MARGIN_S, exit=True)

    def _end(self, silent: float) -> None:
        self.tracker.give_up(self.work, silent)
        faulthandler.dump_traceback()
        os._exit(1)
