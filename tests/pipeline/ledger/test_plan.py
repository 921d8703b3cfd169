from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from cleanplate.pipeline import schema
from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.ledger import cut, ledger, plan
from cleanplate.pipeline.recipe.recipe import Recipe, load
from cleanplate.pipeline.storage.connect import LocalStore, Object


def listing(n: int, size: int = 1000) -> list[plan.Planned]:
    return [plan.Planned(f"s3://b/{k:06}.jpg", Object(f"{k:06}.jpg", size, f"etag{k}")) for k in range(n)]


def rows_of(output: LocalStore, units: list[plan.Unit]) -> list[str]:
    return [i for unit in units for i in plan.read_unit(output, unit)["image_id"].to_pylist()]


@pytest.mark.parametrize("n", [1, 7, 8, 9, 500, 5000])
def test_every_image_is_in_exactly_one_unit_sorted_by_id(tmp_path: Path, n: int) -> None:
    output = LocalStore(tmp_path)
    units = cut.cut(output, 0, listing(n), Recipe(), "digest")
    ids = rows_of(output, units)
    assert ids == sorted({row.image_id for row in listing(n)})
    assert [u.rows for u in units] == [plan.read_unit(output, u).num_rows for u in units]
    assert len({u.name for u in units}) == len(units)
    assert plan.read_index(output, 0) == units


def test_units_are_cut_by_rows_and_bytes(tmp_path: Path) -> None:
    recipe = load(None, {"units.rows": 10, "units.bytes": 5000})
    units = cut.cut(LocalStore(tmp_path), 0, listing(100, size=1200), recipe, "d")
    assert {u.rows for u in units} == {4}, "4 x 1200 bytes fit 5000"
    huge = cut.cut(LocalStore(tmp_path / "2"), 0, listing(3, size=9999), recipe, "d")
    assert [u.rows for u in huge] == [1, 1, 1], "an object above the limit stands alone"


def test_a_plan_is_the_same_whatever_the_order_of_the_listing(tmp_path: Path) -> None:
    one = cut.cut(LocalStore(tmp_path / "1"), 0, listing(300), Recipe(), "d")
    two = cut.cut(LocalStore(tmp_path / "2"), 0, reversed(listing(300)), Recipe(), "d")
    assert one == two


def test_a_plan_that_exists_is_never_cut_again(tmp_path: Path) -> None:
    output = LocalStore(tmp_path)
    first = cut.cut(output, 0, listing(50), Recipe(), "d")
    assert cut.cut(output, 0, listing(60), Recipe(), "d") == first
    assert plan.generations(output) == [0]


def test_unit_names_tell_recipe_rows_and_versions_apart(tmp_path: Path) -> None:
    names = [cut.cut(LocalStore(tmp_path / d), 0, listing(5), Recipe(), d)[0].name for d in ("a", "b")]
    changed = [plan.Planned(r.uri, Object(r.object.key, 1000, r.object.version + "x")) for r in listing(5)]
    names.append(cut.cut(LocalStore(tmp_path / "c"), 0, changed, Recipe(), "a")[0].name)
    assert len(set(names)) == 3


def test_an_object_listed_twice_is_planned_once(tmp_path: Path) -> None:
    output = LocalStore(tmp_path)
    units = cut.cut(output, 0, listing(20) + listing(20), Recipe(), "d")
    assert Counter(rows_of(output, units)) == Counter({row.image_id: 1 for row in listing(20)})


def test_only_unseen_images_are_planned_further(tmp_path: Path) -> None:
    output = LocalStore(tmp_path)
    cut.cut(output, 0, listing(30), Recipe(), "d")
    fresh = list(ledger.unseen(output, listing(33)))
    assert [row.object.key for row in fresh] == ["000030.jpg", "000031.jpg", "000032.jpg"]
    cut.cut(output, 1, fresh, Recipe(), "d")
    assert list(ledger.unseen(output, listing(33))) == []
    assert plan.generations(output) == [0, 1]


_SORTING = """
import sys, tempfile
from cleanplate.pipeline.ledger import cut
from cleanplate.pipeline.recipe import recipe
from cleanplate.pipeline.storage import connect
from tests_plan_listing import listing
def stopping():
    yield from listing(5000)
    print("spilled", flush=True)
    sys.stdin.read()  # Until it is killed.
cut._SPILL_ROWS = 1000
cut.cut(connect.open_store(sys.argv[1]), 0, stopping(), recipe.Recipe(), "d")
"""


def test_a_killed_plan_leaves_nothing_behind(tmp_path: Path) -> None:
    """kill -9 while the listing is sorted: no file of it has a name."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    code = _SORTING.replace("tests_plan_listing", Path(__file__).stem)
    environment = os.environ | {
        "TMPDIR": str(scratch),
        "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)]),
    }
    words = [sys.executable, "-c", code, str(tmp_path / "out")]
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"spilled\n"
        spilled = [
            link
            for link in os.listdir(f"/proc/{process.pid}/fd")
            if str(scratch) in _target(process.pid, link)
        ]
        assert len(spilled) == 256, "every bucket was on the disk"
        process.kill()
    assert os.listdir(scratch) == []


def _target(pid: int, link: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{link}")
    except OSError:
        return ""


def test_an_empty_source_makes_no_plan(tmp_path: Path) -> None:
    assert cut.cut(LocalStore(tmp_path), 0, [], Recipe(), "d") == []
    assert plan.generations(LocalStore(tmp_path)) == []


def test_a_unit_starts_with_the_promised_columns(tmp_path: Path) -> None:
    output = LocalStore(tmp_path)
    unit, *_ = cut.cut(output, 0, listing(3), Recipe(), "d")
    assert plan.read_unit(output, unit).schema.equals(schema.START)


@pytest.mark.parametrize(
    ("key", "include", "exclude", "wanted"),
    [
        ("a.jpg", ("**",), (), True),
        ("sub/a.JPG", ("**/*.JPG",), (), True),
        ("a.JPG", ("**/*.JPG",), (), True),
        ("sub/a.txt", ("**",), ("**/*.txt",), False),
        (".DS_Store", ("**",), ("**/.DS_Store",), False),
        ("b/x.png", ("a/*",), (), False),
    ],
)
def test_globs(key: str, include: tuple[str, ...], exclude: tuple[str, ...], wanted: bool) -> None:
    assert plan.chosen(key, include, exclude) is wanted


@pytest.mark.parametrize("inside", ["out", "", "a/b"])
def test_an_output_inside_the_source_is_refused(tmp_path: Path, inside: str) -> None:
    with pytest.raises(ConfigError, match="inside one another"):
        plan.check_apart(LocalStore(tmp_path), LocalStore(tmp_path / inside))
    plan.check_apart(LocalStore(tmp_path / "photos"), LocalStore(tmp_path / "photos-clean"))


@pytest.mark.parametrize(
    ("total", "rows"), [(1, 1), (6, 1), (15, 1), (17, 2), (100, 7), (128, 8), (600, 10), (40_000, 512)]
)
def test_few_images_are_cut_into_units_enough_for_many_workers(total: int, rows: int) -> None:
    assert cut._rows_per_unit(load(None), total) == rows
