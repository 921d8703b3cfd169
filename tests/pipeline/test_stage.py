from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from pipeline import schema
from pipeline.errors import ContractError, RowError, StorageError
from pipeline.stage import Needs, Work, Worker

ADDS = schema.columns("status")


@dataclass(frozen=True)
class Told:
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
    out = Worker([Told(refusing("05", error=RowError("odd", "it is odd")))])(unit(10))
    assert by_id(out, "status") == {f"{k:02}": None if k == 5 else "cleaned" for k in range(10)}
    assert by_id(out, "error")["05"] == {"stage": "detect", "kind": "odd", "message": "it is odd"}
    assert [k for k, e in by_id(out, "error").items() if e] == ["05"]


def test_failed_rows_pass_by_later_stages_untouched() -> None:
    seen: list[str] = []

    def watching(table: pa.Table) -> pa.Table:
        seen.extend(table["image_id"].to_pylist())
        return good(table)

    earlier = {"stage": "read", "kind": "missing", "message": "gone"}
    out = Worker([Told(watching)])(unit(3, e01=earlier))
    assert seen == ["00", "02"]
    assert by_id(out, "error")["01"] == earlier


def test_running_out_of_memory_halves_the_batch_down_to_the_image() -> None:
    sizes: list[int] = []

    def work(table: pa.Table) -> pa.Table:
        sizes.append(table.num_rows)
        if table.num_rows > 1 or table["image_id"][0].as_py() == "02":
            raise MemoryError
        return good(table)

    out = Worker([Told(work)])(unit(4))
    assert sizes == [4, 2, 1, 1, 2, 1, 1]
    assert by_id(out, "error")["02"]["kind"] == "out_of_memory"
    assert list(by_id(out, "status").values()).count("cleaned") == 3


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
        Worker([Told(broken)])(unit(4))


def test_a_broken_program_is_no_bad_image() -> None:
    with pytest.raises(ContractError, match="TypeError"):
        Worker([Told(refusing(*(f"{k:02}" for k in range(20)), error=TypeError("a bug")))])(unit(20))
    out = Worker([Told(refusing("03", error=IndexError("one strange image")))])(unit(20))
    assert by_id(out, "error")["03"]["kind"] == "internal:IndexError"


def test_a_store_that_is_away_is_no_bad_image() -> None:
    with pytest.raises(StorageError):
        Worker([Told(refusing("00", error=StorageError("unreachable", "away")))])(unit(2))


def test_stages_are_folded_batch_by_batch_and_timed() -> None:
    order: list[str] = []

    def noting(name: str) -> Callable[[pa.Table], pa.Table]:
        def work(table: pa.Table) -> pa.Table:
            order.append(name)
            return good(table)

        return work

    out = Worker([Told(noting("a")), Told(noting("b"), name="segment")])(unit(8))
    assert order == ["a", "b", "a", "b"]
    timing = out["timings_ms"][0].as_py()
    assert timing["detect"] >= 0
    assert timing["segment"] >= 0
    assert timing["inpaint"] is None
