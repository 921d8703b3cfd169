"""Files that a recipe names and that decide its output: the reference marks of `logo`, the boxes of `given`.

Their hashes enter the run's digest and every row's `weights`, in place of their paths: the same files elsewhere are
the same run. When a run starts they are copied into `attached/` of its output, under their hash, and the recipe
that travels to the workers names the copies: a worker can read what it can write to.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

from pipeline.errors import ConfigError, StorageError
from pipeline.recipe import Recipe
from pipeline.storage import LocalStore, Store, read_uri


def named(recipe: Recipe) -> list[tuple[str, str]]:
    """(key of the recipe, place) of every attached file that the recipe's kinds need."""
    return [("logos.references", place) for place in recipe.logos.references if "logo" in recipe.remove]


def content(place: str) -> bytes:
    """The bytes of a local path, file:// or s3:// uri. Raises StorageError."""
    if "://" in place:
        return read_uri(place)
    path = Path(place).expanduser()
    return LocalStore(path.parent).get(path.name)


def digests(recipe: Recipe) -> dict[str, str]:
    """name -> sha256 of every attached file. Raises ConfigError when one cannot be read."""
    found: dict[str, str] = {}
    for key, place in named(recipe):
        try:
            digest = hashlib.sha256(content(place)).hexdigest()
        except StorageError as error:
            raise ConfigError(f"{key}: {error}") from error
        found[f"{key}/{_stem(place)}-{digest[:8]}"] = digest
    return found


def travelling(recipe: Recipe, output: Store) -> Recipe:
    """The recipe with its attached files copied into the output, naming the copies."""

    def copied(place: str) -> str:
        data = content(place)
        key = f"attached/{hashlib.sha256(data).hexdigest()[:16]}-{_stem(place)}"
        output.put_new(key, data)
        return output.uri(key)

    if not named(recipe):
        return recipe
    logos = recipe.logos.model_copy(update={"references": tuple(copied(p) for p in recipe.logos.references)})
    return recipe.model_copy(update={"logos": logos})


def _stem(place: str) -> str:
    """The file's name without the hash that `travelling` puts before it: a copied recipe is the same run."""
    name = PurePosixPath(place).name
    head, dash, rest = name.partition("-")
    hashed = len(head) == 16 and all(c in "0123456789abcdef" for c in head)
    return rest if dash and hashed else name
