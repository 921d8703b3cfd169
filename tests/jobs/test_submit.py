"""`cleanplate submit` and `stop`: what is sent, and a real two-node cluster of `ray start` that runs it."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from cleanplate.jobs.cluster import client
from cleanplate.jobs.cluster.client import exit_code
from cleanplate.jobs.cluster.package import RECIPE, make_package
from cleanplate.jobs.commands import status, stop, submit
from cleanplate.jobs.commands.submit import prepare
from cleanplate.pipeline.engine import ray_cluster
from cleanplate.pipeline.errors import ConfigError, RunStopped
from cleanplate.pipeline.ledger import ledger
from cleanplate.pipeline.storage.connect import open_store
from rigs.decoys import decoys
from rigs.flow_rig import check_complete, put_photos
from rigs.s3server import free_ports

ROOT = Path(__file__).parent.parent.parent
PLACES = ("run", "s3://bucket/raw", "s3://bucket/clean")


def cleanplate(*words: str) -> int:
    parser = argparse.ArgumentParser(prog="cleanplate")
    commands = parser.add_subparsers()
    for module in (submit, stop, status):
        module.add_parser(commands)
    args = parser.parse_args(words)
    return int(args.run(args))


# --- what is sent ---


def test_the_package_holds_our_source_and_the_recipe_and_runs(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("remove: [face]\n")
    folder = tmp_path / "package"
    folder.mkdir()
    job = prepare([*PLACES, "--recipe", str(recipe)])
    size = make_package(folder, job)
    sent = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {
        "cleanplate/__main__.py",
        "cleanplate/pipeline/engine/ray_data.py",
        "cleanplate/models/types.py",
        RECIPE,
    } <= sent
    assert {Path(name).parts[0] for name in sent} == {"cleanplate", RECIPE}
    # No weights but the small files that the recipe names and our own package carries.
    weights = {name for name in sent if Path(name).suffix not in (".py", ".yaml", ".json", ".txt")}
    assert weights == {
        "cleanplate/models/shipped/lama-lite.safetensors",
        "cleanplate/models/shipped/blazeface-short.tflite",
        "cleanplate/models/shipped/nanodet.safetensors",
    }
    assert size < 14 * 2**20
    words = [sys.executable, *job.entrypoint]
    done = subprocess.run(
        [*words, "--dry-run", "--help"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert "usage: cleanplate run" in done.stdout


def test_nothing_of_the_environment_travels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret-value")
    sent: dict[str, object] = {}

    class Cluster:
        def _do_request(self, method: str, path: str) -> SimpleNamespace:
            """As Ray 2.60's dashboard answers."""
            command = "/opt/my venv/bin/python"
            head = {
                "raylet": {"isHeadNode": True},
                "cmdline": ["raylet", f'--python_worker_command="{command}" w.py'],
            }
            body = {"data": {"summary": [{"raylet": {}}, head]}}
            return SimpleNamespace(status_code=200, json=lambda: body)

        def submit_job(self, **words: object) -> str:
            sent.update(words)
            return "job-1"

    monkeypatch.setattr(submit, "connect", lambda address: Cluster())
    assert (
        cleanplate(
            *("submit", "--no-wait", "--env", "AWS_REGION=eu-west-1", "--env", "AWS_SSE_KMS_KEY_ID=alias/a"),
            *("--", *PLACES, "--remove", "faces"),
        )
        == 0
    )
    assert "very-secret-value" not in repr(sent)
    env = sent["runtime_env"]["env_vars"]  # type: ignore[index]
    assert (env["AWS_REGION"], env["AWS_SSE_KMS_KEY_ID"]) == ("eu-west-1", "alias/a"), "no secrets, and named"
    assert (env["ORT_DISABLE_TELEMETRY"], env["RAY_USAGE_STATS_ENABLED"]) == ("1", "0")
    assert sent["entrypoint"] == (
        "'/opt/my venv/bin/python' -m cleanplate run s3://bucket/raw s3://bucket/clean --remove faces "
        "--failed-exit-code 11 --address auto"
    ), "the interpreter of the head's own Ray"


