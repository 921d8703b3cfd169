"""Compaction: the same rows in fewer parts, whatever happens meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cleanplate.jobs.cli.app import main
from cleanplate.pipeline.engine import recall
from cleanplate.pipeline.engine.compaction import Compacted, compact
from cleanplate.pipeline.engine.job import spread_here
from cleanplate.pipeline.errors import RunStopped
from cleanplate.pipeline.ledger import compactions, dataset_card, ledger, part_file, plan, statistics
from cleanplate.pipeline.ledger.orphans import orphans, sweep
from cleanplate.pipeline.ledger.proof import prove
from cleanplate.pipeline.ledger.review import Mark, Marks, asked
from cleanplate.pipeline.storage.connect import LocalStore, Store, open_store
from rigs.faultproxy import Fault
from rigs.flow_rig import clean, comparable, faces, put_photos, rows_of
from rigs.s3server import Bucket

IMAGES, UNIT = 14, 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 photographs in 7 units of 2, each in its part."""
    place = tmp_path_factory.mktemp("compact")
    put_photos(str(place / "in"), IMAGES)
    clean(str(place / "in"), str(place / "out"), faces(**{"units.rows": UNIT}))
    return place


@pytest.fixture
def output(finished: Path, tmp_path: Path) -> LocalStore:
    """A copy, made of links: nothing that is committed is ever written again."""
    (tmp_path / "out").mkdir()
    for path in (finished / "out").rglob("*"):
        to = tmp_path / "out" / path.relative_to(finished / "out")
        to.mkdir(exist_ok=True) if path.is_dir() else to.hardlink_to(path)
    return LocalStore(tmp_path / "out")


def done(output: Store, rows: int = 5, **more: Any) -> list[Compacted]:
    return list(compact(output, more.pop("spread", spread_here), rows=rows, **more))


def test_the_same_rows_lie_in_fewer_parts(finished: Path, output: LocalStore) -> None:
    before, units = comparable(rows_of(output)), ledger.done(output)
    result = done(output)
    assert [(m.units, m.rows) for m in result] == [(2, 4), (2, 4), (3, 6)], "5 rows at most; the last joins"
    names = ledger.part_keys(output)
    assert [name.rpartition("/")[2] for name in names] == ["00000.parquet", "00001.parquet", "00002.parquet"]
    assert comparable(rows_of(output)) == before
    assert ledger.done(output) == units
    assert ledger.tally(output).rows == IMAGES
    found = prove(output, source=LocalStore(finished / "in"))
    assert (found.wrong, found.rows, found.checks["rows"].looked) == ([], IMAGES, 7)
    facts = statistics.gather(output, "", 5, 0)
    assert (facts.rows, len(facts.committed), facts.unreadable) == (IMAGES, 7, [])
    assert done(output) == [], "nothing is left that fits together"


def test_a_part_is_as_large_as_asked(output: LocalStore) -> None:
    sizes = [item.size for item in output.list(ledger.PARTS)]
    result = done(output, rows=1000, size=sum(sizes) // 2)
    assert 2 <= len(result) <= 4
    assert all(m.size < sum(sizes) for m in result)
    assert sum(m.rows for m in result) == IMAGES


def test_row_groups_are_filled_across_units() -> None:
    tables = [
        pa.table({"image_id": [f"{n} {k}" for k in range(100)], "image": [b""] * 100}) for n in range(7)
    ]
    file = pq.ParquetFile(pa.BufferReader(data := part_file.joined_bytes(iter(tables))))
    assert [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)] == [256, 256, 188]
    assert file.read() == pa.concat_tables(tables)
    assert part_file.seal_holds(data)


def test_a_resumed_run_adds_to_it_and_the_next_compaction_takes_that(
    finished: Path, output: LocalStore
) -> None:
    done(output, rows=100)
    source, recipe = str(finished / "in"), faces(**{"units.rows": UNIT})
    assert clean(source, str(output.root), recipe) == [], "what lies in a large part is done"
    list(sweep(output, 0))
    assert clean(source, str(output.root), recipe) == []
    (finished / "in" / "more.jpg").write_bytes(b"no picture")
    (finished / "in" / "other.jpg").write_bytes(b"no picture either")
    (finished / "in" / "third.jpg").write_bytes(b"nor this")
    try:
        assert sum(r.rows for r in clean(source, str(output.root), recipe)) == 3
        clean(source, str(output.root), recipe, retry_failed=True)
    finally:
        for name in ("more", "other", "third"):
            (finished / "in" / f"{name}.jpg").unlink()
    assert [m.rows for m in done(output)] == [3 + 3], "both attempts at the three"
    assert compactions.generations(output) == [0, 1]
    rows = rows_of(output)
    assert len({row["image_id"] for row in rows}) == len(rows) == IMAGES + 3
    assert {row["attempt"] for row in rows if row["status"] == "failed"} == {2}
    assert prove(output, compare=False).wrong == []


