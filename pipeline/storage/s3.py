"""S3 as a `Store`: through obstore (fast, retries bodies that break off), with credentials and endpoint found by
boto3's usual chain. Listing, and keys that obstore cannot express ("a//b", "./x"), go through boto3 itself, because a
listed object that cannot be read would be a row lost.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Literal, TypeVar

from cleanplate.pipeline.errors import StorageError
from cleanplate.pipeline.storage import asking
from cleanplate.pipeline.storage.store import Object, replaced

T = TypeVar("T")

PATIENCE_S = 90.0
"""How long a store that does not answer is asked again before the caller gets the error."""
FIRST_PATIENCE_S = 8.0
"""... when it is asked for the first time, before any work."""
_HINTS = {
    "missing": "correct the bucket's name, or make the bucket first",
    "forbidden": "`cleanplate doctor` with this place tells which credentials are used; a requester-pays bucket wants "
    "AWS_REQUEST_PAYER=requester",
    "unreachable": "AWS_ENDPOINT_URL (or AWS_ENDPOINT_URL_S3) names the server, AWS_REGION the region",
}


class S3Store:
    """A prefix of a bucket. Pickles as its url; the clients are made where they are used."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket, self.prefix = bucket, prefix
        self.url = f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"

    def __reduce__(self) -> tuple[type[S3Store], tuple[str, str]]:
        return type(self), (self.bucket, self.prefix)

    def reach(self) -> None:
        """Ask for one name, with little patience: before any work, a wrong endpoint, bucket or credential is
        likelier than a storm. Raises StorageError that says what to change."""
        try:
            self._patiently(
                lambda: self._boto.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1),
                self.url,
                FIRST_PATIENCE_S,
            )
        except StorageError as error:
            hint = _HINTS.get(error.kind, "")
            raise StorageError(error.kind, f"{error}{hint and '; '}{hint}") from None

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{self._full(key)}"

    def who(self) -> dict[str, str]:
        """What the usual AWS chain found: endpoint, region, and by which of its links the credentials came.
        Never the credentials themselves."""
        import boto3

        found = boto3.session.Session().get_credentials()
        return {
            "endpoint": str(self._boto.meta.endpoint_url),
            "region": str(self._boto.meta.region_name or "none set"),
            "credentials": "none: requests go unsigned" if found is None else f"found by {found.method}",
        }

    def list(self, prefix: str = "") -> Iterator[Object]:
        """Every object below the prefix, page by page; "directory" marker objects (size 0, name ending in
        "/") are how some consoles draw folders and are no images, so they are left out."""
        full = self._full(prefix)
        # "photos" must not list "photos-old/": a prefix is a folder, unless it is an object's own name.
        wanted = f"{full}/" if full and not full.endswith("/") else full
        token: dict[str, str] = {}
        while True:
            page = self._list_page(wanted, token)
            for entry in page.get("Contents", ()):
                key: str = entry["Key"]
                if not (key.endswith("/") and entry["Size"] == 0):
                    modified = entry["LastModified"].timestamp()
                    yield Object(self._relative(key), entry["Size"], entry["ETag"].strip('"'), modified)
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _list_page(self, prefix: str, token: dict[str, str]) -> dict[str, Any]:
        return self._patiently(
            lambda: self._boto.list_objects_v2(Bucket=self.bucket, Prefix=prefix, **token),
            f"listing {self.url}",
        )

    def get(self, key: str, version: str = "") -> bytes:
        return self._patiently(lambda: self._read(key, None, version), self.uri(key))

    def get_range(self, key: str, start: int, length: int, version: str = "") -> bytes:
        return self._patiently(lambda: self._read(key, (start, start + length), version), self.uri(key))

    def _read(self, key: str, span: tuple[int, int] | None, version: str) -> bytes:
        """The bytes of an object, or from span[0] to span[1], on condition of its version (its ETag)."""
        full = self._full(key)
        data, now = (
            self._fast_read(full, span, version) if _plain(full) else self._boto_read(full, span, version)
        )
        if version and now is not None and now != version:  # A server that passes over If-Match.
            raise replaced(self.uri(key), version, now)
        return data

    def _fast_read(self, full: str, span: tuple[int, int] | None, version: str) -> tuple[bytes, str | None]:
        import obstore
        from obstore.exceptions import PreconditionError

        options: Any = {"if_match": f'"{version}"'} if asking.strong(version) else {}
        try:
            found = obstore.get(self._fast, full, options=options | ({"range": span} if span else {}))
            tag = found.meta["e_tag"]
            return bytes(found.bytes()), tag and tag.strip('"')
        except PreconditionError:
            raise replaced(f"s3://{self.bucket}/{full}", version, "") from None

    def _boto_read(self, full: str, span: tuple[int, int] | None, version: str) -> tuple[bytes, str | None]:
        from botocore.exceptions import ClientError

        condition = {"IfMatch": f'"{version}"'} if asking.strong(version) else {}
        ranged = {"Range": f"bytes={span[0]}-{span[1] - 1}"} if span else {}
        try:
            found = self._boto.get_object(Bucket=self.bucket, Key=full, **condition, **ranged)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 412:
                raise
            raise replaced(f"s3://{self.bucket}/{full}", version, "") from None
        return bytes(found["Body"].read()), str(found["ETag"]).strip('"')

    def stat(self, key: str) -> Object:
        head = self._patiently(
            lambda: self._boto.head_object(Bucket=self.bucket, Key=self._full(key)), self.uri(key)
        )
        tag, modified = head["ETag"].strip('"'), head["LastModified"].timestamp()
        return Object(key, int(head["ContentLength"]), tag, modified)

    def put(self, key: str, data: bytes) -> None:
        import obstore

        full, silence = self._full(key), asking.silence_for(len(data))
        if _plain(full):
            self._patiently(
                lambda: obstore.put(self._client(silence), full, data), self.uri(key), PATIENCE_S + silence
            )
        else:
            self._patiently(
                lambda: self._boto.put_object(Bucket=self.bucket, Key=full, Body=data, **_encryption()),
                self.uri(key),
            )

    def put_new(self, key: str, data: bytes) -> bool:
        """One conditional put (If-None-Match: *). False when the key exists: an earlier attempt won, or the
        acknowledgement of our own put was lost, which callers with content-keyed names need not tell apart."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        silence = asking.silence_for(len(data))

        def attempt() -> bool:
            try:
                client = self._client(silence)  # Here, because making one asks for credentials.
                obstore.put(client, self._full(key), data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

        return self._patiently(attempt, self.uri(key), PATIENCE_S + silence)

    def delete(self, key: str) -> None:
        import obstore

        self._patiently(lambda: obstore.delete(self._fast, self._full(key)), self.uri(key))

    def _full(self, key: str) -> str:
        return "/".join(part for part in (self.prefix, key) if part)

    def _relative(self, full: str) -> str:
        return full[len(self.prefix) + 1 :] if self.prefix else full

    def _patiently(self, call: Callable[[], T], what: str, patience: float | None = None) -> T:
        return asking.patiently(
            call, lambda error: _s3_error(error, what), PATIENCE_S if patience is None else patience
        )

    @cached_property
    def _boto(self) -> Any:
        import boto3
        from botocore.config import Config

        config = Config(
            retries={"mode": "standard", "max_attempts": 3},
            connect_timeout=5,
            read_timeout=asking.SILENCE_S,
            s3={"addressing_style": _addressing()},
        )
        # verify=None: AWS_CA_BUNDLE and the profile decide, as everywhere.
        client = boto3.session.Session().client(
            "s3", config=config, verify=None if asking.verified() else False
        )
        if _payer():
            client.meta.events.register("before-sign.s3", _pay)
        return client

    @cached_property
    def _fast(self) -> Any:
        return self._client(asking.SILENCE_S)

    @cached_property
    def _clients(self) -> dict[int, Any]:
        return {}

    def _client(self, silence: int) -> Any:
        if silence not in self._clients:
            self._clients[silence] = self._connected(silence)
        return self._clients[silence]

    def _connected(self, silence: int) -> Any:
        """The obstore client with what boto3's chain found: endpoint, region, and refreshing credentials. silence:
        seconds without a byte from the server after which a connection is dead."""
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
        from obstore.store import S3Store as ObstoreS3

        endpoint: str = self._boto.meta.endpoint_url
        region = self._boto.meta.region_name or "us-east-1"
        session = boto3.session.Session(region_name=region)
        placed: dict[str, Any] = {} if ".amazonaws.com" in endpoint else {"endpoint": endpoint}
        if session.get_credentials() is None:
            placed["skip_signature"] = True
        else:
            placed["credential_provider"] = Boto3CredentialProvider(session)
        client = asking.client_options(silence, plain_http=endpoint.startswith("http:"))
        if payer := _payer():
            placed["request_payer"] = payer
        make: Any = ObstoreS3
        return make(
            self.bucket,
            region=region,
            **placed,
            client_options=client,
            retry_config=asking.retries(),
        )


def _addressing() -> Literal["path", "auto"]:
    # Servers at an address of their own (tests, on-premises) seldom have a wildcard DNS name for buckets.
    return "path" if os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") else "auto"


def _payer() -> bool:
    """Do we pay for what we ask of a requester-pays bucket?"""
    return os.environ.get("AWS_REQUEST_PAYER", "").lower() in ("requester", "true", "1")


def _pay(request: Any, **_: Any) -> None:
    request.headers["x-amz-request-payer"] = "requester"


def _encryption() -> dict[str, str]:
    """boto3's words for what obstore reads from the environment by itself: server-side encryption of puts."""
    asked = {
        "ServerSideEncryption": os.environ.get("AWS_SERVER_SIDE_ENCRYPTION", ""),
        "SSEKMSKeyId": os.environ.get("AWS_SSE_KMS_KEY_ID", ""),
    }
    return {name: value for name, value in asked.items() if value}


def _plain(key: str) -> bool:
    """True when obstore's path type can express the key: no control character, no "", "." or ".." segment."""
    return key.isprintable() and all(part not in ("", ".", "..") for part in key.split("/"))


def _s3_error(error: Exception, what: str) -> StorageError:
    """Map by class and status; the message keeps the status, never headers or signed urls."""
    from botocore.exceptions import ClientError, NoCredentialsError, PartialCredentialsError

    if isinstance(error, StorageError):
        return error
    if isinstance(error, ClientError):
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        code = str(error.response.get("Error", {}).get("Code", ""))
        kind = {404: "missing", 403: "forbidden", 401: "forbidden"}.get(status)
        if kind is None:
            kind = "unreachable" if status >= 500 or status in (0, 408, 429) else "other"
        return StorageError(kind, f"{what}: {code or status}")
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return StorageError("forbidden", f"{what}: no AWS credentials found (environment, profile or role)")
    return asking.obstore_error(error, what)
