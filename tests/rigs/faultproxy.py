"""A proxy before the S3 server that breaks things on purpose.

It passes the Host header on as it came, so a signature made for the proxy's address still verifies. Each
request draws one fault at most:

    e503, e500   answered by the proxy, the request is not forwarded
    reset        connection reset, nothing forwarded
    trunc        forwarded; half of the answer (body, or head if it has none) comes back, then close
    lost_ack     forwarded and carried out; the answer is dropped, the connection reset
    hang         not forwarded; the connection stays open in silence until the client gives up
    latency      forwarded after `seconds`
    refuse       new connections are reset at once (for `seconds` from the first that it meets; 0 = until changed)

Rules are set from Python (`FaultProxy.set`) or live from any process: `PUT /__faults` with a JSON list of
rules; `GET /__faults` answers how often each fault was really done. Bodies pass through memory whole.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import threading
import time
from asyncio import StreamReader, StreamWriter
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

KINDS = ("e503", "e500", "reset", "trunc", "lost_ack", "hang", "latency", "refuse")
CODES = {"e503": "503 Slow Down", "e500": "500 Internal Error"}
ERROR_BODY = (
    b'<?xml version="1.0"?><Error><Code>%s</Code><Message>a fault of the test proxy</Message></Error>'
)


@dataclass(frozen=True)
class Fault:
    """Do `kind` to requests of `method` whose key starts with `prefix`.

    method: "GET", "PUT", ..., "LIST" (the prefix is then the listed one), "" = any.
    probability: [0, 1], drawn for each matching request. times: at most so often, None = always.
    seconds: see `latency` and `refuse` above.
    """

    kind: str
    probability: float = 1.0
    method: str = ""
    prefix: str = ""
    times: int | None = None
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown fault {self.kind!r}; one of {', '.join(KINDS)}")

    def fits(self, method: str, key: str) -> bool:
        return self.method in ("", method) and key.startswith(self.prefix)


@dataclass
class Head:
    """The head of one HTTP message. raw: its bytes with the closing blank line; names in lower case."""

    raw: bytes
    first: list[str]
    headers: dict[str, str]

    def says(self, name: str, value: str) -> bool:
        return value in self.headers.get(name, "").lower()


async def read_head(reader: StreamReader) -> Head:
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return Head(raw, first.split(" ", 2), {k.lower(): v.strip() for k, _, v in pairs})


async def read_body(reader: StreamReader, head: Head, to_end: bool = False) -> bytes:
    """The body's bytes as they are on the wire, chunk frames kept. to_end: no length means until close."""
    if head.says("transfer-encoding", "chunked"):
        frames = []
        while True:
            size = await reader.readline()
            frames += [size, await reader.readexactly(int(size.split(b";")[0], 16) + 2)]
            if frames[-1] == b"\r\n":
                return b"".join(frames)
    if to_end and "content-length" not in head.headers:
        return await reader.read()
    return await reader.readexactly(int(head.headers.get("content-length", "0")))


def reset(writer: StreamWriter) -> None:
    """Ends the connection with an RST: zero linger, then abort."""
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def target_of(head: Head) -> tuple[str, str]:
    """(method, key) as rules name them, from a path-style request."""
    url = urlsplit(head.first[1])
    query = parse_qs(url.query)
    if head.first[0] == "GET" and "list-type" in query:
        return "LIST", query.get("prefix", [""])[0]
    return head.first[0], unquote(url.path).lstrip("/").partition("/")[2]


