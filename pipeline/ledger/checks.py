"""The checks of an output, by name, and what each of them found."""

from __future__ import annotations

from dataclasses import dataclass, field

CHECKS = {
    "planned": "every unit of the plan lies in a part, and every part is of units of the plan",
    "readable": "every part is a whole Parquet file",
    "sealed": "every byte of a part is as it was written: the sha256 in its footer holds",
    "schema": "every part has the columns of its version (pipeline/schema.py)",
    "rows": "every part holds exactly the rows that its units planned",
    "unique": "no row is committed twice: an id and attempt in two places",
    "identity": "image_id is the hash of source_uri and source_version",
    "recipe": "every row was made by the recipe of run.json",
    "status": "a known status that fits the row's error, mask, residual and picture",
    "masks": "masks decode, add up to the picture's size, and cover what the row says",
    "image there": "the picture that a row names lies where it says (layouts files and webdataset)",
    "output hash": "output_sha256 is the hash of image.bytes",
    "image": "the output picture decodes, to the format and size that the row says",
    "edited": "masked rows do not hold the source's very bytes",
    "source there": "the source can be read again",
    "source hash": "the source's bytes are those that were read",
    "edit seen": "some pixel inside the mask differs from the source",
    "edited area": "edited_rle holds the mask, and what its file's blocks carry along, and no more",
    "outside": "every pixel outside edited_rle, and every JPEG block that the mask does not touch, equals the source's",
    "nothing lost": "every object that the source lists has a row",
}
"""Check -> what is true when nothing is wrong, in the order in which they are shown."""
EXAMPLES = 3


@dataclass
class Check:
    """How often a check was made, how often it found something wrong, and the first few examples."""

    looked: int = 0
    wrong: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, where: str, wrong: str | None) -> None:
        self.looked += 1
        if wrong is not None:
            self.wrong += 1
            if len(self.examples) < EXAMPLES:
                self.examples.append(f"{where}: {wrong}")


@dataclass
class Proof:
    """What was found: a Check for each name of CHECKS, also for those that had nothing to look at."""

    checks: dict[str, Check] = field(default_factory=lambda: {name: Check() for name in CHECKS})
    rows: int = 0

    @property
    def wrong(self) -> list[str]:
        """The names of the checks that found something wrong."""
        return [name for name, check in self.checks.items() if check.wrong]

    def add(self, check: str, where: str, wrong: str | None) -> None:
        self.checks[check].add(where, wrong)
