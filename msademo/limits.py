"""What is accepted from a visitor, in one place: read once from the environment, checked, and said on the page.

Every variable, what it bounds and what it does not is in docs/safety.md. A value that cannot be used is one sentence at the start.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Mapping

from msademo.errors import InputError

PREFIX = "MSADEMO_"


def _of(default, least, most, told: str):
    """A limit with its bounds, and what it is, for the sentence about a value out of them."""
    return field(default=default, metadata={"least": least, "most": most, "told": told})


@dataclass(frozen=True)
class Limits:
    """A field NAME is set by the variable MSADEMO_NAME. Whole numbers where the default is one. InputError for any other value.

    The upper bounds of clip_seconds, megapixels and words are what models and page are made for; an owner may ask for less.
    """

    upload_mb: int = _of(200, 1, 2000, "megabytes of an uploaded file")
    clip_seconds: int = _of(60, 1, 60, "seconds of a clip that are used")
    megapixels: int = _of(67, 1, 67, "millions of pixels of a picture or a frame of a video")
    words: int = _of(500, 10, 500, "words that are used")
    per_minute: int = _of(120, 1, 100_000, "requests a minute of one visitor")
    queue: int = _of(64, 1, 10_000, "requests waiting at the same time")
    keep_hours: float = _of(6.0, 0.001, 720.0, "hours until uploads and opened clips and posts go")
    opened_mb: int = _of(1000, 10, 100_000, "megabytes of all opened clips that wait for their visitors' next move")
    run_hours: float = _of(24.0, 0.001, 720.0, "hours until runs go where nothing is kept")
    decode_seconds: int = _of(90, 1, 3600, "seconds that reading one file may take")
    decode_mb: int = _of(2048, 128, 65_536, "megabytes of memory that reading one file may take")

    def __post_init__(self):
        for limit in fields(self):
            value, least, most = getattr(self, limit.name), limit.metadata["least"], limit.metadata["most"]
            whole = isinstance(limit.default, int)
            kind = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            if not kind or not math.isfinite(value) or not least <= value <= most:
                raise InputError(f"{PREFIX}{limit.name.upper()} ({limit.metadata['told']}) must be a {'whole ' if whole else ''}number from {least} to {most}, "
                                 f"not {value!r}; correct it or leave it away.")

    @property
    def pixels(self) -> int:
        """Of a picture or frame. The usual 67 million stand for 8192 x 8192, which are a few more."""
        return 8192 * 8192 if self.megapixels == 67 else self.megapixels * 1_000_000

    @property
    def rest_seconds(self) -> int:
        """How long an opened clip or post may rest before it is put away: an hour, or less where less is kept."""
        return max(1, math.ceil(min(3600, 3600 * self.keep_hours)))

    @property
    def sweep_seconds(self) -> int:
        """How often to look for what is too old: a sixth of its life at the latest, so that nothing lives much longer than is said."""
        return max(1, min(600, int(600 * self.keep_hours)))


def _number(text: str):
    """What a variable says, as a number if it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def read(environment: Mapping[str, str]) -> Limits:
    """The limits that the variables ask for; empty ones count as absent."""
    given = {limit.name: environment.get(PREFIX + limit.name.upper(), "").strip() for limit in fields(Limits)}
    return Limits(**{name: _number(text) for name, text in given.items() if text})


@lru_cache(maxsize=1)
def current() -> Limits:
    """The limits of this process."""
    return read(os.environ)


def hours(value: float) -> str:
    """A length of time for people: '6 hours', '1 hour', '30 minutes'."""
    count, unit = (value, "hour") if value >= 1 else (max(1, round(60 * value)), "minute")
    return f"{count:g} {unit}{'' if count == 1 else 's'}"
