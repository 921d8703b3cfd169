"""`cleanplate audit` over sets of known contents, and over what another tool left of one."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pil
from PIL import ImageDraw, ImageFilter

from cleanplate.jobs.cli.app import main

PHOTO = Path("jobs/demo_photos/astronaut.jpg").absolute()
FACES = ["--remove", "face"]


def jpeg(image: Pil.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=92, **options)
    return out.getvalue()


def face() -> Pil.Image:
    return Pil.open(PHOTO).convert("RGB").crop((96, 0, 352, 256))


def plain(size: tuple[int, int] = (96, 64)) -> Pil.Image:
    ramp = np.linspace(60, 200, size[0], dtype=np.uint8)[None, :, None]
    return Pil.fromarray(np.broadcast_to(ramp, (size[1], size[0], 3)).copy())


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A face with a GPS position and an owner, a plain picture, a broken one and a label, below photos/."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    exif = Pil.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 0.0), 3: "E", 4: (11.0, 30.0, 0.0)})
    exif[0x013B] = "Erika"
    (folder / "face.jpg").write_bytes(jpeg(face(), exif=exif))
    (folder / "deep" / "plain.jpg").write_bytes(jpeg(plain()))
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "face.txt").write_text("0 .5 .5 .2 .2\n")
    return folder


def body(folder: str = "audit") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "audit.json").read_text())
    return found


def test_a_known_set_is_counted(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    assert main(["audit", "photos", *FACES, "--exclude", "broken*"]) == 0
    found = body()
    assert (found["images"], found["failed"]) == (2, 0)
    assert found["exposure"] == {"face": 1, "gps": 1, "serial": 0, "owner": 1, "thumbnail": 0}
    (kind,) = found["kinds"]
    assert (kind["kind"], kind["found"], kind["sizes"]["64-128 px"]) == ("face", 1, 1)
    assert 60 < kind["side_px"]["median"] < 128
    printed = capsys.readouterr()
    assert "a GPS position in the metadata" in printed.out
    assert printed.err.startswith("audit of "), "something is said before anything is loaded"
    lines = [json.loads(line) for line in Path("audit/findings.jsonl").read_text().splitlines()]
    assert [(one["image"], len(one["findings"]), one["exposed"]) for one in lines] == [
        ("deep/plain.jpg", 0, []),
        ("face.jpg", 1, ["gps", "owner"]),
    ]
    page = Path("audit/audit.html").read_text()
    assert "<img" not in page
    assert "a GPS position in the metadata" in page
    assert {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in Path("audit").iterdir()) == [
        "audit.html",
        "audit.json",
        "findings.jsonl",
    ]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--exclude", "broken*", "--fail-on", "face>0,gps>0"], 1),
        (["--exclude", "broken*", "--fail-on", "face>1,gps>50%"], 0),
        ([], 1),  # broken.jpg: what could not be read is not known to be clean
    ],
)
def test_exit_codes(photos: Path, more: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "photos", *FACES, *more, "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    assert found == body()
    if not more:
        assert found["causes"] == {"read/not_an_image": 1}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photos", "--fail-on", "fase>0"], "did you mean 'face'"),
        (["photos", "--fail-on", "logo>0"], "logo is not looked for"),
        (["photos", "--fail-on", "missing>0"], "none of"),
        (["photos", "-o", "photos/audit"], "lie inside one another"),
        (["photos", "--limit", "0"], "--limit"),
        (["nowhere"], "no such folder"),
        (["empty"], "no images under"),
        (["photos", "--remove", "faec"], "did you mean 'face'"),
    ],
)
def test_wrong_use_is_found_before_any_work(
    photos: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    assert main(["audit", *words]) == 2
    assert message in capsys.readouterr().err
    assert not Path("audit").exists()


def test_another_tools_output_beside_its_source(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It blurs one of two faces, writes another format, shrinks a picture, draws on one, and loses one and a label."""
    tool = Path("tool")
    (photos / "second.jpg").write_bytes(jpeg(face()))
    (photos / "small.png").write_bytes(b"")
    plain((128, 96)).save(photos / "small.png")
    plain((128, 96)).save(photos / "drawn.png")
    tool.mkdir()
    blurred = face()
    blurred.paste(blurred.crop((70, 40, 190, 195)).filter(ImageFilter.GaussianBlur(16)), (70, 40))
    blurred.save(tool / "face.png")
    (tool / "second.jpg").write_bytes(jpeg(face(), icc_profile=None))
    plain((64, 48)).save(tool / "small.png")
    drawn = plain((128, 96))
    ImageDraw.Draw(drawn).ellipse((20, 20, 60, 60), fill=(250, 250, 250))
    drawn.save(tool / "drawn.png")
    plain().save(tool / "new.png")

    assert main(["audit", "tool", "--against", "photos", *FACES, "--fail-on", "still>0,lost>9"]) == 1
    found = body()
    against = found["against"]
    assert found["exposure"]["face"] == 1
    assert found["exposure"]["gps"] == 0
    assert against["pairs"] == 4
    assert {word: against[word] for word in ("still", "appeared", "changed", "resized", "extra", "lost")} == {
        "still": 1,
        "appeared": 0,
        "changed": 1,
        "resized": 1,
        "extra": 1,
        "lost": 1,
    }
    assert against["missing_names"] == ["broken.jpg", "deep/plain.jpg"]
    assert against["extra_names"] == ["new.png"]
    assert against["still_by_kind"] == against["not_found_again_by_kind"] == {"face": 1}
    assert against["lost_by_block"] == {"exif": 1}
    assert against["other_files_lost"] == 1
    assert [one["holds"] for one in found["fail_on"]] == [True, False]
    lines = {
        one["image"]: one for one in map(json.loads, Path("audit/findings.jsonl").read_text().splitlines())
    }
    assert lines["face.png"]["not_found_again"] == ["face"]
    assert lines["drawn.png"]["changed_px"] > 500
    assert lines["small.png"]["changed_px"] is None
    assert "images of the source that are not there" in capsys.readouterr().out


