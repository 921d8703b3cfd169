"""What the driver receives of a finished unit."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Problem:
    """Why one image failed or was skipped: its uri, "stage/kind", and the message."""

    uri: str
    cause: str
    message: str


@dataclass(frozen=True)
class Receipt:
    """What the driver receives of one unit: small, whatever the unit holds."""

    unit: str
    rows: int
    statuses: dict[str, int] = field(default_factory=dict)
    causes: dict[str, int] = field(default_factory=dict)
    """"stage/kind" -> rows, of failed and skipped rows."""
    new: bool = True
    """False when an earlier attempt had committed the unit."""
    seconds: float = 0.0
    timings: dict[str, float] = field(default_factory=dict)
    """stage -> milliseconds, summed over the rows."""
    problems: tuple[Problem, ...] = ()
    """Some of the failed and skipped rows, not all: a unit may hold hundreds."""

    @classmethod
    def read(cls, stored: bytes) -> Receipt:
        """A receipt from its JSON (of `dataclasses.asdict`)."""
        fields = json.loads(stored)
        return cls(**{**fields, "problems": tuple(Problem(**problem) for problem in fields["problems"])})


_PROBLEMS_SHOWN = 3


def timings(table: pa.Table) -> dict[str, float]:
    """stage -> milliseconds, summed over the rows of a part."""
    spent: dict[str, float] = {}
    for row in table["timings_ms"].to_pylist():
        for stage, ms in (row or {}).items():
            if ms is not None:
                spent[stage] = spent.get(stage, 0.0) + ms
    return spent


def problems(table: pa.Table) -> tuple[Problem, ...]:
    """The first failed and skipped rows of a part, for a person to read."""
    bad = table.filter(pc.is_valid(table["error"])).slice(0, _PROBLEMS_SHOWN).select(["source_uri", "error"])
    return tuple(
        Problem(row["source_uri"], f"{row['error']['stage']}/{row['error']['kind']}", row["error"]["message"])
        for row in bad.to_pylist()
    )
