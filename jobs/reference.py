"""The references in docs/, made from the code that they describe: `python -m cleanplate.jobs.reference docs`.

A test compares them with the files, so they cannot grow apart.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel

from cleanplate.pipeline import schema
from cleanplate.pipeline.recipe.recipe import Detect, Recipe, dump
from cleanplate.pipeline.recipe.run_sections import StageEngine


def columns_page() -> str:
    """docs/columns.md: every column of a part."""
    lines = [
        "# Columns of a part",
        "",
        "One row per input image, whatever became of it. Made by `python -m cleanplate.jobs.reference docs`.",
        "",
        "Boxes are xyxy pixels in the upright image. Masks are COCO compressed RLE of height x width:",
        '`pycocotools.mask.decode({"size": [height, width], "counts": rle})`.',
        "",
        "| column | type | meaning |",
        "|---|---|---|",
    ]
    for field in schema.part_schema():
        doc = schema.COLUMNS[field.name].metadata[b"doc"].decode().replace("|", "\\|")
        lines.append(f"| `{field.name}` | `{_type(field.type)}` | {doc} |")
    return "\n".join(lines) + "\n"


def recipe_page() -> str:
    """docs/recipe.md: every key of a recipe, and the defaults as YAML."""
    lines = [
        "# The recipe",
        "",
        "The whole configuration of a run. Everything has a default; a file names only what differs, and flags",
        "are laid over the file. An unknown key is an error. `engine` is no part of the recipe's digest: a run",
        "may be resumed on another cluster. Made by `python -m cleanplate.jobs.reference docs`.",
        "",
        "`cleanplate plan --schema` prints the JSON schema, for editors that complete YAML.",
        "",
        *_table("", Recipe),
    ]
    for name, field in Recipe.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            lines += [
                "",
                f"## {name}",
                "",
                (kind.__doc__ or "").strip().splitlines()[0],
                "",
                *_table(f"{name}.", kind),
            ]
    for name, kind in (("detect.KIND", Detect), ("engine.stages.STAGE", StageEngine)):
        lines += ["", f"## {name}", "", (kind.__doc__ or "").strip(), "", *_table(f"{name}.", kind)]
    return "\n".join([*lines, "", "## All defaults", "", "```yaml", dump(Recipe()).rstrip(), "```"]) + "\n"


def _table(prefix: str, model: Any) -> list[str]:
    lines = ["| key | values | default | meaning |", "|---|---|---|---|"]
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            continue
        if field.exclude:  # Set by a run, not by people.
            continue
        word = field.alias or name
        default = model.model_validate({}).model_dump(mode="json")[word]
        text = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{prefix}{word}` | {_values(properties[word])} | `{default}` | {text} |")
    return lines


def _values(prop: dict[str, Any]) -> str:
    """A JSON-schema property in a few words."""
    if "prefixItems" in prop:
        return f"{len(prop['prefixItems'])} numbers"
    if "anyOf" in prop:
        return " or ".join(_values(option) for option in prop["anyOf"])
    if "$ref" in prop:
        return "mapping"
    if "enum" in prop:
        return ", ".join(f"`{value}`" for value in prop["enum"])
    if "const" in prop:
        return f"`{prop['const']}`"
    if prop.get("type") == "array" and "items" in prop:
        return "list of " + _values(prop["items"])
    low = prop.get("minimum", prop.get("exclusiveMinimum"))
    high = prop.get("maximum")
    word = str(prop.get("type", ""))
    kind = {"array": "list", "object": "mapping"}.get(word, word)
    return kind + (
        f" {low:g} .. {high:g}" if low is not None and high is not None else f" from {low:g}" if low else ""
    )


def _type(kind: pa.DataType) -> str:
    if pa.types.is_struct(kind):
        return "struct<" + ", ".join(f"{f.name}: {_type(f.type)}" for f in kind) + ">"
    if pa.types.is_fixed_size_list(kind):
        return f"{_type(kind.value_type)}[{kind.list_size}]"
    if pa.types.is_list(kind):
        return f"list<{_type(kind.value_type)}>"
    return str(kind)


PAGES = {"columns.md": columns_page, "recipe.md": recipe_page}

if __name__ == "__main__":
    for page, text_of in PAGES.items():
        (Path(sys.argv[1]) / page).write_text(text_of(), encoding="utf-8")
