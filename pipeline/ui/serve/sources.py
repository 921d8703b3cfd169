"""What the page may choose a picture from: the rows of a run, or the objects of a source. Listed once, capped."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any, NamedTuple, Protocol

from cleanplate.pipeline import schema
from cleanplate.pipeline.errors import DamagedError, StorageError
from cleanplate.pipeline.ledger import ledger, plan
from cleanplate.pipeline.ledger.statistics import name_of
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.storage.connect import Store, open_store
from cleanplate.pipeline.storage.containers import read_image

MOST = 100_000
"""Pictures that can be chosen; a larger source shows its first ones."""

_RISKY_FIRST = ("residual", "skipped", "failed", "hidden", "cleaned", "unchanged")


class Item(NamedTuple):
    """A picture that can be chosen. status: of its row in the run; "" for a plain source."""

    name: str
    uri: str
    size: int
    status: str


class Source(Protocol):
    @property
    def url(self) -> str: ...
    def items(self) -> list[Item]: ...


class Objects:
    """Everything in a source that the recipe's globs choose."""

    def __init__(self, store: Store, recipe: Recipe) -> None:
        self.store, self.recipe, self.url = store, recipe, store.url

    def items(self) -> list[Item]:
        """Raises StorageError."""
        root = self.store.uri("").rstrip("/") + "/"
        listed = islice(plan.listed(self.store, self.recipe), MOST)
        return [Item(name_of(row.uri, root), row.uri, row.object.size, "") for row in listed]


class Rows:
    """The committed rows of a run, those that want a look first. Reads four columns of each part, no pictures."""

    def __init__(self, output: Store, record: dict[str, Any]) -> None:
        self.output, self.url = output, str(record.get("source") or "")

    def items(self) -> list[Item]:
        """Raises StorageError where the parts cannot be listed; a part that cannot be read is left out."""
        root = open_store(self.url).uri("").rstrip("/") + "/" if self.url else ""
        newest = ledger.retried(self.output)
        rows: list[Item] = []
        for name in ledger.part_keys(self.output):
            for row in self._light(name):
                if row["attempt"] >= newest.get(row["image_id"], 1):
                    uri = row["source_uri"]
                    rows.append(Item(name_of(uri, root), uri, row["source_bytes"] or 0, row["status"]))
        ranks = {status: n for n, status in enumerate(_RISKY_FIRST)}
        return sorted(rows, key=lambda item: (ranks.get(item.status, 9), item.name))[:MOST]

    def _light(self, name: str) -> list[dict[str, Any]]:
        try:
            with ledger.open_part(self.output, name) as file:
                columns = ["image_id", "attempt", "source_uri", "source_bytes", "status"]
                return list(file.read(columns).to_pylist())
        except (DamagedError, StorageError):
            return []


def search(items: list[Item], words: str, status: str, start: int, most: int) -> dict[str, Any]:
    """A page of the items whose name holds the words: numbers into `items`, how many there are, and how many of
    each status."""
    low = words.strip().lower()
    named = [(n, item) for n, item in enumerate(items) if low in item.name.lower()]
    found = [(n, item) for n, item in named if not status or item.status == status]
    counts = Counter(item.status for _, item in named if item.status in schema.STATUSES)
    shown = [{"n": n, "name": item.name, "status": item.status} for n, item in found[start : start + most]]
    return {"items": shown, "found": len(found), "of": len(items), "statuses": dict(counts)}


def read(item: Item) -> bytes:
    """The picture's bytes, also out of a tar or a Parquet file. Raises StorageError, RowError."""
    return read_image(item.uri)
