"""The dataset for machines: croissant.json, Croissant 1.0 (MLCommons)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from cleanplate.pipeline import schema
from cleanplate.pipeline.ledger import ledger
from cleanplate.pipeline.ledger.facts import Facts
from cleanplate.pipeline.ledger.layouts import IMAGES, SHARDS
from cleanplate.pipeline.recipe import provenance

_TYPES = {
    pa.string(): "sc:Text",
    pa.int32(): "sc:Integer",
    pa.int64(): "sc:Integer",
    pa.float32(): "sc:Float",
}
_TYPES |= {pa.bool_(): "sc:Boolean"}


def croissant(
    url: str,
    record: Mapping[str, Any],
    facts: Facts,
    places: Sequence[str],
    *,
    name: str,
    layout: str,
    edits: Sequence[str],
) -> dict[str, Any]:
    """The dataset in Croissant 1.0: the parts as one file set, their flat columns as one record set.

    url: the output's. record: run.json. facts: of its rows. places: patterns of the parts. name: the dataset's. layout:
    where the pictures lie (`output.layout`). edits: the kinds that were looked for.
    """
    files = [_file_set(ledger.PARTS, "parts", "application/x-parquet", places)]
    if layout == "files":
        files.append(_file_set("pictures", "output pictures", "image/*", [f"{IMAGES}/**"]))
    if layout == "webdataset":
        files.append(_file_set("shards", "WebDataset shards", "application/x-tar", [f"{SHARDS}/*.tar"]))
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "description": f"{facts.rows} images in which cleanplate looked for {', '.join(edits)} "
        "and edited it, with the provenance of every row. See README.md.",
        "license": "as the source's",
        "url": url,
        "version": "1.0.0",
        "datePublished": record["started"],
        "creator": {"@type": "sc:Organization", "name": f"cleanplate {provenance.code_version()}"},
        "citeAs": f"{name}, cleaned with cleanplate, recipe {record['recipe_digest'][:12]}",
        "distribution": files,
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "rows",
                "name": "rows",
                "description": "One row per input image; nested columns are described in README.md's Parquet schema.",
                "field": list(_fields(layout == "parquet")),
            }
        ],
    }


def _file_set(name: str, what: str, encoding: str, includes: Sequence[str]) -> dict[str, Any]:
    fields = {"@type": "cr:FileSet", "@id": name, "name": name, "description": what}
    return fields | {
        "encodingFormat": encoding,
        "includes": includes[0] if len(includes) == 1 else list(includes),
    }


def _fields(pictures: bool) -> Any:
    """The flat columns, lists of words, and the picture (or where it lies)."""
    for column in schema.part_schema():
        doc = column.metadata[b"doc"].decode()
        if column.name == "image":
            kind, leaf = ("sc:ImageObject", "bytes") if pictures else ("sc:Text", "path")
            yield _field(column.name, kind, doc, transform={"jsonPath": leaf})
        elif column.type in _TYPES:
            yield _field(column.name, _TYPES[column.type], doc)
        elif pa.types.is_list(column.type) and column.type.value_type in _TYPES:
            yield _field(column.name, _TYPES[column.type.value_type], doc) | {"repeated": True}


def _field(name: str, kind: str, doc: str, **extra: Any) -> dict[str, Any]:
    source = {"fileSet": {"@id": ledger.PARTS}, "extract": {"column": name}, **extra}
    fields = {"@type": "cr:Field", "@id": f"rows/{name}", "name": name, "description": doc}
    return fields | {"dataType": kind, "source": source}


# The context that Croissant 1.0 prescribes (its specification, appendix "JSON-LD context").
_CROISSANT_WORDS = (
    *("citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet"),
    *("format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet"),
    *("references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField"),
    "transform",
)
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{word: f"cr:{word}" for word in _CROISSANT_WORDS},
}
