"""A small web server on loopback with the bad manners that the web has: every path answers in its own way."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from rigs.servers.serving import serving

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Site:
    """pages: path -> what is answered, or a function of (number of this request, its headers) that says so. seen:
    (seconds, method, path, headers in lower case)."""

    address: str
    pages: dict[str, Answer | Callable[[int, dict[str, str]], Answer]] = field(default_factory=dict)
    seen: list[tuple[float, str, str, dict[str, str]]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def asked(self, path: str) -> int:
        return sum(one[2] == path for one in self.seen)


@contextmanager
def site() -> Iterator[Site]:
    """Header `cut`: so many bytes of the body come, then the connection ends. `drip`: a byte each so many seconds."""
    found = Site("")
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            path = self.path.partition("?")[0]
            with lock:
                found.seen.append((time.monotonic(), self.command, path, headers))
                found.counts[path] += 1
                number = found.counts[path]
            page = found.pages.get(path, (404, {}, b"nothing here"))
            status, more, body = page(number, headers) if callable(page) else page
            cut, drip = more.get("cut"), more.get("drip")
            self.send_response(status)
            for name, value in more.items():
                if name not in ("cut", "drip"):
                    self.send_header(name, value)
            if "Content-Length" not in more:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            for part in (
                [body[n : n + 1] for n in range(len(body))] if drip else [body[: int(cut)] if cut else body]
            ):
                self.wfile.write(part)
                self.wfile.flush()
                time.sleep(float(drip or 0))
            if cut:
                self.close_connection = True

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that hangs up is what some tests are about."""

    with serving(Handler, Server) as found.address:
        yield found
