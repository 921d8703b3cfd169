"""One tree of errors: whatever is raised on purpose, `except CleanplateError` catches it."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from cleanplate.pipeline import errors
from cleanplate.pipeline.errors import CleanplateError

ROOT = Path(__file__).parent.parent


def defined() -> list[tuple[str, str]]:
    """(module, class) of every exception class in our packages, but private ones that never leave their file."""
    found = []
    for path in (p for top in ("models", "pipeline", "jobs") for p in sorted((ROOT / top).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
                if any(base == "Exception" or base.endswith("Error") for base in bases):
                    module = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
                    found.append((f"cleanplate.{module}", node.name))
    return found


@pytest.mark.parametrize(("module", "name"), defined(), ids=lambda word: word.rpartition(".")[2])
def test_every_error_of_ours_stands_in_the_tree(module: str, name: str) -> None:
    kind = getattr(importlib.import_module(module), name)
    assert issubclass(kind, CleanplateError)
    assert name in str(errors.__doc__), f"draw {name} in the tree of pipeline/errors.py"
