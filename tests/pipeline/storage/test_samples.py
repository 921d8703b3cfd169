"""What stands beside the pictures of WebDataset tars goes through a run to the last byte, into rows and tars."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.ledger import ledger, plan
from cleanplate.pipeline.ledger.proof import prove
from cleanplate.pipeline.recipe.recipe import load
from cleanplate.pipeline.storage import containers, samples, tar_file
from cleanplate.pipeline.storage.address import identity_of, inner_of
from cleanplate.pipeline.storage.connect import LocalStore
from rigs.run_here import clean, picture

Files = list[tuple[str, bytes]]
ODD = "ünï\0code\r\n\t日本 😀 \u2028"


def put(place: Path, files: Files, name: str = "a.tar") -> None:
    (place / "in").mkdir(exist_ok=True)
    with tarfile.open(place / "in" / name, "w") as tar:
        for member, data in files:
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def some(count: int) -> Files:
    """Samples as tools write them: members before and behind the picture, one that is absent, one that is empty, a long
    name, a large member that nobody asks for, a broken picture."""
    files: Files = []
    for n in range(count):
        key = f"{'long/' * 25}{n:04d}" if n == 1 else f"cat/{n:04d}"
        files.append((f"{key}.cls", b"%d" % n))
        files.append((f"{key}.depth.npy", bytes([n]) * (300_000 if n == 2 else 3)))
        files.append((f"{key}.png", b"no picture" if n == 3 else picture(n)))
        files.append((f"{key}.json", json.dumps({"n": n, "odd": ODD}).encode() + b"\n "))
        if n != 4:
            files.append((f"{key}.seg.txt", b"" if n == 5 else f"{ODD} {n}".encode()))
    return [*files, ("README.md", b"about"), ("cat/lonely.txt", b"no picture is mine")]


def by_key(output: LocalStore) -> dict[str, dict[str, Any]]:
    rows = [row for table in ledger.rows(output) for row in table.to_pylist()]
    return {inner_of(row["source_uri"]).member[-8:-4]: row for row in rows}  # type: ignore[union-attr]


def right(files: Files, names: tuple[str, ...]) -> dict[str, dict[str, bytes | None]]:
    found: dict[str, dict[str, bytes | None]] = {}
    for name, data in files:
        key, ext = samples.split(name) or ("", "")
        if ext in names:
            found.setdefault(key[-4:], dict.fromkeys(names))[ext] = data
    return {key: value for key, value in found.items() if key.isdigit()}


def carried(output: LocalStore, names: tuple[str, ...]) -> dict[str, dict[str, bytes | None]]:
    def stored(value: str | bytes | None) -> bytes | None:
        return value.encode() if isinstance(value, str) else value

    return {key: {n: stored(row[n]) for n in names} for key, row in by_key(output).items()}


NAMES = ("cls", "json", "seg.txt")


@pytest.mark.parametrize("layout", ["parquet", "files", "webdataset"])
def test_members_go_through_also_after_a_killed_run(tmp_path: Path, layout: str) -> None:
    files = some(8)
    put(tmp_path, files)
    output = clean(tmp_path, "--output-layout", layout)
    assert carried(output, NAMES) == right(files, NAMES)
    assert prove(output, source=LocalStore(tmp_path / "in")).wrong == []
    for part in sorted((tmp_path / "out" / "parts").iterdir())[::2]:
        part.unlink()  # as if killed before these were put
    assert carried(clean(tmp_path, "--output-layout", layout), NAMES) == right(files, NAMES)
    assert prove(output, source=LocalStore(tmp_path / "in")).wrong == []
    if layout == "webdataset":
        _tars_hold(tmp_path / "out" / "shards", by_key(output), right(files, NAMES))


def _tars_hold(shards: Path, rows: dict[str, Any], expected: dict[str, dict[str, bytes | None]]) -> None:
    held: dict[str, dict[str, bytes]] = {}
    for shard in shards.iterdir():
        with tarfile.open(shard) as tar:
            for info in tar:
                name = samples.split(info.name)
                if name:
                    held.setdefault(name[0], {})[name[1]] = tar.extractfile(info).read()  # type: ignore[union-attr]
    for key, row in rows.items():
        there = held.pop(row["image_id"], {})
        if row["status"] == "failed":
            assert not there
            continue
        assert {n: there.get(n) for n in NAMES} == expected[key]
        ours = json.loads(there["cleanplate.json"])
        assert ours["image_id"] == row["image_id"]
        assert "seg.txt" not in ours
    assert not held


def test_a_cleaned_tar_is_a_source_again(tmp_path: Path) -> None:
    """Our own `.json` is then a member as any other; what the first run's source had goes on."""
    put(tmp_path, [file for file in some(3) if not file[0].endswith(".json")])
    clean(tmp_path, "--output-layout", "webdataset", code=0)
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "in").symlink_to(tmp_path / "out" / "shards")
    rows = [
        r
        for t in ledger.rows(clean(tmp_path / "2", "--output-layout", "webdataset", code=0))
        for r in t.to_pylist()
    ]
    assert sorted(row["cls"] for row in rows) == ["0", "1", "2"]
    assert {json.loads(row["json"])["image_id"] for row in rows} <= {
        row["source_uri"][-200:].partition("member=")[2][:64] for row in rows
    }


