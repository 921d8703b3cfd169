"""Where photographs come from: folders, S3, Parquet parts."""

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cleanplate.jobs.photos import open_photos
from cleanplate.models.training.data import load_bank
from cleanplate.pipeline.errors import ConfigError


def png(seed):
    picture = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), np.uint8)
    return cv2.imencode(".png", picture)[1].tobytes()


def test_photos_of_a_folder_with_and_without_an_index(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("a/1.png", "a/2.PNG", "3.png"):
        (tmp_path / name).write_bytes(png(1))
    (tmp_path / "notes.txt").write_text("no image")
    found = open_photos(str(tmp_path), "train")
    assert [(p.source, p.file) for p in found] == [(".", "3.png"), ("a", "1.png"), ("a", "2.PNG")]
    assert found[0].read() == png(1)
    (tmp_path / "INDEX.csv").write_text("path,source,split\na/1.png,x,train\na/2.PNG,x,test\n")
    assert [(p.source, p.file) for p in open_photos(str(tmp_path), "train")] == [("x", "1.png")]
    assert [(p.source, p.file) for p in open_photos(str(tmp_path), "test")] == [("x", "2.PNG")]
    with pytest.raises(ConfigError, match="no photographs of split 'valid'"):
        open_photos(str(tmp_path), "valid")


def test_nothing_to_read_is_said(tmp_path):
    with pytest.raises(ConfigError, match="no photographs"):
        open_photos(str(tmp_path), "train")


def parts(folder):
    """Two parts as a run writes them, one row without an image; and one as Hugging Face writes them."""
    (folder / "parts").mkdir()
    images = [{"bytes": png(0), "path": None}, None, {"bytes": png(1), "path": None}]
    uris = ["file:///in/a%20b.jpg", "file:///in/bad.jpg", "file:///in/c.jpg"]
    pq.write_table(pa.table({"source_uri": uris, "image": images}), folder / "parts" / "0.parquet")
    table = pa.table({"image": [{"bytes": png(2), "path": "x.png"}], "label": [3]})
    pq.write_table(table, folder / "parts" / "1.parquet")


def test_photos_of_parquet_parts(tmp_path):
    parts(tmp_path)
    found = open_photos(str(tmp_path), "train")
    assert [p.file for p in found] == ["a b.jpg", "c.jpg", "1-0"]
    assert [p.read() for p in found] == [png(0), png(1), png(2)]
    assert load_bank(found, 24).images[0].shape == (24, 32, 3)


def test_a_parquet_file_without_images_is_said(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "0.parquet")
    with pytest.raises(ConfigError, match="`image` struct"):
        open_photos(str(tmp_path), "train")
