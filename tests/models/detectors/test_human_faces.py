"""A weak face in an animal's box is not believed; a person's is, also with an animal in its arms."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cleanplate.models.detectors.human_faces import HumanFaces, of_animal
from cleanplate.models.types import Image, Region
from cleanplate.pipeline.factory.detectors import animals, faces
from rigs.scenes import DEMO_PHOTOS


class Fake:
    """Gives these regions for every picture, and counts what it was shown."""

    def __init__(self, name: str, regions: list[Region]) -> None:
        self.name, self.regions, self.shown = name, regions, 0

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        self.shown += len(images)
        return [list(self.regions) for _ in images]

    with_doubts = __call__


def region(kind: str, score: float, box: tuple[float, float, float, float]) -> Region:
    return Region(kind, "nanodet", score, box)


@pytest.mark.parametrize(
    ("score", "seen", "animal"),
    [
        (0.5, [("animal", 0.6)], True),
        (0.9, [("animal", 0.6)], False),
        (0.5, [("animal", 0.6), ("person", 0.7)], False),
        (0.5, [("animal", 0.6), ("person", 0.45)], True),
        (0.5, [("person", 0.7)], False),
        (0.5, [], False),
    ],
)
def test_the_rule(score: float, seen: list[tuple[str, float]], animal: bool) -> None:
    face = region("face", score, (40, 40, 60, 60))
    assert of_animal(face, [region(kind, s, (0, 0, 100, 100)) for kind, s in seen]) == animal
    assert not of_animal(face, [region("animal", 0.9, (55, 0, 100, 100))]), "its middle lies beside it"


def test_only_pictures_with_a_weak_face_are_shown_to_the_second_network() -> None:
    picture = np.zeros((100, 100, 3), np.uint8)
    cat = Fake("nanodet", [region("animal", 0.6, (0, 0, 100, 100))])
    sure = HumanFaces(Fake("faces", [region("face", 0.8, (40, 40, 60, 60))]), cat)
    assert len(sure([picture])[0]) == 1
    assert cat.shown == 0
    weak = HumanFaces(Fake("faces", [region("face", 0.5, (40, 40, 60, 60))]), cat)
    assert weak([picture]) == [[]]
    assert [r.doubtful for r in weak.with_doubts([picture])[0]] == [True]


def test_a_face_that_was_seen_in_a_cat() -> None:
    cat = np.ascontiguousarray(cv2.imread(str(DEMO_PHOTOS / "cat.jpg"))[..., ::-1])
    (seen,) = animals(0)([cat])
    box = next(r.box for r in seen if r.kind == "animal")
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    weak = Fake("faces", [region("face", 0.5, (x - 20, y - 20, x + 20, y + 20))])
    assert HumanFaces(weak, animals(0))([cat]) == [[]]
    woman = np.ascontiguousarray(cv2.imread(str(DEMO_PHOTOS / "astronaut.jpg"))[..., ::-1])
    assert len(HumanFaces(weak, animals(0))([woman])[0]) == 1


def test_a_dog_in_a_window_is_looked_at_from_close_by() -> None:
    """The whole picture shows NanoDet no animal there, and CenterFace a face of .52."""
    dogs = np.ascontiguousarray(cv2.imread(str(DEMO_PHOTOS / "friends.jpg"))[..., ::-1])
    assert animals(0)([dogs]) == [[]]
    assert faces(0)([dogs]) == [[]]
    assert [r.doubtful for r in faces(0).with_doubts([dogs])[0] if r.score > 0.5] == [True]
