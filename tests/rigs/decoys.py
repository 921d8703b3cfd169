"""A folder as users have it: with a `models/`, a `jobs/` and a `pipeline.py` of their own."""

from __future__ import annotations

from pathlib import Path

RAISES = 'raise ImportError("this is the user\'s own file, not part of cleanplate")\n'


def decoys(folder: Path) -> Path:
    """Make such a folder. Importing anything in it raises."""
    for name in ("models/__init__.py", "jobs/__init__.py", "tests/__init__.py", "pipeline.py", "utils.py"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(RAISES)
    return folder
