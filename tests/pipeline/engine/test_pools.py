"""Groups of stages on a cluster: who shares a worker, and how many workers each pool gets."""

from __future__ import annotations

import pytest

from cleanplate.pipeline.engine.job import groups_of, stages_of
from cleanplate.pipeline.engine.pools import sizes_of
from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.recipe.recipe import load
from cleanplate.pipeline.stages.stage import Needs

TASKS = Needs(cpus=0.5, workers=(0, 0))
MODEL = Needs(cpus=1, workers=(1, 0))
HALF_GPU = Needs(cpus=1, gpus=0.5, workers=(1, 0))


def names(**engine: object) -> list[list[str]]:
    recipe = load(None, {"engine": engine})
    return [[stage.name for stage in group] for group in groups_of(stages_of(recipe))]


def test_the_model_stages_share_workers_unless_the_recipe_parts_them() -> None:
    assert names() == [["read"], ["detect", "segment", "inpaint", "verify"], ["write"]]
    apart = names(stages={"inpaint": {"gpus": 0.5, "workers": 4}})
    assert apart == [["read"], ["decode"], ["detect", "segment"], ["inpaint"], ["verify"], ["write"]]
    assert names(stages={"inpaint": {"cpus": 1}}) == names(), "the same needs, said twice"


def test_pictures_are_decoded_by_cpu_tasks_where_the_recipe_says_so() -> None:
    gpu = {"gpus": 0.5}
    assert names(**gpu) == names() == names(decode="inside")
    assert names(decode="apart", **gpu) == [["read"], ["decode"], *names()[1:]]
    pools = {"inpaint": gpu}
    assert ["decode"] in names(stages=pools)
    assert ["decode"] not in names(stages=pools, decode="inside")


def test_one_pool_takes_all_but_one_cpu() -> None:
    assert sizes_of([TASKS, MODEL, TASKS], 100, {"CPU": 8}) == [(0, 0), (7, 7), (0, 0)]
    assert sizes_of([TASKS, MODEL, TASKS], 3, {"CPU": 8}) == [(0, 0), (3, 3), (0, 0)], (
        "never more than there are units"
    )


def test_pools_share_what_there_is() -> None:
    assert sizes_of([TASKS, MODEL, HALF_GPU, TASKS], 100, {"CPU": 8, "GPU": 1}) == [
        (0, 0),
        (5, 5),
        (2, 2),
        (0, 0),
    ]
    few = Needs(cpus=1, gpus=0.5, workers=(1, 1))
    assert sizes_of([MODEL, few], 100, {"CPU": 8, "GPU": 1}) == [(6, 6), (1, 1)], (
        "a recipe's own number is kept"
    )


def test_what_one_worker_of_each_needs_must_be_there() -> None:
    with pytest.raises(ConfigError, match="has 2 CPUs; the stages need 3"):
        sizes_of([MODEL, HALF_GPU], 100, {"CPU": 2, "GPU": 1})
    with pytest.raises(ConfigError, match=r"has 0 GPUs; the stages need 0\.5"):
        sizes_of([MODEL, HALF_GPU], 100, {"CPU": 8})
    own = Needs(cpus=4, gpus=1, workers=(1, 16))
    assert sizes_of([TASKS, own], 100, {"CPU": 1}) == [(0, 0), (1, 16)], "an autoscaler adds the nodes"
    assert sizes_of([TASKS, own], 100, {"CPU": 17, "GPU": 8}) == [(0, 0), (4, 16)], (
        "what is there starts at once"
    )
