from __future__ import annotations

import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from cleanplate.pipeline import schema
from cleanplate.pipeline.errors import ContractError, RowError, StorageError, ran_out_of_memory
from cleanplate.pipeline.images.formats.base import ImageError
from cleanplate.pipeline.stages.stage import Needs, Work, Worker

ADDS = schema.columns("status")


@dataclass(frozen=True)
class Fake:
    """A stage that does what the test says."""

    work: Callable[[pa.Table], pa.Table]
    needs: Needs = Needs(batch=4)
    name: str = "detect"
    adds: pa.Schema = ADDS

    def open(self) -> Work:
        return self.work


def unit(n: int, **errors: Any) -> pa.Table:
    ids = [f"{k:02}" for k in range(n)]
    rows = [
        {
            "image_id": i,
            "source_uri": i,
            "source_version": "",
            "source_bytes": 1,
            "attempt": 1,
            "error": errors.get(f"e{i}"),
        }
        for i in ids
    ]
    return pa.Table.from_pylist(rows, schema=schema.START)


def good(table: pa.Table) -> pa.Table:
    return schema.with_columns(table, ADDS, {"status": ["cleaned"] * table.num_rows})


def refusing(*bad: str, error: Exception) -> Callable[[pa.Table], pa.Table]:
    def work(table: pa.Table) -> pa.Table:
        if set(table["image_id"].to_pylist()) & set(bad):
            raise error
        return good(table)

    return work


def by_id(table: pa.Table, column: str) -> dict[str, Any]:
    return dict(zip(table["image_id"].to_pylist(), table[column].to_pylist(), strict=True))


def test_one_bad_image_fails_alone() -> None:
    out = Worker([Fake(refusing("05", error=RowError("odd", "it is odd")))])(unit(10))
    assert by_id(out, "status") == {f"{k:02}": None if k == 5 else "cleaned" for k in range(10)}
    assert by_id(out, "error")["05"] == {"stage": "detect", "kind": "odd", "message": "it is odd"}
    assert [k for k, e in by_id(out, "error").items() if e] == ["05"]


def test_failed_rows_pass_by_later_stages_untouched() -> None:
    seen: list[str] = []

    def watching(table: pa.Table) -> pa.Table:
        seen.extend(table["image_id"].to_pylist())
        return good(table)

    earlier = {"stage": "read", "kind": "missing", "message": "gone"}
    out = Worker([Fake(watching)])(unit(3, e01=earlier))
    assert seen == ["00", "02"]
    assert by_id(out, "error")["01"] == earlier


def test_running_out_of_memory_halves_the_batch_down_to_the_image() -> None:
    sizes: list[int] = []

    def work(table: pa.Table) -> pa.Table:
        sizes.append(table.num_rows)
        if table.num_rows > 1 or table["image_id"][0].as_py() == "02":
            raise MemoryError
        return good(table)

    out = Worker([Fake(work)])(unit(4))
    assert sizes == [4, 2, 1, 1, 2, 1, 1]
    assert by_id(out, "error")["02"]["kind"] == "out_of_memory"
    assert list(by_id(out, "status").values()).count("cleaned") == 3


def test_a_batch_that_ran_out_of_memory_is_let_go_before_its_halves() -> None:
    """The error holds the frames, and the frames what filled the memory: torch's activations, decoded pictures."""
    held: list[weakref.ref[np.ndarray]] = []

    def work(table: pa.Table) -> pa.Table:
        assert not [ref for ref in held if ref() is not None], "the batch before still fills the memory"
        filled = np.zeros(1000)
        held.append(weakref.ref(filled))
        if table.num_rows > 1:
            cycle: list[Any] = [filled]
            cycle.append(cycle)
            raise MemoryError
        return good(table)

    out = Worker([Fake(work)])(unit(4))
    assert len(held) == 7
    assert list(by_id(out, "status").values()) == ["cleaned"] * 4


_STARVED = """
import resource
import numpy as np, cv2, torch, pyarrow as pa
from cleanplate.pipeline.stages.stage import error_of

small = np.ones((4000, 4000, 3), np.uint8)
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (100 << 20),) * 2)
for allocate in (
    lambda: np.ones(1 << 30, np.uint8),
    lambda: bytes(1 << 30),
    lambda: pa.allocate_buffer(1 << 30),
    lambda: torch.ones(1 << 30, dtype=torch.uint8),
    lambda: cv2.resize(small, (20000, 20000)),
):
    try:
        allocate()
    except Exception as error:
        print(error_of("detect", error)["kind"])
"""


def test_memory_that_really_runs_out_is_called_so() -> None:
    """numpy, Python, Arrow, torch and OpenCV in a process that cannot have a GiB more."""
    done = subprocess.run([sys.executable, "-c", _STARVED], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["out_of_memory"] * 5, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("error", "so"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (
            RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 9"),
            True,
        ),
        (RuntimeError("std::bad_alloc"), True),
        (ImageError("out_of_memory", "not enough memory to decode"), True),
        (RowError("odd", "out of memory cards"), False),
        (ValueError("an illegal memory access was encountered"), False),
    ],
)
def test_what_counts_as_running_out_of_memory(error: Exception, so: bool) -> None:
    assert ran_out_of_memory(error) is so


@pytest.mark.parametrize(
    "broken",
    [
        lambda t: good(t).slice(1),
        lambda t: good(pa.concat_tables([t, t.slice(0, 1)])),
        lambda t: t,
        lambda t: good(t).append_column("extra", pa.nulls(t.num_rows)),
        lambda t: t.append_column("status", pa.array([1] * t.num_rows)),
    ],
)
def test_a_stage_that_breaks_its_promise_stops_the_run(broken: Callable[[pa.Table], pa.Table]) -> None:
    with pytest.raises(ContractError):
        Worker([Fake(broken)])(unit(4))


def test_a_broken_program_is_no_bad_image() -> None:
    with pytest.raises(ContractError, match="TypeError"):
        Worker([Fake(refusing(*(f"{k:02}" for k in range(20)), error=TypeError("a bug")))])(unit(20))
    out = Worker([Fake(refusing("03", error=IndexError("one strange image")))])(unit(20))
    assert by_id(out, "error")["03"]["kind"] == "internal:IndexError"


def test_a_store_that_is_away_is_no_bad_image() -> None:
    with pytest.raises(StorageError):
        Worker([Fake(refusing("00", error=StorageError("unreachable", "away")))])(unit(2))


def test_stages_are_folded_batch_by_batch_and_timed() -> None:
    order: list[str] = []

    def noting(name: str) -> Callable[[pa.Table], pa.Table]:
        def work(table: pa.Table) -> pa.Table:
            order.append(name)
            return good(table)

        return work

    out = Worker([Fake(noting("a")), Fake(noting("b"), name="segment")])(unit(8))
    assert order == ["a", "b", "a", "b"]
    timing = out["timings_ms"][0].as_py()
    assert timing["detect"] >= 0
    assert timing["segment"] >= 0
    assert timing["inpaint"] is None
