"""Opened clips rest in memory between a visitor's moves; what all of them weigh together is bounded.

A minute of video is 200 MB of frames, and a hundred pages may be open. Where they would weigh more than is allowed, those that nobody touched
for longest are put away; their visitors are asked to open them again.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict

from msademo import limits
from msademo.errors import InputError

PUT_AWAY = "This clip was put away to make room for other visitors; open it again."


class Room:
    """Counts what rests. It owns nothing: what its owner forgets is gone, and no longer counts."""

    def __init__(self):
        self._lock = threading.RLock()          # forgetting may happen inside any of the others, where the garbage collector runs
        self._rests: OrderedDict[int, tuple[weakref.ref, int]] = OrderedDict()         # the longest untouched first

    @property
    def weight(self) -> int:
        with self._lock:
            return sum(weight for _, weight in self._rests.values())

    def put(self, kept: Kept, weight: int) -> None:
        """Whatever is heavier than all the room alone still stays, for its visitor is the one who asks."""
        with self._lock:
            key = id(kept)
            self._rests[key] = (weakref.ref(kept, lambda _: self._forget(key)), weight)
            while len(self._rests) > 1 and self.weight > limits.current().opened_mb * 1_000_000:
                oldest = self._rests.popitem(last=False)[1][0]()
                if oldest is not None:              # else it was forgotten this moment
                    oldest._thing = None

    def touch(self, kept: Kept) -> None:
        with self._lock:
            if id(kept) in self._rests:
                self._rests.move_to_end(id(kept))

    def _forget(self, key: int) -> None:
        with self._lock:
            self._rests.pop(key, None)


ROOM = Room()             # of this process


class Kept:
    """One opened clip (msademo.analyzer.OpenedClip) in the room there is."""

    def __init__(self, clip, room: Room = ROOM):
        self._thing, self._room = clip, room
        room.put(self, sum(array.nbytes for array in (clip.clip.frames, clip.clip.audio) if array is not None))

    @property
    def here(self) -> bool:
        return self._thing is not None

    @property
    def clip(self):
        """InputError if it was put away meanwhile."""
        thing = self._thing
        if thing is None:
            raise InputError(PUT_AWAY)
        self._room.touch(self)
        return thing