def test_tables_and_their_columns(photos: Path) -> None:
    images = [{"bytes": data, "path": "x.jpg"} for data in (jpeg(face()), jpeg(plain()))]
    for name, columns in (("before", {"caption": ["a", "b"], "label": [1, 2]}), ("after", {"label": [1, 2]})):
        Path(name).mkdir()
        pq.write_table(pa.table({"image": images, **columns}), Path(name, "train.parquet"))
    assert main(["audit", "after", "--against", "before", *FACES]) == 0
    against = body()["against"]
    assert (against["pairs"], against["still"], against["columns_lost"]) == (2, 1, ["caption"])


def test_a_list_of_places_with_one_name(photos: Path) -> None:
    Path("other").mkdir()
    Path("other", "face.jpg").write_bytes((photos / "deep" / "plain.jpg").read_bytes())
    Path("urls.txt").write_text(f"{photos}/face.jpg\n{photos.parent}/other/face.jpg\n{photos}/gone.jpg\n")
    assert main(["audit", "urls.txt", "--from-list", *FACES]) == 1
    found = body()
    assert (found["images"], found["exposure"]["face"], found["causes"]) == (3, 1, {"read/missing": 1})


def test_an_output_of_ours_is_audited_alone_and_proved_by_verify(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["--set", "verify.passes=0", "--exclude", "broken*", "--here"]
    assert main(["run", "photos", "cleaned", *FACES, *quick]) == 0
    assert main(["audit", "cleaned", *FACES, "-o", "one"]) == 0
    assert body("one")["images"] == 2
    assert body("one")["exposure"]["gps"] == 0
    assert main(["audit", "cleaned", "--against", "photos"]) == 2
    assert "cleanplate verify" in capsys.readouterr().err
