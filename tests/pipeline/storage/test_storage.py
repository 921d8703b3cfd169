from __future__ import annotations

import os
import pickle
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cleanplate.pipeline.errors import ConfigError, StorageError
from cleanplate.pipeline.storage.asking import SILENCE_S, SLOWEST, silence_for
from cleanplate.pipeline.storage.connect import LocalStore, Store, open_store, read_uri
from cleanplate.pipeline.storage.range_file import RangeFile
from cleanplate.pipeline.storage.s3 import S3Store
from rigs.fakes3 import listening
from rigs.s3server import aws_environment

ODD_NAMES = [
    "a b.jpg",
    "ü ñ.JPG",
    "a#b?.jpg",
    "a%2Fb.jpg",
    "-x.png",
    "new\nline.png",
    "sub/deep/x.jpeg",
    ".hidden",
    "a*[1].jpg",
]


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store(str(tmp_path / "root"))
    return open_store(request.getfixturevalue("s3").url("some/prefix"))


def test_put_list_get_round_trip(store: Store) -> None:
    for n, name in enumerate(ODD_NAMES):
        store.put(name, f"body {n}".encode())
    listed = {item.key: item for item in store.list()}
    assert set(listed) == set(ODD_NAMES)
    for n, name in enumerate(ODD_NAMES):
        body = f"body {n}".encode()
        assert store.get(name) == body
        assert listed[name].size == len(body) == store.stat(name).size
        assert read_uri(store.uri(name)) == body
        assert store.get_range(name, 2, 3) == body[2:5]


def test_put_new_has_one_winner_among_many_writers(store: Store) -> None:
    with ThreadPoolExecutor(16) as threads:
        won = list(threads.map(lambda n: store.put_new("parts/u.parquet", f"writer {n}".encode()), range(32)))
    assert won.count(True) == 1
    assert store.get("parts/u.parquet") == f"writer {won.index(True)}".encode()
    assert [item.key for item in store.list("parts")] == ["parts/u.parquet"], "no half-written file is left"


def test_a_prefix_is_a_folder_not_a_string(store: Store) -> None:
    store.put("photos/a.jpg", b"1")
    store.put("photos-old/b.jpg", b"2")
    assert [item.key for item in store.list("photos")] == ["photos/a.jpg"]


def test_missing_is_said_as_missing(store: Store) -> None:
    store.put("there", b"")
    with pytest.raises(StorageError) as caught:
        store.get("not/there.jpg")
    assert caught.value.kind == "missing"
    store.delete("there")
    store.delete("there")
    assert list(store.list()) == []


def test_version_changes_with_the_content(store: Store) -> None:
    store.put("a", b"one")
    before = next(iter(store.list())).version
    store.put("a", b"two!")
    assert next(iter(store.list())).version != before


@pytest.mark.parametrize("key", ["a.jpg", "a//b.jpg"])
def test_a_version_that_is_gone_is_not_read(store: Store, key: str) -> None:
    """Whole and in part, by obstore and (of a name that it cannot say) by boto3."""
    if isinstance(store, LocalStore):
        key = key.replace("//", "/")
        store.put(key, b"old bytes")
    else:
        put_by_boto(store, key, b"old bytes")
    (old,) = store.list()
    assert store.get(key, old.version) == b"old bytes"
    assert store.get_range(key, 4, 3, old.version) == b"byt"
    if isinstance(store, LocalStore):
        store.put(key, b"new bytes")
    else:
        put_by_boto(store, key, b"new bytes")
    for read in (
        lambda: store.get(key, old.version),
        lambda: store.get_range(key, 4, 3, old.version),
        lambda: RangeFile(store, key, None, old.version).read(3),
    ):
        with pytest.raises(StorageError, match="overwritten after it was listed") as caught:
            read()
        assert caught.value.kind == "replaced"
    assert store.get(key) == b"new bytes"


def put_by_boto(store: Store, key: str, data: bytes) -> None:
    assert isinstance(store, S3Store)
    store._boto.put_object(Bucket=store.bucket, Key=f"{store.prefix}/{key}", Body=data)


def test_a_file_written_while_it_is_read_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"old bytes")
    store = LocalStore(tmp_path)
    (old,) = store.list()

    def read() -> bytes:
        data = file.read(4)
        with (tmp_path / "a.jpg").open("r+b") as writer:  # In place, as a copy tool writes.
            writer.write(b"NEW BYTES, MORE")
        return data + file.read()

    with (tmp_path / "a.jpg").open("rb") as file, pytest.raises(StorageError, match="overwritten"):
        store._unchanged(file, "a.jpg", old.version, read)


