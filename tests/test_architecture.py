"""tests -> jobs -> pipeline -> models: nobody imports upwards; Ray and torch stay where they belong."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RANKS = {"models": 0, "pipeline": 1, "jobs": 2, "tests": 3}
FILES = [p for name in ("models", "pipeline", "jobs") for p in sorted((ROOT / name).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Top-level names of everything that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    rank = RANKS[path.relative_to(ROOT).parts[0]]
    up = {name for name in imported(path) if RANKS.get(name, -1) > rank}
    assert not up, f"{path} imports upwards: {up}"


def test_ray_is_imported_in_two_places_and_torch_in_models_only() -> None:
    with_ray = {str(p.relative_to(ROOT)) for p in FILES if "ray" in imported(p)}
    assert with_ray <= {
        "pipeline/engine/ray_data.py",
        "jobs/commands/submit.py",
        "jobs/commands/stop.py",
        "jobs/train/command.py",
        # Scaling is measured on a Cluster of ray.cluster_utils, which only a job may start.
        "jobs/benchmark/flow.py",
    }
    outside = {
        str(p.relative_to(ROOT))
        for p in FILES
        if "torch" in imported(p) and p.relative_to(ROOT).parts[0] != "models"
    }
    assert outside <= {
        "jobs/train/command.py",
        "jobs/train/marks.py",
        "jobs/evaluate/command.py",
        "jobs/benchmark/command.py",
    }
    upward = {str(p) for p in FILES if p.is_relative_to(ROOT / "models") and imported(p) & {"ray", "pyarrow"}}
    assert not upward


def test_no_file_swallows_errors_or_hides_in_utils() -> None:
    for path in FILES:
        assert path.stem not in ("utils", "common", "helpers", "misc"), path
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                assert not all(isinstance(inner, ast.Pass) for inner in node.body), f"{path}:{node.lineno}"
