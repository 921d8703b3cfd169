"""Data sets of the Hugging Face hub as a source: every row names the commit, unchanged files stay what they are."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cleanplate.jobs.__main__ import main
from cleanplate.pipeline.errors import ConfigError, StorageError
from cleanplate.pipeline.ledger import ledger, plan
from cleanplate.pipeline.ledger.proof import prove
from cleanplate.pipeline.recipe.recipe import load
from cleanplate.pipeline.storage.address import identity_of, key_of
from cleanplate.pipeline.storage.connect import LocalStore, open_store, place_of, read_uri
from rigs.run_here import FLAGS, picture
from rigs.servers.hub import Hub, hub

REPO = "org/set"


@pytest.fixture
def hf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.endpoint)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield found


def parquet(*seeds: int) -> bytes:
    out = io.BytesIO()
    pictures = [{"bytes": picture(seed), "path": f"{seed}.png"} for seed in seeds]
    pq.write_table(pa.table({"image": pictures, "caption": [f"ünï {seed}" for seed in seeds]}), out)
    return out.getvalue()


FILES = {"data/train-0.parquet": parquet(0, 1), "data/train-1.parquet": parquet(2, 3), "README.md": b"about"}


def test_a_run_over_a_data_set_and_its_next_commit(hf: Hub, tmp_path: Path) -> None:
    first = hf.push(REPO, FILES)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "nobody.txt").write_text("")
    source, output = f"hf://datasets/{REPO}/data", LocalStore(tmp_path / "out")
    words = ["run", source, output.url, *FLAGS, "--set", f"given.file={tmp_path / 'none'}"]
    assert main(words) == 0
    before = {row["image_id"]: row for t in ledger.rows(output) for row in t.to_pylist()}
    assert {row["source_uri"].partition("#")[0] for row in before.values()} == {
        f"parquet+hf://datasets/{REPO}@{first}/data/train-{n}.parquet" for n in (0, 1)
    }
    assert sorted(row["caption"] for row in before.values()) == [f"ünï {n}" for n in range(4)]
    assert prove(output, source=open_store(source)).wrong == []
    second = hf.push(REPO, FILES | {"data/train-1.parquet": parquet(4, 5, 6)})
    next((tmp_path / "out" / "parts").iterdir()).unlink()  # Rows of the first commit, made anew from it.
    assert main(words) == 0
    after = {row["image_id"]: row for t in ledger.rows(output) for row in t.to_pylist()}
    assert {k: v["source_uri"] for k, v in after.items() if k in before} == {
        k: v["source_uri"] for k, v in before.items()
    }
    new = [row["source_uri"] for k, row in after.items() if k not in before]
    assert len(new) == 3
    assert all(f"@{second}/data/train-1.parquet" in uri for uri in new)


@pytest.mark.parametrize("size", [10, 5000])
def test_files_and_their_ranges(hf: Hub, size: int) -> None:
    data = bytes(range(250)) * (size // 250 + 1)
    commit = hf.push(REPO, {"a/b ü#?.bin": data, "a/c": b"c", "d": b"d"}, "v1.0", "refs/convert/parquet")
    for revision in ("v1.0", commit, "refs/convert/parquet", "refs%2Fconvert%2Fparquet"):
        store = open_store(f"hf://datasets/{REPO}@{revision}")
        store.reach()
        assert {item.key for item in store.list()} == {"a/b ü#?.bin", "a/c", "d"}
        assert store.uri("d") == f"hf://datasets/{REPO}@{commit}/d"
    below = open_store(f"hf://datasets/{REPO}@{commit}/a")
    (item, _) = below.list()
    assert (item.key, item.size) == ("b ü#?.bin", len(data))
    assert below.stat("b ü#?.bin") == item
    assert read_uri(below.uri(item.key), item.version) == data
    assert below.get_range(item.key, 3, 4) == data[3:7]
    store, key = place_of(below.uri(item.key))
    assert pickle.loads(pickle.dumps(store)).get(key) == data  # noqa: S301
    asked = [path for method, path, _ in hf.seen if path.startswith("/api") and "/revision/" in path]
    assert len(asked) == 4, "the commit is asked for once a store, and never for a uri"


def test_a_pickled_store_stays_at_its_commit(hf: Hub) -> None:
    commit = hf.push(REPO, {"a": b"1"})
    store = open_store(f"hf://datasets/{REPO}")
    store.reach()
    sent = pickle.dumps(store)
    hf.push(REPO, {"a": b"2"})
    assert pickle.loads(sent).uri("a") == f"hf://datasets/{REPO}@{commit}/a"  # noqa: S301
    assert pickle.loads(sent).get("a") == b"1"  # noqa: S301


def test_many_pages(hf: Hub) -> None:
    hf.page = 3
    hf.push(REPO, {f"{n}.png": b"1" for n in range(10)})
    assert len(list(open_store(f"hf://datasets/{REPO}").list())) == 10


def test_a_commit_is_no_part_of_a_rows_identity(hf: Hub) -> None:
    recipe = load(None, {"remove": ["face"]})
    rows = []
    for more in (b"1", b"2"):
        hf.push(REPO, FILES | {"README.md": more})
        store = open_store(f"hf://datasets/{REPO}")
        rows.append(list(plan.listed(store, recipe)))
    assert [row.image_id for row in rows[0]] == [row.image_id for row in rows[1]]
    assert rows[0] != rows[1]
    assert identity_of(rows[0][0].uri).startswith(f"parquet+hf://datasets/{REPO}/data/train-0.parquet#")
    assert key_of(rows[0][0].uri, store.uri("")) == "data/train-0.parquet/000000"
    odd = f"s3://b/hf://datasets/a/b@{'0' * 40}/c"
    assert identity_of(odd) == odd


def test_what_cannot_be_read_is_said_with_what_to_do(hf: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hf.push(REPO, {"a": b"1"})
    hf.push("org/gated", {"a": b"1"})
    hf.gated.add("org/gated")
    for url, message in {
        "hf://datasets/org/nobody": "no such data set, or a private one; .*HF_TOKEN",
        f"hf://datasets/{REPO}@v9": "no such revision; correct the name and the revision",
        "hf://datasets/org/gated": "gated or disabled; ask for access",
    }.items():
        with pytest.raises(StorageError, match=message):
            open_store(url).reach()
    with pytest.raises(StorageError, match="no such file"):
        open_store(f"hf://datasets/{REPO}").get("b")
    with pytest.raises(StorageError, match="no such file"):
        open_store(f"hf://datasets/{REPO}").stat("b")
    monkeypatch.setenv("HF_TOKEN", hf.token)
    assert open_store("hf://datasets/org/gated").get("a") == b"1"


@pytest.mark.parametrize("url", ["hf://org/name", "hf://datasets/name", "hf://datasets/a/b@"])
def test_addresses_that_name_no_data_set(url: str) -> None:
    with pytest.raises(ConfigError, match="write hf://datasets/ORG/NAME"):
        open_store(url)


def test_the_hub_is_no_output(hf: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hf.push(REPO, {"a": b"1"})
    (tmp_path / "a.png").write_bytes(picture(0))
    words = [
        "run",
        str(tmp_path),
        f"hf://datasets/{REPO}/out",
        "--remove",
        "face",
        "--inpainter",
        "fill",
        "--here",
    ]
    assert main(words) == 2
    assert "the hub is a source only" in " ".join(capsys.readouterr().err.split())
