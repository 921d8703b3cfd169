"""The variants that LaMa's paper compares (arXiv 2109.07161, tables 2-4), at any size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from cleanplate.models.evaluation.judges import Metric
from cleanplate.models.evaluation.tables import Row
from cleanplate.models.inpainters.crops import CropSettings
from cleanplate.models.inpainters.inpainters import LamaInpainter
from cleanplate.models.lama.generator import build_generator
from cleanplate.models.lama.losses import LossWeights
from cleanplate.models.lama.params import Kind, LamaParams
from cleanplate.models.training.lama.recipe import TrainRecipe


@dataclass(frozen=True)
class Variant:
    """One row of a table. perceptual: None leaves the recipe's loss, else 30 or 0 times it."""

    name: str
    tables: tuple[int, ...]
    shape: LamaParams
    masks: str
    perceptual: float | None = None

    def recipe(self, base: TrainRecipe) -> TrainRecipe:
        """The base with this variant's generator, masks and loss; all else, steps too, is alike."""
        changed = replace(base, model=self.name, shape=self.shape, masks=((self.masks, 1.0),))
        if self.perceptual is None:
            return changed
        phases = tuple(
            replace(
                phase,
                paper=replace(phase.paper or _NO_PAPER_LOSS, perceptual=self.perceptual),
            )
            for phase in base.phases
        )
        return replace(changed, phases=phases)


_NO_PAPER_LOSS = LossWeights(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def variants(ngf: int, blocks: int, tables: Sequence[int] = (2, 4)) -> list[Variant]:
    """Those of the given tables: 2 compares generators, 3 the perceptual loss, 4 the masks of training.

    blocks: of the base generators (9 in the paper); the shallow one has 2/3 of them, the deep one 5/3.
    """

    def shape(kind: Kind, count: int) -> LamaParams:
        return LamaParams(kind, ngf, 3, count, 0.75 if kind == "fourier" else 0.0, 1024)

    shallow, deep = max(1, round(blocks * 2 / 3)), max(blocks + 1, round(blocks * 5 / 3))
    every = [
        Variant("fourier", (2, 4), shape("fourier", blocks), "large"),
        Variant("dilated", (2,), shape("dilated", blocks), "large"),
        Variant("regular", (2, 4), shape("regular", blocks), "large"),
        Variant("fourier-shallow", (2,), shape("fourier", shallow), "large"),
        Variant("regular-deep", (2,), shape("regular", deep), "large"),
        Variant("regular-hrfpl", (3,), shape("regular", blocks), "large", 30.0),
        Variant("regular-no-pl", (3,), shape("regular", blocks), "large", 0.0),
        Variant("fourier-narrow", (4,), shape("fourier", blocks), "narrow"),
        Variant("regular-narrow", (4,), shape("regular", blocks), "narrow"),
    ]
    return [variant for variant in every if set(variant.tables) & set(tables)]


def inpainter_of(recipe: TrainRecipe, weights: Mapping[str, Tensor]) -> LamaInpainter:
    """The trained variant, filling whole images."""
    model = build_generator(recipe.params)
    model.load_state_dict(dict(weights))
    whole = CropSettings(whole_image=True)
    return LamaInpainter(model, name=recipe.model, crops=whole, prefill=recipe.prefill)


def parameters(shape: LamaParams) -> int:
    """How many a generator of this shape has."""
    return sum(p.numel() for p in build_generator(shape).parameters())


TITLES = {
    2: "Table 2: generators of one width, trained alike",
    3: "Table 3: with and without the perceptual loss",
    4: "Table 4: masks of training",
}
SHOWN = ("fid", "lpips", "hole_psnr", "ssim", "flip")


def as_tables(
    chosen: Sequence[Variant],
    steps: int,
    rows: Sequence[Row],
    columns: Sequence[Metric],
    tables: Sequence[int],
) -> str:
    """Markdown in the paper's layout: a line a variant, narrow and wide holes side by side.

    rows: summaries by masks and inpainter, where the inpainter is the variant's name.
    """
    shown = [metric for name in SHOWN for metric in columns if metric.name == name]
    kinds = list(dict.fromkeys(str(row["masks"]) for row in rows))
    head = ["variant", "parameters", "blocks", "trained on", "steps"]
    head += [f"{kind}: {metric.title}" for kind in kinds for metric in shown]
    texts = []
    for table in tables:
        lines = [f"### {TITLES[table]}", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        for variant in (v for v in chosen if table in v.tables):
            cells = [variant.name, f"{parameters(variant.shape):,}", str(variant.shape.n_blocks)]
            cells += [variant.masks, str(steps)]
            for kind in kinds:
                row = next(r for r in rows if r["masks"] == kind and r["inpainter"] == variant.name)
                cells += [_shown(row[metric.name], metric) for metric in shown]
            lines.append(f"| {' | '.join(cells)} |")
        texts.append("\n".join(lines))
    return "\n\n".join(texts)


def _shown(value: object, metric: Metric) -> str:
    if not isinstance(value, float):
        return metric.needs or "too few pairs"
    return f"{value:.{metric.decimals}f}"
