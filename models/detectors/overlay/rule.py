"""Which candidates are overlay: a logistic regression on their evidence, fitted to one set of weights of the U-Net.

It travels in the metadata of the weights' file, so that the two cannot be mixed up and one sha256 names both.
`python -m cleanplate.jobs.train.fit_watermark` fits it (models/training/marks/overlay_rule.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

KEY = "watermark_rule"
"""In the file's metadata."""


@dataclass(frozen=True)
class Rule:
    """lines, blobs: weight of each piece of evidence by its name, and of "bias": the logit of being overlay.
    first: score (a probability) from which a candidate makes a picture a marked one; more: score from which the other
    candidates of such a picture count."""

    lines: Mapping[str, float]
    blobs: Mapping[str, float]
    first: float
    more: float

    def score(self, line: bool, evidence: Mapping[str, float]) -> float:
        """Chance in [0, 1] that the candidate is overlay. Raises KeyError when a weight has no evidence."""
        weights = self.lines if line else self.blobs
        logit = sum(weight * (1.0 if name == "bias" else evidence[name]) for name, weight in weights.items())
        return 1 / (1 + float(np.exp(-np.clip(logit, -30, 30))))

    def text(self) -> str:
        """As JSON, for the metadata; four digits are enough."""
        rounded = {key: _rounded(value) for key, value in asdict(self).items()}
        return json.dumps(rounded, separators=(",", ":"))


def _rounded(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _rounded(one) for key, one in value.items()}
    return float(f"{value:.4g}")


def read_rule(path: Path) -> Rule:
    """The rule in a safetensors file. Raises ValueError when there is none."""
    try:
        with safe_open(path, "numpy") as opened:
            text = (opened.metadata() or {}).get(KEY)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from error
    if text is None:
        raise ValueError(
            f"{path} holds no rule that tells overlay from scene; fit one: "
            f"python -m cleanplate.jobs.train.fit_watermark PHOTOS {path}"
        )
    return Rule(**json.loads(text))


def has_rule(path: Path) -> bool:
    """Whether there is one in a safetensors file."""
    with safe_open(path, "numpy") as opened:
        return KEY in (opened.metadata() or {})


def write_rule(path: Path, rule: Rule) -> None:
    """Put the rule into the file's metadata; tensors and the rest of the metadata stay as they are."""
    with safe_open(path, "numpy") as opened:
        facts = dict(opened.metadata() or {})
    partial = path.with_name(path.name + ".partial")
    save_file(load_file(path), partial, metadata=facts | {KEY: rule.text()})
    os.replace(partial, path)


def fit_logistic(
    evidence: npt.NDArray[np.float64], overlay: npt.NDArray[np.float64], ridge: float = 1.0
) -> npt.NDArray[np.float64]:
    """Weights, the bias first, of a logistic regression by Newton's method; evidence: N x K, overlay: N of 0 and 1.
    The columns are standardised inside, and `ridge` times the squared weights of those is added to the loss."""
    mean, spread = evidence.mean(0), evidence.std(0) + 1e-6
    columns = np.c_[np.ones(len(evidence)), (evidence - mean) / spread]
    penalty = ridge * np.diag(np.r_[1e-6, np.ones(evidence.shape[1])])
    weights = np.zeros(columns.shape[1])
    for _ in range(30):
        chance = 1 / (1 + np.exp(-np.clip(columns @ weights, -30, 30)))
        slope = columns.T @ (chance - overlay) + penalty @ weights
        curve = (columns * (chance * (1 - chance))[:, None]).T @ columns + penalty
        weights = weights - np.linalg.solve(curve, slope)
    plain = weights[1:] / spread
    return np.asarray(np.r_[weights[0] - plain @ mean, plain], np.float64)
