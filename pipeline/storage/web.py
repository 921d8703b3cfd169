"""Pictures at http and https addresses: asked for politely, with a true cause where there is none.

Requests to a host are spaced by turns that all processes of a machine share: files with the time of the next turn, in
the folder for temporary files. A host that asks to wait (Retry-After) moves its turn for all of them. On a cluster
each node has turns of its own. robots.txt is not read: a list of addresses is what its owner decided to ask for.
"""

from __future__ import annotations

import fcntl
import hashlib
import http
import os
import struct
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from cleanplate.pipeline.errors import RowError, redacted
from cleanplate.pipeline.storage.store import replaced

REDIRECTS = 5
MOST_WAIT_S = 120.0
"""A host that asks for more is not waited for."""
_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_CHUNK = 64 * 1024
_NO_PICTURES = ("text/", "application/json", "application/xml", "application/xhtml")
_OPT_OUTS = {"noai", "noimageai", "noindex", "noimageindex"}
AWAY = frozenset({"dns", "connect", "timeout"})
"""Causes that our own network has as well as theirs."""


@dataclass(frozen=True)
class Manners:
    """How hosts are asked. per_host, rate: requests a second of this machine to one host, and to all; None: no limit.
    silence, most: seconds without a byte, and for one answer. heed: X-Robots-Tag may refuse."""

    per_host: float | None = 5.0
    rate: float | None = None
    silence: float = 20.0
    most: float = 300.0
    agent: str = "cleanplate"
    heed: bool = True
    tries: int = 3


@dataclass
class _Got:
    """What earlier tries have brought: bytes, and the strong ETag of what they are of."""

    data: bytearray = field(default_factory=bytearray)
    tag: str = ""


class _Again(Exception):
    """Worth another try: why, and after how many seconds (None: as we think)."""

    def __init__(self, cause: RowError, wait: float | None = None) -> None:
        super().__init__(str(cause))
        self.cause, self.wait = cause, wait


def is_web(address: str) -> bool:
    return address.startswith(("http://", "https://"))


def host_of(address: str) -> str:
    """Raises RowError("address")."""
    try:
        return urlsplit(address).netloc.lower()
    except ValueError as error:
        raise RowError("address", f"{redacted(address)[:200]}: no address: {error}") from None


def get(address: str, most: int, manners: Manners, version: str = "") -> bytes:
    """The bytes at an address. most: bytes. version: the ETag it must have still; "": any.

    What breaks off is asked for again from there on, on condition of its ETag. Raises RowError: http_404 and the like,
    dns, connect, tls, timeout, truncated, redirects, too_large, no_image, opted_out, address; StorageError("replaced").
    """
    got = _Got()
    for number in range(1, manners.tries + 1):
        try:
            return _attempt(address, most, manners, version, got)
        except _Again as again:
            wait = 2.0 ** (number - 1) if again.wait is None else again.wait
            if number == manners.tries or wait > MOST_WAIT_S:
                raise again.cause from None
            _hold(host_of(address), wait)
            if manners.per_host is None:
                time.sleep(wait)
    raise AssertionError("a manner without tries")


def head(address: str, manners: Manners) -> tuple[int, str]:
    """(bytes, ETag) as the server tells them now; 0 and "" where it does not."""
    try:
        answer = _redirected("HEAD", address, manners, {})
    except (RowError, _Again):
        return 0, ""  # Its row will say so.
    answer.drain_conn()
    length = answer.headers.get("Content-Length", "")
    if answer.status != 200:
        return 0, ""
    return int(length) if length.isdigit() else 0, _tag(answer.headers)


def _attempt(address: str, most: int, manners: Manners, version: str, got: _Got) -> bytes:
    headers = {"If-Match": f'"{version}"'} if version and not version.startswith("W/") else {}
    if got.tag:
        headers |= {"Range": f"bytes={len(got.data)}-", "If-Range": f'"{got.tag}"'}
    answer = _redirected("GET", address, manners, headers)
    try:
        if answer.status == 416 and got.tag:  # All had come but its end, or it is another by now.
            got.data.clear()
            got.tag = ""
            raise _Again(RowError("truncated", f"{redacted(address)}: cannot be read on"), 0.0)
        _check(answer, address, version, manners)
        if answer.status != 206 or not got.tag:
            got.data.clear()
        tag = _tag(answer.headers)
        got.tag = "" if tag.startswith("W/") else tag
        _read(answer, address, most, manners, got)
    finally:
        answer.close()
    kind = answer.headers.get("Content-Type", "").lower()
    if kind.startswith(_NO_PICTURES) and bytes(got.data[:256]).lstrip()[:1] in (b"<", b"{", b"["):
        raise RowError(
            "no_image", f"{redacted(address)}: the server sent {kind.partition(';')[0]}, no picture"
        )
    return bytes(got.data)


def _check(answer: Any, address: str, version: str, manners: Manners) -> None:
    """Raise for an answer that brings no picture."""
    status = answer.status
    if status == 412:
        raise replaced(redacted(address), version, "")
    if status not in (200, 206):
        said = http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else ""
        cause = RowError(f"http_{status}", f"{redacted(address)}: {status} {said}".rstrip())
        if status in _AGAIN:
            raise _Again(cause, _retry_after(answer.headers))
        raise cause
    now = _tag(answer.headers)
    if version and now and now != version:
        raise replaced(redacted(address), version, now)
    words = {w.strip() for w in answer.headers.get("X-Robots-Tag", "").lower().split(",")}
    if manners.heed and words & _OPT_OUTS:
        raise RowError(
            "opted_out", f"{redacted(address)}: X-Robots-Tag says {', '.join(sorted(words & _OPT_OUTS))}"
        )


