"""How many workers each pool of a cluster gets."""

from __future__ import annotations

from collections.abc import Sequence

from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.stages.stage import Needs

KEPT_CPUS = 1.0
"""A pool holds its CPUs for the whole run. Without one kept for reading and writing, those tasks would wait for ever,
and Ray would not say why."""
_ROUNDING = 1e-6


def sizes_of(pools: Sequence[Needs], units: int, resources: dict[str, float]) -> list[tuple[int, int]]:
    """(workers to start with, most workers) of each group of stages; (0, 0) for stateless tasks, which are no pool.

    Every pool starts with its share of what the cluster has, at once: a pool that grew as Ray saw work waiting had six
    workers of eight after 46 s. Where the recipe sets the workers of every stage, that is the most, because an
    autoscaler may still have to add nodes; else the share is the most too. Raises ConfigError when one worker of each
    pool does not fit.
    """
    most = [_most(pool, units) for pool in pools]
    all_set = all(pool.workers[1] or not limit for pool, limit in zip(pools, most, strict=True))
    sizes = [min(1, limit) for limit in most]
    if not all_set:
        check(pools, sizes, resources)
    grown = True
    while grown:
        # One worker more for each pool in turn, so that pools of equal needs end with equal sizes.
        grown = False
        for n, limit in enumerate(most):
            larger = [*sizes[:n], sizes[n] + 1, *sizes[n + 1 :]]
            if sizes[n] < limit and not _lacking(pools, larger, resources):
                sizes, grown = larger, True
    return list(zip(sizes, most if all_set else sizes, strict=True))


def _most(pool: Needs, units: int) -> int:
    """A worker without a unit to do would only hold its CPUs."""
    if pool.workers == (0, 0):
        return 0
    return min(pool.workers[1] or units, units)


def fits(pools: Sequence[Needs], sizes: Sequence[int], resources: dict[str, float]) -> bool:
    """Can the cluster hold so many workers of each pool, and still read and write?"""
    return not _lacking(pools, sizes, resources)


def check(pools: Sequence[Needs], sizes: Sequence[int], resources: dict[str, float]) -> None:
    """Raise ConfigError when the cluster cannot hold so many workers of each pool."""
    if lacking := _lacking(pools, sizes, resources):
        what, need = lacking
        raise ConfigError(
            f"the Ray cluster has {resources.get(what, 0.0):g} {what}s; the stages need {need:g}. Add a node, "
            f"lower engine.{what.lower()}s, or set the workers of every stage if the cluster scales up by itself"
        )


def _lacking(
    pools: Sequence[Needs], sizes: Sequence[int], resources: dict[str, float]
) -> tuple[str, float] | None:
    """The resource that does not suffice, and how much of it is needed."""
    cpus = KEPT_CPUS + sum(pool.cpus * size for pool, size in zip(pools, sizes, strict=True))
    gpus = sum(pool.gpus * size for pool, size in zip(pools, sizes, strict=True))
    for what, need in (("CPU", cpus), ("GPU", gpus)):
        if need > resources.get(what, 0.0) + _ROUNDING:
            return what, need
    return None
