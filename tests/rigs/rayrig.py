"""Ray for tests: one local instance for all, or clusters of several nodes on this machine."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rigs.faultproxy import FaultProxy
from rigs.s3server import aws_environment

if TYPE_CHECKING:  # Ray is imported where it is started: most test files do without it
    from ray.cluster_utils import Cluster

ROOT = Path(__file__).parents[2]
_NODE_STORE = 200 << 20


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
            # Ray's own 15 hardly moves beside anything else on a machine.
            patch.setenv("RAY_worker_niceness", "0")
            patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *folders]))
            for name, value in aws_environment(self.proxy.endpoint).items():
                patch.setenv(name, value)
            yield

    def local(self) -> None:
        import ray

        if ray.is_initialized():
            return
        with self.worker_environment():
            # Logical CPUs: actor pools hold theirs for the whole run and would starve the rest on two cores. Each is a
            # process of 3 CPU-seconds before it does anything; none is started before it is needed.
            ray.init(
                num_cpus=5,
                include_dashboard=False,
                object_store_memory=400 << 20,
                _temp_dir=self.folder,
                _system_config={
                    "metrics_report_interval_ms": 2000,  # 10,000 by default
                    "prestart_worker_first_driver": False,
                    "enable_worker_prestart": False,
                },
            )

    @contextmanager
    def cluster(self) -> Iterator[Cluster]:
        """A cluster with this process as its driver."""
        import ray

        with self.nodes() as cluster:
            ray.init(address=cluster.address)
            yield cluster

    @contextmanager
    def nodes(
        self, cpus: int = 4, system: dict[str, object] | None = None, settings: dict[str, str] | None = None
    ) -> Iterator[Cluster]:
        """A head without CPUs and two nodes; nobody is connected. system: Ray's internal settings.
        settings: the environment of the two nodes, and not of the head."""
        from ray._common.utils import get_default_ray_temp_dir
        from ray.cluster_utils import Cluster

        self.down()
        with self.worker_environment():
            head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": self.folder}
            head |= {"object_store_memory": _NODE_STORE, "_system_config": system or {}}
            # Ray notes a Cluster's address in its default folder, also of one that has another, and does not make it.
            Path(get_default_ray_temp_dir()).mkdir(parents=True, exist_ok=True)
            cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(2):
                self.add_node(cluster, cpus, settings)
            yield cluster
        finally:
            self.down()
            cluster.shutdown()

    def add_node(self, cluster: Cluster, cpus: int = 4, settings: dict[str, str] | None = None) -> None:
        with self.worker_environment(), pytest.MonkeyPatch.context() as patch:
            for name, value in (settings or {}).items():
                patch.setenv(name, value)
            cluster.add_node(num_cpus=cpus, object_store_memory=_NODE_STORE)

    def down(self) -> None:
        import ray

        ray.shutdown()

    def remove_folder(self) -> None:
        """Ray's agents write for a moment longer than `ray.shutdown` lasts."""
        deadline = time.monotonic() + 10
        while os.path.exists(self.folder) and time.monotonic() < deadline:
            shutil.rmtree(self.folder, ignore_errors=True)
            time.sleep(0.1)
