"""Who asks, and how often they may: requests are counted by session and, since a session costs nothing, by address."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import OrderedDict
from typing import Callable

REMEMBERED = 20_000         # visitors whose counts are kept; the longest silent ones are forgotten
SHARED = 5                  # so many visitors may sit behind one address: a family, a class behind a school's one line


def address(peer: str, forwarded: str, proxies: int | None) -> str:
    """The visitor's network address. peer: who connects; forwarded: the header X-Forwarded-For, to which each proxy appends whom it saw.

    Anybody can write that header, so only what our own proxies appended counts: with n of them the n-th from the right. None (a Space, whose
    proxies nobody counts): the last public address, which the outermost proxy saw.
    """
    chain = [part.strip() for part in forwarded.split(",") if part.strip()] + [peer]
    if proxies is not None:
        return _network(chain[max(0, len(chain) - 1 - proxies)])
    return next((_network(part) for part in reversed(chain) if _public(part)), peer)


def _public(part: str) -> bool:
    try:
        return ipaddress.ip_address(part).is_global
    except ValueError:
        return False


def _network(part: str) -> str:
    """Of IPv6 the network, for a home has not one address of it but 2^64."""
    try:
        found = ipaddress.ip_address(part)
    except ValueError:
        return part[:100]
    return part if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))


class Rates:
    """Buckets that hold a minute's requests and fill again steadily, so that a short burst is nobody's trouble."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._lock = clock, threading.Lock()
        self._buckets: OrderedDict[tuple, tuple[float, float]] = OrderedDict()        # by visitor: what is left, and when that was

    def ask(self, cost: int, *visitors: tuple[tuple, float]) -> int:
        """Take `cost` requests from every visitor, each a key and its requests a minute. 0: it was taken; else seconds to wait, and nothing was."""
        if cost <= 0:
            return 0
        now, left, wait = self._clock(), {}, 0.0
        with self._lock:
            for key, per_minute in visitors:
                held, when = self._buckets.get(key, (per_minute, now))
                left[key] = min(per_minute, held + (now - when) * per_minute / 60)
                wait = max(wait, (min(cost, per_minute) - left[key]) * 60 / per_minute)
            for key in left:
                self._buckets[key] = (left[key] - (cost if wait <= 0 else 0), now)
                self._buckets.move_to_end(key)
            while len(self._buckets) > REMEMBERED:
                self._buckets.popitem(last=False)
        return math.ceil(wait) if wait > 0 else 0


RATES = Rates()             # of this process
