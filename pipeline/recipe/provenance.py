"""Where a row came from: code version, package versions, run identity."""

from __future__ import annotations

import datetime
import os
import secrets
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path

_NAMES = (
    "ray",
    "torch",
    "pyarrow",
    "opencv-python",
    "numpy",
    "pillow",
    "onnxruntime",
    "segment-anything",
    "obstore",
)


@lru_cache(maxsize=1)
def code_version() -> str:
    """ "0.1.0", and "+g<commit>" (".dirty" when edited) in a git checkout. CLEANPLATE_CODE_VERSION overrides,
    for images built without the repository."""
    if given := os.environ.get("CLEANPLATE_CODE_VERSION"):
        return given
    try:
        version = metadata.version("cleanplate")
    except metadata.PackageNotFoundError:
        version = "0+unpacked"
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return version
    commit = _git(root, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    return f"{version}+g{commit}" if commit else version


def _git(root: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""  # No git on this machine: the package version alone identifies the code.
    return done.stdout.strip() if done.returncode == 0 else ""


def packages() -> dict[str, str]:
    """Versions of the packages that decide the output."""
    found = {}
    for name in _NAMES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def new_run_id() -> str:
    """Sortable by time, unique: "20261123T091500-3f9a1c"."""
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
