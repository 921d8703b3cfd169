"""The faults, one function each: do it to a run, start the same command again where it ended, leave it complete.

A scenario fails by an assertion when its fault could not be done (the run was over before). What it returns is
shown in the table: what was done, and how often.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cleanplate.pipeline.ledger import compactions, ledger, orphans
from cleanplate.pipeline.ledger.proof import prove
from cleanplate.pipeline.storage.connect import open_store
from faults.bench import Bench, Engine, Start, limited, processes
from faults.stages import greedy, hanging, poisoned, slow, starved
from rigs.faultproxy import Fault

Do = Callable[[Bench, str], str]


@dataclass(frozen=True)
class Scenario:
    """do(bench, output). expected: file name -> kind of error of the rows that the fault must have cost."""

    do: Do
    engines: tuple[Engine, ...]
    expected: dict[str, str] = field(default_factory=dict)
    local: bool = False
    """Into a folder instead of the bucket: its fault is of a local disk."""
    settings: Callable[[], dict[str, str]] | None = None
    """The environment of Ray's nodes, where it needs nodes of its own."""

    @property
    def name(self) -> str:
        return self.do.__name__.replace("_", "-")

    @property
    def about(self) -> str:
        return (self.do.__doc__ or "").splitlines()[0].rstrip(".")


def complete(start: Start) -> None:
    code = start.wait()
    assert code in (0, 1), f"exit code {code}:\n{start.output()}"


def driver_killed(bench: Bench, output: str) -> str:
    """kill -9 of the driver, twice."""
    before = 0
    for _ in range(2):
        start = bench.start(output)
        bench.wait_for_parts(output, before + 1, start)
        start.kill()
        before = len(bench.parts(output))
    complete(bench.start(output))
    return f"{before} parts when killed for the second time"


def actors_killed(bench: Bench, output: str) -> str:
    """kill -9 of actors and of tasks."""
    start = bench.start(output)
    killed: list[int] = []
    for title in ("MapWorker", "_in_a_task", "MapWorker"):
        bench.wait_for_parts(output, 1, start)
        deadline = time.monotonic() + 20
        while start.process.is_alive() and time.monotonic() < deadline:
            victims = [pid for pid in workers(bench, title) if pid not in killed]
            if victims:
                os.kill(victims[-1], signal.SIGKILL)
                killed.append(victims[-1])
                break
            time.sleep(0.01)
    assert killed, "no worker was there to be killed"
    complete(start)
    return f"{len(killed)} workers killed"


def workers(bench: Bench, title: str = "") -> list[int]:
    """Ids of the worker processes of the bench's own cluster, of those whose title has these words."""
    raylets = [node.all_processes["raylet"][0].process.pid for node in bench.cluster.list_all_nodes()]
    below = [pid for raylet in raylets for pid in processes(title=title or "ray::", below=raylet)]
    return [pid for pid in below if _is_worker(pid)]


