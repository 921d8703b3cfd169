"""decode: the source's pixels, on a CPU, for model stages in pools of their own.

Where the model stages share a worker, the first of them decodes and the others find it done. In pools each worker
would decode each picture again, those with a GPU too. So their pixels travel, raw (`schema.py`, pixels), and leave the
row with the last stage that looks at them. `write` decodes for itself, on a CPU too: it needs what a file holds beside
its RGB.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import pyarrow as pa

from cleanplate.models.types import Image
from cleanplate.pipeline import schema
from cleanplate.pipeline.images.formats.base import ImageError
from cleanplate.pipeline.schema import Row
from cleanplate.pipeline.stages.rows import decode
from cleanplate.pipeline.stages.stage import Needs, Work

_ADDS = schema.columns("pixels")
_READS = ["source", "width", "height"]

MOST_BYTES = 512 << 20
"""Of a unit's pixels that travel; what comes after that is decoded where it is needed, as without this stage. A unit is
one object of the engine, several are under way, and a task that makes one holds it twice."""


@dataclass(frozen=True)
class Decode:
    """A picture that cannot be decoded has no pixels here; the first stage that wants them says why."""

    most: int = MOST_BYTES
    needs: Needs = Needs(cpus=1, batch=10_000, workers=(0, 0))
    name: str = "decode"
    adds: pa.Schema = _ADDS

    def open(self) -> Work:
        return self._decode

    def _decode(self, table: pa.Table) -> pa.Table:
        rows = table.select(_READS).to_pylist()
        sizes = [row["width"] * row["height"] * 3 for row in rows]
        fits = [sofar <= self.most for sofar in accumulate(sizes)]
        room = np.empty(sum(size for size, fit in zip(sizes, fits, strict=True) if fit), np.uint8)
        ends, there = [0], []
        for row, size, fit in zip(rows, sizes, fits, strict=True):
            pixels = _pixels(row) if fit else None
            if pixels is not None:
                room[ends[-1] : ends[-1] + size] = pixels.reshape(-1)
            there.append(pixels is not None)
            ends.append(ends[-1] + (size if pixels is not None else 0))
        # Not pa.array(): it would copy a unit's pixels once more.
        buffers = [pa.array(there).buffers()[1], pa.array(ends, pa.int64()).buffers()[1], pa.py_buffer(room)]
        column = pa.Array.from_buffers(pa.large_binary(), len(rows), buffers)
        return table.append_column(_ADDS.field("pixels"), column)


def _pixels(row: Row) -> Image | None:
    try:
        return decode(row).pixels
    except ImageError:
        return None
