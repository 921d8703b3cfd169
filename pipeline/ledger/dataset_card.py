"""The dataset's card, written when a run is complete: README.md for people and hubs, croissant.json for machines.

Both are made anew from the ledger alone, so that every completed run says what lies there now. The README's YAML
head tells `datasets.load_dataset` that the parts are the data; croissant.json is Croissant 1.0 (MLCommons).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from cleanplate.models.weights import registry as weight_table
from cleanplate.pipeline import schema
from cleanplate.pipeline.errors import DamagedError
from cleanplate.pipeline.ledger import ledger, statistics
from cleanplate.pipeline.ledger.croissant import croissant
from cleanplate.pipeline.ledger.facts import Facts
from cleanplate.pipeline.recipe.sections import HIDING
from cleanplate.pipeline.storage.connect import Store

README, CROISSANT = "README.md", "croissant.json"
_SIZES = (
    *((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")),
    *((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M")),
)
_MEANING = {
    "unchanged": "nothing was found",
    "cleaned": "found, removed, and not found again",
    "hidden": "found; some of it is hidden, not removed: the column `hidden` says by what",
    "residual": "something was still found after the allowed passes: look at these",
    "skipped": "a limit of the recipe excluded it; without a picture unless the recipe keeps them",
    "failed": "could not be read or processed; without a picture",
}


def write(output: Store) -> None:
    """Write both files to the output's root. Raises StorageError, and DamagedError where rows cannot be counted."""
    record = ledger.read_record(output)
    facts, places = statistics.gather(output, "", 1, 0), _places(output)
    if facts.unreadable:
        raise DamagedError("; ".join(facts.unreadable[:3]))
    output.put(README, readme(output.url, record, facts, places).encode())
    names = {"name": _name(output.url), "layout": _layout(record)}
    record_set = croissant(output.url, record, facts, places, **names, edits=_edits(record))
    output.put(CROISSANT, (json.dumps(record_set, indent=1) + "\n").encode())


def _places(output: Store) -> list[str]:
    """Patterns below the output that together name every part that counts, and no other: a folder of each compaction,
    and `parts/`, by file where parts that a compaction replaced lie there still."""
    names = ledger.part_keys(output)
    large = sorted({f"{name.rpartition('/')[0]}/*.parquet" for name in names if "/" in name})
    small = [name for name in names if "/" not in name]
    listed = [item.key for item in output.list(ledger.PARTS) if item.key.endswith(".parquet")]
    if small and len(listed) > len(small):
        return [*large, *(ledger.part_key(name) for name in small)]
    return [*large, _PARTS] if small or not large else large


_PARTS = f"{ledger.PARTS}/*.parquet"


def _name(url: str) -> str:
    return url.rstrip("/").rpartition("/")[2] or "cleaned"


def _layout(record: Mapping[str, Any]) -> str:
    return str(record["recipe"].get("output", {}).get("layout", "parquet"))


# --- README.md ---


def readme(url: str, record: Mapping[str, Any], facts: Facts, places: Sequence[str]) -> str:
    """url: the output's. record: run.json. facts: what `statistics.gather` counted. places: patterns of the parts."""
    size = next((name for limit, name in _SIZES if facts.rows < limit), "n>100M")
    head = {
        "pretty_name": _name(url),
        "license": "other",
        "license_name": "as-the-source",
        "size_categories": [size],
        "tags": ["image", "cleanplate"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": places[0] if len(places) == 1 else list(places)}],
            }
        ],
    }
    parts = [
        "---\n" + yaml.safe_dump(head, sort_keys=False) + "---",
        f"# {_name(url)}",
        _what(record),
        "## Rows\n" + _counts(facts),
        "## Read it\n" + _how(record, places),
        "## What was done\n" + _done(record),
        "## Licences\n" + _licences(record),
        "## What is not promised\n"
        "Detectors miss things. Verification looks again at another scale, which catches what scale and tiling lost, "
        "not what a network cannot see. Look at the rows whose status is `residual` or `failed`, and at samples "
        "of the rest, before calling this dataset free of anything.",
    ]
    return "\n\n".join(parts) + "\n"


def _what(record: Mapping[str, Any]) -> str:
    kinds, source = ", ".join(_edits(record)), _plain(_public(record["source"]))
    return (
        f"Images of `{source}`. Looked for and edited by cleanplate: **{kinds}**. Found, masked, "
        "filled, and looked for again. One row per source image; every pixel outside "
        "a row's `edited_rle` is the source's."
    )


