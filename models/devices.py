"""Which device a worker's models run on, how many threads they may take, and what their processors do with subnormal
numbers."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

FENV_BYTES = 64
"""More than any C library's fenv_t."""
FLUSHES = {"x86_64": (28, 0x8040), "aarch64": (0, 1 << 24)}
"""processor -> (byte of fenv_t, bits): MXCSR's flush-to-zero and denormals-are-zero, FPCR's flush-to-zero. Linux."""


@contextmanager
def subnormals_flushed() -> Iterator[None]:
    """Numbers below 1.2e-38 count as zero in the calling thread, and in the threads it starts, until the end.

    A processor takes some hundred cycles for each such number: the network of PP-OCRv6 takes 3.5 times as long with
    them, and its output is the same to the bit. The flag is a thread's own, so it stands round each run of a network
    and not at the start of a process: pools, servers and actors bring threads of their own. It is taken back, because
    the code around may need such numbers (`numpy.finfo` warns when it finds none). Elsewhere than on Linux, or on
    another processor, nothing is changed.
    """
    place = FLUSHES.get(platform.machine())
    libm = _libm()
    if place is None or libm is None:
        yield
        return
    byte, bits = place
    before = ctypes.create_string_buffer(FENV_BYTES)
    libm.fegetenv(before)
    flushed = ctypes.create_string_buffer(before.raw, FENV_BYTES)
    word = ctypes.c_uint32.from_buffer(flushed, byte)
    word.value |= bits
    libm.fesetenv(flushed)
    try:
        yield
    finally:
        libm.fesetenv(before)


@lru_cache(maxsize=1)
def _libm() -> ctypes.CDLL | None:
    """The C library's part that reads and writes the flag; None where it is laid out in another way."""
    return ctypes.CDLL("libm.so.6") if sys.platform == "linux" and _has_glibc() else None


def _has_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"


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


_limit = [1]


def thread_limit() -> int:
    """How many threads `limit_threads` gave this process; 1 where it was not asked."""
    return _limit[0]


def limit_threads(threads: int, networks: bool = True) -> None:
    """Let torch, OpenCV and the ONNX sessions opened from now on use so many threads in this process.

    More workers x threads than cores is several times slower than one thread each, because OpenMP's barriers spin.
    networks: False spares a process that opens no model the second that torch's import takes.
    """
    import cv2

    _limit[0] = threads
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    cv2.setNumThreads(threads)
    if networks:
        import torch

        torch.set_num_threads(threads)
        if threads > 1:
            # OpenMP's threads are started by the first piece of work that is large enough, and keep the flag of then.
            with subnormals_flushed():
                torch.ones(1 << 20).add_(1)


def release() -> None:
    """Give back memory that nothing of this process uses: what only cycles hold, and torch's own store on a GPU, which
    workers that share one would miss."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def bf16_is_native(device: str | torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware; where it does not, 'bf16' is slower than 'fp32'."""
    import torch

    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Who holds oneDNN back (by its own variable) has no bf16, whatever the processor has.
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "DEFAULT"
    if not any(word in limit.upper() for word in ("DEFAULT", "ALL", "BF16", "FP16", "AMX", "AVX10")):
        return False
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in probes)


def describe() -> dict[str, str]:
    """What this machine computes with, in words: "CPU", "bf16" and, a line each, "GPU 0", ...; "CUDA" tells
    why there is none. Starts no GPU context beyond asking for names and memory."""
    import torch

    # The cores that this process may use: a container or a batch system often gives fewer than there are.
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    devices = {"CPU": f"{usable} of {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"}
    tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    native = "AMX" if tiles else "AVX-512" if bf16_is_native("cpu") else ""
    devices["bf16"] = f"in hardware ({native})" if native else "emulated: slower than fp32"
    for n in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(n)
        devices[f"GPU {n}"] = f"{card.name}, {card.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    if not torch.cuda.is_available():
        built = torch.version.cuda
        devices["CUDA"] = "no GPU seen" if built else "this torch is built for CPUs"
    return devices
