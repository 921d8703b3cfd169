from __future__ import annotations

from pathlib import Path

import pytest

from cleanplate.jobs.reference import PAGES

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", PAGES)
def test_the_references_are_those_of_the_code(page: str) -> None:
    assert (DOCS / page).read_text(encoding="utf-8") == PAGES[page](), (
        "run: python -m cleanplate.jobs.reference docs"
    )
