"""The bench of the fault matrix: a source in a real S3 server behind the fault proxy, starts of the real command,
and the comparison of what they committed with a run that nothing happened to.

A start is a process of its own, forked from a server that has imported everything: it is `cleanplate run` from the
parsing of its words on, it can be killed, frozen or given limits, and it costs no three seconds of imports. The
starts reach S3 through the proxy; this process, which checks, goes past it.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cleanplate.pipeline.engine import ray_cluster
from cleanplate.pipeline.engine.job import Stages
from cleanplate.pipeline.ledger import ledger
from cleanplate.pipeline.storage.connect import open_store
from rigs.faultproxy import FaultProxy
from rigs.flow_rig import comparable, rows_of
from rigs.s3server import Bucket, S3Server, aws_environment
from rigs.scenes import photos

Engine = Literal["here", "ray"]
FLAGS = ["--remove", "faces", "--inpainter", "telea", "--passes", "1"]
_FORKED = [
    "cleanplate.jobs.commands.run",
    "cleanplate.jobs.cli.summary",
    "cleanplate.pipeline.engine.run",
    "cleanplate.pipeline.factory.inpainters",
    "cleanplate.pipeline.engine.compaction",
    "cv2",
    "onnxruntime",
    "boto3",
    "obstore",
]


@dataclass
class Start:
    """One start of the command."""

    process: Any
    log: Path

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    def wait(self, timeout: float = 900) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.kill()
            raise AssertionError(f"still going after {timeout:.0f} s:\n{self.output()}")
        return int(self.process.exitcode)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.process.join()

    def output(self) -> str:
        return self.log.read_text(errors="replace")[-20000:]


@dataclass
class Bench:
    """One source, one engine, and the rows of a run that nothing happened to (`plain`, by image id)."""

    engine: Engine
    server: S3Server
    proxy: FaultProxy
    bucket: Bucket
    folder: Path
    rows: int = 4
    cluster: Any = None
    add_node: Callable[[], None] = lambda: None
    plain: dict[str, Any] = field(default_factory=dict)
    plain_s: float = 0.0
    starts: list[Start] = field(default_factory=list)

    @property
    def source(self) -> str:
        return self.bucket.url("in")

    def fill(self, images: int, seed: int) -> None:
        """The source: photographs, and one each that stages.py goes wrong over (else photographs as others)."""
        files = photos(images - 3, seed)
        files += [(f"{word}.jpg", files[n][1]) for n, word in enumerate(("poison", "heavy", "crowded"))]
        for key, data in files:
            self.bucket.put(f"in/{key}", data)

    def measure(self) -> None:
        """The run without faults: its rows, and its time from start to end. A short one before it warms up."""
        for name, flags in (("warm", ["--limit", "4"]), ("plain", [])):
            begun = time.monotonic()
            start = self.start(self.output(name), flags=flags)
            assert start.wait() in (0, 1), start.output()
            self.plain_s = time.monotonic() - begun
        self.plain = {row["image_id"]: row for row in comparable(rows_of(self.output("plain")))}

    def output(self, name: str) -> str:
        return self.bucket.url(f"{self.engine}-{name}")

    def start(
        self,
        output: str,
        stages: Stages | None = None,
        file_limit: int | None = None,
        flags: Sequence[str] = (),
        elsewhere: bool = False,
    ) -> Start:
        """Start the command. stages: other stages than the recipe's. file_limit: the most bytes that a file of
        this process can have: what a full disk looks like to a writer, without the rights to make one.
        elsewhere: not on the bench's cluster, as on another machine."""
        words = ["run", self.source, output, *FLAGS, "--set", f"units.rows={self.rows}"]
        on_cluster = ["--address", self.cluster.address] if self.cluster and not elsewhere else []
        words += ["--here"] if self.engine == "here" else [*on_cluster, "--workers", "2"]
        return self.command([*words, *flags], stages, file_limit)

    def compact(self, output: str, rows: int) -> Start:
        """Start a compaction of the output into parts of at most so many rows."""
        where = [] if self.engine == "here" else ["--address", self.cluster.address]
        return self.command(["compact", output, "--rows", str(rows), *where])

    def command(self, words: list[str], stages: Stages | None = None, file_limit: int | None = None) -> Start:
        log = self.folder / f"{uuid.uuid4().hex}.log"
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_FORKED)
        environment = aws_environment(self.proxy.endpoint) | {"CLEANPLATE_CODE_VERSION": "faults"}
        environment["RAY_worker_niceness"] = "0"  # Of a Ray of its own; else see rayrig.py.
        process = context.Process(target=_run, args=(words, stages, file_limit, environment, str(log)))
        process.start()
        self.starts.append(Start(process, log))
        return self.starts[-1]

    def parts(self, output: str) -> list[str]:
        return ledger.part_keys(open_store(output))

    def wait_for_parts(self, output: str, count: int, start: Start, folder: str = ledger.PARTS) -> None:
        """Until so many parts lie there, while the command goes on."""
        deadline = time.monotonic() + 600
        while sum(item.key.endswith(".parquet") for item in open_store(output).list(folder)) < count:
            assert start.process.is_alive(), f"ended before the fault:\n{start.output()}"
            assert time.monotonic() < deadline, f"no parts came:\n{start.output()}"
            time.sleep(0.02)

    def compare(self, output: str, expected: dict[str, str]) -> Verdict:
        """expected: file name -> kind of error, of the rows that must have failed instead."""
        rows = comparable(rows_of(output))
        counts = Counter(row["image_id"] for row in rows)
        different = []
        for row in rows:
            plain, name = self.plain.get(row["image_id"]), row["source_uri"].rpartition("/")[2]
            kind = (row["error"] or {}).get("kind")
            right = kind == expected[name] if name in expected else row == plain
            if not right:
                different.append(f"{name}: {row['status']} {row['error'] or ''}")
        return Verdict(
            len(rows),
            len(self.plain.keys() - counts.keys()),
            sum(n - 1 for n in counts.values()) + len(counts.keys() - self.plain.keys()),
            different,
        )


