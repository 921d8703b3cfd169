"""cleanplate doctor: what is there, what is missing, and that it never tells a secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from cleanplate.jobs.cli.app import main
from cleanplate.jobs.cli.doctor_checks import _lacking, _written
from cleanplate.pipeline.storage.connect import LocalStore
from rigs.s3server import Bucket, free_ports


def doctor(
    capsys: pytest.CaptureFixture[str], *flags: str
) -> tuple[int, dict[tuple[str, str], dict[str, Any]]]:
    code = main(["doctor", "--json", *flags])
    printed = json.loads(capsys.readouterr().out)
    assert printed["ready"] is (code == 0)
    return code, {(check["area"], check["name"]): check for check in printed["checks"]}


def test_a_machine_that_is_ready(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"x")
    code, checks = doctor(capsys, str(tmp_path / "in"), str(tmp_path / "out"), "--remove", "faces")
    assert code == 0, [check for check in checks.values() if check["state"] == "bad"]
    assert checks["package", "torch"]["text"]
    assert "cores" in checks["device", "CPU"]["text"]
    assert "checksum ok" in checks["weights", "centerface"]["text"]
    assert "a.jpg" in checks["source", str(tmp_path / "in")]["text"]
    assert "conditional writes work" in checks["output", str(tmp_path / "out")]["text"]
    assert not (tmp_path / "out").exists(), "nothing is left behind"


def test_what_is_missing_says_how_to_get_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEANPLATE_WEIGHTS", str(tmp_path / "empty"))
    code, checks = doctor(capsys, str(tmp_path / "nowhere"), "--remove", "faces", "--gpus", "1")
    assert code == 1
    missing = checks["weights", "centerface"]
    assert (missing["state"], missing["hint"]) == ("bad", "cleanplate weights fetch centerface")
    assert checks["weights", "lama-lite"]["state"] == "ok", "it is in the package"
    assert checks["source", str(tmp_path / "nowhere")]["state"] == "bad"
    assert checks["device", "engine.gpus"]["state"] == "bad"


def test_a_bucket_and_the_credentials_found(capsys: pytest.CaptureFixture[str], s3: Bucket) -> None:
    s3.put("in/a.jpg", b"x")
    code, checks = doctor(capsys, s3.url("in"), s3.url("out"), "--remove", "faces")
    assert code == 0
    assert checks["source", "endpoint"]["text"] == s3.endpoint
    assert checks["source", "credentials"]["text"] == "found by env"
    assert "conditional writes work" in checks["output", s3.url("out")]["text"]
    assert s3.list("out") == []
    shown = json.dumps(list(checks.values()))
    assert s3.secret_key not in shown
    assert s3.access_key not in shown


def test_a_bucket_that_is_not_there_and_a_server_that_is_not(
    capsys: pytest.CaptureFixture[str], s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, checks = doctor(capsys, "s3://no-such-bucket-here/in", "--remove", "faces")
    assert code == 1
    assert "make the bucket" in checks["source", "s3://no-such-bucket-here/in"]["text"]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    _, checks = doctor(capsys, s3.url("other"), "--remove", "faces")
    assert "cleanplate doctor" in checks["source", s3.url("other")]["text"]


def test_a_cluster_that_does_not_answer(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (port,) = free_ports(1)
    code, checks = doctor(capsys, "--remove", "faces", "--address", f"127.0.0.1:{port}")
    assert code == 1
    assert "nothing answers" in checks["ray", f"127.0.0.1:{port}"]["text"]
    (tmp_path / "in").mkdir()
    words = ["run", str(tmp_path / "in"), str(tmp_path / "out"), "--remove", "faces"]
    assert main([*words, "--address", f"127.0.0.1:{port}"]) == 2
    assert "nothing answers" in capsys.readouterr().err
    assert not (tmp_path / "out").exists(), "said before any work"


def test_a_store_without_conditional_puts_is_found_out(tmp_path: Path) -> None:
    class Forgetful(LocalStore):
        """Like a server that ignores If-None-Match."""

        def put_new(self, key: str, data: bytes) -> bool:
            self.put(key, data)
            return True

    check = _written(Forgetful(tmp_path))
    assert check.state == "bad"
    assert "If-None-Match" in check.hint
    assert list(tmp_path.iterdir()) == []


def test_the_table_is_read_by_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--remove", "faces", "--inpainter", "big-lama"]) in (0, 1)
    shown = capsys.readouterr().out
    assert "centerface" in shown
    assert "ready" in shown or "cleanplate weights fetch big-lama" in shown


def test_a_package_that_is_absent_or_too_old_is_said() -> None:
    assert _lacking(Requirement("numpy>=1.26")) == ""
    assert _lacking(Requirement("no-such-package-of-ours")) == "not installed"
    assert "wanted >=99" in _lacking(Requirement("numpy>=99"))
