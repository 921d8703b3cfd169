"""What the routes of the page share: the workspace, the source, and the threads that work for them.

One thread holds the models and does one thing at a time; decoding and drawing pictures have two of their own. The
event loop only passes on, so that the page can ask at any time what is going on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.requests import Request

from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.ui.serve.sources import Item, Source
from cleanplate.pipeline.ui.serve.workspace import Workspace

T = TypeVar("T")


@dataclass
class ServerState:
    """What the routes share. max_bytes, max_pixels: of a picture that is opened."""

    recipe: Recipe
    source: Source | None
    max_bytes: int
    max_pixels: int
    workspace: Workspace = field(default_factory=Workspace)
    models: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "models"))
    pictures: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "pictures"))
    waiting: int = 0
    since: float = 0.0
    items: asyncio.Task[list[Item]] | None = None

    async def work(self, request: Request, call: Callable[[], T]) -> T:
        """Run a call in the thread of the models, after those that wait. One whose page has gone is not begun."""
        self.waiting += 1
        gone = False

        def begin() -> T | None:
            if gone:
                return None
            self.since = time.monotonic()
            try:
                return call()
            finally:
                self.workspace.doing = ""

        task = asyncio.get_running_loop().run_in_executor(self.models, begin)
        try:
            while not (await asyncio.wait({task}, timeout=1))[0]:
                gone = gone or await request.is_disconnected()
            return task.result()  # type: ignore[return-value]  # None only where no one is left to read it
        finally:
            self.waiting -= 1

    async def draw(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.pictures, call)

    async def listed(self) -> list[Item]:
        """The pictures of the source, listed at the first call. Raises StorageError; then the next call tries again."""
        if self.source is None:
            return []
        if self.items is None or (self.items.done() and self.items.exception()):
            self.items = asyncio.create_task(self.draw(self.source.items))
        return await asyncio.shield(self.items)
