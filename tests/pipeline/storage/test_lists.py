"""Lists of addresses as a source: every entry a row, every refusal its true cause, and no host is pestered."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cleanplate.pipeline.errors import ConfigError, RowError, StorageError
from cleanplate.pipeline.ledger import ledger, plan
from cleanplate.pipeline.ledger.proof import prove
from cleanplate.pipeline.recipe.recipe import load
from cleanplate.pipeline.storage import address_list, containers, web
from cleanplate.pipeline.storage.address import inner_of
from cleanplate.pipeline.storage.connect import LocalStore
from rigs.run_here import clean, picture
from rigs.servers.web import Site, site

QUICK = web.Manners(per_host=None, silence=0.5, most=1.0)
PNG = {"Content-Type": "image/png"}


@pytest.fixture
def host() -> Iterator[Site]:
    with site() as found:
        yield found


def rows_of(output: LocalStore) -> dict[str, dict[str, Any]]:
    rows = [row for table in ledger.rows(output) for row in table.to_pylist()]
    return {inner_of(row["source_uri"]).url.rpartition("/")[2]: row for row in rows}  # type: ignore[union-attr]


def put(place: Path, form: str, rows: list[tuple[str | None, str | None]]) -> None:
    """A list of (url, caption) as `in`, which is then the source."""
    path = place / f"urls.{form}"
    if form == "parquet":
        urls, captions = zip(*rows, strict=True)
        table = pa.table({"url": pa.array(urls), "caption": pa.array(captions), "n": range(len(rows))})
        pq.write_table(table, path, row_group_size=2)
    elif form == "txt":
        path.write_text("# mine\n\n" + "".join(f"{url or ''}\n" for url, _ in rows), encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("url", "caption"), *rows])
    (place / "in").unlink(missing_ok=True)
    (place / f"in.{form}").unlink(missing_ok=True)


def run(place: Path, form: str, *more: str, code: int = 1) -> LocalStore:
    """clean() of the list, asked as fast as it goes."""
    (place / "in").unlink(missing_ok=True)
    return clean(place, "--from-list", "--per-host", "1000", *more, code=code, source=place / f"urls.{form}")


@pytest.mark.parametrize("form", ["parquet", "csv", "txt"])
def test_a_list_of_the_web_and_of_files(tmp_path: Path, host: Site, form: str) -> None:
    """Addresses, keys below the list, what cannot be; captions to the last byte, also after a killed run."""
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "d d.png").write_bytes(picture(4))
    (tmp_path / "e.png").write_bytes(picture(5))
    host.pages = {f"/{n}.png": (200, PNG, picture(n)) for n in range(3)}
    rows: list[tuple[str | None, str | None]] = [
        (f"{host.address}/0.png", "ünï 日本 😀"),
        (f"{host.address}/1.png?w=1", 'a "quoted", one\nwith lines'),
        (f"{host.address}/nobody.png", "gone"),
        ("below/d d.png", ""),
        (str(tmp_path / "e.png"), "e"),
        ("ftp://example.org/f.png", "f"),
        (f"{host.address}/2.png", "x"),
        (f"{host.address}/0.png", "again"),
    ]
    put(tmp_path, form, rows)
    output = run(tmp_path, form)
    found = rows_of(output)
    assert set(found) == {"0.png", "1.png?w=1", "nobody.png", "d%20d.png", "e.png", "f.png", "2.png"}
    failed = {name: row["error"]["kind"] for name, row in found.items() if row["error"]}
    assert failed == {"nobody.png": "http_404", "f.png": "address"}
    assert found["nobody.png"]["error"]["message"].endswith("/nobody.png: 404 Not Found")
    assert prove(output, source=LocalStore(tmp_path / f"urls.{form}")).wrong == []
    if form != "txt":
        captions = {str(url).rpartition("/")[2]: caption for url, caption in rows[:7]}
        assert {name.replace("%20", " "): row["caption"] for name, row in found.items()} == captions
    assert found["0.png"]["url"] == rows[0][0]
    asked = host.asked("/0.png")
    for part in sorted((tmp_path / "out" / "parts").iterdir())[::2]:
        part.unlink()
    again = rows_of(run(tmp_path, form))
    assert {k: (v["image_id"], v.get("caption"), v["image"]) for k, v in again.items()} == {
        k: (v["image_id"], v.get("caption"), v["image"]) for k, v in found.items()
    }
    assert host.asked("/0.png") <= asked + 2  # the run, and the proof


def test_names_of_a_tree_of_files(tmp_path: Path, host: Site) -> None:
    host.pages = {"/a/b.png": (200, PNG, picture(0))}
    put(tmp_path, "txt", [(f"{host.address}/a/b.png?x=1", None)])
    run(tmp_path, "txt", "--output-layout", "files", code=0)
    name = host.address.removeprefix("http://")
    assert (tmp_path / "out" / "images" / name / "a" / "b.png").read_bytes()


def test_a_list_that_grew_goes_on_and_one_that_was_turned_round_does_not_mix_captions(
    tmp_path: Path, host: Site
) -> None:
    host.pages = {f"/{n}.png": (200, PNG, picture(n)) for n in range(4)}
    rows = [(f"{host.address}/{n}.png", f"caption {n}") for n in range(4)]
    put(tmp_path, "csv", rows[:3])
    first = rows_of(run(tmp_path, "csv", code=0))
    put(tmp_path, "csv", rows)
    second = rows_of(run(tmp_path, "csv", code=0))
    assert {n: r["image_id"] for n, r in second.items() if n in first} == {
        n: r["image_id"] for n, r in first.items()
    }
    assert second["3.png"]["caption"] == "caption 3"
    for part in (tmp_path / "out" / "parts").iterdir():
        part.unlink()
    put(tmp_path, "csv", rows[::-1])
    found = rows_of(run(tmp_path, "csv"))
    assert {row["error"]["kind"] for row in found.values()} == {"columns"}
    assert {row["caption"] for row in found.values()} == {None}


def body(data: bytes, **headers: str) -> web.Any:
    return (200, PNG | headers, data)


def test_what_the_web_answers(host: Site) -> None:
    data = picture(0)
    host.pages = {
        "/good.png": body(data),
        "/moved.png": (302, {"Location": "/moved2.png"}, b""),
        "/moved2.png": (308, {"Location": f"{host.address}/good.png"}, b""),
        "/round.png": (301, {"Location": "/round.png"}, b""),
        "/out.png": (301, {"Location": "file:///etc/passwd"}, b""),
        "/page.png": (200, {"Content-Type": "text/html; charset=utf-8"}, b"\n<!doctype html>"),
        "/wrong-type.png": (200, {"Content-Type": "text/plain"}, data),
        "/forbidden.png": (403, {}, b""),
        "/told-huge.png": body(data, **{"Content-Length": "999999999"}),
        "/huge.png": (200, PNG | {"Transfer-Encoding": "chunked", "Content-Length": ""}, b""),
        "/short.png": body(data, **{"Content-Length": str(len(data) + 50), "cut": "10"}),
        "/slow.png": body(b"0123456789", drip="0.2"),
        "/silent.png": body(b"01", drip="1"),
        "/no.png": body(data, **{"X-Robots-Tag": "noai, nofollow"}),
        "/busy.png": (503, {}, b""),
    }
    causes = {
        "round.png": "redirects",
        "out.png": "redirects",
        "page.png": "no_image",
        "forbidden.png": "http_403",
        "told-huge.png": "too_large",
        "short.png": "truncated",
        "slow.png": "timeout",
        "silent.png": "timeout",
        "no.png": "opted_out",
        "busy.png": "http_503",
        "absent.png": "http_404",
    }
    quick = web.Manners(per_host=None, silence=0.5, most=1.0, tries=1)
    for name in ("good.png", "moved.png", "wrong-type.png"):
        assert web.get(f"{host.address}/{name}", 10**6, quick) == data
    for name, cause in causes.items():
        with pytest.raises(RowError) as caught:
            web.get(f"{host.address}/{name}", 10**6, quick)
        assert caught.value.kind == cause, name
        assert name in str(caught.value)
    assert web.get(f"{host.address}/no.png", 10**6, web.Manners(per_host=None, heed=False)) == data
    with pytest.raises(RowError, match=r"the limit (of|is) 100"):
        web.get(f"{host.address}/good.png", 100, quick)


@pytest.mark.parametrize(
    ("address", "cause"),
    [
        ("http://127.0.0.1:1/a.png", "connect"),
        ("http://nobody.invalid/a.png", "dns"),
        ("http://[::1", "address"),
        ("http:///a.png", "address"),
    ],
)
def test_hosts_that_are_not_there(address: str, cause: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RowError) as caught:
        web.get(address, 10**6, web.Manners(per_host=None, silence=2, tries=1))
    assert caught.value.kind == cause


def test_what_broke_off_is_asked_for_from_there_on_condition_of_its_etag(host: Site) -> None:
    data = picture(0)

    def broken(number: int, headers: dict[str, str]) -> Any:
        if number == 1:
            return 200, PNG | {"ETag": '"a"', "cut": "100"}, data
        assert (headers["range"], headers["if-range"]) == ("bytes=100-", '"a"')
        return (
            206,
            PNG | {"ETag": '"a"', "Content-Range": f"bytes 100-{len(data) - 1}/{len(data)}"},
            data[100:],
        )

    def replaced(number: int, headers: dict[str, str]) -> Any:
        return (
            (200, {"ETag": '"a"', "cut": "100"}, data) if number == 1 else (200, {"ETag": '"b"'}, picture(1))
        )

    def ended(number: int, headers: dict[str, str]) -> Any:
        return (
            (416, {}, b"")
            if headers.get("range")
            else (200, {"ETag": '"a"'} | ({"cut": "100"} if number == 1 else {}), data)
        )

    host.pages = {"/a.png": broken, "/b.png": replaced, "/c.png": ended}
    assert web.get(f"{host.address}/c.png", 10**6, QUICK) == data
    assert web.get(f"{host.address}/a.png", 10**6, QUICK) == data
    assert web.get(f"{host.address}/b.png", 10**6, QUICK) == picture(1)


def test_a_host_that_asks_to_wait_is_waited_for(host: Site) -> None:
    def busy(number: int, headers: dict[str, str]) -> Any:
        return (429, {"Retry-After": "1"}, b"") if number == 1 else body(b"ok")

    host.pages = {"/busy.png": busy, "/never.png": (429, {"Retry-After": "3600"}, b""), "/b.png": body(b"b")}
    started = time.monotonic()
    assert web.get(f"{host.address}/busy.png", 10**6, web.Manners(per_host=100)) == b"ok"
    assert time.monotonic() - started >= 1
    with pytest.raises(RowError, match="429"):
        web.get(f"{host.address}/never.png", 10**6, QUICK)
    assert host.asked("/never.png") == 1
    assert web._retry_after({"Retry-After": formatdate(time.time() + 60)}) == pytest.approx(60, abs=2)
    assert web._retry_after({"Retry-After": "soon"}) is None


def test_requests_to_one_host_are_spaced_whoever_asks(host: Site) -> None:
    """Sixteen threads of a worker; other processes share the file."""
    host.pages = {f"/{n}.png": body(b"x") for n in range(8)}
    uris = [
        address_list.Inner("list", "file:///l.txt", row=n, url=f"{host.address}/{n}.png").uri
        for n in range(8)
    ]
    assert containers.read_images(uris, manners=web.Manners(per_host=20)) == [b"x"] * 8
    times = sorted(one[0] for one in host.seen)
    assert times[-1] - times[0] >= 7 / 20 - 0.02
    host.seen.clear()
    assert containers.read_images(uris, manners=web.Manners(per_host=None, rate=20)) == [b"x"] * 8
    times = sorted(one[0] for one in host.seen)
    assert times[-1] - times[0] >= 7 / 20 - 0.02
    assert all(one[3]["user-agent"] == "cleanplate" for one in host.seen)


def test_with_etags_a_changed_picture_is_another_row_and_is_never_taken_for_the_planned_one(
    tmp_path: Path, host: Site
) -> None:
    host.pages = {"/a.png": (200, PNG | {"ETag": '"1"'}, picture(0)), "/b.png": (405, {}, b"")}
    put(tmp_path, "txt", [(f"{host.address}/a.png", None), (f"{host.address}/b.png", None)])
    recipe = load(None, {"source.format": "list", "source.web.etags": True, "source.web.per_host": None})
    rows = list(plan.listed(LocalStore(tmp_path / "urls.txt"), recipe))
    assert [(row.object.size, row.object.version) for row in rows] == [(len(picture(0)), "1"), (0, "")]
    host.pages["/a.png"] = (200, PNG | {"ETag": '"2"'}, picture(1))
    (found,) = containers.read_images([rows[0].uri], versions=["1"], manners=QUICK)
    assert isinstance(found, StorageError)
    assert found.kind == "replaced"
    again = list(plan.listed(LocalStore(tmp_path / "urls.txt"), recipe))
    assert again[0].image_id != rows[0].image_id
    assert again[1].image_id == rows[1].image_id


def test_where_no_host_answers_the_network_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    urls = [f"http://127.0.0.1:{port}/a.png" for port in (1, 2, 3)]
    uris = [address_list.Inner("list", "file:///l.txt", row=n, url=url).uri for n, url in enumerate(urls)]
    one = web.Manners(per_host=None, silence=1, tries=1)
    with pytest.raises(StorageError, match="none of 3 hosts"):
        containers.read_images(uris, give_up=True, manners=one)
    (found,) = containers.read_images(uris[:1], give_up=True, manners=one)
    assert isinstance(found, RowError)


def test_passwords_do_not_go_into_rows(tmp_path: Path) -> None:
    put(tmp_path, "txt", [("https://me:secret@example.org/a.png", None)])
    (row,) = [r for t in ledger.rows(run(tmp_path, "txt", "--columns", "none")) for r in t.to_pylist()]
    assert "secret" not in str(row)
    assert (row["error"]["kind"], row["error"]["message"][:24]) == ("empty", "the entry has no address")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"page,caption\nx,y\n", "no column 'url' of addresses; there are page, caption"),
        ("a.csv", b"url,caption\nx\n", "record 2 has 1 cells, its head has 2"),
        ("a.csv", b"", "it is empty"),
        ("a.txt", b"caf\xe9", "the list is no text in UTF-8"),
        ("a.parquet", b"nothing", "the Parquet file cannot be opened"),
    ],
)
def test_a_list_that_cannot_be_read_is_an_error_before_work(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        list(plan.listed(LocalStore(tmp_path / name), load(None, {"source.format": "list"})))


def test_a_folder_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no list of addresses .*leave out --from-list"):
        list(plan.listed(LocalStore(tmp_path), load(None, {"source.format": "list"})))


def test_doubles_are_counted_over_many_blocks() -> None:
    seen = address_list._Seen()
    for block in range(40):
        texts = [f"a{n}" for n in range(block * 7, block * 7 + 10)]
        assert seen.before(texts) == [block > 0 and n < 3 for n in range(10)]
    assert seen.before(["x", "y", "x"]) == [False, False, True]
