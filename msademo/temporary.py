"""One folder for all that is not to last: private, gone when the process ends, and cleared away by the next one where it was killed."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

try:
    import fcntl
except ImportError:             # without locks nobody can tell whose folders are in use, so none is cleared away
    fcntl = None

PREFIX, LOCK = "msademo-", "in-use"
_held: list[int] = []           # locks, held until the process ends


def _lock(folder: Path) -> bool:
    """Take a folder's lock; False where its owner still lives, or where it is no folder of ours."""
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return False
    _held.append(handle)
    return True


def clear_dead(parent: Path) -> int:
    """Remove what killed processes of this user left in `parent`; gives how many folders."""
    removed = 0
    for folder in parent.glob(f"{PREFIX}*/") if fcntl else ():
        if folder.stat(follow_symlinks=False).st_uid == os.getuid() and not folder.is_symlink() and _lock(folder):
            shutil.rmtree(folder, ignore_errors=True)
            os.close(_held.pop())
            removed += 1
    return removed


@lru_cache(maxsize=1)
def folder() -> Path:
    """This process's own."""
    made = Path(tempfile.mkdtemp(prefix=PREFIX))
    clear_dead(made.parent)
    if fcntl:
        (made / LOCK).touch(mode=0o600)
        _lock(made)
    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(made, ignore_errors=True) if os.getpid() == owner else None)
    return made
