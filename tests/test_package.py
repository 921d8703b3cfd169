"""On the outside there is one name, `cleanplate`, whatever else lies in the folder where it is used."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rigs import scenes
from rigs.decoys import decoys

ROOT = Path(__file__).parent.parent


def python(*words: str, folder: Path, path: Path = ROOT) -> str:
    """Run Python in `folder`, which stands first on its path, as a user's script does; gives what it prints."""
    env = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_imported_beside_a_user_s_own_models_and_pipeline(tmp_path: Path) -> None:
    folder = decoys(tmp_path)
    code = "from cleanplate import Recipe, clean, find, run_here, run_on_ray; print(clean.__module__)"
    assert python("-c", code, folder=folder).strip() == "cleanplate.pipeline.api"
    (folder / "script.py").write_text(code)
    assert python("script.py", folder=folder).strip() == "cleanplate.pipeline.api"
    assert "usage: cleanplate" in python("-m", "cleanplate", "--help", folder=folder)


def test_importing_the_package_does_no_work(tmp_path: Path) -> None:
    code = "import sys, cleanplate; print(sorted({'numpy', 'torch', 'ray', 'cv2', 'pyarrow'} & set(sys.modules)))"
    assert python("-c", code, folder=decoys(tmp_path)).strip() == "[]"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder), "."]
    # A build folder of its own: setuptools would leave one in the tree.
    copied = folder / "tree"
    subprocess.run(["git", "-C", str(ROOT), "checkout-index", "-a", f"--prefix={copied}/"], check=True)
    python(*command, folder=copied)
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_has_one_top_level_package_and_runs(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        opened.extractall(tmp_path / "site")
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"cleanplate"}
    assert not [name for name in names if "tests" in Path(name).parts]
    for needed in ("pipeline/ui/static/report.js", "models/shipped/lama-lite.safetensors", "jobs/recipes"):
        assert any(name.startswith(f"cleanplate/{needed}") for name in names), needed
    folder = decoys(tmp_path / "work")
    code = "import cleanplate.pipeline.engine.run as run; print(run.__file__)"
    assert str(tmp_path / "site") in python("-c", code, folder=folder, path=tmp_path / "site")
    assert "usage: cleanplate" in python("-m", "cleanplate", "--help", folder=folder, path=tmp_path / "site")


@pytest.mark.slow
def test_a_script_on_ray_beside_a_user_s_own_models(tmp_path: Path) -> None:
    """Ray gives its workers the driver's path, on which the script's folder stands first."""
    folder = decoys(tmp_path / "work")
    (folder / "in").mkdir()
    for name, data in scenes.photos(3):
        (folder / "in" / name).write_bytes(data)
    (folder / "script.py").write_text(
        "from cleanplate import run_on_ray\n"
        "if __name__ == '__main__':\n"
        "    tally = run_on_ray('in', 'out', {'remove': ['face'], 'verify': {'passes': 0}}, progress=False)\n"
        "    print(tally.rows, tally.statuses.get('failed', 0))\n"
    )
    assert python("script.py", folder=folder).split()[-2:] == ["3", "0"]
