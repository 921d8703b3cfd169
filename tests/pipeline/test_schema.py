"""The columns: typed rows name the same ones."""

from __future__ import annotations

import pyarrow as pa
import pytest

from cleanplate.pipeline import schema
from cleanplate.pipeline.schema import rows

STRUCTS = [
    (rows.RegionRow, schema.REGION),
    (rows.ReviewRow, schema.REVIEW),
    (rows.ErrorRow, schema.ERROR),
    (rows.Patch, schema.PATCH),
    (rows.UntouchedRow, schema.UNTOUCHED),
    (rows.ImageRow, schema.IMAGE),
    (rows.WeightsRow, schema.WEIGHTS),
]


@pytest.mark.parametrize(("typed", "struct"), STRUCTS, ids=lambda one: getattr(one, "__name__", ""))
def test_typed_structs_have_the_fields_of_their_columns(typed: type, struct: pa.StructType) -> None:
    assert set(typed.__annotations__) - {"filler"} == {field.name for field in struct}


def test_a_typed_row_has_every_column() -> None:
    assert set(rows.Row.__annotations__) == set(schema.COLUMNS)
