"""Google Cloud Storage and Azure Blob Storage as a `Store`: through obstore, with each cloud's own credentials.

    gs://BUCKET/PREFIX                                          az://CONTAINER/PREFIX, account by the environment
    abfs(s)://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX     the same with its account

obstore reads the usual variables and files by itself; what it does not know is added here: emulators, Azure's
connection string, and who pays. A listing that holds a key which obstore cannot express ("a//b") stops there, with an
error: nothing is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Literal, TypeVar

from cleanplate.pipeline.errors import ConfigError, StorageError
from cleanplate.pipeline.storage import asking
from cleanplate.pipeline.storage.store import Object, replaced

T = TypeVar("T")
Cloud = Literal["gs", "az"]
PATIENCE_S = 90.0
"""How long a store that does not answer is asked again before the caller hears of it."""
FIRST_PATIENCE_S = 8.0
"""... when it is asked for the first time, before any work."""
_PAGE = 1000
_FINAL = frozenset({400, 405, 416})
_HOST = ".dfs.core.windows.net"
_WHO: dict[Cloud, tuple[str, ...]] = {
    "gs": (
        "STORAGE_EMULATOR_HOST",
        "GOOGLE_SKIP_SIGNATURE",
        "GOOGLE_BEARER_TOKEN",
        "GOOGLE_SERVICE_ACCOUNT",
        "GOOGLE_SERVICE_ACCOUNT_PATH",
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
    ),
    "az": (
        "AZURE_STORAGE_CONNECTION_STRING",
        "AZURE_SKIP_SIGNATURE",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_SAS_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_STORAGE_TOKEN",
        "AZURE_CLIENT_SECRET",
        "AZURE_STORAGE_CLIENT_SECRET",
        "AZURE_FEDERATED_TOKEN_FILE",
        "AZURE_USE_AZURE_CLI",
    ),
}
_HINTS: dict[Cloud, dict[str, str]] = {
    "gs": {
        "missing": "correct the bucket's name, or make the bucket first",
        "forbidden": "`gcloud auth application-default login`, or GOOGLE_APPLICATION_CREDENTIALS; for a public bucket "
        "GOOGLE_SKIP_SIGNATURE=true; GOOGLE_USER_PROJECT where the requester pays",
        "unreachable": "are there credentials (GOOGLE_APPLICATION_CREDENTIALS, gcloud, or the machine's own)?",
        "other": "GOOGLE_USER_PROJECT names the project that pays for a requester-pays bucket",
    },
    "az": {
        "missing": "correct the container's name, or make the container first",
        "forbidden": "AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_ACCOUNT_KEY, _SAS_TOKEN, a client secret, or "
        "AZURE_USE_AZURE_CLI=true after `az login`",
        "unreachable": "is the account's name right, and are there credentials (AZURE_STORAGE_..., or the machine's)?",
    },
}


class CloudStore:
    """A prefix of a bucket or container. Pickles as its names; clients are made where they are used."""

    def __init__(self, cloud: Cloud, bucket: str, prefix: str, account: str = "") -> None:
        self.cloud, self.bucket, self.prefix, self.account = cloud, bucket, prefix, account
        self._root = f"abfs://{bucket}@{account}{_HOST}" if account else f"{cloud}://{bucket}"
        self.url = f"{self._root}/{prefix}" if prefix else self._root

    def __reduce__(self) -> tuple[type[CloudStore], tuple[Cloud, str, str, str]]:
        return type(self), (self.cloud, self.bucket, self.prefix, self.account)

    def reach(self) -> None:
        """Ask for one name, with little patience. Raises StorageError that says what to change."""
        import obstore

        try:
            self._ask(
                lambda: next(iter(obstore.list(self._client(), self.prefix or None, chunk_size=1)), None),
                self.url,
                FIRST_PATIENCE_S,
            )
        except StorageError as error:
            hint = _HINTS[self.cloud].get(error.kind, "")
            raise StorageError(error.kind, f"{error}{hint and '; '}{hint}") from None

    def uri(self, key: str) -> str:
        return f"{self._root}/{self._full(key)}"

    def who(self) -> dict[str, str]:
        """By what the credentials come, and who is asked. Never the credentials themselves."""
        found = next((name for name in _WHO[self.cloud] if os.environ.get(name)), None)
        settings = self._settings()
        place = settings.get("base_url") or settings.get("endpoint") or "the cloud's own"
        own = "the cloud's usual chain: its command's login, else the machine's identity"
        return {"endpoint": str(place), "credentials": f"found by {found}" if found else own}

    def list(self, prefix: str = "") -> Iterator[Object]:
        """Every object below the prefix, page by page. An empty object that others lie below is a folder that a console
        drew, and left out."""
        held: dict[str, Any] | None = None
        for page in self._pages(self._full(prefix) or None):
            for entry in page:
                drawn = (
                    held is not None and held["size"] == 0 and entry["path"].startswith(held["path"] + "/")
                )
                if held is not None and not drawn:
                    yield self._object(held)
                held = entry
        if held is not None:
            yield self._object(held)

    def _pages(self, prefix: str | None) -> Iterator[Any]:
        """The pages of a listing. A stream of obstore's that broke ends at its next page as if all had come: after an
        error a new one begins behind the last name."""
        import obstore

        stream: Any = None
        last: str | None = None

        def page() -> Any:
            nonlocal stream
            if stream is None:
                stream = iter(obstore.list(self._client(), prefix, offset=last, chunk_size=_PAGE))
            try:
                return next(stream, None)
            except Exception:
                stream = None
                raise

        while (found := self._ask(page, f"listing {self.url}")) is not None:
            yield found
            last = found[-1]["path"] if found else last

    def _object(self, entry: Any) -> Object:
        tag = (entry["e_tag"] or "").strip('"')
        return Object(self._relative(entry["path"]), entry["size"], tag, entry["last_modified"].timestamp())

    def get(self, key: str, version: str = "") -> bytes:
        return self._ask(lambda: self._read(key, None, version), self.uri(key))

    def get_range(self, key: str, start: int, length: int, version: str = "") -> bytes:
        return self._ask(lambda: self._read(key, (start, start + length), version), self.uri(key))

    def _read(self, key: str, span: tuple[int, int] | None, version: str) -> bytes:
        import obstore
        from obstore.exceptions import PreconditionError

        options: Any = {"if_match": f'"{version}"'} if asking.strong(version) else {}
        try:
            found = obstore.get(
                self._client(), self._full(key), options=options | ({"range": span} if span else {})
            )
            now = (found.meta["e_tag"] or "").strip('"')
            data = bytes(found.bytes())
        except PreconditionError:
            raise replaced(self.uri(key), version, "") from None
        if version and now and now != version:  # A server that passes over If-Match.
            raise replaced(self.uri(key), version, now)
        return data

    def stat(self, key: str) -> Object:
        import obstore

        return self._object(self._ask(lambda: obstore.head(self._client(), self._full(key)), self.uri(key)))

    def put(self, key: str, data: bytes) -> None:
        self._put(key, data, "overwrite")

    def put_new(self, key: str, data: bytes) -> bool:
        """One conditional put (Azure: If-None-Match, Google: generation 0). False when the key exists."""
        from obstore.exceptions import AlreadyExistsError

        def attempt() -> bool:
            try:
                self._put_once(key, data, "create")
            except AlreadyExistsError:
                return False
            return True

        return self._ask(attempt, self.uri(key), PATIENCE_S + asking.silence_for(len(data)))

    def _put(self, key: str, data: bytes, mode: Literal["create", "overwrite"]) -> None:
        self._ask(
            lambda: self._put_once(key, data, mode), self.uri(key), PATIENCE_S + asking.silence_for(len(data))
        )

    def _put_once(self, key: str, data: bytes, mode: Literal["create", "overwrite"]) -> None:
        import obstore

        client = self._client(asking.silence_for(len(data)))
        obstore.put(client, self._full(key), data, mode=mode, use_multipart=False)

    def delete(self, key: str) -> None:
        import obstore

        try:
            self._ask(lambda: obstore.delete(self._client(), self._full(key)), self.uri(key))
        except StorageError as error:
            if error.kind != "missing":  # As on S3, what is gone is deleted.
                raise

    def _full(self, key: str) -> str:
        return "/".join(part for part in (self.prefix, key) if part)

    def _relative(self, full: str) -> str:
        return full[len(self.prefix) + 1 :] if self.prefix else full

    def _ask(self, call: Callable[[], T], what: str, patience: float | None = None) -> T:
        return asking.patiently(
            call,
            lambda error: asking.obstore_error(error, what, _FINAL),
            PATIENCE_S if patience is None else patience,
        )

    @cached_property
    def _clients(self) -> dict[int, Any]:
        return {}

    def _client(self, silence: int = asking.SILENCE_S) -> Any:
        if silence not in self._clients:
            self._clients[silence] = self._made(silence)
        return self._clients[silence]

    def _made(self, silence: int) -> Any:
        from obstore.store import AzureStore, GCSStore

        settings = self._settings()
        place = str(settings.get("base_url") or settings.get("endpoint") or "")
        options = asking.client_options(silence, plain_http=place.startswith("http:"))
        if self.cloud == "gs" and (project := os.environ.get("GOOGLE_USER_PROJECT")):
            options["default_headers"] = {"x-goog-user-project": project}
        make: Any = GCSStore if self.cloud == "gs" else AzureStore
        return make(self.bucket, **settings, client_options=options, retry_config=asking.retries())

    def _settings(self) -> dict[str, Any]:
        return _google() if self.cloud == "gs" else _azure(self.account, self.url)


def _google() -> dict[str, Any]:
    """What the environment says that obstore does not read, or that we must know of."""
    if host := os.environ.get("STORAGE_EMULATOR_HOST"):
        # An emulator asks for no credentials, and obstore would look for some.
        return {"base_url": host if "://" in host else f"http://{host}", "bearer_token": "emulator"}
    place = os.environ.get("GOOGLE_BASE_URL")
    return {"base_url": place} if place else {}


_OF_CONNECTION = {
    "AccountName": "account_name",
    "AccountKey": "account_key",
    "SharedAccessSignature": "sas_key",
    "BlobEndpoint": "endpoint",
}


def _azure(account: str, url: str) -> dict[str, Any]:
    """Raises ConfigError where no account is named, or two are."""
    text = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    pairs = dict(part.partition("=")[::2] for part in text.split(";") if part)
    found: dict[str, Any] = {
        ours: pairs[theirs] for theirs, ours in _OF_CONNECTION.items() if theirs in pairs
    }
    named = found.get("account_name") or next(
        (os.environ[n] for n in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT") if os.environ.get(n)),
        "",
    )
    if account and found and found.get("account_name") != account:
        raise ConfigError(
            f"{url}: AZURE_STORAGE_CONNECTION_STRING is of the account {found.get('account_name')}; unset it, or use "
            "that account"
        )
    if not (account or named):
        raise ConfigError(
            f"{url}: no storage account: set AZURE_STORAGE_ACCOUNT_NAME or AZURE_STORAGE_CONNECTION_STRING, or write "
            "abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX"
        )
    place = os.environ.get("AZURE_STORAGE_ENDPOINT") or os.environ.get("AZURE_ENDPOINT")
    return ({"endpoint": place} if place else {}) | found | {"account_name": account or named}


def parsed(url: str) -> CloudStore | None:
    """The store of a gs://, az:// or abfs(s):// url; None for another. Raises ConfigError."""
    scheme, _, rest = url.partition("://")
    if scheme not in ("gs", "az", "abfs", "abfss"):
        return None
    bucket, _, prefix = rest.partition("/")
    bucket, _, host = bucket.partition("@")
    account = host.removesuffix(_HOST)
    if not bucket or (host and (account == host or not account or scheme in ("gs", "az"))):
        form = {"gs": "gs://BUCKET/PREFIX", "az": "az://CONTAINER/PREFIX"}
        wanted = form.get(scheme, f"{scheme}://CONTAINER@ACCOUNT{_HOST}/PREFIX")
        raise ConfigError(f"{url!r} names no bucket or container; write {wanted}")
    return CloudStore("gs" if scheme == "gs" else "az", bucket, prefix.strip("/"), account)
