"""An output that an earlier version wrote is read, verified, resumed and compacted as ever.

tests/data/output_part1 was written by commit 69ed890: `run s3://part1/raw OUT --here --remove faces --set units.rows=2`
over three images, one of them broken.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cleanplate import read
from cleanplate.jobs.cli.app import main
from rigs.s3server import Bucket

WRITTEN = Path(__file__).parents[1] / "data" / "output_part1"
SOURCE = "s3://part1/raw"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return Path(shutil.copytree(WRITTEN / "output", tmp_path / "out"))


@pytest.fixture
def source(s3: Bucket) -> Iterator[str]:
    """The source at the address that the rows name."""
    client = s3.server.client()
    client.create_bucket(Bucket="part1")
    for path in sorted((WRITTEN / "source").iterdir()):
        client.put_object(Bucket="part1", Key=f"raw/{path.name}", Body=path.read_bytes())
    yield SOURCE
    client.delete_bucket(Bucket="part1")


def statuses(output: Path) -> dict[str, str]:
    rows = read(str(output), ["source_uri", "status"]).to_pylist()
    return {row["source_uri"].rpartition("/")[2]: row["status"] for row in rows}


def test_it_is_read(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert statuses(output) == {"astronaut.jpg": "cleaned", "coffee.png": "unchanged", "broken.jpg": "failed"}
    assert read(str(output)).num_rows == 3
    assert main(["status", str(output)]) == 1
    assert "2 of 2 units" in capsys.readouterr().out


def test_it_is_verified_against_its_source(output: Path, source: str) -> None:
    assert main(["verify", str(output), source]) == 0


def test_it_is_resumed_and_new_images_join_it(output: Path, source: str, s3: Bucket) -> None:
    command = ["run", source, str(output), "--here", "--recipe", str(output / "recipe.yaml")]
    before = sorted((output / "parts").iterdir())
    assert main(command) == 1
    assert sorted((output / "parts").iterdir()) == before, "nothing is done twice"
    data = (WRITTEN / "source" / "coffee.png").read_bytes()
    s3.server.client().put_object(Bucket="part1", Key="raw/new.png", Body=data)
    assert main(command) == 1
    assert statuses(output)["new.png"] == "unchanged"
    assert len(statuses(output)) == 4
    assert main(["verify", str(output), source]) == 0


def test_it_is_compacted(output: Path) -> None:
    before = read(str(output)).sort_by("image_id")
    assert main(["compact", str(output)]) == 0
    after = read(str(output)).sort_by("image_id")
    assert after.select(before.column_names).equals(before)


def test_its_report_is_drawn(output: Path, source: str, tmp_path: Path) -> None:
    assert main(["report", str(output), "-o", str(tmp_path / "report.html")]) == 0
    assert "coffee.png" in (tmp_path / "report.html").read_text(encoding="utf-8")
