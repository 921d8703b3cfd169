"""Weights out of an S3 bucket, through boto3's usual environment."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from cleanplate.models.weights.fetch import silent
from cleanplate.models.weights.registry import Weights, WeightsError, add, fetch, resolve


def test_weights_from_a_bucket(s3: Any, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096
    s3.put("weights/tiny one.safetensors", content)
    source = f"s3://{s3.bucket}/weights/tiny one.safetensors"
    digest = hashlib.sha256(content).hexdigest()
    weights = Weights("tiny", "lama", "big-lama", (source,), digest, len(content), "MIT", "for the test")
    path = fetch(weights, cache_dir=tmp_path, progress=silent)
    assert path.name == f"{digest[:16]}-tiny one.safetensors"
    assert path.read_bytes() == content

    result = add("mine", source, kind="lama", cache_dir=tmp_path / "other", progress=silent)
    assert result.sha256 == digest
    assert resolve("mine", cache_dir=tmp_path / "other").read_bytes() == content

    none = Weights("none", "lama", "", (f"s3://{s3.bucket}/none",), "0" * 64, None, "MIT", "")
    with pytest.raises(WeightsError, match="Ways out"):
        fetch(none, cache_dir=tmp_path, progress=silent)
