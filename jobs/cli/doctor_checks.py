"""What is installed, reachable and missing: the checks behind `cleanplate doctor`. Each is a line with a way out."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from itertools import chain
from typing import Literal

from packaging.requirements import Requirement

from cleanplate.models import devices
from cleanplate.models.weights import registry
from cleanplate.pipeline.engine import ray_cluster
from cleanplate.pipeline.errors import CleanplateError, ConfigError, StorageError, redacted
from cleanplate.pipeline.factory import attachments, check
from cleanplate.pipeline.recipe import provenance
from cleanplate.pipeline.recipe.recipe import CLASSIC_INPAINTERS, Recipe
from cleanplate.pipeline.storage.connect import CloudStore, LocalStore, S3Store, Store, open_store

State = Literal["ok", "note", "bad"]
_SHM, _SMALL_SHM = "/dev/shm", 2 * 2**30


@dataclass(frozen=True)
class Check:
    """One line: `bad` keeps a run from working, `note` may slow it or is good to know. hint: what to do."""

    area: str
    name: str
    state: State
    text: str
    hint: str = ""


def examine(recipe: Recipe, address: str | None, source: str | None, output: str | None) -> Iterator[Check]:
    """Every check that applies, in order. Nothing is fetched. An output is written to: one small object, put
    only if absent, then deleted, because exactly-once stands on that."""
    parts = [_packages(), _devices(recipe, address), _ray(address), _weights(recipe)]
    places = (("source", source), ("output", output))
    parts += [_place(role, open_store(place)) for role, place in places if place is not None]
    for one in chain.from_iterable(parts):
        yield replace(one, text=redacted(one.text))


def _packages() -> Iterator[Check]:
    """What cleanplate itself asks for, with the versions that are here; then its extras."""
    yield Check("package", "cleanplate", "ok", provenance.code_version())
    yield Check("package", "python", "ok", sys.version.split()[0])
    try:
        wanted = [Requirement(line) for line in metadata.requires("cleanplate") or ()]
        extras = metadata.metadata("cleanplate").get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        wanted, extras = [Requirement(name) for name in provenance.packages()], []
    for one in wanted:
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            lacking = _lacking(one)
            hint = f"pip install '{one}'" if lacking else ""
            yield Check(
                "package", one.name, "bad" if lacking else "ok", lacking or metadata.version(one.name), hint
            )
    for extra in extras:
        named = [one for one in wanted if one.marker and one.marker.evaluate({"extra": extra})]
        absent = [one.name for one in named if one.name != "cleanplate" and _lacking(one)]
        if absent:
            hint = f"pip install '.[{extra}]' in the clone, if you need it"
            yield Check("package", f"extra {extra}", "note", f"without {', '.join(absent)}", hint)


def _lacking(wanted: Requirement) -> str:
    """What is wrong with an installed package, in words; "" when it fits."""
    try:
        found = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return "not installed"
    return "" if wanted.specifier.contains(found, prereleases=True) else f"{found}, wanted {wanted.specifier}"


def _devices(recipe: Recipe, address: str | None) -> Iterator[Check]:
    found = devices.describe()
    for name, text in found.items():
        yield Check("device", name, "ok", text)
    yield _onnx(recipe)
    if recipe.engine.gpus and "CUDA" in found and address is None:
        hint = "name a cluster with --address, or say engine.gpus 0"
        yield Check(
            "device", "engine.gpus", "bad", f"{recipe.engine.gpus:g} asked for, {found['CUDA']}", hint
        )
    if recipe.inpaint.precision == "bf16" and "emulated" in found["bf16"] and not recipe.engine.gpus:
        yield Check(
            "device", "inpaint.precision", "note", "bf16 is slower than fp32 here", "--precision fp32"
        )
    if os.path.isdir(_SHM) and shutil.disk_usage(_SHM).total < _SMALL_SHM:
        size = shutil.disk_usage(_SHM).total / 2**30
        hint = "in a container: --shm-size=4g; Ray's object store falls back to slow files"
        yield Check("device", _SHM, "note", f"{size:.1f} GiB", hint)


def _onnx(recipe: Recipe) -> Check:
    """Where the networks that are ONNX files (text, plates, faces) run; the others run in torch."""
    from cleanplate.models.detectors.onnx_session import CUDA, runtime

    built = CUDA in runtime().get_available_providers()
    if recipe.engine.gpus and not built:
        hint = "see the extra `gpu` in docs/cluster.md: most of the time is theirs"
        return Check("device", "onnxruntime", "note", "built for CPUs: text and faces are found there", hint)
    text = "CUDA, with engine.gpus" if built else "CPU"
    return Check("device", "onnxruntime", "ok", text)


def _ray(address: str | None) -> Iterator[Check]:
    version = provenance.packages()["ray"]
    yield Check("ray", "version", "ok", version)
    wanted = os.environ.get("RAY_ADDRESS")
    if address is None:
        text = (
            f"RAY_ADDRESS is {wanted}; used with --address auto only"
            if wanted
            else "starts with a run and ends with it"
        )
        yield Check("ray", "this machine", "ok", text)
        return
    try:
        ray_cluster.reachable(address)
        with ray_cluster.connected(address) as where:
            yield Check("ray", address, "ok", where)
    except CleanplateError as error:
        yield Check("ray", address, "bad", str(error), "start the cluster, or leave --address out")


def _weights(recipe: Recipe) -> Iterator[Check]:
    yield Check("weights", "cache folder", "ok", str(registry.cache_folder()))
    for name in check.weights_of(recipe):
        try:
            path = registry.resolve(name, download=False)
        except registry.WeightsError as error:
            known = name in registry.known()
            size = registry.known()[name].bytes if known else None
            text = (
                f"not on this machine{f' ({size / 2**20:,.0f} MiB)' if size else ''}" if known else str(error)
            )
            yield Check("weights", name, "bad", text, f"cleanplate weights fetch {name}" if known else "")
        else:
            yield Check("weights", name, "ok", f"checksum ok ({registry.describe(name)[1][:12]}): {path}")
    if recipe.inpaint.name in CLASSIC_INPAINTERS:
        yield Check("weights", recipe.inpaint.name, "ok", "needs none")
    try:
        for name, digest in attachments.digests(recipe).items():
            yield Check("weights", name, "ok", f"sha256 {digest[:12]}")
    except ConfigError as error:
        yield Check("weights", "files", "bad", str(error), "correct the place in the recipe")


def _place(role: str, store: Store) -> Iterator[Check]:
    if isinstance(store, S3Store | CloudStore):
        for name, text in store.who().items():
            yield Check(role, name, "note" if text.startswith("none") else "ok", text)
    try:
        store.reach()
        yield _listed(store) if role == "source" else _written(store)
    except StorageError as error:
        hint = "give a folder that exists and may be used" if isinstance(store, LocalStore) else ""
        yield Check(role, store.url, "bad", str(error), hint)


def _listed(store: Store) -> Check:
    first = next(iter(store.list()), None)
    if first is None:
        return Check("source", store.url, "bad", "nothing is there", "check the folder or prefix")
    return Check("source", store.url, "ok", f"can be listed: {first.key!r}, ...")


def _written(store: Store) -> Check:
    """Put if absent, twice: a server that lets the second one win would lose exactly-once without a word."""
    new_folder = isinstance(store, LocalStore) and not store.root.exists()
    key = f".doctor-{secrets.token_hex(6)}"
    try:
        first, again = store.put_new(key, b"a probe of cleanplate doctor"), store.put_new(key, b"2")
    finally:
        store.delete(key)
        if new_folder and isinstance(store, LocalStore):
            store.root.rmdir()
    if first and not again:
        return Check("output", store.url, "ok", "can be written; conditional writes work")
    hint = "use a server with conditional puts (If-None-Match): AWS S3, Google, Azure, SeaweedFS, recent MinIO or Ceph"
    return Check("output", store.url, "bad", "ignores conditional writes: rows could be doubled", hint)
