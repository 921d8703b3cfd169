"""Marks that people gave in the report, and what they ask a run to do: a further generation of the plan.

    keep    the row is as it should be: nothing is done
    redo    the row is planned again: its masks are wider, and the verifying detectors look at the whole picture
    wrong   nothing should have been removed: the row is planned again, and no detector is asked

A mark judges one attempt of one image, and asks for the next one. A plan that holds the next attempt has spent
the mark, whoever wrote it: so the same marks once more, after a kill or by mistake, ask for nothing new.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow.compute as pc
from pyarrow import array
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.ledger import ledger, plan
from cleanplate.pipeline.storage.connect import Object, Store

REDO_GROW = 0.25
"""How much wider a redo makes masks, as a share of a box's shorter side; a redo of a redo adds it again."""


class Mark(BaseModel):
    """A person's decision on one attempt at one image. grow: of a redo, instead of REDO_GROW."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_id: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    attempt: Annotated[int, Field(ge=1)]
    mark: Literal["keep", "redo", "wrong"]
    grow: Annotated[float, Field(gt=0, le=4)] | None = None


class Marks(BaseModel):
    """A marks file, as the report exports it. recipe_digest: of the run that was looked at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe_digest: str | None = None
    marks: tuple[Mark, ...]


@dataclass
class Asked:
    """What marks ask of a run as it stands now."""

    rows: list[plan.Planned] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    """redo, wrong: to be planned. keep: nothing to do. done: planned before. outdated: another attempt at the
    image was planned meanwhile. as it was: marked wrong, but nothing had been removed."""

    def count(self, word: str) -> None:
        self.counts[word] = self.counts.get(word, 0) + 1


@dataclass(frozen=True)
class _Known:
    """A row of the plan."""

    unit: str
    uri: str
    object: Object
    review: dict[str, Any] | None


def read(path: str | Path) -> Marks:
    """The marks in a JSON file. Raises ConfigError that says what is wrong with it."""
    try:
        marks = Marks.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read the marks {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{path} holds no marks as the report exports them: {where + ': ' if where else ''}{first['msg']}"
        ) from error
    seen: set[str] = set()
    for mark in marks.marks:
        if mark.image_id in seen:
            raise ConfigError(f"{path} marks the image {mark.image_id} twice; leave one of its marks")
        seen.add(mark.image_id)
    return marks


def asked(output: Store, marks: Marks) -> Asked:
    """What the marks ask of the run in `output`. Reads the plan, and the parts that hold marked rows.

    Raises ConfigError for marks of another run, unknown images, and attempts that are not committed.
    """
    digest = ledger.read_record(output)["recipe_digest"]
    if marks.recipe_digest not in (None, digest):
        raise ConfigError(
            f"these marks judge a run of the recipe {marks.recipe_digest}, but {output.url} holds one of {digest}"
        )
    known = _planned(output, {mark.image_id for mark in marks.marks})
    _check(marks, known, ledger.done(output), output.url)
    decisions = Asked()
    open_marks = []
    for mark in marks.marks:
        after = known[mark.image_id].get(mark.attempt + 1)
        if mark.mark == "keep":
            decisions.count("keep")
        elif after is None:
            open_marks.append(mark)
        else:
            decisions.count("done" if (after.review or {}).get("mark") == mark.mark else "outdated")
    judged = _judged(output, {known[mark.image_id][mark.attempt].unit for mark in open_marks}, open_marks)
    for mark in open_marks:
        _ask(decisions, mark, known[mark.image_id][mark.attempt], *judged[mark.image_id])
    return decisions


def _ask(decisions: Asked, mark: Mark, row: _Known, status: str, sha256: str | None) -> None:
    if mark.mark == "wrong" and status == "failed":
        raise ConfigError(
            f"image {mark.image_id} failed, so nothing was removed that could be wrong: mark it redo, or leave it out"
        )
    if mark.mark == "wrong" and status == "unchanged":
        return decisions.count("as it was")
    before = row.review["grow"] if row.review and row.review["mark"] == "redo" else 0.0
    grow = (mark.grow or before + REDO_GROW) if mark.mark == "redo" else None
    review = {"mark": mark.mark, "grow": grow, "attempt": mark.attempt, "source_sha256": sha256}
    decisions.rows.append(plan.Planned(row.uri, row.object, mark.attempt + 1, review))
    return decisions.count(mark.mark)


def _check(marks: Marks, known: dict[str, dict[int, _Known]], done: set[str], url: str) -> None:
    unknown = [mark.image_id for mark in marks.marks if mark.image_id not in known]
    if unknown:
        raise ConfigError(
            f"{len(unknown)} of {len(marks.marks)} marked images are not of the run in {url} ({unknown[0]}, ...); "
            "give the marks that its own report exported"
        )
    for mark in marks.marks:
        row = known[mark.image_id].get(mark.attempt)
        if row is None or row.unit not in done:
            raise ConfigError(
                f"image {mark.image_id}: there is no committed attempt {mark.attempt} in {url} that could be judged"
            )


def _planned(output: Store, images: set[str]) -> dict[str, dict[int, _Known]]:
    """image_id -> attempt -> its row of the plan, for these images."""
    wanted = array(sorted(images), "string")
    found: dict[str, dict[int, _Known]] = {}
    for generation in plan.generations(output):
        units = plan.read_index(output, generation)
        for key in sorted({unit.file for unit in units}):
            for unit in (unit for unit in units if unit.file == key):
                table = plan.read_unit(output, unit)
                for row in table.filter(pc.is_in(table["image_id"], wanted)).to_pylist():
                    item = Object("", row["source_bytes"], row["source_version"])
                    found.setdefault(row["image_id"], {})[row["attempt"]] = _Known(
                        unit.name, row["source_uri"], item, row.get("review")
                    )
    return found


def _judged(output: Store, units: set[str], marks: list[Mark]) -> dict[str, tuple[str, str | None]]:
    """image_id -> status and source_sha256 of the attempt that its mark judges."""
    attempts = {mark.image_id: mark.attempt for mark in marks}
    places = ledger.located(output) if units else {}
    return {
        row["image_id"]: (row["status"], row["source_sha256"])
        for part in sorted({places[unit] for unit in units})
        for row in _light(output, part)
        if attempts.get(row["image_id"]) == row["attempt"]
    }


def _light(output: Store, part: str) -> Iterator[dict[str, Any]]:
    with ledger.open_part(output, part) as file:
        yield from file.read(["image_id", "attempt", "status", "source_sha256"]).to_pylist()
