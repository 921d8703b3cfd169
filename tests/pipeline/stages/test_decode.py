"""Pictures decoded by a stage of their own: the same rows, and no model stage decodes or encodes a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cleanplate.models.types import Image
from cleanplate.pipeline import schema
from cleanplate.pipeline.engine import run as runs
from cleanplate.pipeline.engine.job import groups_of
from cleanplate.pipeline.engine.packing import views
from cleanplate.pipeline.images import encode
from cleanplate.pipeline.ledger import plan
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.stages import rows
from cleanplate.pipeline.stages.decode import Decode
from cleanplate.pipeline.stages.read import Read
from cleanplate.pipeline.stages.stage import Worker
from cleanplate.pipeline.storage.connect import LocalStore
from rigs.flow_rig import clean, comparable, faces, folder, put_photos, rows_of
from rigs.scenes import photos

APART = {"inpaint": {"batch": 4}, "verify": {"batch": 8}}
"""Pools of their own: their needs differ."""


def started(tmp_path: Path, n: int = 3) -> pa.Table:
    """A unit's table after `read`: n photographs, a text and half a picture."""
    source = folder(tmp_path / "in")
    files = put_photos(source, n)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"this is no picture")
    (tmp_path / "in" / "half.jpg").write_bytes((half := next(iter(files.values())))[: len(half) // 2])
    listed = plan.listed(LocalStore(tmp_path / "in"), Recipe())
    planned = [
        {"image_id": p.image_id, "source_uri": p.uri, "source_version": p.object.version}
        | {"source_bytes": p.object.size, "attempt": 1}
        for p in listed
    ]
    return Worker([Read(Recipe().limits)])(pa.Table.from_pylist(planned, schema=schema.START))


def test_pixels_are_those_of_the_file_and_what_cannot_be_decoded_has_none(tmp_path: Path) -> None:
    table = Worker([Decode()])(started(tmp_path))
    seen = rows.rows_of(table, ["source_uri", "source", "width", "height", "error"])
    assert len(seen) == 5
    for row in seen:
        if "broken" in row["source_uri"] or "half" in row["source_uri"]:
            assert row["pixels"] is None
            assert (row["error"] is not None) == ("broken" in row["source_uri"]), (
                "half a picture is detect's to tell"
            )
        else:
            assert np.array_equal(rows.pixels_of(row), encode.decode(row["source"]).pixels)
            assert not rows.pixels_of(row).flags.writeable


@pytest.mark.parametrize("kept", [rows.KEPT_PIXELS, 1])
def test_no_more_pixels_of_a_unit_travel_than_fit(
    tmp_path: Path, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "KEPT_PIXELS", kept)  # The slices in which other stages see a unit.
    read = started(tmp_path)
    sizes = [w * h * 3 for w, h in zip(*(read[c].to_pylist() for c in ("width", "height")), strict=True) if w]
    table = Worker([Decode(most=sizes[0])])(read)
    assert table["pixels"].nbytes < sum(sizes)
    assert sum(p is not None for p in table["pixels"].to_pylist()) == 1


def test_views_are_the_values_and_no_copies() -> None:
    values = [b"abc", None, b"", b"defg"]
    column = pa.chunked_array([pa.array(v, pa.large_binary()) for v in (values, [], [None])])
    seen = views(column.slice(1))
    assert [None if v is None else bytes(v) for v in seen] == [None, b"", b"defg", None]
    data = column.chunk(0).buffers()[2]
    assert seen[2] is not None
    assert seen[2].address == data.address + 3


def test_pixels_leave_a_row_with_the_last_stage_that_looks(tmp_path: Path) -> None:
    table = Worker([Decode()])(started(tmp_path))
    kept = rows.without_pixels(table, [n == 0 for n in range(table.num_rows)])
    assert [p is not None for p in kept["pixels"].to_pylist()][1:] == [False] * 4
    assert rows.without_pixels(table)["pixels"].null_count == 5
    assert kept.schema == table.schema


@pytest.mark.parametrize("scope", ["edited", "all"])
def test_the_same_rows_and_no_model_stage_decodes_a_file(tmp_path: Path, scope: str) -> None:
    """In one process; tests/flow/test_flow.py has the pools on Ray."""
    source = folder(tmp_path / "in")
    put_photos(source, 8)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"this is no picture")
    settings = {"verify.scope": scope, "units.rows": 9}
    clean(source, str(tmp_path / "inside"), faces(**settings))
    recipe = faces(**settings, **{"engine.stages": APART})
    run = runs.start(source, str(tmp_path / "apart"), recipe)
    job = run.job(runs.plan_new(run), last=True)
    groups = groups_of(job.stages(job.recipe, True))
    assert [g[0].name for g in groups] == ["read", "decode", "detect", "inpaint", "verify", "write"]
    table = plan.read_unit(run.output, job.units[0])
    for group in groups:
        rows.forget()  # As in a process of its own.
        table = Worker(group)(table)
        assert bool(rows._decoded) == (group[0].name == "write"), f"{group[0].name} decoded a file"
    runs.execute(run, list(job.units), "here", lambda receipt: None)
    inside, apart = (comparable(rows_of(str(tmp_path / name))) for name in ("inside", "apart"))
    assert inside == apart
    assert {row["status"] for row in inside} >= {"cleaned", "unchanged", "failed"}


def test_patches_hold_what_was_changed() -> None:
    (_, data), *_ = photos(1)
    before = encode.decode(data).pixels
    after: Image = before.copy()
    mask = np.zeros(before.shape[:2], bool)
    mask[10:30, 20:50] = mask[40:41, 60:61] = True
    after[mask] = 255 - after[mask]
    patches: list[dict[str, Any]] = rows.cut_patches(after, mask)
    stored = pa.array([patches], pa.list_(schema.PATCH)).to_pylist()[0]
    assert np.array_equal(rows.paste_patches(before, stored), after)
    assert sum(len(p["rgb"]) for p in stored) == (20 * 30 + 1) * 3
