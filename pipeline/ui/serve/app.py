"""The web server of `cleanplate serve`: routes between the page and the workspace."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from importlib import resources
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from pydantic import BaseModel, ConfigDict
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cleanplate.pipeline.recipe import provenance
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.ui.serve import failures, options, places, sources, views
from cleanplate.pipeline.ui.serve.access import Guard
from cleanplate.pipeline.ui.serve.sources import Item
from cleanplate.pipeline.ui.serve.state import ServerState
from cleanplate.pipeline.ui.serve.workspace import Point, Wanted

VIEW_SIDE, THUMB_SIDE = 2048, 240
_MAX_JSON = 8 * 2**20
_PAGE = {
    "serve.css": "text/css",
    "base.css": "text/css",
    **dict.fromkeys(
        (
            *("elements.js", "slider.js", "theme.js", "serve.js", "serve_api.js", "serve_canvas.js"),
            *("serve_panel.js", "serve_chooser.js"),
        ),
        "text/javascript",
    ),
}
_MIME = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "tiff": "image/tiff",
    "bmp": "image/bmp",
}


class _Look(BaseModel):
    model_config = ConfigDict(extra="forbid")
    recipe: Recipe


class _Click(_Look):
    point: Point


def app(state: ServerState, hosts: frozenset[str], token: str) -> Starlette:
    """The page as an ASGI application. hosts, token: see `guard`."""
    server = Starlette(
        routes=[
            Route("/", _page),
            Route("/page/{name}", _file),
            Route("/api/start", _start),
            Route("/api/state", _progress),
            Route("/api/source", _source),
            Route("/api/source/{n:int}/thumb", _thumb),
            Route("/api/recipe", _recipe, methods=["POST"]),
            Route("/api/pictures", _upload, methods=["POST"]),
            Route("/api/pictures/from/{n:int}", _choose, methods=["POST"]),
            Route("/api/pictures/{key}/view", _view),
            Route("/api/pictures/{key}/find", _find, methods=["POST"]),
            Route("/api/pictures/{key}/object", _object, methods=["POST"]),
            Route("/api/pictures/{key}/run", _run, methods=["POST"]),
            Route("/api/pictures/{key}/results/{result}/{what}", _result),
        ],
        middleware=[Middleware(Guard, hosts=hosts, token=token), Middleware(failures.InALine)],
        exception_handlers=dict.fromkeys(failures.EXPECTED, failures.explained),
    )
    server.state.shared = state
    return server


def _shared(request: Request) -> ServerState:
    state: ServerState = request.app.state.shared
    return state


# --- the page ---


async def _page(request: Request) -> Response:
    return Response(_text("serve.html"), media_type="text/html")


async def _file(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _PAGE:
        raise HTTPException(404, "there is no such file")
    return Response(_text(name), media_type=_PAGE[name])


def _text(name: str) -> str:
    return resources.files("cleanplate.pipeline").joinpath("ui", "static", name).read_text("utf-8")


# --- what there is ---


async def _start(request: Request) -> Response:
    state = _shared(request)
    fields = {
        "recipe": state.recipe.model_dump(mode="json"),
        "choices": await state.draw(partial(options.of, state.recipe)),
        "source": state.source.url if state.source else None,
        "formats": options.formats(),
        "max_bytes": state.max_bytes,
        "max_pixels": state.max_pixels,
        "version": provenance.code_version(),
    }
    return JSONResponse(fields)


async def _progress(request: Request) -> Response:
    state = _shared(request)
    seconds = time.monotonic() - state.since if state.workspace.doing else 0.0
    return JSONResponse(
        {"doing": state.workspace.doing, "seconds": round(seconds, 1), "waiting": state.waiting}
    )


async def _source(request: Request) -> Response:
    asked = request.query_params
    start = asked.get("start", "0")
    items = await _shared(request).listed()
    found = sources.search(
        items, asked.get("q", ""), asked.get("status", ""), int(start) if start.isdecimal() else 0, 48
    )
    return JSONResponse(found)


async def _item(request: Request) -> Item:
    items = await _shared(request).listed()
    n = int(request.path_params["n"])
    if not 0 <= n < len(items):
        raise HTTPException(404, "there is no such picture in the source")
    return items[n]


async def _thumb(request: Request) -> Response:
    state, item = _shared(request), await _item(request)
    _fits(item.size, state.max_bytes)
    webp = await state.draw(lambda: views.thumb(sources.read(item), THUMB_SIDE, state.max_pixels))
    return Response(webp, media_type="image/webp")


async def _recipe(request: Request) -> Response:
    wanted = await _read(request, _Look)
    return JSONResponse({"yaml": options.as_yaml(wanted.recipe)})


# --- a picture ---


async def _upload(request: Request) -> Response:
    state = _shared(request)
    data = await _body(request, state.max_bytes)
    name = unquote(request.headers.get("x-name", "")).replace("\\", "/").rpartition("/")[2][:200] or "picture"
    return await _laid(state, name, data)


async def _choose(request: Request) -> Response:
    state, item = _shared(request), await _item(request)
    _fits(item.size, state.max_bytes)
    return await _laid(state, item.name, await state.draw(partial(sources.read, item)))


async def _laid(state: ServerState, name: str, data: bytes) -> Response:
    # In the thread of the models: the workspace is theirs, and a picture is decoded sooner than it is looked at.
    loop = asyncio.get_running_loop()
    key = await loop.run_in_executor(state.models, state.workspace.put, name, data, state.max_pixels)
    decoded = state.workspace.pictures[key].decoded
    fields = {"id": key, "name": name, "bytes": len(data), "format": decoded.format}
    return JSONResponse(fields | {"width": decoded.width, "height": decoded.height})


async def _view(request: Request) -> Response:
    state = _shared(request)
    pixels = state.workspace.pictures[request.path_params["key"]].decoded.pixels
    return Response(await state.draw(lambda: views.webp(pixels, VIEW_SIDE)), media_type="image/webp")


async def _find(request: Request) -> Response:
    state, key = _shared(request), request.path_params["key"]
    wanted = await _read(request, _Look)
    places.check(wanted.recipe, state.recipe)

    def call() -> list[dict[str, Any]]:
        return [views.find(one) for one in state.workspace.find(key, wanted.recipe)]

    return JSONResponse({"finds": await state.work(request, call)})


async def _object(request: Request) -> Response:
    state, key = _shared(request), request.path_params["key"]
    wanted = await _read(request, _Click)
    places.check(wanted.recipe, state.recipe)
    call = partial(state.workspace.object_at, key, wanted.recipe, wanted.point)
    return JSONResponse({"mask": views.drawn(await state.work(request, call))})


async def _run(request: Request) -> Response:
    state, key = _shared(request), request.path_params["key"]
    wanted = await _read(request, Wanted)
    places.check(wanted.recipe, state.recipe)
    name = await state.work(request, partial(state.workspace.run, key, wanted))
    return JSONResponse({"id": name} | views.result(state.workspace.pictures[key].results[name]))


async def _result(request: Request) -> Response:
    state, asked = _shared(request), request.path_params
    picture = state.workspace.pictures[asked["key"]]
    result = picture.results[asked["result"]]
    if asked["what"] == "view":
        return Response(
            await state.draw(lambda: views.webp(result.after, VIEW_SIDE)), media_type="image/webp"
        )
    if asked["what"] not in ("file", "mask"):
        raise HTTPException(404, "there is no such file")
    stem = picture.name.rpartition("/")[2].rpartition(".")[0] or picture.name
    kind = result.file.format if asked["what"] == "file" else "png"
    data = result.file.data if asked["what"] == "file" else await state.draw(lambda: views.png(result.mask))
    name = f"{stem}-{'clean' if asked['what'] == 'file' else 'mask'}.{'jpg' if kind == 'jpeg' else kind}"
    disposition = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    return Response(data, media_type=_MIME[kind], headers={"content-disposition": disposition})


# --- bodies ---


def _fits(size: int, limit: int) -> None:
    if size > limit:
        raise HTTPException(
            413, f"{size / 2**20:,.0f} MB; the limit here is {limit / 2**20:,.0f} MB (--max-bytes)"
        )


async def _body(request: Request, limit: int) -> bytes:
    """The request's body. Stops reading where it grows beyond the limit, whatever its header promised."""
    length = request.headers.get("content-length", "")
    _fits(int(length) if length.isdecimal() else 0, limit)
    data = bytearray()
    async for piece in request.stream():
        data += piece
        _fits(len(data), limit)
    return bytes(data)


Model = TypeVar("Model", bound=BaseModel)


async def _read(request: Request, form: type[Model]) -> Model:
    """The request's JSON as a model. Raises ValidationError, which the page shows."""
    return form.model_validate_json(await _body(request, _MAX_JSON))
