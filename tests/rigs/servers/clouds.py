"""Azure and Google storage on loopback: Azurite, Microsoft's own emulator, and a small server of Google's XML API.

obstore speaks the XML API. The emulators of Google's storage that registries have (fake-gcs-server 1.x,
gcp-storage-emulator) answer the JSON API, and refuse its puts and escaped names. So this server shows that what we send
follows Google's documents (generation 0, If-Match, user project); it cannot show that Google agrees, nor signatures.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from rigs.s3server import LEASH, free_ports
from rigs.servers.serving import serving

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of every emulator of Azure's storage; Microsoft publishes it."""


def azurite_program() -> str | None:
    beside = Path("/opt/azurite/node_modules/.bin/azurite-blob")
    return shutil.which("azurite-blob") or (str(beside) if beside.exists() else None)


@dataclass(frozen=True)
class Azurite:
    endpoint: str

    @property
    def connection(self) -> str:
        return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={self.endpoint};"

    def ask(self, method: str, path: str, query: dict[str, str], data: bytes = b"", **more: str) -> int:
        """A signed request of our own: for what obstore does not do, such as making a container."""
        date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        headers = {"x-ms-date": date, "x-ms-version": "2021-12-02"} | {
            f"x-ms-{name.replace('_', '-')}": value for name, value in more.items()
        }
        of_headers = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        of_path = f"/{ACCOUNT}/{ACCOUNT}{path}" + "".join(f"\n{k}:{v}" for k, v in sorted(query.items()))
        length = str(len(data)) if data else ""
        kind = "application/octet-stream" if data else ""
        text = (
            "\n".join([method, "", "", length, "", kind, "", "", "", "", "", ""])
            + "\n"
            + of_headers
            + of_path
        )
        signed = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(signed).decode()}"
        if data:
            headers["Content-Type"] = kind
        address = f"{self.endpoint}{path}?" + "&".join(f"{k}={v}" for k, v in query.items())
        request = urllib.request.Request(address, data=data or None, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)

    def make(self, container: str) -> None:
        self.ask("PUT", f"/{container}", {"restype": "container"})


@contextmanager
def azurite(program: str, folder: Path) -> Iterator[Azurite]:
    (port,) = free_ports(1)
    command = [
        program,
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        str(port),
        "--location",
        str(folder),
        "--silent",
    ]
    with (folder / "azurite.log").open("wb") as log:
        process = subprocess.Popen(
            ["sh", "-c", LEASH, "leash", *command, "--skipApiVersionCheck"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
    try:
        _wait_for(port, process)
        yield Azurite(f"http://127.0.0.1:{port}/{ACCOUNT}")
    finally:
        process.stdin.close()  # type: ignore[union-attr]
        process.wait(20)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("Azurite does not start; its log is azurite.log")


@dataclass
class Google:
    """buckets: name -> object -> (generation, bytes). mode: what becomes of conditional puts: "" (as Google does),
    "ignores" or "refuses" them. payer: buckets whose requests must name a project. seen: (method, path, headers)."""

    endpoint: str = ""
    buckets: dict[str, dict[str, tuple[int, bytes]]] = field(default_factory=dict)
    mode: str = ""
    payer: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    page: int = 1000
    away: Iterator[bool] = field(default_factory=lambda: iter(()))
    """Whether the next listings, one after the other, find nobody at home."""


@contextmanager
def google() -> Iterator[Google]:
    found, lock = Google(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            found.seen.append((self.command, self.path, headers))
            parts = urlsplit(self.path)
            bucket, _, key = parts.path.lstrip("/").partition("/")
            with lock:
                status, more, data = _google(
                    found, self.command, unquote(bucket), unquote(key), parts.query, headers, body
                )
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("Content-Length", more.get("x-length", str(len(data))))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_HEAD = do_PUT = do_DELETE = answer

        def log_message(self, *_: object) -> None: ...

    with serving(Handler) as found.endpoint:
        yield found


Answer = tuple[int, dict[str, str], bytes]


def _google(
    place: Google, method: str, bucket: str, key: str, query: str, headers: dict[str, str], body: bytes
) -> Answer:
    if bucket in place.closed:
        return _refusal(403, "AccessDenied")
    if bucket in place.payer and "x-goog-user-project" not in headers:
        return _refusal(400, "UserProjectMissing")
    if bucket not in place.buckets:
        return _refusal(404, "NoSuchBucket")
    objects = place.buckets[bucket]
    if not key and next(place.away, False):
        return _refusal(503, "SlowDown")
    if not key:
        return _listing(objects, parse_qs(query), place.page)
    if method == "PUT":
        return _put(place, objects, key, headers, body)
    if key not in objects:
        return _refusal(404, "NoSuchKey")
    if method == "DELETE":
        del objects[key]
        return 204, {}, b""
    generation, data = objects[key]
    if "if-match" in headers and headers["if-match"] != _tag(data):
        return _refusal(412, "PreconditionFailed")
    common = {"ETag": _tag(data), "Last-Modified": _when(), "x-goog-generation": str(generation)}
    if method == "HEAD":
        return 200, common | {"x-length": str(len(data))}, b""
    if span := headers.get("range", "").removeprefix("bytes="):
        start, end = (int(number) for number in span.split("-"))
        some = data[start : end + 1]
        return 206, common | {"Content-Range": f"bytes {start}-{start + len(some) - 1}/{len(data)}"}, some
    return 200, common, data


def _put(
    place: Google, objects: dict[str, tuple[int, bytes]], key: str, headers: dict[str, str], body: bytes
) -> Answer:
    wanted = headers.get("x-goog-if-generation-match")
    if wanted is not None and place.mode == "refuses":
        return _refusal(501, "NotImplemented")
    now = objects.get(key, (0, b""))[0]
    if wanted is not None and place.mode != "ignores" and int(wanted) != now:
        return _refusal(412, "PreconditionFailed")
    objects[key] = (time.time_ns(), body)
    return 200, {"ETag": _tag(body), "x-goog-generation": str(objects[key][0])}, b""


def _listing(objects: dict[str, tuple[int, bytes]], query: dict[str, list[str]], page: int) -> Answer:
    prefix = query.get("prefix", [""])[0]
    after = max(query.get(name, [""])[0] for name in ("continuation-token", "start-after"))
    most = min(page, int(query.get("max-keys", ["1000"])[0]))
    keys = sorted(k for k in objects if k.startswith(prefix) and k > after)
    entries = "".join(
        f"<Contents><Key>{escape(k)}</Key><Generation>{objects[k][0]}</Generation><Size>{len(objects[k][1])}</Size>"
        f"<LastModified>2026-12-01T10:00:00.000Z</LastModified><ETag>{escape(_tag(objects[k][1]))}</ETag></Contents>"
        for k in keys[:most]
    )
    more = len(keys) > most
    token = f"<NextContinuationToken>{escape(keys[most - 1])}</NextContinuationToken>" if more else ""
    text = (
        f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{entries}</ListBucketResult>"
    )
    return 200, {"Content-Type": "application/xml"}, text.encode()


def _refusal(status: int, code: str) -> Answer:
    return status, {"Content-Type": "application/xml"}, f"<Error><Code>{code}</Code></Error>".encode()


def _tag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def _when() -> str:
    return "Tue, 01 Dec 2026 10:00:00 GMT"
