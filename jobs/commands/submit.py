"""cleanplate submit -- run SRC DST ...: the same command as a job on a Ray cluster, its code sent along.

What is sent is the three packages' source and the recipe, nothing else: no weights (they are fetched, or baked into
the nodes' image), no photographs, no repository, and no credentials. The nodes take credentials from a role or from
their own environment.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.resources
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cleanplate.pipeline.recipe.recipe import Recipe

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
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
STOPPED = 3
FAILED_ROWS = 11
"""The exit code of a submitted run that is complete, with failed or residual rows."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "submit",
        help="run on a Ray cluster as a job; the same submission resumes",
        description=f"{__doc__} Exit code: the job's.",
        epilog="Example: cleanplate submit --address http://head:8265 -- run s3://bucket/raw s3://bucket/clean",
    )
    add_address(parser)
    parser.add_argument("--no-wait", action="store_true", help="print the job's id and leave")
    parser.add_argument("--submission-id", metavar="ID", help="an id of your own, never used before")
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an environment variable of the job, such as AWS_REGION=eu-west-1; never a secret",
    )
    parser.add_argument(
        "--installed",
        action="store_true",
        help="use the cleanplate that is installed on the nodes; send the recipe only",
    )
    parser.add_argument(
        "--python",
        metavar="PATH",
        help="the interpreter on the head (default: the one that Ray runs under there)",
    )
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="-- run SRC DST ...", help="the command, as on one machine"
    )
    parser.set_defaults(run=run)


def add_address(parser: argparse.ArgumentParser) -> None:
    default = os.environ.get("RAY_API_SERVER_ADDRESS") or "http://127.0.0.1:8265"
    parser.add_argument(
        "--address",
        default=default,
        metavar="URL",
        help="the cluster's dashboard (default: $RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265)",
    )


def run(args: argparse.Namespace) -> int:
    """The job's exit code: 0 to 3 as `run` gives them; 3 also for a job that was stopped or killed; 0 after
    --no-wait. Raises ConfigError for a command that cannot work there and a cluster that does not answer, RunStopped
    for a cluster that cannot take the job now."""
    job = prepare(args.words)
    environment = ENVIRONMENT | _code_version() | _chosen(args.env)
    client = connect(args.address)
    job = replace(job, entrypoint=(args.python or head_python(client), *job.entrypoint))
    with tempfile.TemporaryDirectory(prefix="cleanplate-submit-") as folder:
        size = make_package(Path(folder), job, code=not args.installed)
        name = _submit(client, job, args.submission_id, {"working_dir": folder, "env_vars": environment})
    print(name, flush=True)
    print(f"sent {size / 1024:,.0f} KiB; {_how(name, args.address)}", file=sys.stderr, flush=True)
    if args.no_wait:
        return 0
    try:
        return follow(client, name)
    except KeyboardInterrupt:
        print(f"\nThe job {name} is still running. {_how(name, args.address)}", file=sys.stderr)
        return STOPPED
    except (RuntimeError, OSError) as error:
        print(f"lost the cluster ({_first_line(error)}). {_how(name, args.address)}", file=sys.stderr)
        return STOPPED


def _how(name: str, address: str) -> str:
    at = f"--address {address}"
    return f"follow: ray job logs --follow {name} {at}   stop: cleanplate stop {name} {at}"


# --- what is submitted ---


@dataclass(frozen=True)
class Job:
    """entrypoint: the words of the command on the head, after its interpreter. recipe: a local file that travels
    along. shipped: weights files of our own packages that the recipe names."""

    entrypoint: tuple[str, ...]
    recipe: Path | None
    shipped: tuple[Path, ...]


def prepare(words: Sequence[str]) -> Job:
    """Check `run SRC DST ...` here, where the user sees it, and turn it into the command of the cluster.

    The job ends with FAILED_ROWS instead of 1: Ray itself ends a driver with 1 when the node below it dies.

    Raises ConfigError for what no node could do: another command, a path relative to this folder, --here.
    """
    from cleanplate.jobs.cli.app import parser
    from cleanplate.jobs.cli.flags import recipe_of
    from cleanplate.jobs.commands.run import check_exit_code
    from cleanplate.pipeline.errors import ConfigError

    words = list(words[1:] if words and words[0] == "--" else words)
    if not words or words[0] != "run":
        raise ConfigError("write the command after --: cleanplate submit -- run SRC DST ...")
    args = parser().parse_args(words)
    if args.here or args.address:
        raise ConfigError(
            f"leave out {'--here' if args.here else '--address'}: the job runs on the cluster it is sent to"
        )
    check_exit_code(args.failed_exit_code)
    for place, what in ((args.source, "SRC"), (args.output, "DST")):
        _same_everywhere(place, what)
    shipped = _check_files(recipe_of(args))
    sent = _with_sent_recipe(words)
    if args.failed_exit_code == 1:
        sent += ["--failed-exit-code", str(FAILED_ROWS)]
    entrypoint = ("-m", "cleanplate", *sent, "--address", "auto")
    return Job(entrypoint, Path(args.recipe) if args.recipe else None, shipped)


def _with_sent_recipe(words: Sequence[str]) -> list[str]:
    """The words with --recipe pointing at the file as it is called in the package."""
    sent, value_next = [], False
    for word in words:
        given = not value_next and word.startswith("--recipe=")
        sent.append(f"--recipe={RECIPE}" if given else RECIPE if value_next else word)
        value_next = not value_next and word == "--recipe"
    return sent


