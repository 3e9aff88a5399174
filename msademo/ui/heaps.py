"""What is no longer used goes back to the system: Python's cycles, and what the C library's heaps keep of memory that was freed."""

from __future__ import annotations

import ctypes
import gc
import os
import threading

# What glibc's malloc does otherwise: MALLOC_ARENA_MAX and MALLOC_MMAP_THRESHOLD_, which go before. Each of many threads has a heap of its own and keeps
# what was freed there: 150 MB after every tab was used once. And after the first large block is freed, blocks of up to 32 MB come from those heaps
# too, where the frames of clips leave holes (docs/operations.md).
MALLOC = {"MALLOC_ARENA_MAX": (-8, 2), "MALLOC_MMAP_THRESHOLD_": (-3, 2 << 20)}
TRIM_S = 20.0


def c_function(name: str):
    """A function of the C library; None where it has none of that name."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None


def share_memory() -> None:
    """Two heaps for all threads, and large blocks in none of them, so that they go back to the system as soon as they are free."""
    mallopt = c_function("mallopt")
    for variable, (option, value) in MALLOC.items():
        if mallopt is not None and variable not in os.environ:
            mallopt(option, value)


def keep_trimmed(every: float = TRIM_S) -> threading.Event:
    """From now on collect cycles and give the heaps' free pages back; setting the event ends that. Python's collector alone comes to old cycles only
    when a quarter as many objects are new as are old, and two million are old here; heaps hold what was ever in use at once. Another C library than
    glibc keeps its heaps as it likes."""
    trim, over = c_function("malloc_trim"), threading.Event()

    def go_on():
        while not over.wait(every):
            gc.collect()
            if trim is not None:
                trim(0)

    threading.Thread(target=go_on, name="trim", daemon=True).start()
    return over


def settle() -> None:
    """Once models are loaded, or others in their place: what is there by now stays, so no collection looks at it again until the next call."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