def test_a_server_that_passes_over_the_condition_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as server:  # Answers everything, with the ETag "0".
        for name, value in aws_environment(server.endpoint).items():
            monkeypatch.setenv(name, value)
        for key in ("a.jpg", "a//b.jpg"):
            with pytest.raises(StorageError, match="version 1, now 0"):
                S3Store("bucket", "").get(key, "1")
            assert S3Store("bucket", "").get(key, "0") == b""


def test_a_store_travels_to_workers(store: Store) -> None:
    store.put("a", b"1")
    assert pickle.loads(pickle.dumps(store)).get("a") == b"1"  # noqa: S301 - our own bytes


def test_local_names_that_are_not_utf8_are_listed_and_read(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"bad\xff.jpg")).write_bytes(b"x")
    store = LocalStore(tmp_path)
    (item,) = store.list()
    uri = store.uri(item.key)
    assert "%FF" in uri
    assert uri.encode("ascii")
    assert read_uri(uri) == b"x"


def test_local_links_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").write_bytes(b"x")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    keys = [item.key for item in LocalStore(tmp_path).list()]
    assert keys == ["dangling.jpg", "real/a.jpg"]
    with pytest.raises(StorageError) as caught:
        LocalStore(tmp_path).get("dangling.jpg")
    assert caught.value.kind == "missing"


@pytest.mark.parametrize("key", ["../escape", "a/../../b", "/etc/passwd", "a\0b"])
def test_local_output_keys_cannot_leave_the_root(tmp_path: Path, key: str) -> None:
    with pytest.raises(StorageError) as caught:
        LocalStore(tmp_path / "out").put(key, b"x")
    assert caught.value.kind == "forbidden"
    assert not list(tmp_path.rglob("*escape*"))


def test_local_folder_that_may_not_be_read_is_no_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        list(LocalStore(tmp_path / "nowhere").list())
    assert caught.value.kind == "missing"


@pytest.mark.parametrize("url", ["", "s3://", "ftp://host/x", "ftp://bucket/x"])
def test_wrong_locations_are_refused_with_a_hint(url: str) -> None:
    with pytest.raises(ConfigError, match="s3://BUCKET/PREFIX"):
        open_store(url)


def test_s3_errors_are_mapped_without_credentials(s3, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret-value")
    store = open_store(s3.url("x"))
    for verb in (lambda: list(store.list()), lambda: store.get("a"), lambda: store.put_new("a", b"")):
        with pytest.raises(StorageError) as caught:
            verb()
        assert caught.value.kind == "forbidden"
        assert "not-the-secret-value" not in str(caught.value)


def test_s3_survives_broken_bodies_lost_answers_and_503(s3_faults) -> None:  # type: ignore[no-untyped-def]
    from rigs.faultproxy import Fault

    store = open_store(s3_faults.url("x"))
    names = [f"{n:03}" for n in range(40)]
    s3_faults.faults(
        Fault("e503", 0.1),
        Fault("e500", 0.05),
        Fault("reset", 0.05),
        Fault("trunc", 0.05),
        Fault("lost_ack", 0.1),
    )
    for name in names:
        store.put_new(name, name.encode() * 100)
    assert [item.key for item in store.list()] == names
    assert [store.get(name) for name in names] == [name.encode() * 100 for name in names]


def test_s3_lists_page_after_page(s3) -> None:  # type: ignore[no-untyped-def]
    store = open_store(s3.url("many"))
    names = [f"{n:05}.jpg" for n in range(1203)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda name: store.put(name, b"x"), names))
    assert [item.key for item in store.list()] == names


def test_a_put_may_take_as_long_as_its_bytes_need() -> None:
    """The server says nothing until it has them all: 64 MB at 5 MB/s is 13 s of silence."""
    assert silence_for(1000) == SILENCE_S
    assert all(silence_for(mb << 20) * SLOWEST >= mb << 20 for mb in (1, 5, 6, 64, 256, 1000))
    assert len({silence_for(mb << 20) for mb in range(1, 513)}) < 10, "few clients"


@pytest.mark.slow
def test_a_large_put_over_a_slow_line_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 MB into a server that takes them over more seconds than a silent connection is given."""
    size, seconds = 20_000_000, 15
    taken: list[int] = []

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as stream:
            length = 0
            while (line := stream.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            while sum(taken) < length:
                taken.append(len(stream.read1(size // (seconds * 10))))
                time.sleep(0.1)
            connection.sendall(b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 0\r\n\r\n')

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        for name, value in aws_environment(f"http://127.0.0.1:{server.getsockname()[1]}").items():
            monkeypatch.setenv(name, value)
        assert open_store("s3://bucket/x").put_new("parts/u.parquet", bytes(size))
    assert sum(taken) == size
