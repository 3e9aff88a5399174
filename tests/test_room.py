"""Opened clips weigh no more together than they may, and whoever lost theirs is told so and can open it again."""

import gc
from types import SimpleNamespace

import numpy as np
import pytest

from msademo import limits
from msademo.errors import InputError
from msademo.limits import Limits
from msademo.ui.clip_panels import Opened, open_clip
from msademo.ui.room import Kept, Room


def opened_clip(megabytes: float):
    """What Analyzer.open gives, as far as the page asks before it is analysed."""
    media = SimpleNamespace(frames=np.zeros(int(megabytes * 1e6), np.uint8), audio=None, words=())
    return SimpleNamespace(clip=media, guidance=SimpleNamespace(prompt=None))


@pytest.fixture
def room(monkeypatch):
    monkeypatch.setattr(limits, "current", lambda: Limits(opened_mb=10))
    return Room()


def test_the_longest_untouched_makes_room(room):
    first, second = Kept(opened_clip(4), room), Kept(opened_clip(4), room)
    assert first.clip is not None and room.weight == 8e6       # the first was touched last
    third = Kept(opened_clip(4), room)
    assert room.weight == 8e6 and (first.here, second.here, third.here) == (True, False, True)
    with pytest.raises(InputError, match="open it again"):
        second.clip


def test_one_that_is_heavier_than_all_the_room_stays_alone(room):
    small, large = Kept(opened_clip(1), room), Kept(opened_clip(50), room)
    assert not small.here and large.here
    assert Kept(opened_clip(1), room).here and not large.here


def test_what_is_forgotten_weighs_nothing(room):
    kept = [Kept(opened_clip(3), room) for _ in range(3)]
    del kept[1]
    gc.collect()
    assert room.weight == 6e6
    assert Kept(opened_clip(3), room).here and all(one.here for one in kept)


def test_a_clip_that_was_put_away_is_opened_again(room, monkeypatch):
    monkeypatch.setattr(Opened, "keep", lambda self, guidance: None)
    asked = []
    analyzer = SimpleNamespace(open=lambda path, transcript, say: asked.append(path) or opened_clip(1), with_transcript=lambda clip, given: clip)
    before = Opened("a.mp4", "words", Kept(opened_clip(8), room))
    assert open_clip(analyzer, before, "a.mp4", None, "words", print) is before and not asked
    Kept(opened_clip(8), room)
    again = open_clip(analyzer, before, "a.mp4", None, "words", print)
    assert asked == ["a.mp4"] and again is not before and again.clip is not None
