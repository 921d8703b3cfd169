"""Files that a recipe names and that decide its output: the reference marks of `logo`, the boxes of `given`.

Their hashes enter the run's digest and every row's `weights`, in place of their paths: the same files elsewhere are
the same run. When a run starts they are copied into `attached/` of its output, under their hash, and the recipe
that travels to the workers names the copies: a worker can read what it can write to.
"""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from cleanplate.pipeline.errors import ConfigError, StorageError
from cleanplate.pipeline.factory import given, label_files
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.storage import containers
from cleanplate.pipeline.storage.connect import LocalStore, Store, open_store, read_uri

FILES = (".parquet", ".json", ".jsonl", ".ndjson", ".csv")
"""Endings of files with given regions; everything else in a bucket is taken for a folder."""
_LOOKED_AT = 1000


def named(recipe: Recipe) -> list[tuple[str, str]]:
    """(key of the recipe, place) of every attached file or folder that the recipe's kinds need."""
    marks = [("logos.references", place) for place in recipe.logos.references if "logo" in recipe.remove]
    file = recipe.given.file
    return marks + ([("given.file", file)] if file and "given" in recipe.remove else [])


def content(place: str) -> bytes:
    """The bytes of a local path, file:// or s3:// uri. Raises StorageError."""
    if "://" in place:
        return read_uri(place)
    path = Path(place)
    return LocalStore(path.parent).get(path.name)


def is_folder(place: str) -> bool:
    if "://" in place and not place.startswith("file://"):
        return not place.lower().endswith(FILES)
    store = open_store(place)
    return isinstance(store, LocalStore) and store.root.is_dir()


def digests(recipe: Recipe) -> dict[str, str]:
    """name -> sha256 of every attached file, of a folder of its listing. Raises ConfigError when one cannot be
    read."""
    found: dict[str, str] = {}
    for key, place in named(recipe):
        try:
            digest = _listing_digest(open_store(place)) if is_folder(place) else _digest(content(place))
        except StorageError as error:
            raise ConfigError(f"{key}: {error}") from error
        found[f"{key}/{stem(place)}-{digest[:8]}"] = digest
    return found


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _listing_digest(store: Store) -> str:
    digest = hashlib.sha256()
    for item in sorted(store.list(), key=lambda item: item.key):
        digest.update(f"{item.key}\0{item.version}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def travelling(recipe: Recipe, source: Store, output: Store) -> Recipe:
    """The recipe with its attached files copied into the output, naming the copies, and with what the names in
    `given.file` are relative to. Raises ConfigError for a file of given regions that names no image of `source`."""

    def copied(data: bytes, name: str, digest: str) -> str:
        key = f"attached/{digest[:16]}-{name}"
        output.put_new(key, data)
        return output.uri(key)

    updates: dict[str, Any] = {}
    for key, place in named(recipe):
        if key == "logos.references":
            data = content(place)
            updates.setdefault("logos", []).append(copied(data, stem(place), _digest(data)))
        else:
            updates["given"] = {"root": recipe.given.root or source.url, "file": open_store(place).url}
            if not is_folder(place):
                data = content(place)
                table = label_files.table_of(data, recipe.given.form, recipe.given.shares)
                _check_names(
                    given.in_table(table),
                    source,
                    recipe,
                    updates["given"]["root"],
                    table["name"][:1].to_pylist(),
                )
                digest = _digest(data + recipe.given.form.encode() + bytes([recipe.given.shares]))
                updates["given"]["file"] = copied(label_files.packed(table), "given.parquet", digest)
    parts: dict[str, Any] = {}
    if "logos" in updates:
        parts["logos"] = recipe.logos.model_copy(update={"references": tuple(updates["logos"])})
    if "given" in updates:
        parts["given"] = recipe.given.model_copy(update=updates["given"])
    return recipe.model_copy(update=parts)


def unmatched(recipe: Recipe) -> given.Unmatched:
    """A count of the given names that no image of a source has, yet to see the images."""
    found = given.Unmatched()
    place = recipe.given.file if "given" in recipe.remove else None
    if place and is_folder(place):
        found.begin(recipe.given, None, open_store(place))
    elif place:
        found.begin(
            recipe.given, label_files.table_of(content(place), recipe.given.form, recipe.given.shares), None
        )
    return found


def _check_names(
    lookup: given.Lookup, source: Store, recipe: Recipe, root: str, example: list[bytes]
) -> None:
    """Names that fit no image are a wrong root far more often than a source without anything to remove."""
    below = open_store(root).uri("").rstrip("/") + "/"
    rule = recipe.source
    found = containers.images_of(source, source.list(), rule.format, rule.image_column, containers.Listing())
    uris = [uri for uri, _ in islice(found, _LOOKED_AT)]
    if uris and all(lookup(given.name_of(uri, below), uri) is None for uri in uris):
        ours = given.name_of(uris[0], below)
        theirs = example[0].decode("utf-8", "replace") if example else "(it is empty)"
        raise ConfigError(
            f"given.file names none of the first {len(uris):,} images of the source: it says {theirs!r}, "
            f"the source {ours!r}. Set given.root to the folder that its names are relative to"
        )


def stem(place: str) -> str:
    """The file's name without the hash that `travelling` puts before it: a copied recipe is the same run."""
    name = PurePosixPath(place).name
    head, dash, rest = name.partition("-")
    hashed = len(head) == 16 and all(c in "0123456789abcdef" for c in head)
    return rest if dash and hashed else name
