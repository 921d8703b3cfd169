"""`cleanplate audit --address` counts on Ray what it counts in one process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

from cleanplate.jobs.cli.app import main

PHOTO = Path("jobs/demo_photos/astronaut.jpg").absolute()


def test_on_ray_as_in_one_process(
    ray_local: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    face = Pil.open(PHOTO).convert("RGB").crop((96, 0, 352, 256))
    for n in range(20):  # two tasks
        image = face if n % 5 == 0 else Pil.fromarray(np.full((64, 80, 3), 10 * n, np.uint8))
        image.save(f"photos/{n:02d}.png")
    Path("photos/20.png").write_bytes(b"no picture")
    for out, where in (("here", []), ("ray", ["--address", "local"])):
        words = ["audit", "photos", "--against", "photos", "--remove", "face", "-o", out, *where]
        assert main(words) == 1
    here, ray = (json.loads(Path(out, "audit.json").read_text()) for out in ("here", "ray"))
    assert here | {"time": ""} == ray | {"time": ""}
    assert (ray["images"], ray["failed"], ray["exposure"]["face"]) == (21, 1, 4)
    assert (ray["against"]["still"], ray["against"]["changed"]) == (4, 0)
    assert Path("here/findings.jsonl").read_text() == Path("ray/findings.jsonl").read_text()
    assert "the Ray this process is connected to" in capsys.readouterr().err
