"""The test rig: a real S3 server, a real Ray. Started once per session and only when a test asks."""

from __future__ import annotations

# Before anything else imports onnxruntime (which otherwise phones home) or a BLAS (which otherwise takes
# every core for each of Ray's workers).
import os
import uuid

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Ray's token check stays on, as in production; a token given here keeps Ray from writing one to ~/.ray.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", uuid.uuid4().hex * 2)

import re
import shutil
import signal
import sys
from collections.abc import Generator, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rigs.faultproxy import FaultProxy
from rigs.rayrig import RayRig
from rigs.s3server import Bucket, S3Server, aws_environment

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts its background jobs so, and the processes that tests press Ctrl-C on would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if TYPE_CHECKING:  # Ray is imported where it is started: most test files do without it
    from ray.cluster_utils import Cluster

# First on the path, or the folders tests/pipeline and tests/jobs pass for our packages when `pytest` is run
# as a command.
ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The session's S3 server. A test that kills it must start it again before it ends."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(server.folder, ignore_errors=True)  # pytest would keep three sessions' worth


@pytest.fixture(scope="session")
def s3_proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    proxy = FaultProxy(s3_server.ports[0])
    proxy.start()
    yield proxy
    proxy.stop()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A fresh bucket, and the environment in which the usual AWS chain finds it."""
    yield from fresh_bucket(s3_server, None, monkeypatch)


@pytest.fixture
def s3_faults(s3_server: S3Server, s3_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """Like `s3`, through the fault proxy: `s3_faults.faults(Fault("e503", 0.1), ...)`; none at first."""
    s3_proxy.set(seed=0)
    yield from fresh_bucket(s3_server, s3_proxy, monkeypatch)
    s3_proxy.set()


def fresh_bucket(
    server: S3Server, proxy: FaultProxy | None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bucket]:
    endpoint = proxy.endpoint if proxy else server.endpoint
    for name, value in aws_environment(endpoint).items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    bucket = Bucket(server, endpoint, f"test-{uuid.uuid4().hex[:12]}", proxy)
    server.client().create_bucket(Bucket=bucket.bucket)
    # The first write makes the bucket's volumes. Sixteen first writes at once stalled for 5 s and more.
    bucket.put("warm", b"x")
    bucket.delete("warm")
    yield bucket
    server.client().delete_bucket(Bucket=bucket.bucket)  # SeaweedFS drops what is in it too


@pytest.fixture(scope="session")
def ray_rig(s3_proxy: FaultProxy) -> Iterator[RayRig]:
    rig = RayRig(s3_proxy)
    yield rig
    rig.down()
    rig.remove_folder()


@pytest.fixture
def ray_local(ray_rig: RayRig) -> None:
    """The session's local Ray: 8 logical CPUs, 400 MB of object store, no dashboard."""
    ray_rig.local()


@pytest.fixture
def ray_cluster(ray_rig: RayRig) -> Iterator[Cluster]:
    """A cluster of this test's own: a head without CPUs and two nodes of 4, this process its driver.

    Kill a node with `cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)`; its death
    is noticed after about 16 s.
    """
    with ray_rig.cluster() as cluster:
        yield cluster


# --- what runs beside what, and what may be skipped ---

SKIPS_IN_CI = re.compile(r"GPU|CUDA|CPU|AMX|Linux only|keeping the format|formats differ")
"""Reasons that lie in the machine or in the case itself. A program or a package that is missing is no reason."""
ON_RAY = re.compile(r"\bray_(rig|local|cluster)\b|run_on_ray|\bray\.init\b|def nodes\(|pty\.openpty")
"""In the text of a file whose tests start a Ray, or commands that do: two of them side by side starve each other."""


@cache
def _on_ray(path: Path) -> bool:
    return bool(ON_RAY.search(path.read_text(encoding="utf-8")))


LONG = (
    "flow",
    "jobs",
    "faults",
    "test_docs_commands.py",
    "test_package.py",
    "test_api.py",
    "test_serve_workspace.py",
)
"""Folders and files whose tests run whole commands, or detectors on whole photographs."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks that `make test` and `make test-fast` choose by."""
    for item in items:
        names = set(getattr(item, "fixturenames", ()))
        if _on_ray(item.path):
            item.add_marker(pytest.mark.on_ray)
        if names & {"ray_rig", "s3_server", "s3_proxy", "browser", "nodes"}:
            item.add_marker(pytest.mark.servers)
        if "weights_path" in names or set(item.path.relative_to(ROOT).parts) & set(LONG):
            item.add_marker(pytest.mark.models)


def _missing(reason: str) -> bool:
    return bool(os.environ.get("CI")) and not SKIPS_IN_CI.search(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With CI=true a test that is skipped for want of a program is a failure: silence would hide it for months."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if _missing(reason):
            report.outcome, report.longrepr = "failed", f"skipped in CI: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a file that skips itself whole (`pytest.importorskip`)."""
    report = yield
    if report.outcome == "skipped" and isinstance(report.longrepr, tuple) and _missing(report.longrepr[2]):
        report.outcome, report.longrepr = "failed", f"skipped in CI: {report.longrepr[2]}"
    return report
