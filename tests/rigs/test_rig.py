"""The rig itself: what other tests lean on is tested here first."""

from __future__ import annotations

import io
import json
import os
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import boto3
import numpy as np
import obstore
import PIL.Image
import pytest
import ray
from botocore.exceptions import ClientError
from obstore.exceptions import AlreadyExistsError, GenericError
from obstore.store import S3Store
from ray.cluster_utils import Cluster

from rigs import scenes
from rigs.faultproxy import Fault
from rigs.s3server import Bucket


def store_of(s3: Bucket, retries: int = 6) -> S3Store:
    return S3Store(
        s3.bucket,
        endpoint=os.environ["AWS_ENDPOINT_URL"],
        client_options={"allow_http": True, "timeout": "60s"},  # weed's first put of a bucket may stall 5 s
        retry_config={"max_retries": retries, "backoff": {"init_backoff": timedelta(milliseconds=50)}},
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


def test_a_503_is_retried_and_then_ok(s3_faults: Bucket) -> None:
    s3_faults.put("k", b"v" * 1000)
    s3_faults.faults(Fault("e503", method="GET", prefix="k", times=2))
    assert bytes(obstore.get(store_of(s3_faults), "k").bytes()) == b"v" * 1000
    assert s3_faults.proxy.done == {"e503": 2}


def test_a_503_without_retries_is_an_error(s3_faults: Bucket) -> None:
    s3_faults.put("k", b"v")
    s3_faults.faults(Fault("e503", prefix="k"))
    with pytest.raises(GenericError, match="503"):
        obstore.get(store_of(s3_faults, retries=0), "k")


def test_a_lost_ack_was_carried_out_and_the_second_put_sees_412(s3_faults: Bucket) -> None:
    client = s3_faults.server.client(s3_faults.endpoint)  # signed for the proxy's address, one retry at most
    s3_faults.faults(Fault("lost_ack", method="PUT", prefix="parts/", times=2))
    with pytest.raises(Exception, match=r"[Cc]onnection"):
        client.put_object(Bucket=s3_faults.bucket, Key="parts/1", Body=b"mine", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=s3_faults.bucket, Key="parts/1", Body=b"late", IfNoneMatch="*")
    assert s3_faults.get("parts/1") == b"mine"


def test_half_an_answer_never_looks_whole(s3_faults: Bucket) -> None:
    body = os.urandom(300_000)
    s3_faults.put("k", body)
    s3_faults.faults(Fault("trunc", method="GET", times=1))
    with pytest.raises(Exception, match=r"read|IncompleteRead|Connection broken"):
        s3_faults.server.client(s3_faults.endpoint).get_object(Bucket=s3_faults.bucket, Key="k")[
            "Body"
        ].read()
    assert s3_faults.proxy.done == {"trunc": 1}
    s3_faults.faults(Fault("trunc", method="GET", times=1))
    assert bytes(obstore.get(store_of(s3_faults), "k").bytes()) == body  # obstore reads the rest by range
    assert s3_faults.proxy.done == {"trunc": 1}


def test_hang_latency_and_reset(s3_faults: Bucket) -> None:
    s3_faults.put("k", b"v")
    s3_faults.faults(Fault("hang", times=1), Fault("reset", times=1), Fault("latency", times=1, seconds=0.3))
    began = time.monotonic()
    store = S3Store(
        s3_faults.bucket, endpoint=s3_faults.endpoint, client_options={"allow_http": True, "timeout": "1s"}
    )
    assert bytes(obstore.get(store, "k").bytes()) == b"v"
    assert s3_faults.proxy.done == {"hang": 1, "reset": 1, "latency": 1}
    assert time.monotonic() - began > 1.2


def test_refused_for_a_time(s3_faults: Bucket) -> None:
    s3_faults.put("k", b"v")
    s3_faults.faults(Fault("refuse", seconds=0.5))
    with pytest.raises(GenericError):
        obstore.get(store_of(s3_faults, retries=0), "k")
    time.sleep(0.6)
    assert bytes(obstore.get(store_of(s3_faults, retries=0), "k").bytes()) == b"v"


def test_faults_are_set_over_http_and_hit_listings_only(s3_faults: Bucket) -> None:
    s3_faults.put("parts/1", b"v")
    rules = [{"kind": "e500", "method": "LIST", "prefix": "parts/", "times": 1}]
    url = f"{s3_faults.endpoint}/__faults"
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(rules).encode(), method="PUT")).close()
    store = store_of(s3_faults, retries=0)
    assert bytes(obstore.get(store, "parts/1").bytes()) == b"v"
    with pytest.raises(GenericError, match="500"):
        obstore.list(store, prefix="parts/").collect()
    with urllib.request.urlopen(url) as reply:
        assert json.load(reply) == {"e500": 1}
    assert [o["path"] for o in obstore.list(store, prefix="parts/").collect()] == ["parts/1"]


