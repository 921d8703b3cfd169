"""The batch of a step. Everything random in it follows from (seed, step, place in the batch)."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from cleanplate.models.training.data import PhotoBank, draw_crop
from cleanplate.models.training.lama.letters import letters_in
from cleanplate.models.training.lama.masks import MASKS, bounded_mask, scaled
from cleanplate.models.training.lama.objects import coloured_pieces, moved_object
from cleanplate.models.training.lama.peers import Peers
from cleanplate.models.training.lama.recipe import LETTERS, SEGMENTATION, TrainRecipe, phase_at
from cleanplate.models.types import Image, Mask

Batch = tuple[Tensor, Tensor]


def draw_batch(recipe: TrainRecipe, bank: PhotoBank, step: int, peers: Peers) -> tuple[Tensor, Tensor]:
    """This worker's share of a step: Bx3xHxW float32 RGB in [0, 1] and Bx1xHxW float32 masks, 1 = hole."""
    _, phase, _ = phase_at(recipe, step)
    chances = np.array([chance for _, chance in recipe.masks])
    crops: list[Image] = []
    masks: list[Mask] = []
    for place in range(peers.rank, phase.batch, peers.world):
        rng = np.random.default_rng([recipe.seed, step, place])
        crops.append(draw_crop(rng, bank, phase.crop, phase.zoom))
        name = recipe.masks[int(rng.choice(len(chances), p=chances / chances.sum()))][0]
        masks.append(draw_mask(rng, crops[-1], name, recipe.max_hole))
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    return images, torch.from_numpy(np.stack(masks)).unsqueeze(1).float()


def draw_mask(rng: np.random.Generator, crop: Image, name: str, max_hole: float) -> Mask:
    """A mask of a named kind for a square crop (HWC uint8 RGB), HW bool, True = hole.

    The kind 'segmentation' moves a piece of the crop itself; where none can be moved it is 'medium-256', and so are
    'letters' where they leave no hole or too large a one.
    """
    size = crop.shape[0]
    if name == LETTERS:
        drawn = letters_in(rng, size)
        if 0 < drawn.mean() <= max_hole:
            return drawn
        name = "medium-256"
    if name == SEGMENTATION:
        moved = moved_object(rng, coloured_pieces(crop))
        if moved is not None and moved.mean() <= max_hole:
            return moved
        name = "medium-256"
    return bounded_mask(rng, size, size, scaled(MASKS[name], size / 256), max_hole)


class Batches:
    """The batches of a run, drawn `threads` steps ahead; with 0 threads each when it is asked for.

    What is drawn does not depend on the threads.
    """

    def __init__(self, recipe: TrainRecipe, bank: PhotoBank, peers: Peers, threads: int = 0) -> None:
        self.recipe, self.bank, self.peers, self.threads = recipe, bank, peers, threads
        self.pool = ThreadPoolExecutor(threads) if threads else None
        self.ahead: dict[int, Future[Batch]] = {}

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def at(self, step: int) -> Batch:
        """This worker's share of a step, as draw_batch gives it."""
        if self.pool is None:
            return draw_batch(self.recipe, self.bank, step, self.peers)
        for later in range(step, min(step + self.threads + 1, self.recipe.steps)):
            if later not in self.ahead:
                self.ahead[later] = self.pool.submit(draw_batch, self.recipe, self.bank, later, self.peers)
        return self.ahead.pop(step).result()
