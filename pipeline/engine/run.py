"""A run: claim the output, plan what is new, and pass over what is not committed until all is.

    claim > plan > pass, pass      truth is the ledger's listing, never an engine's return

The same call resumes: units that the ledger lists are not done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from cleanplate.pipeline import schema
from cleanplate.pipeline.engine import estimate_watermarks, ray_cluster, ray_data
from cleanplate.pipeline.engine.job import Job, Stages, run_here, spread_here, stages_of
from cleanplate.pipeline.errors import ConfigError, RunStopped, StorageError
from cleanplate.pipeline.factory import attachments, check, static_watermark
from cleanplate.pipeline.labels import carry, forms
from cleanplate.pipeline.ledger import cut, dataset_card, ledger, plan, review
from cleanplate.pipeline.ledger.ledger import Tally
from cleanplate.pipeline.ledger.receipt import Receipt
from cleanplate.pipeline.recipe import provenance
from cleanplate.pipeline.recipe import recipe as recipes
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.stages.write import Stamp
from cleanplate.pipeline.storage import columns
from cleanplate.pipeline.storage.connect import Store, open_store
from cleanplate.pipeline.storage.containers import Listing

PASSES = 2
Engine = Literal["ray", "here"]


@dataclass(frozen=True)
class Run:
    """A run that owns its output: what to do, where, and what is stamped on every row."""

    source: Store
    output: Store
    recipe: Recipe
    stamp: Stamp
    run_id: str
    listing: Listing = field(default_factory=Listing)
    """What the last listing of the source found besides its images."""
    held_back: tuple[str, ...] = ()
    """Columns of the source that may hold pictures, and are neither cleaned nor carried."""
    unmatched: dict[str, Any] = field(default_factory=dict)
    """What of `given.file` came to nothing, where the whole source was listed."""

    def job(self, units: list[plan.Unit], last: bool, stages: Stages = stages_of) -> Job:
        below = self.source.uri("")
        return Job(tuple(units), self.output, self.recipe, self.stamp, last, stages, below)


def start(
    source: str, output: str, recipe: Recipe, *, new_run: bool = False, allow_empty: bool = False
) -> Run:
    """Check everything that can be wrong and claim the output. No image is touched.

    allow_empty: a source without images is no error. new_run: a recipe other than the output's gets a folder of its own
    in it, `run-<digest>`. Raises ConfigError, StorageError (unreachable or forbidden place) or WeightsError.
    """
    from_store, to_store = open_store(source), open_store(output)
    plan.check_apart(from_store, to_store)
    weights = check.check(recipe)
    if recipe.labels.file is not None:
        forms.read(recipe.labels)  # Fails now where it cannot be read.
    for store in (from_store, to_store):
        store.reach()
    # Fails now, not after an hour, when the source cannot be listed, or holds nothing.
    listing = Listing()
    if not (any(plan.listed(from_store, recipe, 1, listing)) or allow_empty or plan.generations(to_store)):
        raise ConfigError(plan.none_under(from_store, listing))
    digest = recipe.digest(weights)
    if new_run and _other_run(to_store, digest):
        to_store = open_store(f"{to_store.url}/run-{digest[:12]}")
    run_id, version = provenance.new_run_id(), provenance.code_version()
    found = plan.carried(from_store, recipe)
    record = {
        "recipe_digest": digest,
        "source": from_store.url,
        "parts": schema.VERSION,
        "weights": weights,
        "recipe": recipe.model_dump(mode="json"),
        "code_version": version,
        "packages": provenance.packages(),
        "started": provenance.now(),
        "run_id": run_id,
        "columns": columns.packed(found.schema),
    }
    stored = ledger.claim(to_store, record)
    digest = str(stored["recipe_digest"])  # An earlier version's, where the run is its.
    carried = stored.get(
        "columns"
    )  # As the first start found them, whatever the source's first table is now.
    recipe = plan.with_carried(recipe, carried)
    recipe = static_watermark.placed(attachments.travelling(recipe, from_store, to_store), to_store)
    to_store.put("recipe.yaml", recipes.dump(recipe).encode())
    names = tuple(columns.unpacked(carried).names)
    stamp = Stamp(digest, version, run_id, tuple(sorted(weights.items())), recipe.output.keep_skipped, names)
    return Run(from_store, to_store, recipe, stamp, run_id, held_back=found.held_back)


def _other_run(output: Store, digest: str) -> bool:
    try:
        return not ledger.is_of_recipe(ledger.read_record(output), digest)
    except StorageError as error:
        if error.kind == "missing":
            return False
        raise


def plan_new(
    run: Run, *, limit: int | None = None, retry_failed: bool = False, marks: review.Marks | None = None
) -> list[plan.Unit]:
    """Bring the plan up to date with the source and return every unit of it, oldest generation first.

    The first generation holds the source as it is; later ones what was not yet planned, with `retry_failed`
    the rows whose newest attempt failed, and what `marks` ask for. Raises ConfigError for marks of another run.
    """
    existing = plan.generations(run.output)
    run.listing.left_out.clear()
    run.listing.whole.clear()
    run.listing.known = plan.whole_containers(run.output)
    images = plan.listed(run.source, run.recipe, limit, run.listing)
    if not existing and limit is None:
        images = _watched(images, run)
    _extend(run, ledger.unseen(run.output, images) if existing else images, run.listing)
    if retry_failed:
        _extend(run, ledger.failed(run.output))
    # Again, until the marks are spent: another driver may have written the generation that was to hold them.
    while marks and (rows := review.asked(run.output, marks).rows):
        _extend(run, iter(rows))
    return planned(run.output)


def _watched(images: Iterator[plan.Planned], run: Run) -> Iterator[plan.Planned]:
    """The images as they come; when all have, `run.unmatched` holds the given names that fit none of them."""
    count = attachments.unmatched(run.recipe)
    for image in images:
        count.see(image.uri)
        yield image
    count.end()
    run.unmatched.update(count.summary)


def planned(output: Store) -> list[plan.Unit]:
    """Every unit of the stored plan."""
    return [unit for generation in plan.generations(output) for unit in plan.read_index(output, generation)]


def _extend(run: Run, rows: Iterator[plan.Planned], listing: Listing | None = None) -> None:
    generation = max(plan.generations(run.output), default=-1) + 1
    cut.cut(run.output, generation, rows, run.recipe, run.stamp.recipe_digest, listing)


def execute(
    run: Run,
    units: list[plan.Unit],
    engine: Engine,
    on_receipt: Callable[[Receipt], None],
    stages: Stages = stages_of,
) -> None:
    """Do every unit that is not committed, telling of each receipt. Two passes: a unit that a dead node or an
    unreachable source left behind is taken again.

    Raises RunStopped when units are left all the same.
    """
    go = ray_data.run_on_ray if engine == "ray" else run_here
    if units and static_watermark.KIND in run.recipe.remove:
        index = estimate_watermarks.prepare(
            run.output, run.recipe, ray_cluster.spread_on_ray if engine == "ray" else spread_here
        )
        event(run, "consensus", groups=index)
    for number in range(1, PASSES + 1):
        todo = missing(run.output, units)
        if not todo:
            return
        event(run, f"pass-{number}", units=len(todo), rows=sum(unit.rows for unit in todo))
        job = run.job(todo, number == PASSES, stages)
        _listen(run, go(job), on_receipt)
    if todo := missing(run.output, units):
        raise RunStopped(
            f"{len(todo)} of {len(units)} units are not committed ({todo[0].name}, ...); "
            "run the same command again to take them up"
        )


def advice(run: Run) -> str | None:
    """What a finished run could not do for want of a setting, in words; None where there is nothing to say."""
    if static_watermark.KIND not in run.recipe.remove:
        return None
    try:
        return estimate_watermarks.advice(run.output, run.recipe.consensus)
    except StorageError as error:
        if error.kind == "missing":  # No unit, no index.
            return None
        raise


def finished(run: Run) -> Tally:
    """When every unit is committed: write the dataset's card, and count the rows."""
    tally = ledger.tally(run.output)
    dataset_card.write(run.output)
    return tally