def test_the_same_seed_gives_the_same_faults(s3_faults: Bucket) -> None:
    s3_faults.put("k", b"v")
    client = s3_faults.server.client(s3_faults.endpoint)

    def pattern() -> list[bool]:
        s3_faults.faults(Fault("e500", 0.5, method="HEAD"), seed=7)
        return [fails(lambda: client.head_object(Bucket=s3_faults.bucket, Key="k")) for _ in range(12)]

    assert pattern() == pattern()
    assert {True, False} == set(pattern())


def fails(call) -> bool:  # type: ignore[no-untyped-def]
    try:
        call()
    except ClientError:
        return True
    return False


def test_the_server_comes_back_with_its_data_after_a_kill(s3: Bucket) -> None:
    s3.put("k", b"v")
    s3.server.kill()
    with pytest.raises(GenericError):
        obstore.get(store_of(s3, retries=0), "k")
    s3.server.start()
    assert s3.get("k") == b"v"


@ray.remote
def seen_by_a_worker() -> dict[str, str]:
    assert scenes.ENDINGS  # a test module, imported where the worker is

    import cleanplate

    return {
        "node": ray.get_runtime_context().get_node_id(),
        "cpus": os.environ["OMP_NUM_THREADS"],
        "endpoint": os.environ["AWS_ENDPOINT_URL"],
        "cleanplate": cleanplate.__path__[0],
    }


def test_ray_workers_see_our_code_and_the_s3_of_the_rig(ray_local: None, s3_faults: Bucket) -> None:
    seen = ray.get(seen_by_a_worker.remote())
    assert seen["endpoint"] == s3_faults.endpoint
    assert seen["cpus"] == "1"
    assert seen["cleanplate"] == str(Path(__file__).parents[2] / "cleanplate")


@pytest.mark.slow
def test_a_cluster_loses_a_node_and_goes_on(ray_cluster: Cluster) -> None:
    refs = [seen_by_a_worker.options(scheduling_strategy="SPREAD").remote() for _ in range(8)]
    assert len({seen["node"] for seen in ray.get(refs)}) == 2
    ray_cluster.remove_node(next(iter(ray_cluster.worker_nodes)), allow_graceful=False)
    refs = [seen_by_a_worker.remote() for _ in range(8)]
    assert len({seen["node"] for seen in ray.get(refs)}) == 1


@pytest.mark.slow
def test_the_local_ray_comes_back_after_a_cluster(ray_local: None) -> None:
    assert ray.cluster_resources()["CPU"] == 8
    assert "endpoint" in ray.get(seen_by_a_worker.remote())


def test_a_scene_is_known_to_the_pixel() -> None:
    image, things = scenes.scene(3)
    again, _ = scenes.scene(3)
    other, _ = scenes.scene(4)
    np.testing.assert_array_equal(image, again)
    assert (image != other).any()
    assert [kind for kind, _ in things] == ["face", "logo", "text"]
    assert image.shape == (192, 256, 3)
    assert sum(mask.astype(int) for _, mask in things).max() == 1
    logo = dict(things)["logo"]
    assert (image[logo] == 255).all()
    assert (image[~np.any([m for _, m in things], axis=0)].astype(int).sum(axis=1) < 765).all()


def test_photos_are_many_mixed_and_the_same_each_time() -> None:
    result = scenes.photos(30)
    assert result[:4] == scenes.photos(4)
    assert result[0] != scenes.photos(1, seed=1)[0]
    assert len({name.lower() for name, _ in result}) == len({body for _, body in result}) == 30
    assert {name.rpartition(".")[2] for name, _ in result} == set(scenes.ENDINGS)
    for name, body in result:
        with PIL.Image.open(io.BytesIO(body)) as image:
            image.load()
            assert 160 <= max(image.size) <= 400
            assert image.format == scenes.FORMATS[name.rpartition(".")[2].lower()]
