"""A source that is written again between the plan and the read: never the old version's row with the new bytes."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cleanplate.pipeline.engine import run
from cleanplate.pipeline.ledger import ledger
from cleanplate.pipeline.ledger.proof import prove
from cleanplate.pipeline.recipe.recipe import Recipe, load
from cleanplate.pipeline.storage.connect import Store, open_store
from rigs.flow_rig import rows_of


def picture(seed: int) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def in_parquet(*seeds: int) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"image": [picture(seed) for seed in seeds]}), out)
    return out.getvalue()


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else request.getfixturevalue("s3").url("p")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A run without networks: fill a box of a.png."""
    (tmp_path / "boxes.json").write_text(json.dumps({"a.png": [[2, 2, 9, 9]], "a.parquet/000000": []}))
    given = {"remove": ["given"], "given.file": str(tmp_path / "boxes.json"), "given.form": "rows"}
    return load(None, {**given, "inpaint.name": "fill", "verify.scope": "none"})


def planned_then(place: str, recipe: Recipe, key: str, data: bytes) -> Store:
    """Plan the source, write `key` again, and only then read."""
    started = run.start(f"{place}/in", f"{place}/out", recipe)
    units = run.plan_new(started)
    started.source.put(key, data)
    run.execute(started, units, "here", lambda receipt: None)
    return started.output


def again(place: str, recipe: Recipe, retry_failed: bool = False) -> None:
    started = run.start(f"{place}/in", f"{place}/out", recipe)
    run.execute(started, run.plan_new(started, retry_failed=retry_failed), "here", lambda receipt: None)


def test_an_image_is_told_as_replaced_and_planned_anew(place: str, recipe: Recipe) -> None:
    source = open_store(f"{place}/in")
    for n, name in enumerate(("a.png", "b.png")):
        source.put(name, picture(n))
    output = planned_then(place, recipe, "a.png", picture(7))
    rows = {row["source_uri"].rpartition("/")[2]: row for row in rows_of(output)}
    assert (rows["a.png"]["status"], rows["b.png"]["status"]) == ("failed", "unchanged")
    assert (rows["a.png"]["error"]["stage"], rows["a.png"]["error"]["kind"]) == ("read", "replaced")
    assert "run the same command again" in rows["a.png"]["error"]["message"]
    again(place, recipe)
    new = [row for row in rows_of(output) if row["status"] == "hidden"]
    assert [row["source_sha256"] for row in new] == [hashlib.sha256(picture(7)).hexdigest()]
    assert len(rows_of(output)) == 3
    again(place, recipe, retry_failed=True)  # That version is gone: nothing to try again.
    assert max(row["attempt"] for row in rows_of(output)) == 1
    assert not list(ledger.failed(output))
    assert prove(output, source=source).wrong == []


def test_rows_of_a_container_are_told_as_replaced(place: str, recipe: Recipe) -> None:
    source = open_store(f"{place}/in")
    source.put("a.parquet", in_parquet(1, 2, 3))
    output = planned_then(place, recipe, "a.parquet", in_parquet(4, 5, 6))
    assert [row["error"]["kind"] for row in rows_of(output)] == ["replaced"] * 3
    again(place, recipe)
    sound = {row["source_sha256"] for row in rows_of(output) if row["status"] == "unchanged"}
    assert sound == {hashlib.sha256(picture(n)).hexdigest() for n in (4, 5, 6)}