@dataclass(frozen=True)
class Verdict:
    """rows committed; inputs without one; rows too many; rows that are not as without the fault."""

    rows: int
    lost: int
    extra: int
    different: list[str]

    @property
    def good(self) -> bool:
        return not (self.lost or self.extra or self.different)


def _run(
    words: list[str],
    stages: Stages | None,
    file_limit: int | None,
    environment: dict[str, str],
    log: str,
) -> None:
    """In the start's own process."""
    import sys

    os.setsid()
    os.environ.update(environment)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
    from cleanplate.jobs.cli.app import main

    code = _with_stages(words, stages) if stages else main(words)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # As a command ends: nothing of the fork server's is to be cleaned up here.


def _with_stages(words: list[str], stages: Stages) -> int:
    """The command with other stages, which no flag can name."""
    from cleanplate.jobs.cli.app import parser
    from cleanplate.jobs.cli.flags import recipe_of
    from cleanplate.pipeline.engine import run as runs
    from cleanplate.pipeline.errors import RunStopped
    from cleanplate.pipeline.ui.progress import Progress

    args = parser().parse_args(words)
    run = runs.start(args.source, args.output, recipe_of(args))
    units = runs.plan_new(run)
    try:
        with (
            nullcontext() if args.here else ray_cluster.connected(args.address),
            Progress(0, 0, shown="plain") as progress,
        ):
            runs.execute(run, units, "here" if args.here else "ray", progress, stages)
    except RunStopped as error:
        print(error)
        return 3
    return 0


@contextmanager
def limited(pids: list[int], file_limit: int) -> Any:
    """Processes that cannot write a file of more than file_limit bytes, for the length of a `with`."""
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        for pid in pids:
            if Path(f"/proc/{pid}").exists():
                resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)


def processes(*, title: str = "", below: int | None = None) -> list[int]:
    """Ids of living processes whose command line has the words of `title`, of the children's children of
    `below` if given."""
    found, parents = [], {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if title.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue  # It ended while we looked.
    if below is None:
        return found

    def descends(pid: int) -> bool:
        while pid not in (0, below):
            pid = parents.get(pid, 0)
        return pid == below

    return [pid for pid in found if descends(pid)]
