"""Answers on disk, by the content they answer: what was asked once is not asked again, also after a kill."""

from __future__ import annotations

import hashlib
import json
import threading
import weakref
from pathlib import Path
from typing import Callable, Mapping

from msademo.checkpoint import write_atomically

_guard = threading.Lock()
_locks: weakref.WeakValueDictionary = weakref.WeakValueDictionary()      # one lock a file being made, gone when nobody makes it


def cache_path(folder: str | Path, key_parts: Mapping) -> Path:
    """Where the answer to `key_parts` (whatever JSON can write) lies; its name is a hash, so nothing of the content shows."""
    name = hashlib.sha256(json.dumps(key_parts, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()
    return Path(folder) / name[:2] / f"{name}.json"


def cached(folder: str | Path, key_parts: Mapping, make: Callable[[], dict]) -> dict:
    """The stored answer, or make()'s, which is then stored. Threads that want the same answer wait for the first of them; a file
    that cannot be read counts as absent; when make raises, nothing is stored."""
    path = cache_path(folder, key_parts)
    with _guard:
        lock = _locks.setdefault(str(path), threading.Lock())
    with lock:
        try:
            stored = json.loads(path.read_bytes())
            if isinstance(stored, dict):
                return stored
        except (OSError, ValueError):
            pass
        made = make()
        write_atomically(path, json.dumps(made, ensure_ascii=False).encode("utf-8", "replace"))
        return made