def _is_worker(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().startswith(b"ray::")
    except OSError:
        return False


def node_killed(bench: Bench, output: str) -> str:
    """kill -9 of a whole node."""
    start = bench.start(output)
    bench.wait_for_parts(output, 1, start)
    remove_a_node(bench)
    bench.add_node()
    complete(start)
    return "1 of 2 nodes killed"


def nodes_lost(bench: Bench, output: str) -> str:
    """kill -9 of a node that nobody replaces, then of the last one."""
    # More workers than one node holds: those of the dead one, restarted on the other, take its every CPU.
    flags = ["--workers", "5", "--set", "engine.wait_for_nodes=10"]
    start = bench.start(output, slow, flags=flags)
    wait_for_workers(bench, 5, start)
    remove_a_node(bench)
    complete(start)
    assert "too few for 5 workers" in start.output(), start.output()
    second = f"{output}-2"
    start = bench.start(second, slow, flags=flags)
    wait_for_workers(bench, 1, start)
    remove_a_node(bench)
    code = start.wait()
    assert code == 3, f"exit code {code}:\n{start.output()}"
    assert "has 0 CPUs" in start.output(), start.output()
    bench.add_node()
    bench.add_node()
    complete(bench.start(second))
    verdict = bench.compare(second, {})
    assert verdict.good, verdict
    return "went on with fewer workers; with no node left, exit code 3"


def wait_for_workers(bench: Bench, count: int, start: Start) -> None:
    """Until so many workers with models are there, while the command goes on."""
    deadline = time.monotonic() + 300
    while len(workers(bench, "MapWorker")) < count:
        assert start.process.is_alive(), f"ended before the fault:\n{start.output()}"
        assert time.monotonic() < deadline, f"no workers came:\n{start.output()}"
        time.sleep(0.1)


def remove_a_node(bench: Bench) -> None:
    bench.cluster.remove_node(next(iter(bench.cluster.worker_nodes)), allow_graceful=False)


def server_killed(bench: Bench, output: str) -> str:
    """kill -9 of the S3 server, started again."""
    start = bench.start(output)
    bench.wait_for_parts(output, 1, start)
    bench.server.kill()
    time.sleep(1)
    bench.server.start()
    complete(start)
    return "back after 1 s and its own start"


def two_at_once(bench: Bench, output: str) -> str:
    """Two starts of the same command at once."""
    starts = [bench.start(output), bench.start(output)]
    for start in starts:
        complete(start)
    return "2 starts"


def late_writer(bench: Bench, output: str) -> str:
    """A start that hangs with its workers (SIGSTOP), and wakes after another, elsewhere, has finished."""
    hung = bench.start(output)
    bench.wait_for_parts(output, 1, hung)
    frozen = [hung.pid, *(workers(bench) if bench.engine == "ray" else ())]
    with stopped(frozen):
        before = len(bench.parts(output))
        complete(bench.start(output, elsewhere=True))
        finished = bench.parts(output)
        assert before < len(finished), "nothing was left to be done late"
    complete(hung)
    assert bench.parts(output) == finished
    return f"{len(frozen)} processes frozen at {before} of {len(finished)} parts"


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Processes that hang for the length of a `with`."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):  # Somebody gave it up meanwhile.
                os.kill(pid, signal.SIGCONT)


def hung_node(bench: Bench, output: str) -> str:
    """A node that hangs (SIGSTOP), and wakes after the run has finished on others."""
    start = bench.start(output)
    bench.wait_for_parts(output, 1, start)
    node = next(iter(bench.cluster.worker_nodes))
    raylet = node.all_processes["raylet"][0].process.pid
    frozen = [*processes(below=raylet), raylet]
    with stopped(frozen):
        bench.add_node()
        complete(start)
        finished = bench.parts(output)
    time.sleep(3)  # For what its workers were about to put.
    assert bench.parts(output) == finished
    bench.cluster.remove_node(node, allow_graceful=False)
    return f"{len(frozen)} processes frozen"


def through(*rules: Fault) -> Callable[[Bench, str], str]:
    """One start through the proxy with these rules."""

    def do(bench: Bench, output: str) -> str:
        bench.proxy.set(*rules, seed=len(bench.starts))
        try:
            complete(bench.start(output))
        finally:
            done = dict(bench.proxy.done)
            bench.proxy.set()
        assert sum(done.values()) > 0, "no request met the fault"
        return ", ".join(f"{kind} x {times}" for kind, times in sorted(done.items()))

    return do


def lost_acknowledgements(bench: Bench, output: str) -> str:
    """Half of all puts are carried out and never answered."""
    return through(Fault("lost_ack", 0.5, "PUT"))(bench, output)


def server_errors(bench: Bench, output: str) -> str:
    """500 and 503 SlowDown for a fifth of all requests."""
    return through(Fault("e503", 0.1), Fault("e500", 0.1))(bench, output)


def slow_down(bench: Bench, output: str) -> str:
    """503 SlowDown for four in five requests."""
    return through(Fault("e503", 0.8))(bench, output)


def timeouts(bench: Bench, output: str) -> str:
    """Requests that are never answered."""
    return through(Fault("hang", 1, "GET", "in/", times=2))(bench, output)


def truncated_bodies(bench: Bench, output: str) -> str:
    """Answers that break off halfway."""
    return through(Fault("trunc", 0.2))(bench, output)


def resets(bench: Bench, output: str) -> str:
    """Connections reset in a fifth of all requests."""
    return through(Fault("reset", 0.2))(bench, output)


def refused(bench: Bench, output: str, seconds: float = 2) -> str:
    """Connections refused for a while."""
    start = bench.start(output)
    bench.wait_for_parts(output, 1, start)
    bench.proxy.set(Fault("refuse", seconds=seconds))
    complete(start)
    times = bench.proxy.done["refuse"]
    bench.proxy.set()
    assert times, "no request met the fault"
    return f"{seconds:g} s, {times} times"


def refused_for_a_minute(bench: Bench, output: str) -> str:
    """Connections refused for a minute."""
    return refused(bench, output, 60)


def disk_full_for_the_plan(bench: Bench, output: str) -> str:
    """No room for the plan's temporary files; then there is."""
    start = bench.start(output, file_limit=1024)
    code = start.wait()
    assert code == 3, f"exit code {code}:\n{start.output()}"
    assert "Traceback" not in start.output()
    complete(bench.start(output))
    return "files of 1 KiB at most (RLIMIT_FSIZE), exit code 3"


def disk_full_for_parts(bench: Bench, output: str) -> str:
    """No room for parts on the output's disk; then there is."""
    limit = 24 * 1024
    if bench.engine == "here":
        start = bench.start(output, file_limit=limit)
        code = start.wait()
    else:
        start = bench.start(output)
        code = _with_full_workers(bench, start, limit)
    assert code == 3, f"exit code {code}:\n{start.output()}"
    assert "Traceback" not in start.output()
    before = len(bench.parts(output))
    complete(bench.start(output))
    assert before < len(bench.parts(output)), "every part had room"
    return f"files of {limit // 1024} KiB at most (RLIMIT_FSIZE), {before} parts fitted, exit code 3"


def _with_full_workers(bench: Bench, start: Start, limit: int) -> int:
    """The start's exit code, while every worker of the cluster, old or new, has no room."""
    over = threading.Event()

    def keep_full() -> None:
        while not over.wait(0.05):
            with limited(workers(bench), limit):
                over.wait(0.5)

    thread = threading.Thread(target=keep_full)
    thread.start()
    try:
        return start.wait()
    finally:
        over.set()
        thread.join()


def out_of_memory(bench: Bench, output: str) -> str:
    """A batch that does not fit the memory is halved; an image that does not fit alone fails."""
    complete(bench.start(output, starved))
    return "heavy.jpg failed, crowded.jpg did not"


def poison(bench: Bench, output: str) -> str:
    """An image that ends its worker's process (abort)."""
    complete(bench.start(output, poisoned))
    return "poison.jpg failed"


def hung_image(bench: Bench, output: str) -> str:
    """An image over which its worker never returns."""
    complete(bench.start(output, hanging, flags=["--set", "engine.patience=20"]))
    assert "engine.patience" in bench.starts[-1].output(), bench.starts[-1].output()
    return "poison.jpg failed"


def compaction_killed(bench: Bench, output: str) -> str:
    """kill -9 of a compaction, twice; then two at once, the small parts swept, a late writer of one of them."""
    complete(bench.start(output))
    store, small = open_store(output), bench.parts(output)
    rows = 2 * bench.rows
    # Its end is kept back, so that the kill comes before it on any machine.
    bench.proxy.set(
        Fault("hang", 1, "PUT", f"{output.removeprefix(bench.bucket.url(''))}/{compactions.index_key(0)}")
    )
    for large in (1, 2):
        start = bench.compact(output, rows)
        bench.wait_for_parts(output, large, start, compactions.FOLDER)
        start.kill()
        assert bench.parts(output) == small
    bench.proxy.set()
    for start in [bench.compact(output, rows), bench.compact(output, rows)]:
        complete(start)
    large_parts = bench.parts(output)
    assert 1 < len(large_parts) < len(small)
    late = store.get(f"{ledger.PARTS}/{small[0]}")
    removed = Counter(orphan.what for orphan, gone in orphans.sweep(store, 0) if gone)
    assert removed["replaced"] == len(small), removed
    assert store.put_new(f"{ledger.PARTS}/{small[0]}", late)
    assert bench.parts(output) == large_parts
    found = prove(store, compare=False)
    assert not found.wrong, found.wrong
    return f"{len(small)} parts became {len(large_parts)}"


def killed_for_memory(bench: Bench, output: str) -> str:
    """An image over which its worker takes all memory: Ray's memory monitor kills it."""
    # One worker: both nodes see the memory of the one machine, and each kills its own.
    complete(bench.start(output, greedy, flags=["--workers", "1"]))
    return "heavy.jpg failed, crowded.jpg did not"


def _a_little_memory() -> dict[str, str]:
    """For nodes that have 3 GiB more than what is in use now."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, free = (int(fields[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    share = (total - free + (3 << 30)) / total
    return {"RAY_memory_usage_threshold": f"{share:.4f}", "RAY_memory_monitor_refresh_ms": "100"}


BOTH: tuple[Engine, ...] = ("here", "ray")
SCENARIOS = (
    Scenario(driver_killed, BOTH),
    Scenario(actors_killed, ("ray",)),
    Scenario(node_killed, ("ray",)),
    Scenario(nodes_lost, ("ray",)),
    Scenario(server_killed, BOTH),
    Scenario(two_at_once, BOTH),
    Scenario(late_writer, BOTH),
    Scenario(hung_node, ("ray",)),
    Scenario(lost_acknowledgements, BOTH),
    Scenario(server_errors, BOTH),
    Scenario(slow_down, BOTH),
    Scenario(timeouts, BOTH),
    Scenario(truncated_bodies, BOTH),
    Scenario(resets, BOTH),
    Scenario(refused, BOTH),
    Scenario(refused_for_a_minute, ("ray",)),
    Scenario(disk_full_for_the_plan, BOTH),
    Scenario(disk_full_for_parts, BOTH, local=True),
    Scenario(out_of_memory, BOTH, {"heavy.jpg": "out_of_memory"}),
    Scenario(killed_for_memory, ("ray",), {"heavy.jpg": "crashed"}, settings=_a_little_memory),
    Scenario(poison, ("ray",), {"poison.jpg": "crashed"}),
    Scenario(hung_image, ("ray",), {"poison.jpg": "hung"}),
    Scenario(compaction_killed, BOTH),
)
