"""Which columns of a table hold the pictures that are cleaned."""

from __future__ import annotations

import pyarrow as pa

from cleanplate.pipeline.errors import RowError

Asked = str | tuple[str, ...] | None
"""A column, several, "all" that are images, or None: the one that looks most like images."""
ALL = "all"
_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "content")


def image_columns(schema: pa.Schema, asked: Asked) -> tuple[list[str], RowError | None]:
    """The columns asked for that are there, and why the others are not.

    ALL: those that `datasets` calls an Image, and structs with bytes; where a table has none, the one that looks most
    like images. Raises RowError("container") where none is there.
    """
    if asked == ALL and ALL not in schema.names:
        whole = [
            field.name for field in schema if pa.types.is_struct(field.type) and _holds_bytes(field.type)
        ]
        asked = tuple(whole) or None
    if not isinstance(asked, tuple):
        return [image_column(schema, asked)], None
    found: list[str] = []
    wrong: RowError | None = None
    for name in asked:
        try:
            found.append(image_column(schema, name))
        except RowError as error:
            wrong = error
    if not found and wrong is not None:
        raise wrong
    return found, wrong


def packed(asked: Asked) -> str:
    """As one word of an address."""
    return asked if isinstance(asked, str) else "\n".join(asked or ())


def unpacked(word: str) -> Asked:
    names = tuple(word.split("\n"))
    return names if len(names) > 1 else word or None


def image_column(schema: pa.Schema, asked: str | None) -> str:
    """The column that holds encoded images: the one asked for, else the first that `datasets` calls an Image, else
    the first struct with bytes, else a binary column with a usual name, else the only binary column.

    Raises RowError("container") that names the columns there are, also where two have the name.
    """
    names: list[str] = schema.names
    fits = [field.name for field in schema if _holds_bytes(field.type)]
    columns = f"there are {', '.join(names)[:200]}"
    found = _chosen_column(schema, asked, fits)
    if found is None:
        if asked is not None:
            raise RowError("container", f"no column {asked!r} of bytes; {columns}")
        raise NoImageColumn("container", f"no column looks like images; {columns}")
    if names.count(found) > 1:
        raise RowError("container", f"{names.count(found)} columns are called {found!r}; {columns}")
    return found


class NoImageColumn(RowError):
    """A table in which no column looks like images."""


def _chosen_column(schema: pa.Schema, asked: str | None, fits: list[str]) -> str | None:
    if asked is not None:
        return asked if asked in fits else None
    features = (schema.metadata or {}).get(b"huggingface", b"")
    structs = [field.name for field in schema if field.name in fits and pa.types.is_struct(field.type)]
    called = [name for name in structs if f'"{name}": {{"_type": "Image"'.encode() in features]
    binary = [name for name in fits if name not in structs]
    usual = [name for name in _COLUMNS if name in binary]
    found = [*called, *structs, *usual, *(binary if len(binary) == 1 else [])]
    return found[0] if found else None


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(f.name == "bytes" and _holds_bytes(f.type) for f in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))
