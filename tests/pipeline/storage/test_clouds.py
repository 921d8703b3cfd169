"""Google's and Azure's storage as places to read and write: what S3 does, they do, and say as clearly what is wrong."""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cleanplate.jobs.__main__ import main
from cleanplate.jobs.cli.doctor_checks import examine
from cleanplate.pipeline.errors import ConfigError, StorageError
from cleanplate.pipeline.ledger import ledger
from cleanplate.pipeline.ledger.proof import prove
from cleanplate.pipeline.recipe.recipe import load
from cleanplate.pipeline.storage import cloud, containers
from cleanplate.pipeline.storage.cloud import CloudStore
from cleanplate.pipeline.storage.connect import open_store, place_of, read_uri
from rigs import fakes3
from rigs.run_here import FLAGS, picture
from rigs.servers.clouds import ACCOUNT, Azurite, Google, azurite, azurite_program, google

_NAMES = (
    "AZURE_STORAGE_CONNECTION_STRING AZURE_STORAGE_ACCOUNT_NAME AZURE_STORAGE_ACCOUNT AZURE_STORAGE_ACCOUNT_KEY "
    "AZURE_STORAGE_ENDPOINT AZURE_ENDPOINT GOOGLE_BASE_URL GOOGLE_USER_PROJECT STORAGE_EMULATOR_HOST"
)


