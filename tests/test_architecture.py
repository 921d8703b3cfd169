"""One direction: every room imports only rooms below it. Ray and torch stay where they belong; folders stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("models", "pipeline", "jobs")
FILES = [p for name in PACKAGES for p in sorted((ROOT / name).rglob("*.py"))]

# Each room, lowest first; a tuple holds siblings, which do not know each other. A file imports from its own room
# and from rooms below. docs/design.md draws this.
ROOMS: tuple[tuple[str, ...], ...] = (
    ("models/types", "models/devices"),
    ("models/metrics", "models/weights"),
    ("models/lama",),
    ("models/inpainters", "models/segmenters", "models/static_watermark"),
    ("models/detectors",),
    ("models/training",),
    ("models/evaluation",),
    ("pipeline/errors",),
    ("pipeline/schema",),
    ("pipeline/storage", "pipeline/images", "pipeline/recipe"),
    ("pipeline/ledger", "pipeline/factory"),
    ("pipeline/stages", "pipeline/labels"),
    ("pipeline/engine",),
    ("pipeline/ui",),
    ("pipeline/api",),
    ("jobs/photos", "jobs/reference"),
    ("jobs/cli", "jobs/cluster"),
    ("jobs/benchmark", "jobs/evaluate", "jobs/train"),
    ("jobs/commands",),
)
RANK = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms}
# The command line's table of commands names modules above it as words; these three read that table in a function.
LATE = {"jobs/cli/app.py", "jobs/__main__.py"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room_of(name: str) -> str:
    """`pipeline/images/formats/png.py` or `cleanplate.pipeline.images.encode.formats` -> `pipeline/images`."""
    return "/".join(name.removesuffix(".py").replace(".", "/").split("/")[:2])


def imports(path: Path) -> Iterator[str]:
    """Dotted names of everything that a file imports, wherever in it; `from a import b` gives `a.b`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or node.module, f"{path}: a relative import hides its room"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported(path: Path) -> set[str]:
    """Top-level names of what a file imports."""
    return {name.split(".")[0] for name in imports(path)}


def rooms_imported(path: Path) -> set[str]:
    ours = (name.removeprefix("cleanplate.") for name in imports(path) if name.startswith("cleanplate."))
    return {room_of(name) for name in ours if name.split(".")[0] in PACKAGES}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_room_imports_only_rooms_below_it(path: Path) -> None:
    name = name_of(path)
    assert not imported(path) & {*PACKAGES, "tests", "rigs"}, "our packages are imported as cleanplate.*"
    if (path.name == "__init__.py" and len(path.relative_to(ROOT).parts) == 2) or name in LATE:
        return
    room = room_of(name)
    assert room in RANK, f"{name}: give its room a place in ROOMS"
    wrong = {other for other in rooms_imported(path) - {room} if RANK.get(other, 0) >= RANK[room]}
    assert not wrong, f"{name} imports {sorted(wrong)}, which does not stand below {room}"


def test_no_two_files_import_each_other() -> None:
    """No circle anywhere, also inside a room; imports for types only do not count, they are not made."""
    graph = {path: set(_needed(path)) for path in FILES}
    done: set[Path] = set()

    def visit(path: Path, above: tuple[Path, ...]) -> None:
        assert path not in above, " -> ".join(name_of(p) for p in (*above[above.index(path) :], path))
        if path in done:
            return
        for other in graph[path]:
            visit(other, (*above, path))
        done.add(path)

    for path in FILES:
        visit(path, ())


def _needed(path: Path) -> Iterator[Path]:
    """Our files that a file imports when it is imported itself: not in functions, not under TYPE_CHECKING."""
    pending: list[ast.stmt] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while pending:
        node = pending.pop()
        if (isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test)) or isinstance(
            node, ast.Try
        ):
            pending += [inner for inner in ast.iter_child_nodes(node) if isinstance(inner, ast.stmt)]
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cleanplate"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}".removeprefix("cleanplate.").replace(".", "/")
                outer = (node.module or "").removeprefix("cleanplate.").replace(".", "/")
                yield from (file for stem in (inner, outer) if (file := ROOT / f"{stem}.py").is_file())


@pytest.mark.parametrize("top", [*PACKAGES, "tests"])
def test_folders_hold_few_entries(top: str) -> None:
    def entries(folder: Path) -> list[Path]:
        hidden = ("__pycache__", ".DS_Store")
        return [p for p in folder.iterdir() if p.name not in hidden and (p.is_file() or any(p.rglob("*.*")))]

    if top != "tests":
        assert len([p for p in entries(ROOT / top) if p.name != "__init__.py"]) <= 12
    for folder in [ROOT / top, *(p for p in (ROOT / top).rglob("*") if p.is_dir())]:
        if folder.name not in ("__pycache__", "photos", "demo_photos") and "data" not in folder.parts:
            assert len(entries(folder)) <= 20, f"{folder} has {len(entries(folder))} entries"


def test_ray_is_imported_in_few_places_and_torch_in_models_only() -> None:
    with_ray = {name_of(p) for p in FILES if "ray" in imported(p)}
    assert with_ray <= {
        "pipeline/engine/ray_cluster.py",
        "pipeline/engine/ray_data.py",
        "pipeline/engine/ray_wave.py",
        "jobs/cluster/client.py",
        "jobs/commands/stop.py",
        "jobs/train/command.py",
        # Scaling is measured on a Cluster of ray.cluster_utils, which only a job may start.
        "jobs/benchmark/flow.py",
    }
    outside = {name_of(p) for p in FILES if "torch" in imported(p) and not name_of(p).startswith("models/")}
    assert outside <= {
        "jobs/train/command.py",
        "jobs/train/marks.py",
        "jobs/evaluate/command.py",
        "jobs/benchmark/command.py",
    }
    upward = {
        name_of(p) for p in FILES if name_of(p).startswith("models/") and imported(p) & {"ray", "pyarrow"}
    }
    assert not upward


def test_no_file_swallows_errors_or_hides_in_utils() -> None:
    for path in FILES:
        assert path.stem not in ("utils", "common", "helpers", "misc"), path
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                assert not all(isinstance(inner, ast.Pass) for inner in node.body), f"{path}:{node.lineno}"
