"""A data set of the Hugging Face hub as a `Store` that can only be read (extra `hf`).

    hf://datasets/ORG/NAME/PATH    hf://datasets/ORG/NAME@REVISION/PATH    (a branch, a tag, a commit; "/" in it as %2F)

The revision is looked up once, and every uri holds the commit: what a row was made of can be read again. A file's
version is its blob, so that a later commit makes new rows of changed files only. Endpoint and token are the hub's
own: HF_ENDPOINT, HF_TOKEN, `hf auth login`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote, unquote

from cleanplate.pipeline.errors import ConfigError, StorageError, redacted
from cleanplate.pipeline.storage import asking
from cleanplate.pipeline.storage.store import Object

T = TypeVar("T")
PATIENCE_S = 90.0
FIRST_PATIENCE_S = 8.0
_URL = re.compile(
    r"hf://datasets/([^/@]+/[^/@]+)(?:@(refs/(?:convert|pr)/[^/]+|[^/]+))?(?:/(.*))?", re.DOTALL
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_READ_S = 30.0
_HINTS = {
    "missing": "correct the name and the revision; a private or gated data set needs HF_TOKEN or `hf auth login`",
    "forbidden": "ask for access on its page, then HF_TOKEN or `hf auth login`",
    "unreachable": "HF_ENDPOINT names another hub",
}


class HubStore:
    """A folder of a data set at one commit. Pickles as its names, with the commit once it is known."""

    def __init__(self, repo: str, revision: str, prefix: str) -> None:
        self.repo, self.revision, self.prefix = repo, revision, prefix
        at = f"@{quote(revision, safe='')}" if revision else ""
        self.url = "/".join(part for part in (f"hf://datasets/{repo}{at}", prefix) if part)

    def __reduce__(self) -> tuple[type[HubStore], tuple[str, str, str]]:
        return type(self), (self.repo, self.__dict__.get("commit", self.revision), self.prefix)

    @cached_property
    def commit(self) -> str:
        """Raises StorageError."""
        if _COMMIT.fullmatch(self.revision):
            return self.revision
        return self._commit(PATIENCE_S)

    def _commit(self, patience: float) -> str:
        def ask() -> str:
            found = self._api.dataset_info(self.repo, revision=self.revision or None, timeout=_READ_S)
            return str(found.sha)

        return self._ask(ask, self.url, patience)

    def reach(self) -> None:
        try:
            found = self._commit(FIRST_PATIENCE_S)
        except StorageError as error:
            hint = _HINTS.get(error.kind, "")
            raise StorageError(error.kind, f"{error}{hint and '; '}{hint}") from None
        self.__dict__.setdefault("commit", found)

    def uri(self, key: str) -> str:
        return f"hf://datasets/{self.repo}@{self.commit}/{self._full(key)}"

    def list(self, prefix: str = "") -> Iterator[Object]:
        """Every file below the prefix."""
        from huggingface_hub.hf_api import RepoFile

        found = self._ask(lambda: [*self._tree(self._full(prefix))], f"listing {self.url}")
        for entry in found:
            if isinstance(entry, RepoFile):
                yield self._object(entry)

    def _tree(self, folder: str) -> Iterator[Any]:
        return iter(
            self._api.list_repo_tree(
                self.repo, folder or None, recursive=True, revision=self.commit, repo_type="dataset"
            )
        )

    def _object(self, entry: Any) -> Object:
        version = entry.lfs.sha256 if entry.lfs else entry.blob_id
        return Object(entry.path[len(self.prefix) + 1 :] if self.prefix else entry.path, entry.size, version)

    def get(self, key: str, version: str = "") -> bytes:
        """version: of no account, since a commit never changes."""
        return self._ask(lambda: self._read(key, {}), self.uri(key))

    def get_range(self, key: str, start: int, length: int, version: str = "") -> bytes:
        def ask() -> bytes:
            return self._read(key, {"range": f"bytes={start}-{start + length - 1}"}, start, length)

        return self._ask(ask, self.uri(key))

    def _read(self, key: str, headers: dict[str, str], start: int = 0, length: int | None = None) -> bytes:
        assert self._api is not None  # Says what to install where the package is missing.
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import (  # type: ignore[attr-defined]
            build_hf_headers,
            hf_raise_for_status,
            http_backoff,
        )

        place = hf_hub_url(
            self.repo, self._full(key), repo_type="dataset", revision=self.commit, endpoint=_endpoint()
        )
        answer = http_backoff(
            "GET",
            place,
            headers=build_hf_headers() | headers,
            max_retries=2,
            timeout=_READ_S,
            follow_redirects=True,
        )
        hf_raise_for_status(answer)
        data = bytes(answer.content)
        if headers and answer.status_code == 200:  # A server that passes over Range.
            return data[start:][:length]
        return data

    def stat(self, key: str) -> Object:
        found = self._ask(
            lambda: self._api.get_paths_info(
                self.repo, [self._full(key)], revision=self.commit, repo_type="dataset"
            ),
            self.uri(key),
        )
        if not found or not hasattr(found[0], "blob_id"):
            raise StorageError("missing", f"{self.uri(key)}: no such file")
        return self._object(found[0])

    def put(self, key: str, data: bytes) -> None:
        self._refuse()

    def put_new(self, key: str, data: bytes) -> bool:
        self._refuse()

    def delete(self, key: str) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ConfigError(
            f"{self.url}: the hub is a source only; write to a folder or a bucket, and upload that (`hf upload`)"
        )

    @cached_property
    def _api(self) -> Any:
        try:
            from huggingface_hub import HfApi
        except ImportError as error:
            raise ConfigError(f"{self.url}: needs huggingface_hub: pip install '.[hf]'") from error
        return HfApi(endpoint=_endpoint())

    def _full(self, key: str) -> str:
        return "/".join(part for part in (self.prefix, key) if part)

    def _ask(self, call: Callable[[], T], what: str, patience: float | None = None) -> T:
        return asking.patiently(
            call, lambda error: _hub_error(error, what), PATIENCE_S if patience is None else patience
        )


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _hub_error(error: Exception, what: str) -> StorageError:
    """By status; the message keeps that and what the hub says, no token."""
    from huggingface_hub.errors import (
        DisabledRepoError,
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, StorageError):
        return error
    if isinstance(error, GatedRepoError | DisabledRepoError):
        return StorageError("forbidden", f"{what}: the data set is gated or disabled")
    if isinstance(error, RepositoryNotFoundError):
        return StorageError("missing", f"{what}: no such data set, or a private one")
    if isinstance(error, RevisionNotFoundError):
        return StorageError("missing", f"{what}: no such revision")
    if isinstance(error, EntryNotFoundError | FileNotFoundError):
        return StorageError("missing", f"{what}: no such file or folder")
    if isinstance(error, OfflineModeIsEnabled):
        return StorageError("other", f"{what}: HF_HUB_OFFLINE is set")
    if isinstance(error, HFValidationError | TypeError | ValueError | AttributeError):
        return StorageError("other", f"{what}: {type(error).__name__}: {str(error)[:200]}")
    answer = getattr(error, "response", None)
    status = getattr(answer, "status_code", 0)
    if status in (401, 403):
        return StorageError("forbidden", f"{what}: access denied")
    kind = "other" if 400 <= status < 500 and status not in (408, 429) else "unreachable"
    text = str(error).strip().splitlines()
    said = redacted(text[0])[:200] if text else ""
    return StorageError(kind, f"{what}: {type(error).__name__}: {said}")


def parsed(url: str) -> HubStore | None:
    """The store of an hf:// url; None for another. Raises ConfigError."""
    if not url.startswith("hf://"):
        return None
    found = _URL.fullmatch(url)
    if found is None:
        raise ConfigError(f"{url!r}: write hf://datasets/ORG/NAME or hf://datasets/ORG/NAME@REVISION/PATH")
    repo, revision, path = found.groups()
    return HubStore(repo, unquote(revision or ""), (path or "").strip("/"))
