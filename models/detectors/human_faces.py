"""Faces of people, and not of cats, dogs and birds: a weak face in an animal's box is not believed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cleanplate.models.types import Detector, DoubtingDetector, Image, Region

SURE = 0.7
"""Score from which a face is believed wherever it is: of 36 faces in boxes of animals' photographs those of people
with their pet had more, those of cats less (docs/notebook.md)."""


REACH, CLOSE_UPS = 2.5, 4
"""Of 166 weak faces in 324 photographs a close-up of this reach took none of a person for an animal's
(docs/notebook.md). A crowd has many weak faces, and persons are seen about most of them."""


class HumanFaces:
    """The faces of a detector, but for weak ones inside an animal that no person covers as surely: those are doubtful.

    animals: finds kinds 'animal' and 'person'; it is shown only pictures that have a weak face, whole, and from close
    by where it then sees nothing at the face. Holds no state between calls.
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
                seen += self._from_close_by(images[n], found[n], seen)
                found[n] = [replace(r, doubtful=r.doubtful or of_animal(r, seen)) for r in found[n]]
        return found

    def _from_close_by(self, image: Image, faces: list[Region], seen: list[Region]) -> list[Region]:
        """What is seen in the surroundings of the surest weak faces at which nothing was seen, in the image's frame."""
        alone = [r for r in faces if not r.doubtful and r.score < SURE and not about(r, seen)][:CLOSE_UPS]
        places = [surroundings(r, image) for r in alone]
        crops = [np.ascontiguousarray(image[y0:y1, x0:x1]) for x0, y0, x1, y1 in places]
        found = self._animals(crops) if crops else []
        return [
            replace(r, box=(r.box[0] + x, r.box[1] + y, r.box[2] + x, r.box[3] + y))
            for (x, y, _, _), some in zip(places, found, strict=True)
            for r in some
        ]


def surroundings(face: Region, image: Image) -> tuple[int, int, int, int]:
    """xyxy: the square about a face's middle, of REACH times its longer side to each side, cut to the image (HWC)."""
    x0, y0, x1, y1 = face.box
    reach = REACH * max(x1 - x0, y1 - y0)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    height, width = image.shape[:2]
    low_x, low_y = max(0, int(x - reach)), max(0, int(y - reach))
    return low_x, low_y, min(width, int(x + reach)), min(height, int(y + reach))


def about(face: Region, seen: list[Region]) -> list[Region]:
    """What of `seen` holds a face's middle."""
    x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
    return [r for r in seen if r.box[0] <= x <= r.box[2] and r.box[1] <= y <= r.box[3]]


def of_animal(face: Region, seen: list[Region]) -> bool:
    """Whether a weak face's middle lies in an animal, and in no person that was found more surely."""
    there = about(face, seen)
    animal, person = (
        max((r.score for r in there if r.kind == kind), default=0.0) for kind in ("animal", "person")
    )
    return face.score < SURE and animal > person
