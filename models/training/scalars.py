"""Numbers of a training as it goes: CSV always, TensorBoard when asked for."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Scalars:
    """A CSV that grows by a row; on resumption the rows after the checkpoint's step are dropped.

    board: a folder for TensorBoard's event files of the same numbers (needs tensorboardX); None for none.
    """

    def __init__(
        self, path: Path, columns: Sequence[str], keep_until: int, board: Path | None = None
    ) -> None:
        self.path, self.columns = path, list(columns)
        kept: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="") as stream:
                kept = [row for row in csv.DictReader(stream) if int(row["step"]) <= keep_until]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, self.columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)
        self.board: Any = None
        if board is not None:
            from tensorboardX import SummaryWriter

            self.board = SummaryWriter(str(board / path.stem), purge_step=keep_until + 1)

    def add(self, row: dict[str, Any]) -> None:
        with self.path.open("a", newline="") as stream:
            csv.DictWriter(stream, self.columns, restval="").writerow(row)
        if self.board is not None:
            for name, value in row.items():
                if name != "step":
                    self.board.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Everything is on disk when this returns; the CSV is after each row."""
        if self.board is not None:
            self.board.close()
