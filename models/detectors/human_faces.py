"""Faces of people, and not of cats, dogs and birds: a weak face in an animal's box is not believed."""

from __future__ import annotations

from dataclasses import replace

from cleanplate.models.types import Detector, DoubtingDetector, Image, Region

SURE = 0.7
"""Score from which a face is believed wherever it is: of 36 faces in boxes of animals' photographs those of people
with their pet had more, those of cats less (docs/notebook.md)."""


class HumanFaces:
    """The faces of a detector, but for weak ones inside an animal that no person covers as surely: those are doubtful.

    animals: finds kinds 'animal' and 'person'; it is shown only pictures that have a weak face, whole. Holds no state
    between calls.
    """

    def __init__(self, faces: DoubtingDetector, animals: Detector) -> None:
        self.name, self._faces, self._animals = faces.name, faces, animals

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        """One list of regions for each HWC uint8 RGB image, surest first; boxes xyxy pixels."""
        return [[r for r in regions if not r.doubtful] for regions in self.with_doubts(images)]

    def with_doubts(self, images: list[Image]) -> list[list[Region]]:
        """As a call, and doubtful, what the detector doubts and the faces of animals."""
        found = self._faces.with_doubts(images)
        asked = [n for n, faces in enumerate(found) if any(not r.doubtful and r.score < SURE for r in faces)]
        if asked:
            for n, seen in zip(asked, self._animals([images[n] for n in asked]), strict=True):
                found[n] = [replace(r, doubtful=r.doubtful or of_animal(r, seen)) for r in found[n]]
        return found


def of_animal(face: Region, seen: list[Region]) -> bool:
    """Whether a weak face's middle lies in an animal, and in no person that was found more surely."""
    x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
    about = [r for r in seen if r.box[0] <= x <= r.box[2] and r.box[1] <= y <= r.box[3]]
    animal, person = (
        max((r.score for r in about if r.kind == kind), default=0.0) for kind in ("animal", "person")
    )
    return face.score < SURE and animal > person
