"""The rig itself: what other tests lean on is tested here first."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import boto3
import obstore
import pytest
from botocore.exceptions import ClientError
from obstore.exceptions import AlreadyExistsError
from obstore.store import S3Store
from s3server import Bucket


def store_of(s3: Bucket) -> S3Store:
    return S3Store(
        s3.bucket,
        endpoint=os.environ["AWS_ENDPOINT_URL"],
        client_options={"allow_http": True, "timeout": "5s"},
        retry_config={"max_retries": 6},
    )


def test_bucket_round_trip_and_listing(s3: Bucket) -> None:
    s3.put("a/1", b"one")
    s3.put("a/2", b"two")
    s3.put("b/1", b"three")
    assert s3.get("a/2") == b"two"
    assert s3.list("a/") == ["a/1", "a/2"]
    assert s3.url("a/") == f"s3://{s3.bucket}/a/"
    assert bytes(obstore.get(store_of(s3), "b/1").bytes()) == b"three"


def test_buckets_are_fresh(s3: Bucket) -> None:
    assert s3.list() == []


def test_a_race_of_conditional_puts_has_one_winner(s3: Bucket) -> None:
    store = store_of(s3)

    def put(i: int) -> bool:
        try:
            obstore.put(store, "race", str(i).encode(), mode="create")
        except AlreadyExistsError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(put, range(16)))
    assert won.count(True) == 1
    assert s3.get("race") == str(won.index(True)).encode()


def test_a_wrong_secret_is_refused(s3: Bucket) -> None:
    client = boto3.client(
        "s3", endpoint_url=s3.endpoint, aws_access_key_id=s3.access_key, aws_secret_access_key="wrong"
    )
    with pytest.raises(ClientError, match=r"SignatureDoesNotMatch|403"):
        client.list_objects_v2(Bucket=s3.bucket)
