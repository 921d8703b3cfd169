"""The card says what lies there; `datasets`, mlcroissant and people can read it."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from cleanplate.models.weights.registry import WEIGHTS
from cleanplate.pipeline.ledger import dataset_card, ledger
from cleanplate.pipeline.ledger.orphans import sweep
from cleanplate.pipeline.storage.connect import LocalStore
from rigs.bad_images import animated, picture, save
from rigs.flow_rig import clean, faces, folder, rows_of
from rigs.scenes import DEMO_PHOTOS


def finished(place: Path, layout: str) -> Path:
    """A run over a face, two pictures and an animation, with its card."""
    source = folder(place / "in")
    (place / "in" / "face.jpg").write_bytes((DEMO_PHOTOS / "astronaut.jpg").read_bytes())
    for n in range(2):
        (place / "in" / f"{n}.png").write_bytes(save(picture(seed=n), "PNG"))
    (place / "in" / "moving|`<b>.gif").write_bytes(animated("GIF"))
    clean(source, str(place / "out"), faces(**{"output.layout": layout, "units.rows": 2}))
    dataset_card.write(LocalStore(place / "out"))
    return place / "out"


@pytest.fixture(scope="module", params=["parquet", "files", "webdataset"])
def output(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp(request.param), request.param)


def test_the_readme_counts_what_lies_there(output: Path) -> None:
    text = (output / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head)["size_categories"] == ["n<1K"]
    for status, count in Counter(row["status"] for row in rows_of(str(output))).items():
        assert f"| `{status}` | {count} |" in body
    assert "| all | 4 |" in body
    assert "| face | 1 | 1 | 0 |" in body
    assert "/animated | 1 |" in body
    record = json.loads((output / "run.json").read_text())
    assert record["recipe_digest"] in body
    assert f"| centerface | `{record['weights']['centerface']}` | {WEIGHTS['centerface'].licence} |" in body
    (block,) = [part.split("```")[0] for part in body.split("```yaml\n")[1:]]
    assert yaml.safe_load(block) == record["recipe"]


def test_datasets_load_the_folder(output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shown = datasets.load_dataset(str(output), split="train", cache_dir=str(tmp_path / "hf"))
    rows = {row["image_id"]: row for row in rows_of(str(output))}
    assert shown.num_rows == 4
    for row in shown:
        expected = rows[row["image_id"]]
        assert row["status"] == expected["status"]
        if output.parent.name.startswith("parquet"):
            assert (row["image"] is None) == (expected["image"] is None)
            if row["image"] is not None:
                assert row["image"].size == (expected["width"], expected["height"])
        else:
            assert row["image"] == expected["image"]


def test_what_the_readme_says_loads_loads(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line of Python in the card itself, for this layout."""
    import datasets

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    text = (output / "README.md").read_text()
    (line,) = [x for x in text.splitlines() if x.startswith("datasets.load_dataset")]
    if output.parent.name.startswith("webdataset"):
        pytest.skip(
            "formats differ from picture to picture here, which that builder does not take: see the notebook"
        )
    found: Any = eval(line.replace("FOLDER", str(output)), {"datasets": datasets})
    assert found["image"] is None or found["image"].size in {(512, 512), (96, 64)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:rdflib")
@pytest.mark.filterwarnings("ignore:.*inplace:Warning:mlcroissant")
def test_croissant_is_valid_and_reads_the_rows(output: Path) -> None:
    import mlcroissant

    found = mlcroissant.Dataset(jsonld=str(output / "croissant.json"))
    assert found.metadata.ctx.issues.errors == set()
    assert found.metadata.ctx.issues.warnings == set()
    rows = {row["image_id"]: row for row in rows_of(str(output))}
    records = list(found.records("rows"))
    assert len(records) == 4
    for record in records:
        expected = rows[record["rows/image_id"].decode()]
        assert record["rows/status"].decode() == expected["status"]
        image = record["rows/image"]
        if expected["image"] is None:
            assert image is None or image != image
        elif expected["image"]["bytes"] is None:
            assert image.decode() == expected["image"]["path"]
        else:
            assert isinstance(image, Image.Image)
            assert image.size == Image.open(io.BytesIO(expected["image"]["bytes"])).size


def test_a_second_card_is_the_same(output: Path) -> None:
    store = LocalStore(output)
    before = [store.get(name) for name in (dataset_card.README, dataset_card.CROISSANT)]
    dataset_card.write(store)
    assert [store.get(name) for name in (dataset_card.README, dataset_card.CROISSANT)] == before
    assert list(sweep(store, 0)) == []
    assert len(ledger.done(store)) == 2


def test_text_from_outside_does_not_break_the_card() -> None:
    assert dataset_card._plain("a|b`c<script>\nd") == "a b c script  d"