def _read(answer: Any, address: str, most: int, manners: Manners, got: _Got) -> None:
    import urllib3

    deadline = time.monotonic() + manners.most
    length = answer.headers.get("Content-Length", "")
    if length.isdigit() and len(got.data) + int(length) > most:
        raise RowError("too_large", f"{redacted(address)}: {int(length):,} bytes; the limit is {most:,}")
    try:
        while chunk := answer.read1(_CHUNK):
            got.data += chunk
            if len(got.data) > most:
                raise RowError("too_large", f"{redacted(address)}: more than the limit of {most:,} bytes")
            if time.monotonic() > deadline:
                raise RowError("timeout", f"{redacted(address)}: not all there after {manners.most:g} s")
    except urllib3.exceptions.ReadTimeoutError:
        raise _Again(
            RowError("timeout", f"{redacted(address)}: nothing came for {manners.silence:g} s")
        ) from None
    except urllib3.exceptions.DecodeError as error:
        raise RowError("truncated", f"{redacted(address)}: its content coding is damaged") from error
    except urllib3.exceptions.HTTPError:
        message = f"{redacted(address)}: the connection broke off after {len(got.data):,} bytes"
        raise _Again(RowError("truncated", message)) from None


def _redirected(method: str, address: str, manners: Manners, headers: Mapping[str, str]) -> Any:
    """The answer at the end of redirects, each of which waits for its host's turn. Raises RowError, _Again."""
    at = address
    for _ in range(REDIRECTS + 1):
        answer = _asked(method, at, manners, headers)
        place = answer.get_redirect_location()
        if not place:
            return answer
        answer.drain_conn()
        at = urljoin(at, place)
        if not is_web(at):
            raise RowError("redirects", f"{redacted(address)}: leads to {redacted(at)[:200]}")
    raise RowError("redirects", f"{redacted(address)}: more than {REDIRECTS} redirects")


def _asked(method: str, address: str, manners: Manners, headers: Mapping[str, str]) -> Any:
    import urllib3
    from urllib3 import exceptions

    host = host_of(address)
    _wait_turn(host, manners)
    known = {"User-Agent": manners.agent, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
    timeout = urllib3.Timeout(connect=min(10.0, manners.silence), read=manners.silence)
    what = redacted(address)
    try:
        return _pool(address).request(
            method,
            address,
            headers={**known, **headers},
            timeout=timeout,
            retries=False,
            redirect=False,
            preload_content=False,
        )
    except exceptions.NameResolutionError:
        raise _Again(RowError("dns", f"{what}: no such host {host}")) from None
    except exceptions.NewConnectionError:
        raise _Again(RowError("connect", f"{what}: {host} refuses connections")) from None
    except exceptions.ConnectTimeoutError:
        raise _Again(RowError("timeout", f"{what}: {host} does not answer")) from None
    except exceptions.ReadTimeoutError:
        raise _Again(RowError("timeout", f"{what}: nothing came for {manners.silence:g} s")) from None
    except exceptions.SSLError as error:
        raise RowError("tls", f"{what}: {str(error)[:200]}") from None
    except exceptions.LocationValueError as error:
        raise RowError("address", f"{what}: no address: {str(error)[:200]}") from None
    except (exceptions.HTTPError, UnicodeError) as error:
        raise _Again(
            RowError("connect", f"{what}: {type(error).__name__}: {redacted(str(error))[:200]}")
        ) from None


def _pool(address: str) -> Any:
    scheme = urlsplit(address).scheme
    proxy = getproxies().get(scheme)
    return _pools("" if not proxy or proxy_bypass(urlsplit(address).hostname or "") else proxy, os.getpid())


@lru_cache(maxsize=4)
def _pools(proxy: str, process: int) -> Any:
    import urllib3

    return urllib3.ProxyManager(proxy, maxsize=16) if proxy else urllib3.PoolManager(64, maxsize=16)


def _tag(headers: Mapping[str, str]) -> str:
    """An ETag without its quotes; of a weak one with W/ before it."""
    tag = headers.get("ETag", "")
    return f"W/{tag[2:].strip(chr(34))}" if tag.startswith("W/") else tag.strip('"')


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, or a date."""
    text = headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time()) if text else None
    except (ValueError, TypeError):
        return None


# --- turns ---


def _wait_turn(host: str, manners: Manners) -> None:
    waits = [_turn(name, 1 / per) for name, per in ((host, manners.per_host), ("", manners.rate)) if per]
    if waits and max(waits) > 0:
        time.sleep(max(waits))


def _turn(name: str, spacing: float) -> float:
    """Take the next turn of a name; the seconds until it comes."""
    now = time.time()
    with _Slot(name) as slot:
        turn = max(now, min(slot.next, now + 3600))
        slot.next = turn + spacing
    return turn - now


def _hold(name: str, seconds: float) -> None:
    """No turn of this name before so many seconds."""
    with _Slot(name) as slot:
        slot.next = max(slot.next, time.time() + seconds)


class _Slot:
    """The time of a name's next turn, in a file that is locked while it is looked at. `next`: seconds since 1970."""

    def __init__(self, name: str) -> None:
        folder = Path(tempfile.gettempdir()) / f"cleanplate-turns-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        self.path = folder / hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:24]
        self.next = 0.0

    def __enter__(self) -> _Slot:
        self.file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self.file, fcntl.LOCK_EX)
        data = os.pread(self.file, 8, 0)
        self.next = struct.unpack("<d", data)[0] if len(data) == 8 else 0.0
        return self

    def __exit__(self, *error: object) -> None:
        os.pwrite(self.file, struct.pack("<d", self.next), 0)
        os.close(self.file)
