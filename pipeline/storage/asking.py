"""How object stores are asked: again while they do not answer, with time for what is large, trusting whom the
environment says."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from cleanplate.pipeline.errors import ConfigError, StorageError, redacted

T = TypeVar("T")

SILENCE_S = 10
"""A connection on which nothing comes for so long is taken for dead."""
SLOWEST = 512 * 1024
"""Bytes a second at which a put may still go out: while it does, nothing comes."""
REQUEST_S = 300
"""The most time for one answer, body and all: 512 MiB at 2 MB/s."""
_STATUS = re.compile(r"status code: (\d{3})")


def patiently(call: Callable[[], T], known: Callable[[Exception], StorageError], patience: float) -> T:
    """Ask again while the store is unreachable, for `patience` seconds. obstore retries whole requests by itself but
    never a conditional put, and boto3 gives up on a body that breaks off: hence this loop.

    known: an error of the store's client as ours.
    """
    deadline, pause = time.monotonic() + patience, 0.1
    while True:
        try:
            return call()
        except ConfigError:
            raise
        except Exception as error:  # noqa: BLE001 - mapped to our own tree here, and nowhere else
            mapped = known(error)
            if mapped.kind != "unreachable" or time.monotonic() + pause > deadline:
                raise mapped from None
        time.sleep(pause * (0.5 + secrets.randbelow(1000) / 1000))
        pause = min(5.0, pause * 2)


def silence_for(size: int) -> int:
    """How long the server may be silent over a put of `size` bytes: it answers when it has them all, and the clock
    of obstore's client runs from the first one on. In steps, so that a store needs few clients."""
    seconds = SILENCE_S
    while seconds * SLOWEST < size:
        seconds *= 2
    return seconds


def client_options(silence: int, *, plain_http: bool) -> dict[str, Any]:
    """obstore's, with what boto3 takes from AWS_CA_BUNDLE by itself."""
    return {
        "timeout": f"{max(REQUEST_S, silence)}s",
        "read_timeout": f"{silence}s",
        "connect_timeout": "5s",
        "allow_http": plain_http,
    } | _trust()


def retries() -> dict[str, Any]:
    """obstore's retry_config."""
    pauses = {
        "init_backoff": timedelta(milliseconds=50),
        "max_backoff": timedelta(seconds=3),
        "base": 2,
    }
    return {"max_retries": 5, "backoff": pauses, "retry_timeout": timedelta(seconds=60)}


def verified() -> bool:
    """CLEANPLATE_TLS_VERIFY=0 takes any certificate: for trying out, never for pictures of people."""
    return os.environ.get("CLEANPLATE_TLS_VERIFY", "1").lower() not in ("0", "false", "no")


def _trust() -> dict[str, Any]:
    if not verified():
        return {"allow_invalid_certificates": True}
    bundle = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")
    if not bundle:
        return {}
    try:
        return {"root_certificate": Path(bundle).read_bytes()}
    except OSError as error:
        raise ConfigError(f"AWS_CA_BUNDLE: cannot read {bundle}: {error.strerror}") from error


def obstore_error(error: Exception, what: str, final: frozenset[int] = frozenset()) -> StorageError:
    """What obstore raised, by class and status; the message keeps the status, never headers or signed urls.

    final: statuses that another try does not change, besides those that no store changes. S3 has a 400 that it does.
    """
    from obstore.exceptions import (
        InvalidPathError,
        NotFoundError,
        PermissionDeniedError,
        UnauthenticatedError,
        UnknownConfigurationKeyError,
    )

    if isinstance(error, StorageError):
        return error
    found = _STATUS.search(str(error))
    status = int(found[1]) if found else 0
    if isinstance(error, NotFoundError | FileNotFoundError) or status == 404:
        return StorageError("missing", f"{what}: no such object or bucket")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError) or status in (
        401,
        403,
    ):
        return StorageError("forbidden", f"{what}: access denied")
    if isinstance(error, InvalidPathError):
        return StorageError("other", f"{what}: {_first_line(error)}: rename it, or list a folder without it")
    if isinstance(
        error, TypeError | ValueError | AttributeError | ImportError | UnknownConfigurationKeyError
    ):
        return StorageError("other", f"{what}: {type(error).__name__}: {str(error)[:200]}")
    kind = "other" if status in final | {501} else "unreachable"
    return StorageError(kind, f"{what}: {type(error).__name__}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return redacted(text[0])[:300] if text else ""


def strong(version: str) -> bool:
    """Can this ETag be a condition? Weak ones (W/"...") match nothing."""
    return bool(version) and not version.startswith("W/")