@pytest.fixture(autouse=True)
def _clear(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _NAMES.split():
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def _azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    program = azurite_program()
    if program is None:
        pytest.skip("no azurite-blob: npm install -g azurite")
    with azurite(program, tmp_path_factory.mktemp("azurite")) as found:
        yield found


@pytest.fixture
def azure(_azure: Azurite, monkeypatch: pytest.MonkeyPatch) -> Azurite:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", _azure.connection)
    return _azure


@pytest.fixture
def gs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    with google() as found:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", found.endpoint)
        yield found


@pytest.fixture(params=["gs", "az"])
def place(request: pytest.FixtureRequest) -> str:
    """The url of a fresh bucket or container."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    if request.param == "gs":
        request.getfixturevalue("gs").buckets[name] = {}
    else:
        request.getfixturevalue("azure").make(name)
    return f"{request.param}://{name}"


def test_what_is_put_is_listed_and_read(place: str) -> None:
    store = open_store(f"{place}/photos")
    store.reach()
    files = {f"a/{n} ü#?%+.jpg": bytes([n]) * (n + 1) for n in range(5)} | {"b.jpg": b"b"}
    for key, data in files.items():
        store.put(key, data)
    open_store(f"{place}/photos-old").put("c.jpg", b"c")
    found = {item.key: item for item in store.list()}
    assert {key: item.size for key, item in found.items()} == {key: len(data) for key, data in files.items()}
    for key, data in files.items():
        item = found[key]
        assert store.get(key) == read_uri(store.uri(key)) == store.get(key, item.version) == data
        assert store.stat(key) == item
        assert item.modified is not None
    assert store.get_range("a/4 ü#?%+.jpg", 1, 2) == b"\4\4"
    assert {item.key for item in store.list("a")} == {key for key in files if key.startswith("a/")}
    assert pickle.loads(pickle.dumps(store)).get("b.jpg") == b"b"  # noqa: S301
    store.delete("b.jpg")
    store.delete("b.jpg")
    assert "b.jpg" not in {item.key for item in store.list()}


def test_one_of_many_writers_wins(place: str) -> None:
    store = open_store(place)
    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(lambda n: store.put_new("part", bytes([n])), range(8)))
    assert sum(won) == 1
    assert store.get("part") == bytes([won.index(True)])
    assert not store.put_new("part", b"late")


def test_what_was_written_anew_is_never_taken_for_what_was_listed(place: str) -> None:
    store = open_store(place)
    store.put("a.jpg", b"one")
    (item,) = store.list()
    store.put("a.jpg", b"two")
    for read in (
        lambda: store.get("a.jpg", item.version),
        lambda: store.get_range("a.jpg", 0, 2, item.version),
    ):
        with pytest.raises(StorageError) as caught:
            read()
        assert caught.value.kind == "replaced"


def test_what_is_not_there_is_said_with_what_to_change(place: str) -> None:
    with pytest.raises(StorageError) as caught:
        open_store(place).get("nothing.jpg")
    assert (caught.value.kind, str(caught.value)) == (
        "missing",
        f"{place}/nothing.jpg: no such object or bucket",
    )
    other = open_store(f"{place}-not")
    with pytest.raises(StorageError, match=r"correct the (bucket|container)'s name"):
        other.reach()
    with pytest.raises(StorageError) as caught:
        list(other.list())
    assert caught.value.kind == "missing"


def test_a_run_from_a_cloud_into_a_cloud_and_its_resume(place: str, tmp_path: Path) -> None:
    source, output = open_store(f"{place}/in"), open_store(f"{place}/out")
    for n in range(5):
        source.put(f"{n}.png", picture(n))
    nobody = tmp_path / "none"
    nobody.mkdir()
    (nobody / "nobody.txt").write_text("")
    words = [
        "run",
        source.url,
        output.url,
        *FLAGS,
        "--set",
        f"given.file={nobody}",
        "--output-layout",
        "files",
    ]
    assert main(words) == 0
    before = {row["image_id"]: row for t in ledger.rows(output) for row in t.to_pylist()}
    parts = [item.key for item in output.list("parts")]
    output.delete(parts[0])
    assert main(words) == 0
    after = {row["image_id"]: row for t in ledger.rows(output) for row in t.to_pylist()}
    assert {k: (v["image"], v["source_uri"]) for k, v in after.items()} == {
        k: (v["image"], v["source_uri"]) for k, v in before.items()
    }
    assert prove(output, source=source).wrong == []
    recipe = load(None, {"remove": ["face"], "inpaint.name": "fill"})
    checks = [c for c in examine(recipe, None, source.url, output.url) if c.area in ("source", "output")]
    assert [check.state for check in checks] == ["ok"] * 6
    assert main(["verify", output.url, "--sweep"]) == 0


def test_folders_that_a_console_drew_are_no_objects(gs: Google) -> None:
    gs.buckets["b"] = {key: (1, data) for key, data in {"x/": b"", "x/a.jpg": b"1", "y.jpg": b""}.items()}
    assert [item.key for item in open_store("gs://b").list()] == ["x/a.jpg", "y.jpg"]


def test_a_key_that_cannot_be_expressed_is_an_error_and_not_passed_over(gs: Google) -> None:
    gs.buckets["b"] = dict.fromkeys(("a.jpg", "x//y.jpg"), (1, b"1"))
    with pytest.raises(StorageError, match="empty path segment"):
        list(open_store("gs://b").list())


def test_many_pages_and_a_listing_that_breaks_off(gs: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    gs.page = 3
    gs.buckets["b"] = {f"{n:02}": (1, b"1") for n in range(10)}
    assert len(list(open_store("gs://b").list())) == 10
    monkeypatch.setattr(cloud, "_PAGE", 3)
    gs.away = iter([False, False, *[True] * 7])  # longer than obstore itself asks again
    assert [item.key for item in open_store("gs://b").list()] == sorted(gs.buckets["b"])
    assert next(gs.away, None) is None
    assert sum("start-after=05" in path for _, path, _ in gs.seen) >= 2


def test_a_bucket_that_is_closed_or_wants_to_be_paid(gs: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    gs.buckets |= {"b": {}, "c": {}}
    gs.closed.add("c")
    gs.payer.add("b")
    with pytest.raises(StorageError, match=r"access denied; .*GOOGLE_APPLICATION_CREDENTIALS"):
        open_store("gs://c").reach()
    with pytest.raises(StorageError, match=r"UserProjectMissing|400.*GOOGLE_USER_PROJECT"):
        open_store("gs://b").reach()
    monkeypatch.setenv("GOOGLE_USER_PROJECT", "mine")
    store = open_store("gs://b")
    store.reach()
    store.put("a", b"1")
    assert store.get("a") == b"1"
    assert all(one[2]["x-goog-user-project"] == "mine" for one in gs.seen[-3:])


@pytest.mark.parametrize(
    ("mode", "message"), [("ignores", "ignores conditional puts"), ("refuses", "501 Not Implemented")]
)
def test_a_bucket_without_conditional_puts_is_refused_before_work(
    gs: Google, mode: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gs.buckets["b"], gs.mode = {}, mode
    (tmp_path / "a.png").write_bytes(picture(0))
    words = ["run", str(tmp_path), "gs://b/out", "--remove", "face", "--inpainter", "fill", "--here"]
    assert main(words) in (2, 3)
    assert message in " ".join(capsys.readouterr().err.split())
    assert gs.buckets["b"] == {}


def test_a_wrong_key_and_no_account(azure: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azure.connection.replace("Eby8", "AAAA"))
    with pytest.raises(StorageError, match="access denied; AZURE_STORAGE_CONNECTION_STRING") as caught:
        open_store("az://some/where").reach()
    assert "AAAA" not in str(caught.value)
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    with pytest.raises(ConfigError, match="no storage account: set AZURE_STORAGE_ACCOUNT_NAME"):
        open_store("az://some/where").reach()


def test_an_account_in_the_address(azure: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"test-{uuid.uuid4().hex[:12]}"
    azure.make(name)
    store = open_store(f"abfss://{name}@{ACCOUNT}.dfs.core.windows.net/x")
    store.put("a b.jpg", b"1")
    (item,) = store.list()
    uri = f"abfs://{name}@{ACCOUNT}.dfs.core.windows.net/x/a b.jpg"
    assert store.uri(item.key) == uri
    assert read_uri(uri, item.version) == open_store(f"az://{name}").get("x/a b.jpg") == b"1"
    with pytest.raises(ConfigError, match=f"is of the account {ACCOUNT}"):
        open_store(f"abfs://{name}@other.dfs.core.windows.net/x").reach()


@pytest.mark.parametrize("url", ["gs://", "az:///x", "gs://me@bucket/x", "abfs://box@x.example.org/y"])
def test_addresses_that_name_nothing(url: str) -> None:
    with pytest.raises(ConfigError, match="names no bucket or container; write"):
        open_store(url)


def test_what_an_address_means() -> None:
    found = place_of("az://box/a/b.jpg")
    assert (found[0].url, found[1]) == ("az://box", "a/b.jpg")
    assert isinstance(open_store("abfs://box/a"), CloudStore)
    assert open_store("gs://b/").url == "gs://b"
    assert containers.inner_of("tar+gs://b/a.tar#at=1&member=x.jpg&size=2").container == "gs://b/a.tar"  # type: ignore[union-attr]


def _both(store: object) -> Iterator[Callable[[], object]]:
    yield lambda: list(store.list())  # type: ignore[attr-defined]
    yield lambda: store.get("a")  # type: ignore[attr-defined]
    yield lambda: store.put("a//b", b"1")  # type: ignore[attr-defined]
    yield lambda: store.put_new("a", b"1")  # type: ignore[attr-defined]


def test_the_requester_pays_on_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through both clients, signed or not; without the variable nobody pays unasked."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    for asked in ("", "requester"):
        monkeypatch.setenv("AWS_REQUEST_PAYER", asked) if asked else monkeypatch.delenv(
            "AWS_REQUEST_PAYER", raising=False
        )
        with fakes3.listening(status=404) as listener:
            monkeypatch.setenv("AWS_ENDPOINT_URL", listener.endpoint)
            for call in _both(open_store("s3://b/p")):
                with pytest.raises(StorageError):
                    call()
            assert len(listener.seen) >= 4
            payers = {headers.get("x-amz-request-payer") for _, _, headers in listener.seen}
            assert payers == ({"requester"} if asked else {None})
