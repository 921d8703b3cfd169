"""What a cluster is sent: the three packages' source, the recipe, and the environment of the job."""

from __future__ import annotations

import importlib.resources
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SENT = (".py", ".yaml", ".json", ".txt")
"""Suffixes of what travels: a list of what goes, because a list of what stays is never complete."""
LIMIT = 32 * 2**20
RECIPE = "cleanplate-recipe.yaml"
ENVIRONMENT = {
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # The driver's own ray.init names the same two: without this Ray refuses the second mention.
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
}
_SECRET = re.compile(r"KEY|SECRET|TOKEN|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
_NO_SECRET = ("AWS_SSE_KMS_KEY_ID",)


@dataclass(frozen=True)
class Job:
    """entrypoint: the words of the command on the head, after its interpreter. recipe: a local file that travels
    along. shipped: weights files of our own packages that the recipe names."""

    entrypoint: tuple[str, ...]
    recipe: Path | None
    shipped: tuple[Path, ...]


def environment(pairs: Sequence[str]) -> dict[str, str]:
    """The job's variables: those that every job has, and the NAME=VALUE that a user gives. Raises ConfigError."""
    from cleanplate.pipeline.recipe.provenance import code_version

    # The copy that is sent has no repository to ask for its version.
    return ENVIRONMENT | {"CLEANPLATE_CODE_VERSION": code_version()} | _chosen(pairs)


def _chosen(pairs: Sequence[str]) -> dict[str, str]:
    from cleanplate.pipeline.errors import ConfigError, redacted

    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"--env {name!r}: write NAME=VALUE")
        if (_SECRET.search(name) and name not in _NO_SECRET) or redacted(value) != value:
            # The value is not repeated here. A job's environment is shown to whoever can see the dashboard.
            raise ConfigError(f"--env {name}: give the nodes secrets by a role or their own environment")
        found[name] = value
    return found


def make_package(folder: Path, job: Job, *, code: bool = True) -> int:
    """Lay out in `folder` what is sent; returns its bytes. Raises ConfigError when that is more than LIMIT."""
    from cleanplate.pipeline.errors import ConfigError

    package = _package_folder()
    files = [*job.shipped, *_sources(package)] if code else []
    for path in files:
        target = folder / path.relative_to(package.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    if job.recipe:
        shutil.copyfile(job.recipe, folder / RECIPE)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > LIMIT:
        raise ConfigError(f"the package has {size:,} bytes, more than {LIMIT:,}: use --installed")
    return size


def _package_folder() -> Path:
    """The folder `cleanplate`, as it is imported here. In a checkout it holds links to pipeline, models and jobs."""
    return Path(str(importlib.resources.files("cleanplate")))


def _sources(package: Path) -> list[Path]:
    """What travels of the package, by its name there: links are followed, so that no link is sent."""
    walked = os.walk(package, followlinks=True)
    return sorted(
        path for folder, _, names in walked for path in map(Path(folder).joinpath, names) if _is_sent(path)
    )


def _is_sent(path: Path) -> bool:
    return path.is_file() and path.suffix in SENT and "__pycache__" not in path.parts