@pytest.mark.parametrize("flags", [["--recipe", "r.yaml"], ["--recipe=r.yaml"]])
def test_the_recipe_is_found_in_the_package(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text("remove: [face]\n")
    words = " ".join(prepare(["--", *PLACES, *flags, "--retry-failed"]).entrypoint)
    assert RECIPE in words
    assert "r.yaml" not in words.replace(RECIPE, "")
    assert words.endswith("--retry-failed --failed-exit-code 11 --address auto")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "after --"),
        (["status", "s3://b/c"], "after --"),
        (["run", "photos", "s3://b/c"], "SRC 'photos'"),
        (["run", "s3://b/r", "out/"], "DST 'out/'"),
        ([*PLACES, "--here"], "leave out --here"),
        ([*PLACES, "--address", "auto"], "leave out --address"),
        ([*PLACES, "--recipe", "/no/such.yaml"], "cannot read the recipe"),
        ([*PLACES, "--remove", "unicorns"], "wrong recipe"),
        ([*PLACES, "--inpainter", "mine.safetensors"], "weights 'mine.safetensors'"),
    ],
)
def test_what_no_node_could_do_is_said_here(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(words)


def test_secrets_are_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="AWS_SECRET_ACCESS_KEY") as caught:
        cleanplate("submit", "--env", "AWS_SECRET_ACCESS_KEY=hush", "--", *PLACES)
    with pytest.raises(ConfigError, match="a role") as caught:
        cleanplate("submit", "--env", "AWS_ENDPOINT_URL=http://me:hush@host", "--", *PLACES)
    assert "hush" not in str(caught.value)
    with pytest.raises(ConfigError, match="must not hold credentials") as caught:
        cleanplate("submit", "--", "run", "s3://me:hush@bucket/raw", "s3://bucket/clean")
    assert "hush" not in str(caught.value)
    assert "hush" not in str(caught.value)
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        cleanplate("submit", "--env", "AWS_REGION", "--", *PLACES)


def test_no_cluster_is_wrong_use() -> None:
    (port,) = free_ports(1)
    for words in (
        ("submit", "--address", f"http://127.0.0.1:{port}", "--", *PLACES),
        ("stop", "x", "--address", f"http://127.0.0.1:{port}"),
    ):
        with pytest.raises(ConfigError, match="no Ray dashboard at"):
            cleanplate(*words)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 11, 1),
        ("FAILED", 1, 3),  # Ray's own end of a driver whose node died.
        ("FAILED", 2, 2),
        ("FAILED", 3, 3),
        ("FAILED", 127, 3),
        ("FAILED", None, 3),
        ("STOPPED", -15, 3),
    ],
)
def test_exit_codes(status: str, code: int | None, expected: int) -> None:
    assert exit_code(SimpleNamespace(status=status, driver_exit_code=code, message="m")) == expected


def test_a_dashboard_that_is_still_starting_is_no_wrong_use() -> None:
    class Starting:
        def submit_job(self, **words: object) -> str:
            raise RuntimeError(
                "Request failed with status code 500: No available agent to submit job, please try again later."
            )

    job = prepare(PLACES)
    with pytest.raises(RunStopped, match=r"cannot take a job now.*No available agent"):
        client.submit(Starting(), job, None, {})


@pytest.mark.parametrize("code", ["2", "3", "256", "-1"])
def test_an_exit_code_that_means_something_else_is_refused(code: str) -> None:
    with pytest.raises(ConfigError, match="neither 2 nor 3"):
        prepare([*PLACES, "--failed-exit-code", code])


