"""Open pictures behind the page: finds, thresholds, strokes, results, and what stays on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cleanplate.pipeline.engine import run as runs
from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.images import encode
from cleanplate.pipeline.recipe.recipe import load
from cleanplate.pipeline.storage.connect import open_store
from cleanplate.pipeline.ui.serve import options, sources, views, workspace
from cleanplate.pipeline.ui.serve.workspace import Stroke, Wanted, Workspace
from rigs.flow_rig import clean, faces
from rigs.model_files import sam_checkpoint
from rigs.scenes import DEMO_PHOTOS

FACE = (DEMO_PHOTOS / "astronaut.jpg").read_bytes()


@pytest.fixture(scope="module")
def table() -> tuple[Workspace, str]:
    opened = Workspace()
    return opened, opened.put("astronaut.jpg", FACE, 10_000_000)


def test_finds_have_masks_and_say_whether_limits_allow_them(table: tuple[Workspace, str]) -> None:
    result, key = table
    (found,) = result.find(key, faces())
    assert found.allowed
    x0, y0, x1, y1 = map(int, found.region.box)
    assert found.mask[(y0 + y1) // 2, (x0 + x1) // 2]
    (low,) = result.find(key, faces(**{"detect.face.min_score": 1.0}))
    assert low.allowed, "the page compares scores"
    (large,) = result.find(key, faces(**{"detect.face.max_coverage": 0.001}))
    assert not large.allowed, "shown all the same"
    assert views.find(found)["mask"]["png"].startswith("data:image/png;base64,")


def test_a_result_is_what_a_run_would_write(table: tuple[Workspace, str], tmp_path: Path) -> None:
    """Same find, same mask, same filler: the file is the very one that `cleanplate run` commits."""
    outcome, key = table
    recipe = faces(**{"verify.passes": 0})
    name = outcome.run(key, Wanted(recipe=recipe, on=(0,)))
    result = outcome.get(key).results[name]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "astronaut.jpg").write_bytes(FACE)
    clean(str(tmp_path / "in"), str(tmp_path / "out"), recipe)
    (row,) = sources.Rows(*runs.open_finished(str(tmp_path / "out"))).items()
    assert row.status in ("cleaned", "residual")
    from rigs.flow_rig import rows_of

    (committed,) = rows_of(str(tmp_path / "out"))
    assert committed["image"]["bytes"] == result.file.data
    assert bool(result.left) == (row.status == "residual")
    assert result.file.jpeg_blocks_equal is True


def test_strokes_paint_and_erase_in_order() -> None:
    def stroke(mode: str, *points: tuple[float, float], size: float = 10) -> Stroke:
        return Stroke.model_validate({"mode": mode, "size": size, "points": points})

    across = stroke("paint", (0, 50), (100, 50))
    hole = stroke("erase", (50, 50), size=20)
    mask = workspace.painted([], (across, hole), 100, 100)
    assert mask[50, 10]
    assert not mask[50, 50]
    assert mask[50, 90]
    assert not mask[70, 10]
    assert workspace.painted([], (hole, across), 100, 100)[50, 50], "painted over again"
    assert workspace.painted([np.ones((100, 100), bool)], (hole,), 100, 100).sum() < 9800
    assert not workspace.painted([], (stroke("paint", (-1e9, 3), size=2),), 100, 100).any()


def test_painted_and_erased_pixels_are_the_ones_that_change(table: tuple[Workspace, str]) -> None:
    outcome, key = table
    strokes = (
        {"mode": "paint", "size": 30, "points": [[20, 20], [120, 20]]},
        {"mode": "erase", "size": 4000, "points": [[2000, 400]]},
    )
    wanted = Wanted.model_validate({"recipe": faces(), "on": [0], "strokes": strokes[:1]})
    result = outcome.get(key).results[outcome.run(key, wanted)]
    changed = (result.after != outcome.get(key).decoded.pixels).any(axis=2)
    assert changed[15:25, 40:100].any()
    assert not changed[~result.mask].any()
    assert result.mask.sum() > outcome.find(key, faces())[0].mask.sum()
    with pytest.raises(ConfigError, match="nothing is masked"):
        outcome.run(key, Wanted.model_validate({"recipe": faces(), "strokes": strokes[1:]}))
    with pytest.raises(ConfigError, match="find again"):
        outcome.run(key, Wanted(recipe=faces(), on=(7,)))


def test_the_object_under_a_click_is_a_stroke(table: tuple[Workspace, str], tmp_path: Path) -> None:
    opened, key = table
    path = str(sam_checkpoint(tmp_path / "sam.pth"))
    recipe = load(None, {"remove": ["face"], "masks.segmenter": "sam", "masks.checkpoint": path})
    usable = {one["name"]: one["lacks"] for one in options.of(recipe)["segmenters"]}
    assert usable["sam"] is None, "the recipe's own checkpoint is here"
    alone = opened.object_at(key, recipe, (40.0, 30.0))
    assert alone is opened.object_at(key, recipe, (40.0, 30.0)), "found once"
    strokes = [
        {"mode": "object", "size": 1, "points": [[40.0, 30.0]]},
        {"mode": "erase", "size": 60, "points": [[200, 200]]},
    ]
    objects = {(40.0, 30.0): alone}
    wanted = Wanted.model_validate({"recipe": recipe, "strokes": strokes})
    mask = workspace.painted([], wanted.strokes, *alone.shape, objects)
    assert not (mask & ~alone).any()
    assert not mask[200, 200]
    with pytest.raises(ConfigError, match="outside the picture"):
        opened.object_at(key, recipe, (4000.0, 30.0))


def test_clicks_lack_what_no_machine_here_has() -> None:
    assert "cleanplate weights fetch sam-vit-b" in options.of(faces())["clicks"]


def test_the_workspace_keeps_the_newest(table: tuple[Workspace, str]) -> None:
    opened = Workspace()
    keys = [opened.put(f"{n}.jpg", FACE, 10_000_000) for n in range(workspace.KEPT_PICTURES + 3)]
    assert list(opened.pictures) == keys[3:]
    with pytest.raises(KeyError):
        opened.get(keys[0])
    with pytest.raises(encode.ImageError, match="limit"):
        opened.put("large.jpg", FACE, 1000)


def test_a_saved_recipe_is_the_recipe(tmp_path: Path) -> None:
    from cleanplate.pipeline.recipe.recipe import load

    recipe = faces(**{"detect.face.min_score": 0.6, "masks.grow": 0.1})
    (tmp_path / "r.yaml").write_text(options.as_yaml(recipe))
    assert load(tmp_path / "r.yaml") == recipe
    assert options.as_yaml(load(None)).endswith("remove:\n- text\n- face\n")


def test_choices_name_what_cannot_be_used_here() -> None:
    result = options.of(faces())
    assert {kind["name"] for kind in result["kinds"] if not kind["lacks"]} >= {"text", "face", "plate"}
    (lite,) = [one for one in result["inpainters"] if one["name"] == "lama-lite"]
    assert lite["lacks"] is None
    (static,) = [one for one in result["kinds"] if one["name"] == "static-watermark"]
    assert "compares 30 pictures" in static["lacks"], "one picture cannot show what many share"
    json.dumps(result)


def test_sources_are_searched(tmp_path: Path) -> None:
    for name in ("cat.jpg", "dir/Katze.jpg", "dog.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(FACE)
    items = sources.Objects(open_store(str(tmp_path)), faces()).items()
    found = sources.search(items, "KAT", "", 0, 10)
    assert [item["name"] for item in found["items"]] == ["dir/Katze.jpg"]
    assert (found["found"], found["of"]) == (1, 3)
    assert sources.read(items[found["items"][0]["n"]]) == FACE
    assert len(sources.search(items, "", "", 1, 1)["items"]) == 1


def test_what_nobody_expected_is_words_and_one_line_of_log(caplog: pytest.LogCaptureFixture) -> None:
    from starlette.testclient import TestClient

    from cleanplate.pipeline.ui.serve.app import app
    from cleanplate.pipeline.ui.serve.state import ServerState

    class Broken(Workspace):
        def put(self, name: str, source: bytes, max_pixels: int) -> str:
            raise ZeroDivisionError("a bug of ours")

    state = ServerState(faces(), None, 1000, 1000, Broken())
    with TestClient(app(state, frozenset({"testserver"}), "word")) as page:
        page.get("/?token=word")
        for _ in range(3):
            answer = page.post("/api/pictures", content=b"x")
            assert answer.status_code == 500
            assert answer.json() == {"error": "this should not happen: ZeroDivisionError: a bug of ours"}
    rows = [record for record in caplog.records if record.name == "cleanplate.serve"]
    assert len(rows) == 3
    assert all(record.exc_info is None for record in rows), "no traceback for each request"
