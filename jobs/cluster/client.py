"""A cluster's job server: reach it, give it a job, print the job's log, and read how the job ended."""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import sys
import time
from typing import Any

from cleanplate.jobs.cluster.package import Job

_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
STOPPED = 3
FAILED_ROWS = 11
"""The exit code of a submitted run that is complete, with failed or residual rows."""


def add_address(parser: argparse.ArgumentParser) -> None:
    """The flag --address of the commands that speak to a cluster."""
    default = os.environ.get("RAY_API_SERVER_ADDRESS") or "http://127.0.0.1:8265"
    parser.add_argument(
        "--address",
        default=default,
        metavar="URL",
        help="the cluster's dashboard (default: $RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265)",
    )


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
        raise ConfigError(f"no Ray dashboard at {address}: {first_line(error)}") from error


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


def submit(client: Any, job: Job, name: str | None, runtime_env: dict[str, Any]) -> str:
    """The name of the job that the cluster took. Raises RunStopped when it cannot take one now, ConfigError when it
    refuses this one."""
    from cleanplate.pipeline.errors import ConfigError, RunStopped

    try:
        return str(
            client.submit_job(
                entrypoint=shlex.join(job.entrypoint), submission_id=name, runtime_env=runtime_env
            )
        )
    except OSError as error:
        raise RunStopped(f"the cluster does not answer: {first_line(error)}. Submit again later") from error
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
        print(f"the log stream broke ({first_line(error)}); waiting for the job's end", file=sys.stderr)
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


def first_line(error: BaseException) -> str:
    """Of an error's message, cut to 300 characters; its type where it has none."""
    text = str(error).strip().splitlines()
    return text[0][:300] if text else type(error).__name__


def _reason(error: BaseException) -> str:
    """The last line of a server's traceback is its reason."""
    text = str(error).strip().rstrip(".").splitlines()
    return text[-1][-300:] if text else type(error).__name__