@pytest.mark.parametrize(
    ("address", "environment", "file", "mode"),
    [
        ("http://head:8265", {}, False, None),
        ("http://head:8265", {"RAY_AUTH_TOKEN_PATH": "/run/token"}, False, "token"),
        ("http://head:8265", {"RAY_AUTH_TOKEN": "0" * 64}, False, "token"),
        ("http://head:8265", {}, True, None),  # A token of this machine goes to no other one unasked.
        ("http://127.0.0.1:8265", {}, True, "token"),
        ("http://127.0.0.1:8265", {"RAY_AUTH_MODE": "disabled"}, True, "disabled"),
    ],
)
def test_a_token_that_is_there_is_used(
    address: str,
    environment: dict[str, str],
    file: bool,
    mode: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # What is set below is taken back afterwards.
        monkeypatch.delenv(name)
    for name, value in {"HOME": str(tmp_path), **environment}.items():
        monkeypatch.setenv(name, value)
    if file:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    ray_cluster.use_token(address)
    assert os.environ.get("RAY_AUTH_MODE") == mode


# --- a real cluster ---


class Nodes:
    """A head without CPUs and a worker node, each by `ray start` in a process of its own, as a user starts them."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.folder = tempfile.mkdtemp(prefix="rs", dir="/tmp")  # short: socket paths end at 107 bytes
        self.environment = environment
        self.gcs, self.dashboard, client = free_ports(3)
        self.processes: list[subprocess.Popen[bytes]] = []
        head = ["--head", f"--port={self.gcs}", "--num-cpus=0", "--dashboard-host=127.0.0.1"]
        head += [
            f"--dashboard-port={self.dashboard}",
            f"--ray-client-server-port={client}",
            f"--temp-dir={self.folder}",
        ]
        self.start(head)
        self.wait(1)
        self.start([f"--address=127.0.0.1:{self.gcs}", "--num-cpus=4"])
        self.wait(2)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}"

    def start(self, words: list[str]) -> None:
        agent, metrics = free_ports(2)
        own = [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
        own += ["--min-worker-port=0", "--max-worker-port=0", f"--object-store-memory={200 << 20}", "--block"]
        ray = str(Path(sys.executable).with_name("ray"))
        with open(f"{self.folder}-log", "ab") as log:
            self.processes.append(
                subprocess.Popen(
                    [ray, "start", *words, *own],
                    cwd=decoys(Path(f"{self.folder}-user")),
                    env=self.environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    def wait(self, nodes: int) -> None:
        """Until so many nodes are alive: a job on a cluster without CPUs would be refused."""
        deadline = time.monotonic() + 240
        request = urllib.request.Request(
            f"{self.address}/api/v0/nodes",
            headers={"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"},
        )
        while time.monotonic() < deadline:
            with suppress(OSError), urllib.request.urlopen(request, timeout=5) as reply:
                if reply.read().count(b"ALIVE") >= nodes:
                    return
            time.sleep(0.5)
        raise TimeoutError(Path(f"{self.folder}-log").read_text()[-2000:])

    def end(self) -> None:
        """These nodes only: `ray stop` would end every Ray of this machine."""
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=15)
        for pid in self.left():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)
        Path(f"{self.folder}-log").unlink()

    def left(self) -> list[int]:
        sessions = {process.pid for process in self.processes}
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                if entry.name.isdigit() and os.getsid(int(entry.name)) in sessions:
                    found.append(int(entry.name))
        return found


@pytest.fixture
def nodes(s3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:  # type: ignore[no-untyped-def]
    venv = str(Path(sys.executable).parent)
    environment = dict(os.environ)
    environment.pop("PYTHONPATH", None)  # The code must come with the job.
    environment["PATH"] = os.environ["PATH"].replace(
        f"{venv}{os.pathsep}", ""
    )  # `python` is not the cluster's.
    monkeypatch.setenv("CLEANPLATE_WEIGHTS", os.environ.get("CLEANPLATE_WEIGHTS", ""))
    nodes = Nodes(environment)
    yield nodes
    nodes.end()


def test_submit_to_two_nodes_started_by_hand(
    s3,
    nodes: Nodes,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],  # type: ignore[no-untyped-def]
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From a folder with a `models/` and a `pipeline.py` of the user's own, on nodes that were started in another."""
    monkeypatch.chdir(decoys(tmp_path / "user"))
    source, output = s3.url("raw"), s3.url("clean")
    files = put_photos(source, 6)
    open_store(source).put("broken.jpg", b"this is no picture")
    files["broken.jpg"] = b"this is no picture"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("remove: [face]\nverify: {passes: 0}\nunits: {rows: 4}\n")
    command = ["--", "run", source, output, "--recipe", str(recipe)]

    assert cleanplate("submit", "--address", nodes.address, "--submission-id", "first", *command) == 1
    first = capfd.readouterr()
    assert first.out.startswith("first\n"), "the id comes first"
    assert "7 images in 2 units" in first.out
    assert "failed" in first.out
    check_complete(source, output, files)
    assert not [row for row in ledger.part_keys(open_store(output)) if ".tmp" in row]

    assert cleanplate("submit", "--address", nodes.address, *command, "--remove", "text") == 2
    assert "--new-run" in capfd.readouterr().out, "another recipe on the same output: the job says why"

    with pytest.raises(ConfigError, match="refused"):
        cleanplate("submit", "--address", nodes.address, "--submission-id", "first", *command)

    other = [*command[:3], s3.url("other"), "--remove", "faces"]
    assert (
        cleanplate("submit", "--address", nodes.address, "--no-wait", "--submission-id", "second", *other)
        == 0
    )
    capfd.readouterr()
    assert cleanplate("status", s3.url("nothing-yet"), "--address", nodes.address) == 3
    printed = capfd.readouterr()
    assert "holds no run" in printed.err
    assert "2 nodes; taken by workers:" in printed.out, "a job that waits for nodes has no output yet"
    assert cleanplate("status", output, "--address", nodes.address) == 1
    shown = capfd.readouterr().out
    assert "2 of 2 units committed" in shown
    assert "2 nodes; taken by workers:" in shown
    assert "queues" in shown
    assert cleanplate("stop", "second", "--address", nodes.address) == 0
    assert "second: stopped. What is committed stays" in capfd.readouterr().out
    with pytest.raises(ConfigError, match="no job"):
        cleanplate("stop", "third", "--address", nodes.address)
    assert first.err.count("follow: ray job logs --follow first") == 1
