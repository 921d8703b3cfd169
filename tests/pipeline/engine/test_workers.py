"""A group of stages in a worker, with deaths reported to a real `Attempts`: no Ray, no processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from cleanplate.pipeline import schema
from cleanplate.pipeline.engine.job import Job
from cleanplate.pipeline.engine.metrics import METRICS, Meters, Metric
from cleanplate.pipeline.engine.packing import pack, unpack
from cleanplate.pipeline.engine.poison import Attempts
from cleanplate.pipeline.engine.worker import Group, Place
from cleanplate.pipeline.errors import StorageError
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.stages.stage import Needs, Work
from cleanplate.pipeline.stages.write import Stamp
from cleanplate.pipeline.storage.connect import LocalStore


class Death(BaseException):
    """What ends the process, as far as the group can tell."""


@dataclass(frozen=True)
class Fatal:
    """Dies over the images named in `poison`; remembers what it was given."""

    poison: frozenset[str]
    seen: list[list[str]] = field(default_factory=list, compare=False)
    away: bool = False
    needs: Needs = Needs(batch=4)
    name: str = "detect"
    adds: pa.Schema = schema.columns("status")

    def open(self) -> Work:
        def work(table: pa.Table) -> pa.Table:
            ids = table["image_id"].to_pylist()
            self.seen.append(ids)
            if self.away:
                raise StorageError("unreachable", "not now")
            if self.poison & set(ids):
                raise Death
            return schema.with_columns(table, self.adds, {"status": ["unchanged"] * len(ids)})

        return work


class Counter:
    """The engine's object for a metric; sums what it is told."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], float] = {}

    def inc(self, value: float, tags: dict[str, str]) -> None:
        key = tuple(tags.values())
        self.values[key] = self.values.get(key, 0) + value

    observe = inc


def unit(images: list[str]) -> pa.Table:
    rows = len(images)
    values: dict[str, list[Any]] = {name: [None] * rows for name in schema.START.names}
    values |= {"image_id": images, "source_uri": images, "attempt": [1] * rows}
    return pack("u", 0.0, pa.table(values, schema=schema.START))


def until_done(
    stage: Fatal, images: list[str], tmp_path: Path
) -> tuple[int, dict[str, Any], dict[str, Counter]]:
    """Deaths until the unit came through, its rows by id, and the metrics."""
    attempts, counters = Attempts(), {name: Counter() for name in METRICS}
    job = Job((), LocalStore(tmp_path), Recipe(), Stamp("d", "v", "r", (), False))
    place = Place(job, (stage,), first=False, final=False, attempts=None)

    def make(metric: Metric) -> Counter:
        return counters[metric.name]

    for deaths in range(100):
        group = Group(place, attempts, Meters(make))
        try:
            rows = unpack(group(unit(images))).to_pylist()
        except Death:
            continue
        return deaths, {row["image_id"]: row for row in rows}, counters
    raise AssertionError("never ends")


IMAGES = [f"{n:064}" for n in range(12)]


def test_a_healthy_unit_goes_through_at_once(tmp_path: Path) -> None:
    stage = Fatal(frozenset())
    deaths, rows, counters = until_done(stage, IMAGES, tmp_path)
    assert deaths == 0
    assert list(rows) == IMAGES
    assert stage.seen == [IMAGES[0:4], IMAGES[4:8], IMAGES[8:12]]
    assert counters["cleanplate_stage_rows"].values == {("detect",): 12}
    assert not counters["cleanplate_deaths"].values


def test_the_poisoned_image_fails_alone_and_other_batches_stay_whole(tmp_path: Path) -> None:
    stage = Fatal(frozenset(IMAGES[5:6]))
    deaths, rows, counters = until_done(stage, IMAGES, tmp_path)
    assert deaths == 4
    assert rows.keys() == set(IMAGES)
    failed = {name: row["error"]["kind"] for name, row in rows.items() if row["error"]}
    assert failed == {IMAGES[5]: "crashed"}
    assert all(row["status"] == "unchanged" for name, row in rows.items() if name not in failed)
    last = stage.seen[-5:]
    assert last == [IMAGES[0:4], IMAGES[4:5], IMAGES[6:7], IMAGES[7:8], IMAGES[8:12]]
    assert counters["cleanplate_deaths"].values == {(): 4}


def test_several_poisoned_images_are_all_found(tmp_path: Path) -> None:
    poison = frozenset([IMAGES[0], IMAGES[5], IMAGES[6], IMAGES[11]])
    _, rows, _ = until_done(Fatal(poison), IMAGES, tmp_path)
    assert {name for name, row in rows.items() if row["error"]} == poison


def test_a_store_that_is_away_leaves_the_unit_for_later_and_blames_no_image(tmp_path: Path) -> None:
    attempts = Attempts()
    job = Job((), LocalStore(tmp_path), Recipe(), Stamp("d", "v", "r", (), False))
    place = Place(job, (Fatal(frozenset(), away=True),), first=False, final=False, attempts=None)
    group = Group(place, attempts, Meters(lambda metric: Counter()))
    (row,) = group(unit(IMAGES)).to_pylist()
    assert row["failure"] == "later: not now"
    assert not attempts.begin("u/detect").careful


class Cramped(LocalStore):
    """A store whose client has no room for what it is to send."""

    def put_new(self, key: str, data: bytes) -> bool:
        raise MemoryError("no room to send a part")


def test_a_unit_that_finds_no_memory_after_its_stages_is_left_for_later(tmp_path: Path) -> None:
    attempts = Attempts()
    job = Job((), Cramped(tmp_path), Recipe(), Stamp("d", "v", "r", (), False))
    place = Place(job, (Fatal(frozenset()),), first=False, final=True, attempts=None)
    group = Group(place, attempts, Meters(lambda metric: Counter()))
    (row,) = group(unit(IMAGES)).to_pylist()
    assert row["failure"] == "later: no room to send a part"
    assert not attempts.begin("u/detect").careful, "no image is blamed"
