"""cleanplate serve [DST]: a page on this machine to try the tool by hand on one picture after the other."""

from __future__ import annotations

import argparse
import secrets
import socket
import webbrowser
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from cleanplate.pipeline.recipe.recipe import Recipe
    from cleanplate.pipeline.ui.serve.sources import Source

_HERE = ("127.0.0.1", "localhost", "::1")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from cleanplate.jobs.cli.flags import add_recipe_flags

    parser = subparsers.add_parser(
        "serve",
        help="a page on this machine to try the tool by hand",
        description=__doc__,
        epilog="Examples: cleanplate serve --source photos/     cleanplate serve cleaned/     "
        "cleanplate serve --recipe mine.yaml --port 9000",
    )
    parser.add_argument(
        "output", metavar="DST", nargs="?", help="a run: its recipe, and its rows to choose from"
    )
    parser.add_argument(
        "--source", metavar="SRC", help="pictures to choose from: a folder or s3://BUCKET/PREFIX"
    )
    parser.add_argument(
        "--port", type=int, default=8321, metavar="N", help="default 8321; 0 takes a free one"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="default 127.0.0.1; another address lets other machines in",
    )
    parser.add_argument(
        "--max-bytes",
        type=int,
        default=64 * 2**20,
        metavar="N",
        help="largest picture, in bytes (default: 64 MiB)",
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=50_000_000,
        metavar="N",
        help="largest picture, in pixels (default: 50,000,000)",
    )
    parser.add_argument("--no-open", action="store_true", help="do not open a browser")
    add_recipe_flags(parser, ["picture", "file"])
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serves until Ctrl-C. Raises ConfigError where the port is taken or the extra is not installed."""
    from cleanplate.pipeline.errors import ConfigError

    try:
        import uvicorn

        from cleanplate.pipeline.ui.serve.app import app
        from cleanplate.pipeline.ui.serve.state import ServerState
    except ImportError as error:
        raise ConfigError(f"the page needs {error.name}: pip install '.[serve]'") from error
    recipe, source = _given(args)
    listening = _listen(args.host, args.port)
    port = listening.getsockname()[1]
    token = secrets.token_urlsafe(16)
    state = ServerState(recipe, source, args.max_bytes, min(args.max_pixels, recipe.limits.max_pixels))
    mine = () if args.host in _HERE else (socket.gethostname().lower(), socket.getfqdn().lower())
    hosts = frozenset((*_HERE, args.host, *mine))
    name = socket.gethostname() if args.host in ("0.0.0.0", "::") else args.host
    link = f"http://{f'[{name}]' if ':' in name else name}:{port}/?token={token}"
    console = Console()
    console.print(f"cleanplate serve: {link}", highlight=False, soft_wrap=True)
    console.print("Whoever has the link can see the pictures. Ctrl-C ends it.", highlight=False)
    if not args.no_open:
        webbrowser.open(link)
    config = uvicorn.Config(
        app(state, hosts, token),
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=2,
    )
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        console.print("ended")
    finally:
        state.models.shutdown(wait=False, cancel_futures=True)
        state.pictures.shutdown(wait=False, cancel_futures=True)
        listening.close()
    return 0


def _given(args: argparse.Namespace) -> tuple[Recipe, Source | None]:
    """The recipe to start from, and what to choose pictures from."""
    from cleanplate.jobs.cli.flags import recipe_of
    from cleanplate.pipeline.engine import run as runs
    from cleanplate.pipeline.errors import ConfigError
    from cleanplate.pipeline.ui.serve.sources import Rows

    if not args.output:
        recipe = recipe_of(args)
        return recipe, _source(args.source, recipe) if args.source else None
    if args.source:
        raise ConfigError("DST brings its own source: leave out --source, or leave out DST")
    output, record = runs.open_finished(args.output)
    return recipe_of(args, record["recipe"]), Rows(output, record)


def _source(place: str, recipe: Recipe) -> Source:
    """The pictures of --source. Raises ConfigError for a place without any, StorageError for one that is not there."""
    from cleanplate.pipeline.errors import ConfigError
    from cleanplate.pipeline.ledger import plan
    from cleanplate.pipeline.storage.connect import open_store
    from cleanplate.pipeline.ui.serve.sources import Objects

    store = open_store(place)
    store.reach()
    if next(iter(plan.listed(store, recipe, 1)), None) is None:
        raise ConfigError(f"no pictures under {store.url}")
    return Objects(store, recipe)


def _listen(host: str, port: int) -> socket.socket:
    from cleanplate.pipeline.errors import ConfigError

    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        # It listens from now on: who follows the link before the server runs waits, and is not refused.
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"cannot listen at {host}:{port}: {error}; choose another --port") from error
