"""Which device a worker's models run on, and how many threads they may take."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable

_listener: Callable[[], None] | None = None


def watch(listener: Callable[[], None] | None) -> None:
    """Call `listener` at each sign of progress of this process; None: nobody listens any more."""
    global _listener
    _listener = listener


def progressed() -> None:
    """Say that one pass of a network, or the work on one image, has ended. Whoever watches this process for hangs
    would otherwise not know a long batch on a slow machine from a call that never returns."""
    if _listener is not None:
        _listener()


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


def limit_threads(threads: int, networks: bool = True) -> None:
    """Let torch and OpenCV use so many threads in this process. More workers x threads than cores is several
    times slower than one thread each, because OpenMP's barriers spin. networks: False spares a process that opens no
    model the second that torch's import takes."""
    import cv2

    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    cv2.setNumThreads(threads)
    if networks:
        import torch

        torch.set_num_threads(threads)


def release() -> None:
    """Give back memory that nothing of this process uses: what only cycles hold, and torch's own store on a GPU, which
    workers that share one would miss."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def describe() -> dict[str, str]:
    """What this machine computes with, in words: "CPU", "bf16" and, a line each, "GPU 0", ...; "CUDA" tells
    why there is none. Starts no GPU context beyond asking for names and memory."""
    import torch

    from models.fast import bf16_is_native

    # The cores that this process may use: a container or a batch system often gives fewer than there are.
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = {"CPU": f"{usable} of {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"}
    tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    native = "AMX" if tiles else "AVX-512" if bf16_is_native("cpu") else ""
    told["bf16"] = f"in hardware ({native})" if native else "emulated: slower than fp32"
    for n in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(n)
        told[f"GPU {n}"] = f"{card.name}, {card.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    if not torch.cuda.is_available():
        built = torch.version.cuda
        told["CUDA"] = "no GPU seen" if built else "this torch is built for CPUs"
    return told
