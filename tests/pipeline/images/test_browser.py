"""What the writers make opens in a browser too, at its right size."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from cleanplate.pipeline.images import encode
from rigs import bad_images

CHROMIUM = shutil.which("chromium")
_NOT_SHOWN = ("tiff", "heif")  # by no Chromium
_SCRIPT = """
addEventListener("load", () => {
  const said = [...document.images].map(i => [i.naturalWidth, i.naturalHeight]);
  document.title = "SAID" + JSON.stringify(said) + "END";
});
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium")
def test_outputs_open_in_chromium(tmp_path: Path) -> None:
    shown: list[tuple[str, bytes, tuple[int, int]]] = []
    for name, (_, make) in bad_images.GOOD.items():
        data = make()
        decoded = encode.decode(data)
        mask = np.zeros((decoded.height, decoded.width), bool)
        mask[: decoded.height // 2 + 1, : decoded.width // 2 + 1] = True
        for edited in (None, 255 - decoded.pixels):
            out = encode.encode(data, decoded, edited, None if edited is None else mask, mark_edited=True)
            four_colours = "cmyk" in name and out.format == "jpeg"
            if (
                out.format not in _NOT_SHOWN
                and not (edited is None and "arithmetic" in name)
                and not four_colours
            ):
                height, width = decoded.pixels.shape[:2]
                if out.format == "webp" and decoded.orientation >= 5:
                    height, width = width, height  # Chromium does not turn WebP by its EXIF: nor the source
                result = "as it was" if edited is None else "edited"
                shown.append((f"{name}, {result}", out.data, (width, height)))
    tags = "".join(f'<img src="data:;base64,{base64.b64encode(data).decode()}">' for _, data, _ in shown)
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><title></title><body>{tags}<script>{_SCRIPT}</script>")
    command = [
        str(CHROMIUM),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}/p",
    ]
    done = subprocess.run(
        [*command, "--virtual-time-budget=20000", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    sizes = json.loads(done.stdout.split("<title>SAID")[1].split("END")[0])
    assert len(sizes) == len(shown) > 80
    wrong = [(n, s, size) for (n, _, size), s in zip(shown, sizes, strict=True) if s != [*size]]
    assert wrong == []
