"""The part `main`: every recipe at every photograph, in turns, and sums that are those of the rows."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image as Pil

from cleanplate.jobs.benchmark.main_job import main_job, summary


def jpeg(height: int, width: int) -> bytes:
    data = BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)
    Pil.fromarray(pixels).save(data, "JPEG")
    return data.getvalue()


def test_each_recipe_at_each_photograph() -> None:
    kinds = {
        "codes": {"remove": ["code"], "inpaint.name": "telea"},
        "blur": {"remove": ["code"], "inpaint.name": "blur"},
    }
    files = {"a.jpg": jpeg(64, 96), "b.jpg": jpeg(80, 64)}
    found = main_job(files, 1e6, kinds)
    rows = found["rows"]
    assert [(row["recipe"], round(row["megapixels"] * 1e6)) for row in rows] == [
        ("blur", 6144), ("codes", 6144), ("codes", 5120), ("blur", 5120),
    ]  # fmt: skip
    assert all(
        row["status"] == "unchanged" and {"read", "detect", "write"} <= set(row["cpu_s"]) for row in rows
    )
    assert len(main_job(files, 0, kinds)["rows"]) == 2, "no time: one photograph all the same"


def test_sums() -> None:
    def row(megapixels: float, status: str, detect: float) -> dict[str, object]:
        return {
            "recipe": "r",
            "megapixels": megapixels,
            "status": status,
            "cpu_s": {"detect": detect, "write": 0.5},
        }

    found = {one["group"]: one for one in summary([row(0.2, "cleaned", 1.5), row(0.6, "unchanged", 0.5)])}
    assert list(found) == ["all", "nothing found", "0 to 0.35 Mpx", "0.35 to 1 Mpx"]
    assert found["all"]["cpu_s_each"] == pytest.approx(1.5)
    assert found["all"]["cpu_s_per_megapixel"] == pytest.approx(1.5 / 0.4)
    assert found["nothing found"]["images_per_cpu_s"] == pytest.approx(1)
    assert found["0 to 0.35 Mpx"]["stages_cpu_s_each"] == {"detect": 1.5, "write": 0.5}
