"""Sets of image ids, and parts read by range."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cleanplate.jobs.benchmark import planning
from cleanplate.pipeline.ledger.id_set import Ids
from cleanplate.pipeline.storage.connect import LocalStore
from cleanplate.pipeline.storage.range_file import RangeFile


def ids(numbers: range) -> list[str]:
    return [hashlib.sha256(str(n).encode()).hexdigest() for n in numbers]


@pytest.mark.parametrize("ordered", [True, False])
def test_a_set_holds_what_was_put_in_and_nothing_else(ordered: bool) -> None:
    inside, outside = ids(range(2000)), ids(range(2000, 4000))
    known = sorted(inside) if ordered else inside
    columns = [pa.chunked_array([known[:700], known[700:900]]), pa.chunked_array([known[900:]])]
    found = Ids(columns, 2000)
    assert found.holds(inside).all()
    assert not found.holds(outside).any()


def test_ids_that_share_their_first_half_are_told_apart() -> None:
    half = "0123456789abcdef"
    inside = [half + f"{n:016x}" + "0" * 32 for n in (3, 1, 2)]
    found = Ids([pa.chunked_array([inside])], 3)
    asked = [half + f"{n:016x}" + "f" * 32 for n in range(5)]
    assert found.holds(asked).tolist() == [False, True, True, True, False]


def test_an_empty_set_holds_nothing() -> None:
    assert not Ids([], 0).holds(ids(range(3))).any()


def test_a_count_that_is_wrong_is_refused() -> None:
    with pytest.raises(ValueError, match="3 ids, 4"):
        Ids([pa.chunked_array([ids(range(3))])], 4)


class Counting(LocalStore):
    """Counts the bytes that ranges fetch."""

    fetched = 0

    def get_range(self, key: str, start: int, length: int, version: str = "") -> bytes:
        self.fetched += length
        return super().get_range(key, start, length, version)


def test_a_small_column_is_read_without_the_large_one(tmp_path: Path) -> None:
    store = Counting(tmp_path)
    table = pa.table({"small": ["a", "b"] * 500, "large": [bytes([n % 251]) * 5000 for n in range(1000)]})
    pq.write_table(table, tmp_path / "t.parquet", compression="none", row_group_size=200)
    assert pq.read_table(RangeFile(store, "t.parquet"), columns=["small"]).equals(table.select(["small"]))
    assert store.fetched < 100_000 < (tmp_path / "t.parquet").stat().st_size
    assert pq.read_table(RangeFile(store, "t.parquet")).equals(table)


def test_planning_and_resuming_a_made_up_source(tmp_path: Path) -> None:
    """The steps of the benchmark, small: what they count is what there is."""
    fields = {step: planning.step(step, 3000, tmp_path) for step in planning.STEPS}
    assert fields["plan"]["units"] >= 3000 / 512
    assert fields["resume"]["new"] == 1000, "images that came later"
    assert fields["resume"]["missing"] == fields["resume"]["units"] > fields["plan"]["units"]
    assert fields["status"]["rows"] > 0
