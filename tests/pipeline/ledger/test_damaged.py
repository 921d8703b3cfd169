"""A damaged file of an output: every command names it and says what to do, and that gives the faultless result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cleanplate.jobs.__main__ import main
from cleanplate.pipeline.engine import run
from cleanplate.pipeline.errors import DamagedError
from cleanplate.pipeline.ledger import compactions, ledger, part_file
from cleanplate.pipeline.recipe.recipe import load
from cleanplate.pipeline.storage.connect import LocalStore
from rigs.flow_rig import comparable, rows_of

FLAGS = [
    "--remove",
    "given",
    "--inpainter",
    "fill",
    "--set",
    "verify.scope=none",
    "--set",
    "units.rows=3",
    "--here",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven pictures in units of three, one of them failed; without networks."""
    place = tmp_path_factory.mktemp("damaged")
    (place / "in").mkdir()
    for n in range(6):
        pixels = np.random.default_rng(n).integers(0, 256, (24, 32, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(place / "in" / f"{n}.png")
    (place / "in" / "6.png").write_bytes(b"no picture")
    (place / "boxes.json").write_text(json.dumps({"0.png": [[2, 2, 9, 9]]}))
    recipe = {"remove": ["given"], "given.file": str(place / "boxes.json"), "inpaint.name": "fill"}
    recipe |= {"verify.scope": "none", "units.rows": 3}
    started = run.start(str(place / "in"), str(place / "out"), load(None, recipe))
    run.execute(started, run.plan_new(started), "here", lambda receipt: None)
    run.finished(started)
    return place


@pytest.fixture
def place(finished: Path, tmp_path: Path) -> Path:
    """The output at its own path, since a run knows its source by that."""
    shutil.copytree(finished / "out", tmp_path / "kept")
    yield finished
    shutil.rmtree(finished / "out")
    shutil.copytree(tmp_path / "kept", finished / "out")


def command(place: Path, *words: str) -> list[str]:
    if words[0] != "run":
        return [words[0], str(place / "out"), *words[1:]]
    return [
        "run",
        str(place / "in"),
        str(place / "out"),
        *FLAGS,
        "--set",
        f"given.file={place / 'boxes.json'}",
        *words[1:],
    ]


def flipped_in_header(data: bytes) -> bytes:
    """The first page's header begins behind the magic; its sizes are in the first bytes."""
    return data[:5] + bytes([data[5] ^ 0x40]) + data[6:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a bit in the first page header": flipped_in_header,
    "half a file": lambda data: data[: len(data) // 2],
    "an empty file": lambda data: b"",
    "the footer's length": lambda data: data[:-6] + b"\xff\xff" + data[-4:],
    "a stretch of zeros": lambda data: data[:64] + bytes(len(data) // 2) + data[64 + len(data) // 2 :],
}
COMMANDS: dict[str, list[str]] = {
    "status": ["status"],
    "status for machines": ["status", "--json"],
    "a resumed run": ["run", "--recall", "0"],
    "--retry-failed": ["run", "--retry-failed", "--recall", "0"],
    "report": ["report"],
    "compact": ["compact"],
    "verify": ["verify"],
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_every_command_names_the_part(
    place: Path,
    damage: Callable[[bytes], bytes],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    name = ledger.part_keys(LocalStore(place / "out"))[1]
    part = place / "out" / "parts" / name
    part.write_bytes(damage(part.read_bytes()))
    more = ["-o", str(tmp_path / "r.html")] if words == ["report"] else []
    code = main(command(place, *words, *more))
    text = " ".join("".join(capsys.readouterr()).split())
    assert code == (1 if words == ["verify"] else 3)
    assert name in text or name in text.replace(" ", "")
    assert "run the same command again" in text
    assert "Traceback" not in text
    assert "TMPDIR" not in text


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_doing_what_is_said_gives_the_faultless_result(place: Path, damage: Callable[[bytes], bytes]) -> None:
    output = LocalStore(place / "out")
    right = comparable(rows_of(output))
    part = place / "out" / "parts" / ledger.part_keys(output)[1]
    part.write_bytes(damage(part.read_bytes()))
    part.unlink()
    assert main(command(place, "run", "--recall", "0")) == 1  # One picture is broken.
    assert comparable(rows_of(output)) == right
    assert main(command(place, "verify")) == 0


@pytest.mark.parametrize("swept", [False, True])
def test_a_large_part_may_be_deleted_too(
    place: Path, swept: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    output = LocalStore(place / "out")
    right = comparable(rows_of(output))
    assert main(command(place, "compact")) == 0
    if swept:
        assert main(command(place, "verify", "--sweep", "--min-age", "0")) == 0
    (large,) = {held.part for held in compactions.held(output).values()}
    (place / "out" / large).write_bytes((place / "out" / large).read_bytes()[:999])
    assert main(command(place, "status")) == 3
    assert large in capsys.readouterr().err
    (place / "out" / large).unlink()
    assert main(command(place, "run", "--recall", "0")) == 1
    assert comparable(rows_of(output)) == right
    assert main(command(place, "compact")) == 0
    assert comparable(rows_of(output)) == right


@pytest.mark.parametrize("key", ["plan/0000.index.parquet", "run.json", "a plan file"])
@pytest.mark.parametrize("words", [["status"], ["run"], ["verify"], ["compact"]], ids=" ".join)
def test_other_files_of_the_output(
    place: Path, key: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    if key == "a plan file":
        key = next(k for k in (i.key for i in LocalStore(place / "out").list("plan")) if "index" not in k)
    (place / "out" / key).write_bytes(b"PAR1 and no more")
    code = main(command(place, *words))
    text = "".join(capsys.readouterr())
    if key.startswith("plan/0000-") and words[0] in ("status", "compact"):
        return  # Neither reads the planned rows.
    assert code == (1 if words == ["verify"] and key.startswith("plan/") else 3)
    assert key.rpartition("/")[2][:12] in text
    assert "TMPDIR" not in text


def test_any_flipped_byte_of_a_part_is_told_or_changes_nothing(finished: Path) -> None:
    """What a reader raises is always a DamagedError."""
    store = LocalStore(finished / "out")
    name = ledger.part_keys(store)[0]
    data = store.get(f"parts/{name}")
    right = ledger.read_part(store, name, ["image_id", "status", "error", "timings_ms", "regions"])
    other = LocalStore(finished / "flipped")
    pages, dice = data.index(b"ARROW:schema"), np.random.default_rng(0)
    places = [
        *dice.choice(pages, 100, replace=False),
        *pages + dice.choice(len(data) - pages, 100, replace=False),
    ]
    # In the footer, which no checksum covers: the names of the columns.
    places += [data.rindex(name) for name in (b"image_id", b"status", b"regions", b"timings_ms")]
    for at in map(int, places):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        other.put(f"parts/{name}", bytes(changed))
        assert not part_file.seal_holds(bytes(changed))
        try:
            read = ledger.read_part(other, name, right.schema.names)
        except DamagedError:
            continue
        assert read.equals(right)
