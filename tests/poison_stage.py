"""A flow with a stage that kills its process over one image, as a segfault in a decoder would."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pyarrow as pa

from pipeline import schema
from pipeline.graph import stages_of
from pipeline.recipe import Recipe
from pipeline.stage import Needs, Stage, Work


@dataclass(frozen=True)
class Poison:
    needs: Needs
    name: str = "detect"
    adds: pa.Schema = schema.columns("status")

    def open(self) -> Work:
        def work(table: pa.Table) -> pa.Table:
            if any("poison" in uri for uri in table["source_uri"].to_pylist()):
                os.abort()
            return schema.with_columns(table, self.adds, {"status": [None] * table.num_rows})

        return work


def poisoned(recipe: Recipe, last: bool) -> tuple[Stage, ...]:
    read, detect, *rest = stages_of(recipe, last)
    return (read, Poison(detect.needs), detect, *rest)
