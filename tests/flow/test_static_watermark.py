"""static-watermark through the whole flow: a pass over a sample, then every image without its mark."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pil

from cleanplate.pipeline.engine import estimate_watermarks, ray_cluster
from cleanplate.pipeline.engine import run as runs
from cleanplate.pipeline.engine.job import spread_here
from cleanplate.pipeline.errors import ConfigError, ContractError
from cleanplate.pipeline.factory import check, static_watermark
from cleanplate.pipeline.images import encode
from cleanplate.pipeline.images.decode import upright_to_stored
from cleanplate.pipeline.recipe.recipe import Recipe, load
from cleanplate.pipeline.storage.connect import open_store
from rigs.flow_rig import check_complete, clean, comparable, rows_of
from rigs.marked import blended, crops, drawn

RECIPE: dict[str, Any] = {"remove": ["static-watermark"], "inpaint.name": "telea", "units.rows": 20}
BY_SIZE = {"consensus.group": "size"}


def png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Pil.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def collection(folder: Path) -> tuple[dict[str, bytes], list[Any]]:
    """40 marked pictures of one size, four without a mark, two of another size, one broken; and the pictures."""
    alpha, colour = drawn("text", 0.5)
    pictures = crops(44)
    files = {f"m/{n:02}.png": png(blended(p, alpha, colour)) for n, p in enumerate(pictures[:40])}
    files |= {f"plain/{n}.png": png(p) for n, p in enumerate(pictures[40:])}
    files |= {f"other/{n}.png": png(pictures[n][:100]) for n in range(2)}
    files["broken.png"] = b"no picture"
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return files, pictures


def test_the_mark_of_a_collection_is_taken_off(tmp_path: Path, ray_local: None) -> None:
    files, pictures = collection(tmp_path / "in")
    source, output = str(tmp_path / "in"), str(tmp_path / "out")
    recipe = load(None, RECIPE | BY_SIZE)
    clean(source, output, recipe)
    rows = check_complete(source, output, files)
    fields = {row["source_uri"].rpartition("/in/")[2]: row for row in rows}
    statuses = [fields[f"m/{n:02}.png"]["status"] for n in range(40)]
    assert statuses.count("cleaned") >= 38, statuses
    assert {fields[f"plain/{n}.png"]["status"] for n in range(4)} == {"unchanged"}
    assert fields["other/0.png"]["detectors"] == ["consensus: too few images alike"]
    assert fields["broken.png"]["status"] == "failed"
    alpha, _ = drawn("text", 0.5)
    errors = []
    for n in range(40):
        row = fields[f"m/{n:02}.png"]
        if row["inpainter"] == "take-off":
            (region,) = row["regions"]
            assert region["by"] == "take-off"
            assert abs(region["left"]) < 0.35
            after = encode.decode(row["image"]["bytes"]).pixels.astype(np.float64)
            errors.append(((after - pictures[n])[alpha > 0.04] ** 2).mean())
    assert len(errors) >= 36
    assert 10 * np.log10(255**2 / np.mean(errors)) > 38
    store = open_store(output)
    index = json.loads(store.get("consensus/index.json"))
    named = index["240x160"]["sha256"][:12]
    assert fields["m/00.png"]["detectors"] == [f"consensus of 44 images ({named})"]
    assert index["240x160"]["marks"] == 1
    assert index["240x100"] == {"images": 2, "marks": 0, "sha256": None}
    pictured = [item.key for item in store.list("consensus") if item.key.endswith(".png")]
    assert len(pictured) == 1
    again = str(tmp_path / "ray")
    assert_the_pass_ran_elsewhere(source, again, recipe)
    before = marks_of(again)
    clean(source, again, recipe, "ray")
    assert marks_of(again) == before, "the run took what the pass had left"
    assert_alike(rows_of(again), rows)


def assert_the_pass_ran_elsewhere(source: str, output: str, recipe: Recipe) -> None:
    """Only the pass, on Ray, as a driver that dies after it leaves it."""
    run = runs.start(source, output, recipe)
    runs.plan_new(run)
    workers: set[int] = set()

    def spread(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        for pid, one in ray_cluster.spread_on_ray(lambda item: (os.getpid(), function(item)), items):
            workers.add(pid)
            yield one

    estimate_watermarks.prepare(run.output, run.recipe, spread)
    assert workers
    assert os.getpid() not in workers


def assert_alike(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """Workers with other numbers of threads add in another order: a grey level may differ."""
    for one, other in zip(comparable(rows), comparable(others), strict=True):
        assert [one[k] for k in ("image_id", "status", "inpainter")] == [
            other[k] for k in ("image_id", "status", "inpainter")
        ]
        if one["image"]:
            pixels = [encode.decode(row["image"]["bytes"]).pixels.astype(int) for row in (one, other)]
            assert np.abs(pixels[0] - pixels[1]).max() <= 1


def marks_of(output: str) -> dict[str, tuple[bytes, str]]:
    """Everything of the pass: key -> bytes, and when it was written."""
    store = open_store(output)
    return {item.key: (store.get(item.key), item.version) for item in store.list("consensus")}


class Killed(Exception):
    """What a kill looks like from inside."""


def test_a_pass_that_was_killed_is_done_again_and_holds_once_it_is_done(tmp_path: Path) -> None:
    files, _ = collection(tmp_path / "in")
    source, output = str(tmp_path / "in"), str(tmp_path / "out")
    run = runs.start(source, output, load(None, RECIPE | BY_SIZE))
    units = runs.plan_new(run)

    def dies(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        """With the artefacts written, and before the index."""
        yield from map(function, items)
        if function is estimate_watermarks._estimate:
            raise Killed

    with pytest.raises(Killed):
        estimate_watermarks.prepare(run.output, run.recipe, dies)
    left = marks_of(output)
    assert len(left) == 2
    assert "consensus/index.json" not in left
    # A driver whose processor rounds otherwise has left its own artefact, too.
    run.output.put("consensus/0123456789abcdef-0123456789ab.npz", b"another's")
    runs.execute(run, units, "here", lambda receipt: None)
    rows = check_complete(source, output, files)
    assert sum(row["inpainter"] == "take-off" for row in rows) >= 36
    index = marks_of(output)["consensus/index.json"]

    def refuses(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        raise AssertionError("the pass is done once")

    known = estimate_watermarks.prepare(run.output, run.recipe, refuses)
    assert marks_of(output)["consensus/index.json"] == index
    # An artefact that is not what the index says is refused: its rows would be cleaned by something else.
    key = f"consensus/{hashlib.sha256(b'240x160').hexdigest()[:16]}-{known['240x160']['sha256'][:12]}.npz"
    run.output.put(key, b"changed")
    with pytest.raises(ContractError, match="is not what"):
        static_watermark.Consensus(run.recipe.consensus, index[0]).marks(
            rows[0] | {"width": 240, "height": 160}
        )


def test_the_stages_of_a_worker_share_one_lookup_and_a_new_index_is_seen(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    recipe = static_watermark.placed(load(None, RECIPE), store)
    store.put("consensus/index.json", b"{}")
    first = static_watermark.opened(recipe)
    assert first is static_watermark.opened(recipe)
    store.put("consensus/index.json", b'{"1x1": {"images": 1, "marks": 0, "sha256": null}}')
    assert static_watermark.opened(recipe) is not first


def test_pictures_of_many_sizes_are_grouped_by_size_else_folder_else_all() -> None:
    rule = load(None, RECIPE | {"consensus.min_images": 8}).consensus
    sizes = {"a": [(9, 9)] * 8 + [(9, n) for n in range(10, 13)], "b": [(9, 10 + n) for n in range(9)]}
    found = [
        estimate_watermarks.Sampled(f"{f}/{n:02}.png", size)
        for f, some in sizes.items()
        for n, size in enumerate(some)
    ]
    groups = {name: len(group) for name, group in estimate_watermarks._groups(found, rule).items()}
    assert groups.pop("9x9") == 8
    assert (groups.pop("a"), groups.pop("b")) == (11, 9), "a folder counts with all its images"
    assert all(count < 8 for count in groups.values()), (
        "a size that is too small is counted, and 'all' not needed"
    )
    lone = [*found, estimate_watermarks.Sampled("c/0.png", (5, 5))]
    assert len(estimate_watermarks._groups(lone, rule)["all"]) == 21
    by_size = load(None, RECIPE | BY_SIZE | {"consensus.min_images": 8}).consensus
    assert "a" not in estimate_watermarks._groups(found, by_size)
    drawn_from = estimate_watermarks._mixed([s for s in found if s.uri.startswith("a")], 6)
    assert len({s.size for s in drawn_from}) == 4, "each size in turn"


def test_a_mark_on_pictures_of_three_sizes_is_found_by_default(tmp_path: Path) -> None:
    alpha, colour = drawn("text", 0.5)
    source = tmp_path / "in"
    source.mkdir()
    for n, picture in enumerate(crops(36)):
        cut = n % 3 * 20  # The mark keeps its pixels, and its place from the lower right corner.
        (source / f"{n:02}.png").write_bytes(png(blended(picture, alpha, colour)[cut:, cut:]))
    recipe = load(None, RECIPE | {"consensus.min_images": 30, "consensus.sample": 36})
    run = runs.start(str(source), str(tmp_path / "out"), recipe)
    runs.plan_new(run)
    index = estimate_watermarks.prepare(run.output, run.recipe, spread_here)
    assert index[f"file://{source}"]["marks"] == 1
    assert runs.advice(run) is None
    lookup = static_watermark.opened(run.recipe)
    assert lookup is not None
    for n, size in enumerate([(240, 160), (220, 140), (200, 120)]):
        (mark,) = lookup.marks(
            {"source_uri": f"file://{source}/{n:02}.png", "width": size[0], "height": size[1]}
        )
        assert mark.frame == size


def test_a_run_whose_groups_are_too_small_says_what_to_set(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for n, picture in enumerate(crops(9)):
        (source / f"{n}.png").write_bytes(png(picture[: 100 + n]))
    for group, word in (("size", "consensus.group=auto"), ("auto", "smaller consensus.min_images")):
        recipe = load(None, RECIPE | {"consensus.group": group})
        run = runs.start(str(source), str(tmp_path / group), recipe)
        runs.plan_new(run)
        estimate_watermarks.prepare(run.output, run.recipe, spread_here)
        result = runs.advice(run)
        assert result is not None
        assert word in result


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_jpeg_is_taken_off_in_its_own_frame(orientation: int, tmp_path: Path) -> None:
    from cleanplate.models.static_watermark.overlay import Mark

    alpha, colour = drawn("text", 0.5)
    picture = crops(1, seed=4)[0]
    stored = upright_to_stored(blended(picture, alpha, colour), orientation)
    exif = Pil.Exif()
    exif[274] = orientation
    sink = io.BytesIO()
    Pil.fromarray(np.ascontiguousarray(stored)).save(sink, "JPEG", quality=95, exif=exif.tobytes())
    box = (90, 100, 240, 150)
    mark = Mark(box, alpha[100:150, 90:240], colour[100:150, 90:240], (240, 160))
    data = static_watermark.packed([mark], 40)
    digest = hashlib.sha256(data).hexdigest()
    store = open_store(str(tmp_path))
    store.put(static_watermark.key_of("240x160", digest), data)
    index = {"240x160": {"images": 40, "marks": 1, "sha256": digest}}
    lookup = static_watermark.Consensus(
        static_watermark.placed(load(None, RECIPE), store).consensus, json.dumps(index).encode()
    )
    row = {"source_uri": "a/b.jpg", "width": 240, "height": 160, "source": sink.getvalue()}
    row["regions"] = [{"kind": static_watermark.KIND, "box": [float(v) for v in box]}]
    seen = encode.decode(sink.getvalue()).pixels
    below, done = lookup.lifted(row, seen)
    assert done is not None
    there = alpha > 0.04
    assert done[there].all()
    assert np.array_equal(below[alpha == 0], seen[alpha == 0])
    assert 10 * np.log10(255**2 / ((below[there].astype(float) - picture[there]) ** 2).mean()) > 34


def test_one_image_alone_has_nothing_in_common(tmp_path: Path) -> None:
    from cleanplate.pipeline.engine.job import stages_of

    recipe = load(None, RECIPE)
    assert check.weights_of(recipe) == ()
    with pytest.raises(ConfigError, match="whole collection"):
        stages_of(recipe)[1].open()
    with pytest.raises(ConfigError, match="min_images"):
        load(None, RECIPE | {"consensus.min_images": 100})
