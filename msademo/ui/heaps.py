"""What the C library's heaps keep of memory that was freed, and how it goes back to the system (glibc; elsewhere nothing happens)."""

from __future__ import annotations

import ctypes
import os
import threading

# What glibc's malloc does otherwise: MALLOC_ARENA_MAX and MALLOC_MMAP_THRESHOLD_, which go before. Each of many threads has a heap of its own and keeps
# what was freed there: 150 MB after every tab was used once. And after the first large block is freed, blocks of up to 32 MB come from those heaps
# too, where the frames of clips leave holes (docs/operations.md).
MALLOC = {"MALLOC_ARENA_MAX": (-8, 2), "MALLOC_MMAP_THRESHOLD_": (-3, 8 << 20)}
TRIM_S = 20.0                   # a heap of a gigabyte is looked through in some tens of milliseconds


def share_memory() -> None:
    """Two heaps for all threads, and large blocks in none of them, so that they go back to the system as soon as they are free."""
    for variable, (option, value) in MALLOC.items():
        if variable not in os.environ:
            try:
                ctypes.CDLL(None).mallopt(option, value)
            except (AttributeError, OSError, TypeError):
                pass                                    # another C library


def keep_trimmed(every: float = TRIM_S) -> threading.Event | None:
    """Give the heaps' free pages back to the system from now on; setting the event ends that. None where the C library cannot: what it holds then
    stays at the most that was ever in use at once."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    over = threading.Event()

    def go_on():
        while not over.wait(every):
            trim(0)

    threading.Thread(target=go_on, name="trim", daemon=True).start()
    return over
