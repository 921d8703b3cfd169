"""The Ray cluster that a run uses: to connect to it or to start one, what it has, and functions of many items on it."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cleanplate.pipeline.errors import ConfigError, RunStopped

NO_CPU_S = 600.0
"""So long a cluster may have no CPU at all before tasks that wait for one are given up."""


@contextmanager
def connected(address: str | None) -> Iterator[str]:
    """Ray for the length of a `with`: the cluster at `address` ("auto", "host:port", "ray://..."), or, for
    None, one of this machine's own that ends with it. Gives the words to show.

    Raises ConfigError when the address does not answer, RunStopped when this machine's Ray cannot start. A Ray that
    this process is connected to is used as it is, and left running.
    """
    import ray

    if ray.is_initialized():
        yield "the Ray this process is connected to"
        return
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    cores = usable_cores()
    if address:
        settings |= {"address": address, "runtime_env": {"env_vars": _environment()}}
    else:
        # One logical CPU more than there are cores: reading and writing wait for the network, not for a core.
        settings |= {"num_cpus": cores + 1, "include_dashboard": False, "address": "local"}
    os.environ.update(_ENVIRONMENT)  # Read by Ray's C++ part in this process too.
    reachable(address)
    with _own_signals(), _quiet():
        _init(address, settings)
    try:
        total = resources()
        cpus, gpus = total.get("CPU", 0) if address else cores, total.get("GPU", 0)
        yield f"Ray {ray.__version__}{'' if address else ' on this machine'}: {cpus:g} CPUs, {gpus:g} GPUs"
    finally:
        ray.shutdown()


def usable_cores() -> int:
    """The cores that this process may use: a container or a batch system often gives fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _init(address: str | None, settings: dict[str, Any]) -> None:
    """ray.init, its many exceptions in two: an address that is wrong, and a Ray of this machine's that cannot start."""
    import ray

    try:
        use_token(address)
        ray.init(**settings)
    except SystemExit as error:  # Ray's handler of SIGTERM while it starts.
        ray.shutdown()
        raise KeyboardInterrupt from error
    except Exception as error:  # Not fewer: what does not come up in time is a plain Exception.
        ray.shutdown()
        first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        if address:
            raise ConfigError(f"no Ray cluster at {address}: {first}. {TOKEN_HINT}") from error
        raise RunStopped(f"Ray could not start on this machine: {first}. {_cure(first)}") from error


def _cure(message: str) -> str:
    if "AF_UNIX" in message:
        return "Set RAY_TMPDIR to a short path, as /tmp"
    if "home directory" in message:
        return "Set HOME to a folder that may be written"
    return "Run the same command again when the machine is less busy, or with --here: in one process, without Ray"


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray puts handlers of its own in the place of this process's, in Python and in C++ (which aborts on SIGTERM): what
    was there before comes back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            if handler is not None:  # None: not set from Python.
                signal.signal(number, handler)


def reachable(address: str | None) -> None:
    """Raise ConfigError when nothing listens at host:port or ray://host:port: Ray itself would try for minutes.
    Other forms ("auto", "local", None) are Ray's to find."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not port.isdigit() or not host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"nothing answers at {address} ({error}). A cluster's own address ends in its GCS port, usually 6379; "
            "ray:// goes to 10001; the dashboard's 8265 is for `cleanplate submit`"
        ) from error


TOKEN_HINT = (
    "If it has a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN (docs/cluster.md)"
)
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "auto")


def use_token(address: str | None) -> None:
    """Set RAY_AUTH_MODE=token where it is unset and the user has a token for the cluster at `address`: named in the
    environment, or, for a cluster of this machine, in Ray's own file. Ray reads no token without the mode."""
    if "RAY_AUTH_MODE" in os.environ:
        return
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    here = any(host in (address or "") for host in _LOOPBACK)
    if named or (here and (Path.home() / ".ray" / "auth_token").is_file()):
        os.environ["RAY_AUTH_MODE"] = "token"


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray's C++ part writes to stderr itself while it starts ("Set ray log level ..."); its errors come as
    exceptions too."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


_PASSED_ON = (
    "AWS_SERVER_SIDE_ENCRYPTION",
    "AWS_SSE_KMS_KEY_ID",
    "AWS_REQUEST_PAYER",
    "GOOGLE_USER_PROJECT",
    "STORAGE_EMULATOR_HOST",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ENDPOINT",
    "HF_ENDPOINT",
    "CLEANPLATE_TLS_VERIFY",
)
"""What the driver learned about its puts, and no secret, holds for the workers too."""


def _environment() -> dict[str, str]:
    return _ENVIRONMENT | {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


_ENVIRONMENT = {
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


def resources() -> dict[str, float]:
    import ray

    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found


def spread_on_ray(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """function of each item as a Ray task of one CPU, results in order as they come. For some thousand small items
    and results: what must be known of a source before its units are done, parts to be made of others."""
    import ray

    task = ray.remote(num_cpus=1)(function)
    for waiting in [task.remote(item) for item in items]:
        _wait_for(waiting)
        yield ray.get(waiting)


def _wait_for(reference: Any) -> None:
    """Until a task has ended. Raises RunStopped where the cluster has had no CPU for a while: Ray waits for ever."""
    import ray

    last = time.monotonic()
    while not ray.wait([reference], timeout=1)[0]:
        if resources().get("CPU", 0.0) >= 1:
            last = time.monotonic()
        elif time.monotonic() - last > NO_CPU_S:
            raise RunStopped("the Ray cluster has no CPU left; run the same command again when it has")
