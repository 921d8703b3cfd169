"""An audit: what is in a source, and, beside its source, what another tool's output still holds and what it lost.

list > look > count           nothing is changed, no picture is written
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from cleanplate.pipeline.engine.audit.compare import Comparison, Pair, compared, pairs_of
from cleanplate.pipeline.engine.audit.look import BATCH, Seen, look, look_at, looker
from cleanplate.pipeline.engine.audit.summary import Summary, line_of
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


def audit(place: Listed, recipe: Recipe, tell: Tell, line: Callable[[dict[str, Any]], None]) -> Summary:
    """Look at each image. line: called with each as it is seen (`summary.line_of`)."""
    summary, names = Summary(recipe.remove), list(place.images)
    worker, total = looker(recipe), len(names)
    for batch in look(place.images.values(), worker):
        for seen in batch:
            line(line_of(names[summary.images], seen))
            summary.add(seen)
        tell(summary.images, total)
    return summary


def audit_against(
    place: Listed, before: Listed, recipe: Recipe, tell: Tell, line: Callable[[dict[str, Any]], None]
) -> tuple[Summary, Comparison]:
    """Look at each image of `place`, an output, beside its source in `before`."""
    pairs, missing, extra = pairs_of(before.images, place.images)
    result = Comparison(missing=missing, extra=extra)
    result.columns_lost = sorted(_columns(before) - _columns(place))
    result.files_lost = (before.listing.left_out - place.listing.left_out).total()
    summary, worker, total = Summary(recipe.remove), looker(recipe), len(pairs) + len(extra)
    for some in _batched([*pairs, *((None, name) for name in extra)]):
        after = look_at([place.images[name] for _, name in some], worker)
        olds = [old for old, _ in some if old is not None]
        seen_before = dict(zip(olds, look_at([before.images[name] for name in olds], worker), strict=True))
        for (old, name), seen in zip(some, after, strict=True):
            summary.add(seen)
            pair = _pair(seen_before.get(old) if old is not None else None, seen)
            if pair is not None:
                result.add(pair)
            line(line_of(name, seen) | ({"against": old, **pair.as_json()} if pair else {"against": old}))
        tell(summary.images, total)
    return summary, result


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


def _pair(before: Seen | None, after: Seen) -> Pair | None:
    if before is None or before.error is not None or after.error is not None:
        return None
    return compared(before, after)


def _batched(items: Sequence[tuple[str | None, str]]) -> Iterator[list[tuple[str | None, str]]]:
    rest = iter(items)
    while some := list(islice(rest, BATCH)):
        yield some


def _columns(place: Listed) -> set[str]:
    """The columns of the first table of a place, without that of the images."""
    inners = (inner_of(one.uri) for one in place.images.values())
    inner = next((one for one in inners if one is not None and one.row >= 0), None)
    return set(columns.schema_of(inner).names) - {inner.column} if inner is not None else set()
