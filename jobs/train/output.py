"""Where a training leaves its files: a folder, or an object store behind a folder of this machine."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from cleanplate.pipeline.storage.connect import LocalStore, Store, open_store

FETCHED = ("last.pt", "best.pt", "train.csv", "validation.csv")
"""What a training that goes on needs of what it left."""


class TrainingFolder:
    """`local` is what the loop writes to. For s3://... it is a cache: filled from the store when a training
    starts, and every file that the loop reports is put back at once, whole or not at all."""

    def __init__(self, url: str) -> None:
        store = open_store(url)
        self.url = url
        self.remote: Store | None = None if isinstance(store, LocalStore) else store
        if isinstance(store, LocalStore):
            self.local = store.root
        else:
            name = f"cleanplate-train-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
            self.local = Path(tempfile.mkdtemp(prefix=f"{name}-"))

    def fetch(self) -> None:
        """Bring what an earlier call left. Raises StorageError."""
        if self.remote is None:
            return
        present = {entry.key for entry in self.remote.list()}
        for name in FETCHED:
            if name in present:
                (self.local / name).write_bytes(self.remote.get(name))

    def put(self, path: Path) -> None:
        """Bring a file of `local` to the store. Raises StorageError when the store stays away."""
        if self.remote is not None:
            self.remote.put(path.relative_to(self.local).as_posix(), path.read_bytes())