def test_members_are_chosen_and_the_rest_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cleanplate.jobs.__main__ import main

    files = some(3)
    put(tmp_path, files)
    words = ["plan", str(tmp_path / "in"), str(tmp_path / "out"), "--remove", "face", "--inpainter", "fill"]
    assert main(words) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "columns that go into the rows: cls, json, seg.txt" in text
    assert "may hold pictures, left out: depth.npy" in text
    assert "5 other files left out: 3 .npy, 1 .md, 1 .txt" in text
    names = ("depth.npy", "cls")
    output = clean(tmp_path, "--columns", ",".join(names), code=0)
    assert carried(output, names) == right(files, names)
    assert pa.concat_tables(ledger.rows(output)).schema.field("depth.npy").type == pa.binary()
    (tmp_path / "2").mkdir()
    put(tmp_path / "2", files)
    assert (
        pa.concat_tables(ledger.rows(clean(tmp_path / "2", "--columns", "none", code=0))).schema.names[-1]
        == "error"
    )


def test_two_pictures_of_one_sample_are_two_rows(tmp_path: Path) -> None:
    put(tmp_path, [("1.left.png", picture(1)), ("1.right.png", picture(2)), ("1.txt", b"both")])
    rows = [r for t in ledger.rows(clean(tmp_path, code=0)) for r in t.to_pylist()]
    assert [row["txt"] for row in rows] == ["both", "both"]
    (tmp_path / "2").mkdir()
    put(tmp_path / "2", [("1.left.png", picture(1)), ("1.right.png", picture(2)), ("1.txt", b"both")])
    rows = [
        r for t in ledger.rows(clean(tmp_path / "2", "--columns", "right.png", code=0)) for r in t.to_pylist()
    ]
    assert sorted((row["right.png"] or b"") == picture(2) for row in rows) == [False, True]


@pytest.mark.parametrize(
    ("member", "flags", "message"),
    [
        ("1.status", ["--columns", "status"], "status would stand beside columns of the same name"),
        (
            "1.txt",
            ["--columns", "caption"],
            "no member caption beside the first pictures of the tars; there are txt",
        ),
        (
            "1.seg.png",
            ["--columns", "seg.png", "--output-layout", "webdataset"],
            "under a picture's name, in every tar",
        ),
    ],
)
def test_what_cannot_be_carried_is_an_error_before_work(
    tmp_path: Path, member: str, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, [("1.png", picture(0)), (member, b"x")])
    clean(tmp_path, *flags, code=2)
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("2.txt", b"caf\xe9")], "member 'txt' is no text in UTF-8"),
        ([("2.txt", b"a"), ("2.txt", b"b")], "the sample has two members 'txt'"),
        ([("2.txt", bytes(5000))], "member 'txt' has 5000 bytes; the limit is 4000"),
    ],
)
def test_a_member_that_cannot_be_carried_fails_its_row(tmp_path: Path, files: Files, message: str) -> None:
    put(tmp_path, [("1.png", picture(0)), ("1.txt", b"good"), ("2.png", picture(1)), *files])
    rows = [r for t in ledger.rows(clean(tmp_path, "--set", "limits.max_bytes=4000")) for r in t.to_pylist()]
    ok, failed = sorted(rows, key=lambda row: row["status"] == "failed")
    assert (ok["txt"], failed["txt"]) == ("good", None)
    assert failed["error"]["kind"] == "columns"
    assert message in failed["error"]["message"]


def test_what_stands_beside_a_picture_is_no_part_of_its_identity(tmp_path: Path) -> None:
    """An output of an earlier version, which did not know samples, names the same pictures."""
    put(tmp_path, some(2))
    store = LocalStore(tmp_path / "in")
    rows = list(plan.listed(store, load(None, {"remove": ["face"]})))
    assert all("first=" in row.uri for row in rows)
    for row in rows:
        inner = inner_of(row.uri)
        assert inner is not None
        old = f"tar+{inner.container}#at={inner.at}&member={inner.member}&size={inner.size}"
        assert identity_of(row.uri) == identity_of(old) == old
        assert row.image_id == plan.image_id(old, row.object.version)


def test_a_film_in_a_tar_is_no_sample(tmp_path: Path) -> None:
    """Thousands of neighbours with one key: pictures without company, and the window of none of them is the tar."""
    frames = [(f"film.{n:05d}.jpg", b"") for n in range(samples.MOST + 10)]
    put(tmp_path, [*frames, ("film.srt", b"x"), ("1.png", b""), ("1.txt", b"a")])
    listing = containers.Listing()
    found = list(plan.listed(LocalStore(tmp_path / "in"), load(None, {"remove": ["face"]}), None, listing))
    assert len(found) == len(frames) + 1
    assert sum("first=" in row.uri for row in found) == 1
    assert listing.beside == Counter(txt=1)


def test_a_tar_that_breaks_off_gives_the_members_before_it(tmp_path: Path) -> None:
    put(tmp_path, some(4))
    path = tmp_path / "in" / "a.tar"
    with tarfile.open(path) as tar:
        cut = tar.getmember("cat/0003.json").offset_data + 5
    path.write_bytes(path.read_bytes()[:cut])
    found = list(plan.listed(LocalStore(tmp_path / "in"), load(None, {"remove": ["face"]})))
    assert [bool(inner_of(row.uri).member) for row in found] == [True] * 4 + [False]  # type: ignore[union-attr]


def test_tars_are_the_same_for_names_of_any_length() -> None:
    files = [("short.txt", b"a"), ("é" * 70 + ".txt", b"b"), ("x" * 300, b"c")]
    data, made = tar_file.make(files)
    assert [data[m.at : m.at + m.size] for m in made] == [b"a", b"b", b"c"]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == [name for name, _ in files]


def test_more_kinds_of_members_than_columns_should_be(tmp_path: Path) -> None:
    put(tmp_path, [("1.png", picture(0)), *((f"1.{n}.txt", b"") for n in range(70))])
    with pytest.raises(ConfigError, match="70 kinds of members"):
        plan.carried(LocalStore(tmp_path / "in"), load(None, {"remove": ["face"]}))
