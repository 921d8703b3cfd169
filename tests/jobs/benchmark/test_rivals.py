"""Other programs in the part `main`: the absent ones are left out, and whatever is there takes its turn."""

from __future__ import annotations

from importlib.util import find_spec

import cv2
import numpy as np

from cleanplate.jobs.benchmark import inputs, main_job, rivals


def test_absent_programs_are_left_out() -> None:
    if not find_spec("deface") and not find_spec("rapidocr_onnxruntime"):
        assert rivals.rivals() == {}
    for rival in rivals.rivals().values():
        picture = cv2.imencode(".jpg", np.full((200, 300, 3), 127, np.uint8))[1].tobytes()
        assert cv2.imdecode(np.frombuffer(rival(picture), np.uint8), cv2.IMREAD_COLOR).shape == (200, 300, 3)


def test_a_program_takes_its_turn_at_every_photograph() -> None:
    files = inputs.photographs(2, None)
    given: list[bytes] = []

    def other(data: bytes) -> bytes:
        given.append(data)
        return data

    found = main_job.main_job(files, 60, {"code": {"remove": ["code"]}}, {"other": other})
    assert [row["recipe"] for row in found["rows"]].count("other") == 2
    assert set(given) == set(files.values())
    sizes = {row["megapixels"] for row in found["rows"] if row["recipe"] == "other"}
    assert sizes == {row["megapixels"] for row in found["rows"] if row["recipe"] == "code"}, (
        "of the same picture"
    )
