"""What goes wrong at a request, as words for the page and a status: the one table of it."""

from __future__ import annotations

import logging

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from cleanplate.models.weights.fetch import WeightsError
from cleanplate.pipeline.errors import ConfigError, RowError, StorageError, redacted
from cleanplate.pipeline.images.formats.base import ImageError

_LOG = logging.getLogger("cleanplate.serve")
EXPECTED = (
    ConfigError,
    WeightsError,
    StorageError,
    RowError,
    ImageError,
    ValidationError,
    HTTPException,
    KeyError,
)


class InALine:
    """What nobody expected: words for the page, and one line in the log instead of a traceback for each request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - sent to the page and to the log
            message = f"{type(error).__name__}: {redacted(str(error))[:300]}"
            _LOG.error("%s %s: %s", scope.get("method"), scope.get("path"), message)
            await JSONResponse({"error": f"this should not happen: {message}"}, 500)(scope, receive, send)


def explained(request: Request, error: Exception) -> Response:
    """What went wrong, as words that the page shows."""
    status, text = 400, str(error)
    if isinstance(error, HTTPException):
        status, text = error.status_code, error.detail
    elif isinstance(error, KeyError):
        status, text = 404, "this picture is no longer open here: open it again"
    elif isinstance(error, RowError):
        status, text = 415, f"{error.kind.replace('_', ' ')}: {error}"
    elif isinstance(error, ValidationError):
        text = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
    return JSONResponse({"error": text}, status)
