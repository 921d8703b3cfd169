"""Every `cleanplate ...` line of the documents is understood by the command it names; every link leads somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from jobs.__main__ import parser

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            found += [(page.name, line.strip()) for line in lines if line.strip().startswith("cleanplate ")]
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_documented_commands_parse(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    args = parser().parse_args(words)
    assert args.run is not None, page
    if words[0] == "submit":
        assert parser().parse_args(args.words[1:]).run is not None


def test_the_documents_have_commands() -> None:
    assert len(commands()) >= 15


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_readme_names_commands_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
