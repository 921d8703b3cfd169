"""Which device a worker's models run on, and how many threads they may take."""

from __future__ import annotations

import os


def pick(gpus: float) -> str:
    """ "cuda" when the worker was given (a share of) a GPU, else "cpu".

    Raises RuntimeError when a GPU was given but torch sees none: running a GPU job on a CPU in silence would
    cost days.
    """
    if gpus <= 0:
        return "cpu"
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError(
            "engine.gpus asks for a GPU, but torch sees none here; install a CUDA build of torch"
        )
    return "cuda"


def limit_threads(threads: int) -> None:
    """Let torch and OpenCV use so many threads in this process. More workers x threads than cores is several
    times slower than one thread each, because OpenMP's barriers spin."""
    import cv2

    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    cv2.setNumThreads(threads)
    import torch

    torch.set_num_threads(threads)
