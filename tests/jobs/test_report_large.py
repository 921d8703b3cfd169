"""100,000 rows: the page is made without the pictures of all of them, opens in seconds, and finds any by name."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cleanplate.jobs.cli.app import main
from cleanplate.pipeline import schema
from cleanplate.pipeline.ledger import cut, ledger, plan
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.storage.connect import Object, Store, open_store
from rigs.chromium import browser, errors, needs_chromium, wait_for

__all__ = ["browser"]  # A fixture.
pytestmark = [pytest.mark.slow, needs_chromium]
ROWS = 100_000
ERRORS = {"failed": ("read", "truncated"), "skipped": ("segment", "max_coverage")}


def commit_rows(output: Store, source: str) -> None:
    """A committed run of ROWS rows that have no pictures; everything else is as in a real one."""
    recipe, dice = Recipe(), random.Random(0)
    digest = recipe.digest({})
    record = {
        "recipe_digest": digest,
        "source": source,
        "parts": schema.VERSION,
        "recipe": recipe.model_dump(mode="json"),
        "weights": {},
    }
    ledger.claim(output, record)
    names = (f"album{n // 1000:03}/IMG_{n:06}.jpg" for n in range(ROWS))
    rows = (plan.Planned(f"file://{source}/{name}", Object(name, 1000, "v")) for name in names)
    for unit in cut.cut(output, 0, rows, recipe, digest):
        planned = plan.read_unit(output, unit).select(schema.PLAN.names).to_pylist()
        table = pa.Table.from_pylist([row | measured(dice) for row in planned], schema=schema.part_schema())
        ledger.commit(output, unit.name, table)


def measured(dice: random.Random) -> dict[str, Any]:
    (status,) = dice.choices(schema.STATUSES, (60, 35, 2, 1, 2))
    find = {
        "kind": dice.choice(("text", "face")),
        "detector": "d",
        "score": dice.random(),
        "box": [1, 1, 9, 9],
    }
    row: dict[str, Any] = {"status": status, "width": 40, "height": 30, "mask_coverage": 0.0, "run_id": "r"}
    row["timings_ms"] = {stage: dice.random() for stage in schema.STAGES}
    if status in ERRORS:
        stage, kind = ERRORS[status]
        return row | {"error": {"stage": stage, "kind": kind, "message": "the file ends early"}}
    if status == "unchanged":
        return row
    return row | {
        "regions": [find],
        "mask_coverage": dice.random(),
        "residual": [find] * (status == "residual"),
    }


def test_it_opens_in_under_three_seconds(tmp_path: Path, browser: Any) -> None:
    commit_rows(open_store(str(tmp_path / "out")), str(tmp_path / "in"))
    page = tmp_path / "report.html"
    assert main(["report", str(tmp_path / "out"), "-o", str(page), "--sample", "200"]) == 0
    start = time.monotonic()
    browser.get(page.as_uri())
    wait_for(lambda: browser.execute_script("return document.documentElement.dataset.ready") == "yes")
    assert time.monotonic() - start < 3
    assert "100,000" in browser.find_element("id", "verdict").text
    browser.find_element("id", "search").send_keys("IMG_054321")
    wait_for(lambda: "album054/IMG_054321.jpg" in browser.find_element("id", "elsewhere").text)
    assert errors(browser) == []