class Killed(BaseException):
    pass


def killed_after(parts: int) -> Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]:
    """Runs so many items, then the process is gone."""

    def spread(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        for n, item in enumerate(items):
            if n == parts:
                raise Killed
            yield function(item)

    return spread


@pytest.mark.parametrize("parts", [0, 1, 2])
def test_killed_at_any_part_it_has_changed_nothing_and_goes_on(output: LocalStore, parts: int) -> None:
    before = comparable(rows_of(output))
    with pytest.raises(Killed):
        done(output, spread=killed_after(parts))
    assert len(list(output.list(compactions.FOLDER))) == parts
    assert all("/" not in name for name in ledger.part_keys(output))
    assert comparable(rows_of(output)) == before
    written = {item.key: item.modified for item in output.list(compactions.FOLDER)}
    done(output)
    kept = {item.key: item.modified for item in output.list(compactions.FOLDER) if item.key in written}
    assert kept == written, "what was there is not made again"
    assert comparable(rows_of(output)) == before


def test_of_two_at_once_one_counts(output: LocalStore) -> None:
    """The other has planned otherwise, and comes to its index second."""
    before = comparable(rows_of(output))

    def overtaken(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        yield from map(function, items)
        done(output, rows=9)

    first = compact(output, overtaken, rows=5)
    assert sum(one.rows for one in first) == IMAGES
    assert compactions.generations(output) == [0]
    assert len(ledger.part_keys(output)) == 2, "as the second one had it"
    assert comparable(rows_of(output)) == before
    assert {o.what for o in orphans(output)} == {"replaced", "compaction"}
    assert [removed for _, removed in sweep(output)] == [False] * (7 + 3), "too young"
    assert all(removed for _, removed in sweep(output, 0))
    assert list(orphans(output)) == []
    assert comparable(rows_of(output)) == before
    assert prove(output, compare=False).wrong == []


def test_a_late_writer_of_a_replaced_part_changes_nothing(output: LocalStore) -> None:
    name = ledger.part_keys(output)[0]
    late, before = output.get(f"parts/{name}"), comparable(rows_of(output))
    done(output)
    list(sweep(output, 0))
    assert output.put_new(f"parts/{name}", late)
    assert comparable(rows_of(output)) == before
    assert prove(output, compare=False).wrong == []
    assert [(o.what, o.key) for o in orphans(output)] == [("replaced", f"parts/{name}")]


@pytest.mark.parametrize("where", [0.5, 1.0])
def test_what_is_not_as_it_was_written_is_not_copied(output: LocalStore, where: float) -> None:
    """A bit of a page, and one of the last byte, without which the footer is not found."""
    name = ledger.part_keys(output)[3]
    data = bytearray(output.get(f"parts/{name}"))
    data[round(where * (len(data) - 1))] ^= 1
    output.put(f"parts/{name}", bytes(data))
    with pytest.raises(RunStopped, match="its seal is broken"):
        done(output)
    assert compactions.generations(output) == []


def test_parts_that_were_replaced_stay_while_the_large_one_is_hurt(output: LocalStore) -> None:
    done(output, rows=100)
    (name,) = ledger.part_keys(output)
    whole = output.get(name)
    output.put(name, whole[:-1])
    assert [o.what for o in orphans(output)] == [], "not of the size that its index tells"
    output.put(name, whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
    assert main(["verify", str(output.root), "--output-only", "--sweep", "--min-age", "0"]) == 1
    assert len(list(output.list("parts"))) == 7, "the only other copy"
    output.put(name, whole)
    assert main(["verify", str(output.root), "--output-only", "--sweep", "--min-age", "0"]) == 0
    assert len(list(output.list("parts"))) == 0


def test_a_sweep_that_takes_a_slow_compaction_for_a_dead_one_is_noticed(output: LocalStore) -> None:
    def swept(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        yield from map(function, items)
        assert all(removed for _, removed in sweep(output, 0))

    with pytest.raises(RunStopped, match="gone meanwhile"):
        list(compact(output, swept, rows=5))
    assert compactions.generations(output) == []
    assert len(rows_of(output)) == IMAGES


def test_the_command_and_what_other_tools_read(
    output: LocalStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compact", str(output.root), "--rows", "5"]) == 0
    assert "merged 7 parts into 3 (14 rows copied)" in capsys.readouterr().out
    assert main(["status", str(output.root)]) == 0
    assert "7 of 7 units committed; parts: 3" in capsys.readouterr().out
    pattern = f"{output.root}/{compactions.FOLDER}/*/*.parquet"
    for swept in (False, True):
        assert duckdb.sql(f"select count(*) from '{pattern}'").fetchall() == [(IMAGES,)]
        record = json.loads(output.get("croissant.json"))["distribution"][0]["includes"]
        assert duckdb.sql(f"select count(*) from '{output.root}/{record}'").fetchall() == [(IMAGES,)]
        if not swept:
            list(sweep(output, 0))
    assert main(["compact", str(output.root), "--rows", "0"]) == 2
    capsys.readouterr()
    assert main(["compact", str(output.root), "--rows", "5"]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_a_card_names_each_part_while_replaced_ones_lie_beside(finished: Path, output: LocalStore) -> None:
    done(output, rows=100)
    (finished / "in" / "more.jpg").write_bytes(b"no picture")
    try:
        clean(str(finished / "in"), str(output.root), faces(**{"units.rows": UNIT}))
    finally:
        (finished / "in" / "more.jpg").unlink()
    dataset_card.write(output)
    record = json.loads(output.get("croissant.json"))["distribution"][0]["includes"]
    assert [t.rpartition("/")[0] for t in record] == [record[0].rpartition("/")[0], "parts"]
    assert "*" not in record[1]
    assert "rows come twice" in output.get("README.md").decode()
    list(sweep(output, 0))
    dataset_card.write(output)
    record = json.loads(output.get("croissant.json"))["distribution"][0]["includes"]
    assert record[1] == "parts/*.parquet"
    files = ", ".join(f"'{output.root}/{place}'" for place in record)
    assert duckdb.sql(f"select count(*) from read_parquet([{files}])").fetchall() == [(IMAGES + 1,)]


def test_a_review_and_a_recall_find_rows_in_large_parts(output: LocalStore) -> None:
    done(output, rows=100)
    list(sweep(output, 0))
    row = next(row for row in rows_of(output) if row["status"] == "cleaned")
    result = asked(output, Marks(marks=(Mark(image_id=row["image_id"], attempt=1, mark="redo"),)))
    assert [r.review["mark"] for r in result.rows if r.review] == ["redo"]
    assert recall.estimate(output, faces(), spread_here, 3) is not None
    assert plan.generations(output) == [0]


def test_pictures_outside_the_parts_stay_where_they_are(tmp_path: Path) -> None:
    put_photos(str(tmp_path / "in"), 3)
    recipe = faces(**{"units.rows": 1, "output.layout": "webdataset"})
    clean(str(tmp_path / "in"), str(tmp_path / "out"), recipe)
    output = LocalStore(tmp_path / "out")
    shards = [item.key for item in output.list("shards")]
    done(output, rows=100)
    assert {orphan.what for orphan, removed in sweep(output, 0) if removed} == {"replaced"}
    assert [item.key for item in output.list("shards")] == shards
    found = prove(output, source=LocalStore(tmp_path / "in"))
    assert (found.wrong, found.checks["image there"].looked) == ([], 3)
    assert clean(str(tmp_path / "in"), str(tmp_path / "out"), recipe) == []


def test_in_a_store_that_loses_acknowledgements_and_says_503(output: LocalStore, s3_faults: Bucket) -> None:
    """A put that is not answered may be carried out: of the index too, which is then met as another's."""
    place = open_store(s3_faults.url("out"))
    for item in output.list():
        place.put(item.key, output.get(item.key))
    lost = [Fault("lost_ack", 1, "PUT", f"out/compacted/0000{what}", times=1) for what in (".index", "-")]
    s3_faults.faults(*lost, Fault("e503", 0.2), seed=1)
    done(place)
    s3_faults.faults()
    assert len(compactions.generations(place)) == 1
    assert comparable(rows_of(place)) == comparable(rows_of(output))
    assert prove(place, compare=False).wrong == []
    assert {o.what for o, removed in sweep(place, 0) if removed} == {"replaced"}
    assert comparable(rows_of(place)) == comparable(rows_of(output))
