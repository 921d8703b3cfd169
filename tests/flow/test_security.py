"""Credentials stay where they belong, keys stay inside their folder, and small files stay small in memory."""

from __future__ import annotations

import io
import json
import logging
import os
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pil

import cleanplate.pipeline.storage.s3
from cleanplate.jobs.cli.app import main
from cleanplate.pipeline.engine import log
from cleanplate.pipeline.errors import ConfigError, StorageError, redacted
from cleanplate.pipeline.images import encode
from cleanplate.pipeline.images.formats.base import ImageError
from cleanplate.pipeline.images.formats.png_parts import png_chunk
from cleanplate.pipeline.stages.read import probe
from cleanplate.pipeline.storage.connect import LocalStore, open_store
from rigs.fakes3 import TLS, listening
from rigs.flow_rig import clean, faces, folder, put_photos, rows_of
from rigs.s3server import ACCESS_KEY, SECRET_KEY, Bucket, aws_environment

SECRET = "hunter2-in-the-url"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment with credentials and, until a test sets another, an endpoint that does not exist."""
    monkeypatch.setattr(cleanplate.pipeline.storage.s3, "PATIENCE_S", 0.0)
    for name, value in aws_environment("http://127.0.0.1:9").items():
        monkeypatch.setenv(name, value)
    return monkeypatch


# --- credentials ---


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"GET http://user:{SECRET}@host:9000/b/k failed", SECRET),
        (f"https://b.s3.amazonaws.com/k?X-Amz-Credential={SECRET}&X-Amz-Signature=beef01&x=1", "beef01"),
        (f"https://b.s3.amazonaws.com/k?X-Amz-Credential={SECRET}&x=1", SECRET),
        (f"https://host/k?sv=1&sig={SECRET}", SECRET),
    ],
)
def test_urls_are_told_without_their_secrets(text: str, secret: str) -> None:
    assert secret not in redacted(text)
    assert redacted("GET https://host/a@b/k?page=2 failed") == "GET https://host/a@b/k?page=2 failed"


def test_values_of_the_environment_are_never_told(aws: pytest.MonkeyPatch) -> None:
    error = StorageError("other", f"SignatureDoesNotMatch for {ACCESS_KEY} with {SECRET_KEY}")
    assert SECRET_KEY not in str(error)
    assert ACCESS_KEY not in str(error)


@pytest.mark.parametrize("place", [f"s3://me:{SECRET}@bucket/x", f"s3://bucket/x?X-Amz-Signature={SECRET}"])
def test_a_location_with_credentials_is_refused_and_not_repeated(
    place: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", place, str(tmp_path / "out"), "--here"]) == 2
    text = "".join(capfd.readouterr())
    assert "must not hold credentials" in text
    assert SECRET not in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["list", "get", "put", "put_new", "stat"])
def test_an_endpoint_with_a_password_is_not_told_when_it_fails(verb: str, aws: pytest.MonkeyPatch) -> None:
    aws.setenv("AWS_ENDPOINT_URL", f"http://someone:{SECRET}@127.0.0.1:9")
    store = open_store("s3://bucket/x")
    with pytest.raises(StorageError) as caught:
        _ask(store, verb)
    assert caught.value.kind == "unreachable"
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.__cause__)


def _ask(store: Any, verb: str) -> None:
    if verb == "list":
        next(iter(store.list()))
    else:
        getattr(store, verb)(*(("k", b"x") if verb.startswith("put") else ("k",)))


def test_nothing_that_a_run_writes_or_says_holds_a_credential(
    s3: Bucket, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEANPLATE_LOG", str(tmp_path / "log.jsonl"))
    _forget_log()
    put_photos(s3.url("in"), 3)
    s3.put("in/broken.jpg", b"no picture")
    code = main(["run", s3.url("in"), s3.url("out"), "--here", "--remove", "faces", "--inpainter", "telea"])
    _forget_log()
    assert code == 1
    printed = "".join(capfd.readouterr()).encode() + (tmp_path / "log.jsonl").read_bytes()
    written = {key: s3.get(key) for key in s3.list("out/")}
    assert {"out/run.json", "out/recipe.yaml"} <= written.keys()
    rows = json.dumps([{k: v for k, v in r.items() if k != "image"} for r in rows_of(s3.url("out"))])
    for secret in (SECRET_KEY, ACCESS_KEY):
        assert secret.encode() not in printed
        assert secret not in rows
        assert not [key for key, body in written.items() if secret.encode() in body]


def test_a_failed_row_is_a_line_of_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEANPLATE_LOG", str(tmp_path / "log.jsonl"))
    _forget_log()
    source = folder(tmp_path / "in")
    put_photos(source, 2)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no picture")
    log.start()
    clean(source, str(tmp_path / "out"), faces())
    _forget_log()
    (line,) = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows_of(str(tmp_path / "out")) if row["status"] == "failed"]
    assert line["event"] == "row failed"
    assert line["level"] == "warning"
    for name in ("run_id", "image_id", "attempt", "source_uri", "error"):
        assert line[name] == row[name]
    assert line["unit"]


def _forget_log() -> None:
    logger = logging.getLogger(log.NAME)
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)


# --- TLS and encryption ---


def test_another_authority_is_trusted_when_it_is_named(aws: pytest.MonkeyPatch) -> None:
    with listening(tls=True) as listener:
        aws.setenv("AWS_ENDPOINT_URL", listener.endpoint)
        for key in ("plain", "odd//key"):  # One goes through obstore, the other through boto3.
            with pytest.raises(StorageError):
                open_store("s3://bucket/x").put(key, b"x")
            assert not listener.seen
        aws.setenv("AWS_CA_BUNDLE", str(TLS / "authority.pem"))
        for key in ("plain", "odd//key"):
            open_store("s3://bucket/x").put(key, b"x")
        assert [path for _, path, _ in listener.seen] == ["/bucket/x/plain", "/bucket/x/odd//key"]


def test_verification_can_be_switched_off_by_name_only(aws: pytest.MonkeyPatch) -> None:
    with listening(tls=True) as listener:
        aws.setenv("AWS_ENDPOINT_URL", listener.endpoint)
        aws.setenv("CLEANPLATE_TLS_VERIFY", "0")
        for key in ("plain", "odd//key"):
            open_store("s3://bucket/x").put(key, b"x")
        assert len(listener.seen) == 2


def test_a_bundle_that_is_not_there_is_said_at_once(aws: pytest.MonkeyPatch, tmp_path: Path) -> None:
    aws.setenv("AWS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises((ConfigError, StorageError)):
        open_store("s3://bucket/x").put("k", b"x")


def test_puts_ask_for_the_encryption_that_the_environment_names(aws: pytest.MonkeyPatch) -> None:
    with listening() as listener:
        aws.setenv("AWS_ENDPOINT_URL", listener.endpoint)
        aws.setenv("AWS_SERVER_SIDE_ENCRYPTION", "aws:kms")
        aws.setenv("AWS_SSE_KMS_KEY_ID", "alias/pictures")
        store = open_store("s3://bucket/x")
        store.put("plain", b"x")
        store.put("odd//key", b"x")
        store.put_new("parts/u.parquet", b"x")
    assert len(listener.seen) == 3
    for _, path, headers in listener.seen:
        assert headers.get("x-amz-server-side-encryption") == "aws:kms", path
        assert headers.get("x-amz-server-side-encryption-aws-kms-key-id") == "alias/pictures", path


# --- keys ---


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/x", "a\0b", "..", "\ud800.jpg"])
def test_a_hostile_key_cannot_leave_a_local_folder(key: str, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "root")
    store.put("ok", b"1")
    for ask in (lambda: store.put(key, b"x"), lambda: store.put_new(key, b"x"), lambda: store.get(key)):
        with pytest.raises(StorageError) as caught:
            ask()
        assert caught.value.kind == "forbidden"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["ok", "root"]


def test_a_key_that_no_file_system_takes_is_no_reason_to_wait(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for key in ("x" * 5000, "a/" * 3000 + "b"):
        with pytest.raises(StorageError) as caught:
            store.put(key, b"x")
        assert caught.value.kind == "other"


def test_names_that_are_no_utf8_stay_where_they_are(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    key = os.fsdecode(b"\xff\xfe.jpg")
    store.put(key, b"1")
    assert store.get(key) == b"1"
    assert os.listdir(bytes(tmp_path)) == [b"\xff\xfe.jpg"]


# --- bombs ---


def tiff_of_one_tile(side: int) -> bytes:
    """64 x 64 pixels, stored as one tile of side x side."""
    packer = zlib.compressobj(9)
    tile = b"".join(packer.compress(bytes(side * 3)) for _ in range(side)) + packer.flush()
    # tag, value; the three bit depths and the data lie behind the directory.
    tags = [(256, 64), (257, 64), (258, None), (259, 8), (262, 2), (277, 3), (284, 1)]
    tags += [(322, side), (323, side), (324, None), (325, len(tile))]
    behind = 8 + 2 + 12 * len(tags) + 4
    body = b""
    for tag, value in tags:
        if tag == 258:
            body += struct.pack("<HHII", tag, 3, 3, behind)
        else:
            body += struct.pack("<HHII", tag, 4, 1, behind + 6 if value is None else value)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return head + body + struct.pack("<I", 0) + struct.pack("<3H", 8, 8, 8) + tile


def png_with(kind: bytes, body: bytes) -> bytes:
    buffer = io.BytesIO()
    Pil.new("RGB", (64, 64)).save(buffer, "PNG")
    data = buffer.getvalue()
    return data[:33] + png_chunk(kind, body) + data[33:]


def progressive(scans: int) -> bytes:
    buffer = io.BytesIO()
    Pil.new("RGB", (64, 64)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * scans + data[-2:]


def test_a_small_tile_is_read_and_a_gigantic_one_is_not() -> None:
    assert encode.decode(tiff_of_one_tile(512)).pixels.shape == (64, 64, 3)
    with pytest.raises(ImageError, match="tiles of 4000 x 4000") as caught:
        probe(tiff_of_one_tile(4000), 256_000_000)
    assert caught.value.kind == "too_large"


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    assert encode.decode(progressive(20)).width == 64
    with pytest.raises(ImageError, match="scans"):
        encode.decode(progressive(300))


@pytest.mark.parametrize(
    ("kind", "head"), [(b"iCCP", b"icc\0\0"), (b"zTXt", b"Comment\0\0"), (b"iTXt", b"C\0\1\0\0\0")]
)
def test_compressed_text_of_a_png_does_not_unfold(kind: bytes, head: bytes) -> None:
    data = png_with(kind, head + zlib.compress(bytes(100_000_000), 9))
    assert len(data) < 200_000
    tracemalloc.start()
    decoded = encode.decode(data)
    out = encode.encode(data, decoded, None, None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert decoded.icc is None
    assert kind not in out.data or kind == b"iCCP", "scrub drops texts"
    assert peak < 40_000_000, "of 100 MB at most the 16 of a large profile"


def test_a_store_that_is_away_is_no_wrong_use(aws: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Exit code 3 is what a cluster's retry looks at; 2 would end it."""
    assert main(["run", "s3://bucket/in", str(tmp_path / "out"), "--here", "--remove", "faces"]) == 3
