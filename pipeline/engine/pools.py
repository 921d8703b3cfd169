"""How many workers each pool of a cluster gets."""

from __future__ import annotations

from collections.abc import Sequence

from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.stages.stage import Needs


def sizes_of(pools: Sequence[Needs], units: int, resources: dict[str, float]) -> list[tuple[int, int]]:
    """(workers to start with, most workers) of each group of stages.

    The most is what its recipe says, else its share of what the cluster has; to start with, its share of what the
    cluster has, at once: a pool that grew as Ray saw work waiting had six workers of eight after 46 s.
    A pool holds its CPUs for the whole run, so reading and writing (workers (0, 0): no pool, 0 here) keep one
    for themselves: without it they would wait for ever, and Ray would not say why. Raises ConfigError when one
    worker of each pool does not fit.
    """
    most = [0 if pool.workers == (0, 0) else min(pool.workers[1] or units, units) for pool in pools]
    # Trusted: an autoscaler may still have to add the nodes.
    told = all(pool.workers[1] or not at_most for pool, at_most in zip(pools, most, strict=True))
    sizes = [min(1, at_most) for at_most in most]
    if not told:
        _check(pools, sizes, resources)
    while True:
        grown = False
        for n, pool in enumerate(pools):
            cpus = 1 + pool.cpus + sum(p.cpus * size for p, size in zip(pools, sizes, strict=True))
            gpus = pool.gpus + sum(p.gpus * size for p, size in zip(pools, sizes, strict=True))
            fits = cpus <= resources.get("CPU", 0.0) + 1e-6 and gpus <= resources.get("GPU", 0.0) + 1e-6
            if fits and sizes[n] < most[n]:
                sizes[n], grown = sizes[n] + 1, True
        if not grown:
            return list(zip(sizes, most if told else sizes, strict=True))


def _check(pools: Sequence[Needs], sizes: Sequence[int], resources: dict[str, float]) -> None:
    for what, least, change in (("CPU", 1.0, "cpus"), ("GPU", 0.0, "gpus")):
        need = least + sum(getattr(p, change) * size for p, size in zip(pools, sizes, strict=True))
        if need > resources.get(what, 0.0) + 1e-6:
            raise ConfigError(
                f"the Ray cluster has {resources.get(what, 0.0):g} {what}s; the stages need {need:g}. Add a node, "
                f"lower engine.{change}, or set the workers of every stage if the cluster scales up by itself"
            )
