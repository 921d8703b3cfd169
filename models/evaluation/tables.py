"""From one row per fill to the tables of a paper."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cleanplate.models.evaluation.judges import Embed, Metric
from cleanplate.models.evaluation.pairs import Pair
from cleanplate.models.metrics.inception import frechet_distance
from cleanplate.models.types import Image

FID_MEANS_LITTLE_BELOW = 2048
"""Fewer images than features: the covariance is singular and the bias large."""

Row = dict[str, object]
Features = list[npt.NDArray[np.float64]]


@dataclass
class Scores:
    """Collects judgements. rows: one for each pair and inpainter."""

    metrics: Sequence[Metric]
    embed: Embed | str
    rows: list[Row] = field(default_factory=list)
    fakes: list[npt.NDArray[np.float64]] = field(default_factory=list)
    reals: list[npt.NDArray[np.float64]] = field(default_factory=list)

    def add(self, study: str, pair: Pair, fills: Mapping[str, tuple[Image, float]]) -> None:
        """fills: inpainter -> (its fill, seconds it took)."""
        real = None if isinstance(self.embed, str) else self.embed(pair.image)
        for name, (fill, seconds) in fills.items():
            row: Row = {
                "study": study,
                "photo": pair.photo,
                "masks": pair.kind,
                "size": pair.size,
                "coverage": pair.coverage,
                "bucket": pair.bucket,
                "inpainter": name,
                "seconds": seconds,
            }
            for metric in self.metrics:
                row[metric.name] = None if metric.of is None else metric.of(fill, pair.image, pair.mask)
            self.rows.append(row)
            if not isinstance(self.embed, str) and real is not None:
                self.fakes.append(self.embed(fill))
                self.reals.append(real)

    def summary(self, study: str, *by: str) -> list[Row]:
        """Means of a study's rows that agree in `by`, in order of appearance, with FID over each group."""
        groups: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
        for number, row in enumerate(self.rows):
            if row["study"] != study:
                continue
            groups[tuple(row[key] for key in by)].append(number)
        return [self._mean(dict(zip(by, key, strict=True)), numbers) for key, numbers in groups.items()]

    def _mean(self, head: Row, numbers: list[int]) -> Row:
        row: Row = {**head, "pairs": len(numbers)}
        for metric in self.metrics:
            values = [self.rows[n][metric.name] for n in numbers]
            row[metric.name] = None if metric.of is None else float(np.mean(np.array(values, np.float64)))
        row["fid"] = None
        if not isinstance(self.embed, str) and len(numbers) > 1:
            real, fake = (np.stack([kept[n] for n in numbers]) for kept in (self.reals, self.fakes))
            row["fid"] = frechet_distance(real, fake)
        row["seconds"] = float(np.mean([float(str(self.rows[n]["seconds"])) for n in numbers]))
        return row

    def columns(self) -> list[Metric]:
        """The metrics of a summary: those of pairs, and FID."""
        if isinstance(self.embed, str):
            return [*self.metrics, Metric("fid", "FID", False, None, self.embed, 2)]
        return [*self.metrics, Metric("fid", "FID", False, lambda *_: 0.0, "", 2)]


def markdown(rows: Sequence[Row], by: Sequence[str], columns: Sequence[Metric], group: Sequence[str]) -> str:
    """A Markdown table of summary rows; the best value among rows that agree in `group` is bold.

    A metric that could not be measured says what it needs, in its own column, in every row.
    """
    lines = [
        "| " + " | ".join([*by, "pairs", *(c.title for c in columns), "s / image"]) + " |",
        "|" + "---|" * (len(by) + len(columns) + 2),
    ]
    for row in rows:
        rivals = [r for r in rows if all(r[key] == row[key] for key in group)]
        cells = [str(row[key]) for key in by] + [str(row["pairs"])]
        cells += [_cell(row, column, rivals) for column in columns]
        lines.append("| " + " | ".join([*cells, f"{float(str(row['seconds'])):.3f}"]) + " |")
    return "\n".join(lines)


def _cell(row: Row, column: Metric, rivals: Sequence[Row]) -> str:
    value = row[column.name]
    if not isinstance(value, float):
        return column.needs or "too few pairs"
    shown = f"{value:.{column.decimals}f}"
    others = [v for r in rivals if isinstance(v := r[column.name], float)]
    if column.target is not None:
        best = min(others, key=lambda v: abs(v - (column.target or 0.0)))
    else:
        best = max(others) if column.higher_is_better else min(others)
    return f"**{shown}**" if len(others) > 1 and value == best else shown
