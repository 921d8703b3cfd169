"""The few endpoints of a Hugging Face hub that reading a data set asks, on loopback. Large files are redirected to
another path, as the hub's storage does; listings come in pages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

from rigs.servers.serving import serving

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Hub:
    """commits: (repo, revision) -> commit. files: (repo, commit) -> path -> bytes. large: from how many bytes a file is
    one of the large-file storage. token: what gated data sets ask for."""

    endpoint: str = ""
    commits: dict[tuple[str, str], str] = field(default_factory=dict)
    files: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    large: int = 1000
    page: int = 1000
    gated: set[str] = field(default_factory=set)
    token: str = "hf_" + "x" * 34
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def push(self, repo: str, files: dict[str, bytes], *revisions: str) -> str:
        """A commit of these files, and of nothing else; the branches or tags (default: main) then name it."""
        text = repr(sorted((path, data) for path, data in files.items()))
        commit = hashlib.sha1(text.encode()).hexdigest()
        for revision in revisions or ("main",):
            self.commits[repo, revision] = commit
        self.files[repo, commit] = files
        return commit


@contextmanager
def hub() -> Iterator[Hub]:
    found = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            found.seen.append((self.command, self.path, headers))
            status, more, data = _answer(found, self.path, headers, body)
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_HEAD = do_POST = answer

        def log_message(self, *_: object) -> None: ...

    with serving(Handler) as found.endpoint:
        yield found


def _answer(place: Hub, path: str, headers: dict[str, str], body: bytes) -> Answer:
    parts = urlsplit(path)
    words = [unquote(word) for word in parts.path.strip("/").split("/")]
    if words[0] == "storage":
        return _ranged(place.files[f"{words[1]}/{words[2]}", words[3]]["/".join(words[4:])], headers)
    if words[:2] == ["api", "datasets"]:
        repo, what, rest = (
            f"{words[2]}/{words[3]}",
            words[4] if len(words) > 4 else "revision",
            words[5:] or ["main"],
        )
    else:
        repo, what, rest = f"{words[1]}/{words[2]}", words[3], words[4:]
    if repo not in {name for name, _ in place.commits}:
        return _refusal(401, "RepoNotFound")
    if repo in place.gated and headers.get("authorization") != f"Bearer {place.token}":
        return _refusal(403, "GatedRepo")
    commit = place.commits.get((repo, rest[0]), rest[0])
    files = place.files.get((repo, commit))
    if files is None:
        return _refusal(404, "RevisionNotFound")
    key = "/".join(rest[1:])
    if what == "revision":
        return _json({"id": repo, "sha": commit, "siblings": [], "tags": []})
    if what == "tree":
        return _tree(place, files, key, path, parse_qs(parts.query))
    if what == "paths-info":
        wanted = parse_qs(body.decode())["paths"] if b"=" in body else json.loads(body)["paths"]
        return _json([_entry(place, name, files[name]) for name in wanted if name in files])
    if key not in files:
        return _refusal(404, "EntryNotFound")
    if len(files[key]) >= place.large:
        return (
            302,
            {"Location": f"{place.endpoint}/storage/{repo}/{commit}/{parts.path.split(rest[0], 1)[1][1:]}"},
            b"",
        )
    return _ranged(files[key], headers)


def _tree(place: Hub, files: dict[str, bytes], folder: str, path: str, query: dict[str, list[str]]) -> Answer:
    names = sorted(name for name in files if not folder or name.startswith(f"{folder}/"))
    if not names and folder:
        return _refusal(404, "EntryNotFound")
    start = int(query.get("cursor", ["0"])[0])
    more = {}
    if len(names) > start + place.page:
        bare = path.partition("?")[0]
        more = {"Link": f'<{place.endpoint}{bare}?recursive=true&cursor={start + place.page}>; rel="next"'}
    folders = [{"type": "directory", "path": "data", "size": 0, "oid": "0" * 40}] if not start else []
    entries = [_entry(place, name, files[name]) for name in names[start : start + place.page]]
    status, headers, data = _json([*folders, *entries])
    return status, headers | more, data


def _entry(place: Hub, name: str, data: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": name, "size": len(data)}
    entry["oid"] = hashlib.sha1(data).hexdigest()
    if len(data) >= place.large:
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return entry


def _ranged(data: bytes, headers: dict[str, str]) -> Answer:
    if not (span := headers.get("range", "").removeprefix("bytes=")):
        return 200, {}, data
    start, end = (int(number) for number in span.split("-"))
    some = data[start : end + 1]
    return 206, {"Content-Range": f"bytes {start}-{start + len(some) - 1}/{len(data)}"}, some


def _json(value: object) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _refusal(status: int, code: str) -> Answer:
    return status, {"X-Error-Code": code, "X-Error-Message": code}, b"{}"
