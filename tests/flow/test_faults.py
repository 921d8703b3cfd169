"""The fault matrix at a small size; `make faults` does all of it at any size, on Ray too."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console

from faults import matrix
from faults.bench import Bench
from faults.scenarios import Scenario
from rigs.faultproxy import FaultProxy
from rigs.rayrig import RayRig
from rigs.s3server import Bucket, S3Server, aws_environment

IMAGES, ROWS = 20, 4
LARGER = ("slow-down",)
"""80 s of waiting: in the larger matrix only."""


@pytest.fixture(scope="module")
def bench(s3_server: S3Server, s3_proxy: FaultProxy) -> Iterator[Bench]:
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws_environment(s3_server.endpoint).items():
            patch.setenv(name, value)
        s3_proxy.set()
        bucket = Bucket(s3_server, s3_server.endpoint, f"faults-{uuid.uuid4().hex[:8]}")
        s3_server.client().create_bucket(Bucket=bucket.bucket)
        result = Bench("here", s3_server, s3_proxy, bucket, folder, ROWS)
        result.fill(IMAGES, seed=1)
        result.measure()
        assert len(result.plain) == IMAGES
        yield result
    shutil.rmtree(folder)


def judge(outcomes: list[matrix.Outcome]) -> None:
    wrong = [f"{o.scenario.name}: {o.error or o.verdict}" for o in outcomes if not o.good]
    if wrong:
        Console(width=160).print(matrix.table(outcomes, IMAGES))
    assert not wrong


def test_every_fault_that_needs_no_cluster(bench: Bench) -> None:
    """Five at a time, each behind a proxy of its own: most of them wait most of their time."""

    def do(scenario: Scenario) -> matrix.Outcome:
        proxy = FaultProxy(bench.server.ports[0])
        proxy.start()
        try:
            return matrix.carry_out(dataclasses.replace(bench, proxy=proxy, starts=[]), scenario)
        finally:
            proxy.stop()

    with ThreadPoolExecutor(5) as threads:
        # What waits a minute begins first.
        wanted = matrix.chosen("here", leave=(*LARGER, "server-killed"))
        judge(list(threads.map(do, sorted(wanted, key=lambda s: s.name != "refused-for-a-minute"))))


def test_the_s3_server_is_killed_and_comes_back(bench: Bench) -> None:
    judge([matrix.carry_out(bench, s) for s in matrix.chosen("here", only=("server-killed",))])


def on_nodes(bench: Bench, ray_rig: RayRig, *names: str) -> None:
    """These faults on a Ray of several nodes, one after another; each leaves one of two nodes behind for the next."""
    with ray_rig.nodes(matrix.CPUS, matrix.QUICK) as cluster:
        on_ray = dataclasses.replace(
            bench, engine="ray", cluster=cluster, add_node=lambda: ray_rig.add_node(cluster, matrix.CPUS)
        )
        wanted = matrix.chosen("ray", only=names)
        assert len(wanted) == len(names)
        judge([matrix.carry_out(on_ray, scenario) for scenario in wanted])


@pytest.mark.timeout(900)
def test_nodes_are_killed(bench: Bench, ray_rig: RayRig) -> None:
    """The most telling of those that need a cluster: one is replaced, one is not, and none is left."""
    on_nodes(bench, ray_rig, "node-killed", "nodes-lost")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_node_hangs_and_wakes_late(bench: Bench, ray_rig: RayRig) -> None:
    on_nodes(bench, ray_rig, "hung-node")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_starts_at_once_on_a_cluster(bench: Bench, ray_rig: RayRig) -> None:
    on_nodes(bench, ray_rig, "two-at-once")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_larger_matrix() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "faults", "--images", "120"], cwd=root / "tests", check=False
    )
    assert done.returncode == 0