class FaultProxy:
    """Runs on a thread and an event loop of its own between `start()` and `stop()`."""

    def __init__(self, target_port: int, seed: int = 0) -> None:
        self.target_port = target_port
        self.port = 0
        self.done: Counter[str] = Counter()
        self.random = random.Random(seed)
        self.rules: list[Fault] = []
        self.used: Counter[int] = Counter()
        self.since = 0.0
        self.lock = threading.Lock()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="faultproxy", daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def set(self, *faults: Fault, seed: int | None = None) -> None:
        """Replaces all rules and the counts; no argument = no faults. A seed starts the dice anew."""
        with self.lock:
            self.rules = list(faults)
            self.used, self.done = Counter(), Counter()
            if seed is not None:
                self.random = random.Random(seed)

    def draw(self, method: str, key: str, connecting: bool = False) -> Fault | None:
        """The first rule that fits and whose dice fall; it counts as done."""
        with self.lock:
            for i, f in enumerate(self.rules):
                refuse = f.kind == "refuse"  # meets new connections, and the next request of an open one
                spent = f.times is not None and self.used[i] >= f.times
                over = refuse and f.seconds and self.used[i] and time.monotonic() > self.since + f.seconds
                fits = refuse or (not connecting and f.fits(method, key))
                if fits and not spent and not over and self.random.random() < f.probability:
                    if refuse and not self.used[i]:
                        self.since = time.monotonic()
                    self.used[i] += 1
                    self.done[f.kind] += 1
                    return f
        return None

    def start(self) -> None:
        self.thread.start()
        starting = asyncio.start_server(self.accept, "127.0.0.1", 0, limit=1 << 20)
        self.server = asyncio.run_coroutine_threadsafe(starting, self.loop).result(10)
        self.port = self.server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        async def end() -> None:
            self.server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    async def accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        """One client connection: requests until one side has had enough."""
        gone = (asyncio.IncompleteReadError, ConnectionError, OSError)
        with suppress(asyncio.CancelledError, *gone):
            going = not self.draw("", "", connecting=True)
            while going:
                going = await self.one_request(reader, writer)
        if not writer.is_closing():
            reset(writer)

    async def one_request(self, reader: StreamReader, writer: StreamWriter) -> bool:
        """Reads, draws, forwards, answers. False: the connection is at its end."""
        head = await read_head(reader)
        if head.says("expect", "100-continue"):  # answered here; S3 signatures do not cover this header
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            lines = head.raw.split(b"\r\n")
            head.raw = b"\r\n".join(line for line in lines if not line.lower().startswith(b"expect:"))
        body = await read_body(reader, head)
        if head.first[1] == "/__faults":
            return await self.control(head, body, writer)
        fault = self.draw(*target_of(head))
        kind = fault.kind if fault else ""
        if kind in CODES:
            return await respond(writer, CODES[kind], ERROR_BODY % CODES[kind][4:].replace(" ", "").encode())
        if kind == "hang":
            await reader.read()  # until the client closes
        if kind in ("hang", "reset", "refuse"):
            reset(writer)
            return False
        if fault and kind == "latency":
            await asyncio.sleep(fault.seconds)
        return await self.forward(head, body, writer, kind)

    async def forward(self, head: Head, body: bytes, writer: StreamWriter, kind: str) -> bool:
        """A connection of its own for each request: one kept open would die of the server's idle limit."""
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target_port, limit=1 << 20)
        try:
            up_writer.write(head.raw + body)
            await up_writer.drain()
            answer = await read_head(up_reader)
            bare = head.first[0] == "HEAD" or answer.first[1] in ("204", "304")
            content = b"" if bare else await read_body(up_reader, answer, to_end=True)
        finally:
            up_writer.close()
        if kind == "lost_ack":
            reset(writer)
            return False
        whole = answer.raw + content
        if kind == "trunc":
            whole = whole[: len(answer.raw) + len(content) // 2] if content else whole[: len(whole) // 2]
        writer.write(whole)
        await writer.drain()
        last = kind == "trunc" or head.says("connection", "close") or answer.says("connection", "close")
        if last:
            writer.close()
        return not last

    async def control(self, head: Head, body: bytes, writer: StreamWriter) -> bool:
        if head.first[0] == "PUT":
            try:
                self.set(*(Fault(**rule) for rule in json.loads(body)))
            except (TypeError, ValueError) as e:
                return await respond(writer, "400 Bad Request", str(e).encode())
        return await respond(writer, "200 OK", json.dumps(self.done).encode())


async def respond(writer: StreamWriter, status: str, body: bytes) -> bool:
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    return True