def _same_everywhere(place: str, what: str) -> None:
    from cleanplate.pipeline.errors import ConfigError
    from cleanplate.pipeline.storage.connect import open_store

    open_store(
        place
    )  # Refuses what holds credentials: a job's command is shown to whoever can see the dashboard.
    if "://" not in place and not place.startswith("/"):
        raise ConfigError(
            f"{what} {place!r}: on a cluster, write s3://... or an absolute path that every node sees"
        )


def _check_files(recipe: Recipe) -> tuple[Path, ...]:
    """The weights of our own packages that the recipe needs. Files elsewhere must lie on the nodes by themselves."""
    from cleanplate.models.weights import registry
    from cleanplate.models.weights.fetch import package_file
    from cleanplate.pipeline.errors import ConfigError
    from cleanplate.pipeline.factory import attachments, check

    for key, place in attachments.named(recipe):
        _same_everywhere(place, key)
    shipped = []
    for name in check.weights_of(recipe):
        if name not in registry.known() and not name.startswith("/"):
            raise ConfigError(
                f"weights {name!r}: on a cluster, name known weights or an absolute path on every node"
            )
        if name in registry.known() and (source := registry.find(name).sources[0]).startswith("package:"):
            shipped.append(package_file(source))
    return tuple(shipped)


def _code_version() -> dict[str, str]:
    from cleanplate.pipeline.recipe.provenance import code_version

    return {"CLEANPLATE_CODE_VERSION": code_version()}  # The copy that is sent has no repository to ask.


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


# --- the cluster ---


def connect(address: str) -> Any:
    """A JobSubmissionClient. Raises ConfigError when nothing answers there, or says that we may not."""
    from cleanplate.pipeline.engine import ray_cluster
    from cleanplate.pipeline.errors import ConfigError

    ray_cluster.use_token(address)
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        mode = os.environ.get("RAY_AUTH_MODE", "not set")
        raise ConfigError(
            f"{address}: the cluster wants its token (RAY_AUTH_MODE is {mode} here). {ray_cluster.TOKEN_HINT}"
        ) from error
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"no Ray dashboard at {address}: {_first_line(error)}") from error


def head_python(client: Any) -> str:
    """The interpreter under which Ray's head runs, as its raylet was started with; "python" where that is hidden."""
    for node in _nodes(client):
        if (node.get("raylet") or {}).get("isHeadNode"):
            for word in node.get("cmdline") or ():
                name, _, command = str(word).partition("=")
                if name == "--python_worker_command" and command:
                    return shlex.split(command)[0]
    return "python"


def _nodes(client: Any) -> list[dict[str, Any]]:
    try:
        reply = client._do_request("GET", "/nodes?view=summary")
        return list(reply.json()["data"]["summary"]) if reply.status_code == 200 else []
    except (OSError, ValueError, KeyError):  # Another version of the dashboard: the job itself will show.
        return []


def _submit(client: Any, job: Job, name: str | None, runtime_env: dict[str, Any]) -> str:
    from cleanplate.pipeline.errors import ConfigError, RunStopped

    try:
        return str(
            client.submit_job(
                entrypoint=shlex.join(job.entrypoint), submission_id=name, runtime_env=runtime_env
            )
        )
    except OSError as error:
        raise RunStopped(f"the cluster does not answer: {_first_line(error)}. Submit again later") from error
    except (RuntimeError, ValueError) as error:
        if any(word in str(error) for word in _TRANSIENT):
            raise RunStopped(f"the cluster cannot take a job now: {_reason(error)}. Submit again") from error
        raise ConfigError(f"the cluster refused the job: {_reason(error)}") from error


_TRANSIENT = ("No available agent", "try again", "status code 502", "status code 503", "status code 504")
"""Of a dashboard that is starting, or a proxy before it: the same submission may work a minute later."""


def follow(client: Any, name: str) -> int:
    """Print the job's log as it grows; returns its exit code once it has ended."""
    try:
        asyncio.run(_tail(client, name))
    except RuntimeError as error:  # The stream broke, which says nothing of the job.
        print(f"the log stream broke ({_first_line(error)}); waiting for the job's end", file=sys.stderr)
    info = client.get_job_info(name)
    while str(info.status) not in _ENDED:
        time.sleep(1)
        info = client.get_job_info(name)
    return exit_code(info)


async def _tail(client: Any, name: str) -> None:
    async for text in client.tail_job_logs(name):
        print(text, end="", flush=True)


def exit_code(info: Any) -> int:
    """The exit code of `run` on the cluster; 3 for a job that ended otherwise, with the reason on stderr."""
    code = info.driver_exit_code
    if str(info.status) == "SUCCEEDED":
        return 0
    if code == FAILED_ROWS:
        return 1
    if code in (2, 3):
        return int(code)
    lines = str(info.message or "").strip().splitlines()
    print(f"the job ended as {info.status}: {lines[0] if lines else 'no reason given'}", file=sys.stderr)
    return STOPPED


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:300] if text else type(error).__name__


def _reason(error: BaseException) -> str:
    """The last line of a server's traceback is its reason."""
    text = str(error).strip().rstrip(".").splitlines()
    return text[-1][-300:] if text else type(error).__name__
