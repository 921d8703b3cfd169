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

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faultproxy import FaultProxy
from s3server import Bucket, S3Server, aws_environment

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


class RayRig:
    """At most one Ray at a time in this process: the shared local one, or a test's own cluster.

    Ray can be initialised, shut down and initialised again in one process (7 to 13 s each time on the
    two loaded cores where this was written): a cluster test puts the local one away, it comes back on demand.
    """

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.folder = tempfile.mkdtemp(prefix="r", dir="/tmp")  # short: socket paths end at 107 bytes

    @contextmanager
    def worker_environment(self) -> Iterator[None]:
        """Workers keep the environment of Ray's start: S3 through the proxy, the tests importable."""
        with pytest.MonkeyPatch.context() as patch:
            folders = [p for p in sys.path if Path(p).is_relative_to(ROOT / "tests")]
            patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *folders]))
            for name, value in aws_environment(self.proxy.endpoint).items():
                patch.setenv(name, value)
            yield

    def local(self) -> None:
        import ray

        if ray.is_initialized():
            return
        with self.worker_environment():
            # Logical CPUs: actor pools hold theirs for the whole run and would starve the rest on two cores.
            ray.init(
                num_cpus=8, include_dashboard=False, object_store_memory=400 << 20, _temp_dir=self.folder
            )

    @contextmanager
    def cluster(self) -> Iterator[Cluster]:
        import ray
        from ray.cluster_utils import Cluster

        self.down()
        node = {"object_store_memory": 200 << 20}
        with self.worker_environment():
            head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": self.folder, **node}
            cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            with self.worker_environment():
                for _ in range(2):
                    cluster.add_node(num_cpus=4, **node)
            ray.init(address=cluster.address)
            yield cluster
        finally:
            self.down()
            cluster.shutdown()

    def down(self) -> None:
        import ray

        ray.shutdown()

    def remove_folder(self) -> None:
        """Ray's agents write for a moment longer than `ray.shutdown` lasts."""
        deadline = time.monotonic() + 10
        while os.path.exists(self.folder) and time.monotonic() < deadline:
            shutil.rmtree(self.folder, ignore_errors=True)
            time.sleep(0.1)


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
