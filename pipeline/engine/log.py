"""Structured logs: one JSON object a line, by the standard library's logging, from the logger "cleanplate".

A failed row says run_id, image_id, attempt, unit and its error where it is committed: in a worker's standard error,
which Ray keeps per worker and its dashboard shows, or, without Ray, where CLEANPLATE_LOG says (a file; "-" =
standard error).
"""

from __future__ import annotations

import datetime
import json
import logging
import os

import pyarrow as pa

from cleanplate.pipeline.errors import redacted

NAME = "cleanplate"
_FIELDS = ("run_id", "unit", "image_id", "attempt", "source_uri", "error")


class JsonLines(logging.Formatter):
    """time (UTC, ISO), level, event, and whichever of `_FIELDS` the record has."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        fields = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        fields |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        return redacted(json.dumps(fields, ensure_ascii=True))


def start(place: str | None = None) -> None:
    """Send the log to `place`, or where CLEANPLATE_LOG says, or nowhere. The first call of a process decides."""
    logger = logging.getLogger(NAME)
    if logger.handlers:
        return
    place = os.environ.get("CLEANPLATE_LOG") or place
    handler: logging.Handler
    if not place:
        handler = logging.NullHandler()
    elif place == "-":
        handler = logging.StreamHandler()
    else:
        handler = logging.FileHandler(place, encoding="utf-8", errors="backslashreplace", delay=True)
    handler.setFormatter(JsonLines())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def failed_rows(unit: str, table: pa.Table) -> None:
    """A warning for each failed row of a part."""
    logger = logging.getLogger(NAME)
    for row in table.select(["status", *(f for f in _FIELDS if f != "unit")]).to_pylist():
        if row.pop("status") == "failed":
            logger.warning("row failed", extra={"unit": unit, **row})


def event(name: str, **fields: object) -> None:
    """Something that concerns no single row. fields: some of `_FIELDS`."""
    logging.getLogger(NAME).info(name, extra=fields)
