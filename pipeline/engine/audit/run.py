"""An audit: what is in a source, and, beside its source, what another tool's output still holds and what it lost.

list > look > count           nothing is changed, no picture is written
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cleanplate.pipeline.engine.audit.compare import Comparison, Pair, compared, pairs_of
from cleanplate.pipeline.engine.audit.look import BATCH, Seen, look
from cleanplate.pipeline.engine.audit.summary import Summary, line_of
from cleanplate.pipeline.engine.job import Spread
from cleanplate.pipeline.errors import ConfigError, StorageError
from cleanplate.pipeline.factory.given import name_of
from cleanplate.pipeline.ledger import ledger, plan
from cleanplate.pipeline.ledger.plan import Planned
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.storage import columns
from cleanplate.pipeline.storage.address import inner_of
from cleanplate.pipeline.storage.connect import Store
from cleanplate.pipeline.storage.containers import Listing

PERSONAL = ("email", "phone", "iban", "card")
KINDS = ("face", "plate", "person", "code", "text")
"""What is looked for unless a recipe or flag says otherwise; of text, only what is PERSONAL."""
Tell = Callable[[int, int], None]
"""Images that were looked at, and of how many; called as the work goes on."""


@dataclass(frozen=True)
class Listed:
    """The images of a place by name, and what else its listing tells."""

    images: dict[str, Planned]
    listing: Listing


def listed(store: Store, recipe: Recipe, limit: int | None = None) -> Listed:
    """Every image of a place, also of an output of ours. Raises ConfigError where none is, and StorageError."""
    if is_ours(store):  # Its plan lists the images of its source, in tables without pictures.
        recipe = recipe.model_copy(update={"exclude": (*recipe.exclude, "plan/**")})
    listing, root = Listing(), store.uri("").rstrip("/") + "/"
    images: dict[str, Planned] = {}
    for one in plan.listed(store, recipe, limit, listing):
        name = name_of(one.uri, root)
        images[one.uri if name in images else name] = one  # A list may lead to two places with one name.
    if not images:
        raise ConfigError(plan.none_under(store, listing).rpartition(";")[0])
    return Listed(images, listing)


@dataclass(frozen=True)
class Task:
    """Images to look at, a batch: name, the image of the source that it was made from where it is compared, image."""

    recipe: Recipe
    images: tuple[tuple[str, Planned | None, Planned], ...]


Line = Callable[[dict[str, Any]], None]
"""Called with each image as it was seen (`summary.line_of`)."""


def audit(place: Listed, recipe: Recipe, spread: Spread, tell: Tell, line: Line) -> Summary:
    """Look at each image."""
    return _counted(
        [(name, None, one) for name, one in place.images.items()], recipe, spread, tell, line, None
    )


def audit_against(
    place: Listed, before: Listed, recipe: Recipe, spread: Spread, tell: Tell, line: Line
) -> tuple[Summary, Comparison]:
    """Look at each image of `place`, an output, beside its source in `before`."""
    pairs, missing, extra = pairs_of(before.images, place.images)
    result = Comparison(missing=missing, extra=extra)
    result.columns_lost = sorted(_columns(before) - _columns(place))
    result.files_lost = (before.listing.left_out - place.listing.left_out).total()
    images: list[tuple[str, Planned | None, Planned]] = [
        (name, before.images[old], place.images[name]) for old, name in pairs
    ]
    images += [(name, None, place.images[name]) for name in extra]
    return _counted(images, recipe, spread, tell, line, result), result


def _counted(
    images: list[tuple[str, Planned | None, Planned]],
    recipe: Recipe,
    spread: Spread,
    tell: Tell,
    line: Line,
    comparison: Comparison | None,
) -> Summary:
    """Counts pairs into `comparison`, where there is one."""
    summary = Summary(recipe.remove)
    tasks = [Task(recipe, tuple(images[at : at + BATCH])) for at in range(0, len(images), BATCH)]
    for looked in spread(look_at_some, tasks):
        for name, seen, pair in looked:
            summary.add(seen)
            if comparison is not None and pair is not None:
                comparison.add(pair)
            line(line_of(name, seen) | (pair.as_json() if pair else {}))
        tell(summary.images, len(images))
    return summary


def look_at_some(task: Task) -> list[tuple[str, Seen, Pair | None]]:
    """Name, what was found, and the comparison where both pictures can be read, of each image of a task."""
    after = look([one for _, _, one in task.images], task.recipe)
    olds = [old for _, old, _ in task.images if old is not None]
    before = iter(look(olds, task.recipe) if olds else [])
    found = []
    for (name, old, _), (seen, row) in zip(task.images, after, strict=True):
        first = next(before) if old is not None else None
        both = first is not None and first[0].error is None and seen.error is None
        found.append((name, seen, compared(first[0], seen, first[1], row) if first and both else None))
    return found


def is_ours(store: Store) -> bool:
    """Is this the output of a run? Raises StorageError where that cannot be asked."""
    try:
        ledger.read_record(store)
    except StorageError as error:
        if error.kind == "missing":
            return False
        raise
    return True


def check_foreign(store: Store) -> None:
    """Raise ConfigError for an output of a run of ours, whose rows know their sources better than names do."""
    if is_ours(store):
        raise ConfigError(
            f"{store.url} is a run of cleanplate: `cleanplate verify` proves it against its source. Of a run with "
            "--output-layout files the pictures in images/ can be audited against the source"
        )


def _columns(place: Listed) -> set[str]:
    """The columns of the first table of a place, without that of the images."""
    inners = (inner_of(one.uri) for one in place.images.values())
    inner = next((one for one in inners if one is not None and one.row >= 0), None)
    return set(columns.schema_of(inner).names) - {inner.column} if inner is not None else set()