def _edits(record: Mapping[str, Any]) -> list[str]:
    """The kinds that were looked for; of those that are only hidden by what: "face: hidden (pixelate)"."""
    inpaint, kinds = record["recipe"]["inpaint"], record["recipe"]["remove"]
    fillers = [inpaint["per_kind"].get(kind, inpaint["name"]) for kind in kinds]
    return [
        f"{kind}: hidden ({by})" if by in HIDING else kind for kind, by in zip(kinds, fillers, strict=True)
    ]


def _public(source: str) -> str:
    """The source as a card may name it: a bucket in full, of a local folder its name only. A card is published, and
    a path tells of the machine and its user."""
    return (
        source
        if "://" in source and not source.startswith("file:")
        else source.rstrip("/").rpartition("/")[2]
    )


def _counts(facts: Facts) -> str:
    lines = ["| status | rows | meaning |", "|---|---:|---|"]
    lines += [
        f"| `{s}` | {facts.statuses[s]:,} | {_MEANING[s]} |" for s in schema.STATUSES if facts.statuses[s]
    ]
    lines.append(f"| all | {facts.rows:,} | |")
    if facts.kinds:
        lines += ["", "| kind | images | finds | left in images |", "|---|---:|---:|---:|"]
        lines += [
            f"| {_plain(kind)} | {k.images:,} | {k.finds:,} | {k.left_images:,} |"
            for kind, k in sorted(facts.kinds.items())
        ]
    if facts.causes:
        lines += ["", "| why skipped or failed | rows |", "|---|---:|"]
        causes = sorted(facts.causes.items(), key=lambda item: -item[1].images)
        lines += [f"| {_plain('/'.join(cause))} | {c.images:,} |" for cause, c in causes]
    return "\n".join(lines)


def _how(record: Mapping[str, Any], places: Sequence[str]) -> str:
    layout = _layout(record)
    load = {
        "parquet": '"FOLDER"',
        "files": '"imagefolder", data_dir="FOLDER/images"',
        "webdataset": '"webdataset", data_files="FOLDER/shards/*.tar"',
    }[layout]
    where = {
        "parquet": "Pictures are in `image.bytes` of the parts.",
        "files": "Pictures are files below `images/`, named like the source's; `image.path` of a row says which.",
        "webdataset": "Pictures are in `shards/*.tar`, each beside its row as JSON; `image.path` says where.",
    }[layout]
    shown = list(dict.fromkeys(place if "*" in place else _PARTS for place in places))
    beside = ""
    if shown != list(places):
        beside = (
            "\n\n`parts/` still holds parts that the large ones replaced. `cleanplate verify FOLDER --sweep` removes "
            "them; until then other tools must read the files that the head of this file names, or rows come twice."
        )
    return (
        f"{where} {_listed(shown)} {'holds' if len(shown) == 1 else 'hold'} the provenance of every row: what was "
        "found, its mask, what filled it, what was measured. A row that was tried again is there twice; the higher "
        f"`attempt` counts.{beside}\n\n"
        f"```python\nimport datasets, duckdb\n\n"
        f'datasets.load_dataset({load}, split="train")[0]\n'
        f'duckdb.sql("select status, count(*) from {_from(shown)} group by 1")\n```'
    )


def _listed(places: Sequence[str]) -> str:
    return " and ".join(f"`{place}`" for place in places)


def _from(places: Sequence[str]) -> str:
    """DuckDB's words for these files."""
    words = ", ".join(f"'FOLDER/{place}'" for place in places)
    return words if len(places) == 1 else f"read_parquet([{words}])"


def _done(record: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in record["packages"].items())
    recipe = yaml.safe_dump(record["recipe"], sort_keys=False)
    return (
        f"cleanplate {record['code_version']}, started {record['started']}, recipe "
        f"`{record['recipe_digest']}`. With {versions}.\n\n```yaml\n{recipe}```"
    )


def _licences(record: Mapping[str, Any]) -> str:
    lines = [
        "The pictures keep the licence of their source, which this run does not know: state it here before sharing.",
        "",
        "| weights | sha256 | licence |",
        "|---|---|---|",
    ]
    known = weight_table.known()
    for name, sha256 in record["weights"].items():
        entry = known.get(name)
        licence = entry.licence if entry is not None and entry.sha256 == sha256 else "unknown"
        lines.append(f"| {_plain(name)} | `{sha256}` | {_plain(licence)} |")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text from outside as one line that neither ends a table's cell nor starts markup."""
    return "".join(c if c.isprintable() and c not in "|`<>" else " " for c in str(text))
