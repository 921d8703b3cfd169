"""What the documents tell is done: commands and Python blocks are executed, links lead somewhere.

A page is followed as a reader would follow it: in one folder, in order, on real photographs, a real S3 server
and the session's Ray. What cannot be run here is parsed only, and stands in PARSED_ONLY with the reason.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pil

from cleanplate.jobs.cli.app import main, parser
from cleanplate.jobs.evaluate.command import with_default
from cleanplate.pipeline.recipe.recipe import load
from cleanplate.pipeline.storage.connect import open_store
from rigs.s3server import Bucket

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALL = 200
"""Long side of the photographs, in pixels: a page is followed in seconds."""

PARSED_ONLY: list[tuple[str, str]] = [
    (r"--inpainter big-lama|--segmenter sam|--checkpoint", "weights that are fetched from the network"),
    (r"^weights (fetch|add)", "the network; tests/models/weights/test_weights.py fetches from real places"),
    (r"^weights verify", "hashes the reader's own cache and removes what is damaged there"),
    (r"--gpus", "a GPU"),
    (r"--review", "marks that a person exported from the report; tests/flow/test_review.py"),
    (r"hub-dataset|lanyard", "data that is not here; the tests of that source"),
    (r"^status .*--address", "a cluster with a dashboard"),
    (r"^(submit|stop) ", "a cluster with a dashboard; tests/jobs/test_submit.py has one"),
    (r"^demo", "a minute; tests/jobs/test_demo_photos.py and `make demo`"),
    (r"^serve", "runs until it is stopped; its own tests drive it in a browser"),
    (r"^(train|ablate) ", "hours; tests/jobs/train/test_train_job.py"),
    (r"^evaluate ", "weights and photographs that are not here; its own tests"),
    (r"^benchmark", "minutes of a quiet machine"),
]
GOOD = {"run": (0, 1), "status": (0, 1), "inspect": (0, 1), "doctor": (0,)}
"""Exit codes that are no failure of the document; (0,) for the rest."""


class Block(NamedTuple):
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    found = re.findall(
        r"^```(sh|python|yaml)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return [Block(*pair) for pair in found]


FOLLOWED = [page for page in PAGES if page.name != "notebook.md" and blocks(page)]
"""The notebook tells what was done, not what to do."""


def commands(block: Block) -> list[str]:
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip().startswith("cleanplate ")]


ALL = [
    (page.name, line) for page in PAGES for b in blocks(page) if b.language == "sh" for line in commands(b)
]


def why_not(line: str) -> str | None:
    """Why a command is not run here; None when it is."""
    result = line.removeprefix("cleanplate ")
    return next((reason for pattern, reason in PARSED_ONLY if re.search(pattern, result)), None)


def words_of(line: str) -> list[str]:
    return shlex.split(line.partition(" > ")[0], comments=True)[1:]


@pytest.mark.parametrize(("page", "line"), ALL)
def test_documented_commands_parse(page: str, line: str) -> None:
    words = with_default(words_of(line))
    if words[0] == "train":
        from cleanplate.jobs.train import command

        assert command.parser().parse_args(words[1:])
        return
    args = parser().parse_args(words)
    assert args.run is not None, page
    if words[0] == "submit":
        assert parser().parse_args(args.words[1:]).run is not None


@pytest.fixture
def place(tmp_path: Path, s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Bucket]]:
    """A reader's folder: photographs in photos/ and in the bucket, and a recipe.yaml."""
    (tmp_path / "photos").mkdir()
    for name in ("astronaut.jpg", "coffee.jpg", "sunset.jpg"):
        image = Pil.open(ROOT / "jobs" / "demo_photos" / name)
        image.thumbnail((SMALL, SMALL))
        image.save(tmp_path / "photos" / name, quality=92)
        for prefix in ("raw", "shards"):
            open_store(s3.url(prefix)).put(name, (tmp_path / "photos" / name).read_bytes())
    (tmp_path / "photo.jpg").write_bytes((tmp_path / "photos" / "astronaut.jpg").read_bytes())
    (tmp_path / "recipe.yaml").write_text("remove: [face]\n")
    (tmp_path / "instances.json").write_text('{"images": [], "annotations": []}')
    urls = [path.as_uri() for path in sorted((tmp_path / "photos").iterdir())]
    pq.write_table(pa.table({"url": urls, "caption": ["one", "two", "three"]}), tmp_path / "urls.parquet")
    (tmp_path / "marks.json").write_text('{"marks": []}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path, s3


@pytest.mark.parametrize("page", FOLLOWED, ids=lambda page: page.name)
def test_a_page_can_be_followed(page: Path, place: tuple[Path, Bucket], ray_local: None) -> None:
    folder, bucket = place
    names: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page):
        if block.language == "sh":
            for line in commands(block):
                follow(line, bucket)
        elif block.language == "python":
            exec(compile(block.text, f"{page.name}: {block.text.strip().splitlines()[0]}", "exec"), names)
        else:
            named = re.match(r"# (\S+\.yaml)\n", block.text)
            path = folder / (named[1] if named else "unnamed.yaml")
            path.write_text(block.text)
            load(path)


def follow(line: str, bucket: Bucket) -> None:
    """Run one documented command, with the bucket that is there in the place of s3://bucket."""
    if why_not(line):
        return
    words = words_of(line.replace("s3://bucket/", f"s3://{bucket.bucket}/"))
    if "s3://" not in line and not os.path.exists("cleaned") and words[0] in ("status", "report", "verify"):
        # The page shows this command before, or without, the run that it is about.
        assert main(["run", "photos/", "cleaned/", "--here"]) in (0, 1)
    if words[0] == "run":
        if not re.search(r"--new-run|--recipe|--retry-failed|--review", line):
            # A page shows ways to say a thing, one below the other; each is a run of its own.
            words.append("--new-run")
        if "--address" not in line:
            # Ray starts a worker for each run, and that loads everything: once or twice a page is enough.
            words.append("--here")
    assert main(words) in GOOD.get(words[0], (0,)), line


def test_the_documents_have_commands() -> None:
    run = [line for _, line in ALL if not why_not(line)]
    assert len(run) >= 30, "most of what is documented is executed"
    assert len(run) > len(ALL) / 2
    for pattern, reason in PARSED_ONLY:
        assert reason, pattern


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_can_be_found() -> None:
    """From the index, from another page, or from where the program names it."""
    program = [p for name in ("pipeline", "jobs", "models") for p in (ROOT / name).rglob("*.py")]
    text = "".join(p.read_text(encoding="utf-8") for p in [*PAGES, *program])
    for page in (ROOT / "docs").glob("*.md"):
        assert f"({page.name}" in text or f"docs/{page.name}" in text, f"add {page.name} to docs/README.md"


def test_readme_names_commands_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_design_names_files_that_are_there() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:pipeline|models|jobs|tests)/[\w/]+(?:\.py|/))`", text))
    assert len(named) > 15
    assert not [name for name in sorted(named) if not (ROOT / name).exists()]
