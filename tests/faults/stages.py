"""Flows with a stage that goes wrong over one image, as decoders and models do.

An image is chosen by a word in its name: "poison" ends its worker's process (a segfault) or never ends, "heavy"
does not fit the memory even alone, "crowded" does not fit beside another image. Memory that does not fit is an
error, or is taken until somebody kills for it.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cleanplate.pipeline import schema
from cleanplate.pipeline.engine.job import stages_of
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.stages.stage import Needs, Stage, Work


@dataclass(frozen=True)
class Fragile:
    """Passes rows through, or goes wrong. kind: "poison", "hang", "memory", "greed", or "slow" (over every image)."""

    kind: str
    needs: Needs
    name: str = "detect"
    adds: pa.Schema = schema.columns("status")

    def open(self) -> Work:
        return self._work

    def _work(self, table: pa.Table) -> pa.Table:
        uris = table["source_uri"].to_pylist()
        if self.kind == "poison" and any("poison" in uri for uri in uris):
            os.abort()
        if self.kind == "hang" and any("poison" in uri for uri in uris):
            time.sleep(3600)
        if self.kind == "slow":
            time.sleep(2 * len(uris))
        heavy = any("heavy" in uri for uri in uris)
        unfit = heavy or (len(uris) > 1 and any("crowded" in uri for uri in uris))
        if self.kind == "memory" and unfit:
            raise MemoryError(f"{len(uris)} images do not fit")
        if self.kind == "greed" and unfit:
            _take()
        return schema.with_columns(table, self.adds, {"status": [None] * table.num_rows})


def _take() -> None:
    """6 GiB, touched bit by bit, and held; ends by itself where nobody minds."""
    taken = []
    for _ in range(96):
        taken.append(np.ones(64 << 20, np.uint8))
        time.sleep(0.05)
    time.sleep(20)


def poisoned(recipe: Recipe, last: bool) -> tuple[Stage, ...]:
    return _with("poison", stages_of(recipe, last))


def hanging(recipe: Recipe, last: bool) -> tuple[Stage, ...]:
    return _with("hang", stages_of(recipe, last))


def slow(recipe: Recipe, last: bool) -> tuple[Stage, ...]:
    return _with("slow", stages_of(recipe, last))


def starved(recipe: Recipe, last: bool) -> tuple[Stage, ...]:
    return _with("memory", stages_of(recipe, last))


def greedy(recipe: Recipe, last: bool) -> tuple[Stage, ...]:
    return _with("greed", stages_of(recipe, last))


def _with(kind: str, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    read, detect, *rest = stages
    return (read, Fragile(kind, detect.needs), detect, *rest)