def labels(run: Run) -> dict[str, Any] | None:
    """When every unit is committed: carry the recipe's labels into the output. Counts; None where none are named."""
    if run.recipe.labels.file is None:
        return None
    return carry.carry(run.output, run.recipe.labels, run.recipe.output.layout, run.source.url)


def missing(output: Store, units: list[plan.Unit]) -> list[plan.Unit]:
    """The units whose part does not exist, largest first, so that the last one to finish is a small one."""
    done = ledger.done(output)
    return sorted((u for u in units if u.name not in done), key=lambda u: (-u.bytes, u.name))


def _listen(run: Run, receipts: Iterator[Receipt], on_receipt: Callable[[Receipt], None]) -> None:
    for receipt in receipts:
        on_receipt(receipt)


def event(run: Run, name: str, **fields: Any) -> None:
    """One file in `events/`: the run's own history, for people. started, pass-1, pass-2, then complete or stopped
    (with the message); a start without an end was killed."""
    body = {"event": name, "run_id": run.run_id, "time": provenance.now(), **fields}
    run.output.put(f"events/{run.run_id}-{name}.json", json.dumps(body, indent=1, sort_keys=True).encode())


def open_finished(output: str) -> tuple[Store, dict[str, Any]]:
    """The store and record of an existing run. Raises ConfigError when there is none."""
    store = open_store(output)
    store.reach()
    try:
        return store, ledger.read_record(store)
    except StorageError as error:
        if error.kind == "missing":
            raise ConfigError(f"{store.url} holds no run of cleanplate (no {ledger.RUN_FILE})") from error
        raise
