"""Decoding in a process apart: the same clips and pictures as here, and whatever a file does to its decoder is one sentence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msademo import apart, confine, limits
from msademo.errors import InputError
from msademo.limits import Limits
from msademo.media import load_clip
from msademo.picture import read_picture
from msademo.post import load_post
from tests.mediafiles import truncated, write_media

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
BOUNDS = Limits(decode_seconds=2, decode_mb=256)
pytestmark = pytest.mark.skipif(not apart.possible(), reason="this system hands no files from process to process")


@pytest.fixture(scope="module")
def hostile():
    """A decoder that does what stands in its files."""
    decoder = apart.Decoder("tests.hostile_child")
    decoder.start()
    yield decoder
    decoder.stop()


@pytest.fixture
def order(hostile, monkeypatch, tmp_path):
    """order("crash") -> what decode_apart makes of a file that orders it, within BOUNDS."""
    monkeypatch.setattr(apart, "_decoder", hostile)
    monkeypatch.setattr(limits, "current", lambda: BOUNDS)

    def give(text: str):
        file = tmp_path / "talk.mp4"
        file.write_text(text)
        return apart.decode_apart(str(file), 60, 10**7)

    return give


def refused(action, *args) -> str:
    with pytest.raises(InputError) as error:
        action(*args)
    told = str(error.value)
    assert told.endswith(".") and "\n" not in told and "Traceback" not in told
    return told


def test_a_clip_is_the_same_apart_and_here(tmp_path):
    for path in (EXAMPLES / "happy.mp4", write_media(tmp_path / "a.wav", 1.0), truncated(write_media(tmp_path / "b.webm", 2.0), 0.6)):
        here, there = load_clip(path, "so good"), load_clip(path, "so good", apart=True)
        for name in ("frames", "frame_times", "audio"):
            mine, theirs = getattr(here, name), getattr(there, name)
            assert (mine is None and theirs is None) or (np.array_equal(mine, theirs) and mine.dtype == theirs.dtype)
        assert (here.duration, here.notes, here.words) == (there.duration, there.notes, there.words)
        there.frames[:1] = 0                                # plain memory of ours


def test_a_picture_is_the_same_apart_and_here():
    for source in (EXAMPLES / "coffee.jpg", (EXAMPLES / "coffee.jpg").read_bytes()):
        here, there = read_picture(source), apart.picture_apart(source, 10**8)
        assert np.array_equal(here.rgb, there.rgb) and (here.size, here.notes) == (there.size, there.notes)
    assert np.array_equal(load_post(EXAMPLES / "cat.jpg", "", apart=True).picture, read_picture(EXAMPLES / "cat.jpg").rgb)


def test_refusals_are_the_same_apart_and_here(tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is no video")
    for path in (str(broken), str(tmp_path / "none.mp4"), "a\0b", str(tmp_path)):
        assert refused(apart.decode_apart, path, 60, 10**7) == refused(lambda: load_clip(path, ""))
        assert refused(apart.picture_apart, path, 10**7) == refused(read_picture, path)


def test_the_owner_s_limits_hold_and_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "current", lambda: Limits(clip_seconds=2, megapixels=1, words=10))
    clip = load_clip(write_media(tmp_path / "a.mp4", 4.0), "word " * 20, apart=True)
    assert clip.duration == 2 and clip.frame_times.max() < 2 and len(clip.audio) == 2 * 22_050 and len(clip.words) == 10
    assert any("first 2 s" in note for note in clip.notes) and any("first 10 are used" in note for note in clip.notes)
    Image.new("RGB", (1200, 1000)).save(tmp_path / "wide.png")
    assert "1200 x 1000" in refused(load_post, tmp_path / "wide.png", "", True) and "at most 1000 x 1000" in refused(load_post, tmp_path / "wide.png", "", True)
    assert "1200 x 1000" in refused(lambda: load_clip(write_media(tmp_path / "wide.mp4", 0.2, size=(1200, 1000), sound=None), "", apart=True))


@pytest.mark.parametrize("what, said", [("crash", apart.CRASHED), ("abort", apart.CRASHED), ("quit", apart.CRASHED), ("babble", apart.CRASHED),
                                        ("fill", apart.CRASHED), ("eat", apart.LARGE.format(BOUNDS)), ("sleep", apart.SLOW.format(BOUNDS)),
                                        ("kill-parent", None)])
def test_a_file_that_takes_its_decoder_down_is_one_sentence(order, what, said):
    started = time.monotonic()
    told = refused(order, what)
    assert said is None or told == said
    assert time.monotonic() - started < BOUNDS.decode_seconds + apart.GRACE + 10
    assert order("be honest").frames.shape == (2, 4, 4, 3)              # and the next visitor notices nothing


def test_a_file_that_burns_time_is_ended_by_the_clock_of_the_system(order, monkeypatch):
    """Even if nobody looked at the clock: the limit of CPU time kills it."""
    monkeypatch.setattr(limits, "current", lambda: Limits(decode_seconds=60, decode_mb=256))
    plain = apart._job
    monkeypatch.setattr(apart, "_job", lambda *args, **more: plain(*args, **more) | {"cpu": 1})
    assert "longer than" in refused(order, "spin")


@pytest.mark.parametrize("shapes", [{}, {"frames": [2, 4, 4, 3]}, {"frames": [2, 4, 4, 3], "times": [10**9]}, {"frames": [-2, 4, 4, 3], "times": [0]},
                                    {"frames": [10**6] * 4, "times": [0]}, {"frames": "2443", "times": [0]}, {"frames": [1, 4, 4, 3], "times": [0]},
                                    {"frames": [1, 4, 2, 3], "times": [1.0]}, {"frames": [96], "times": [0]}, {"frames": [1, 1, 1, 9], "times": [1]},
                                    {"frames": None, "times": None}, [1, 2]])
def test_an_answer_that_lies_about_its_arrays_is_refused(order, shapes):
    assert refused(order, f"lie {json.dumps(shapes)}") == apart.CRASHED


@pytest.mark.parametrize("told", [None, [], {"notes": []}, {"duration": "long", "notes": []}, {"duration": 1, "notes": 3}, {"duration": 1, "notes": [1]}])
def test_an_answer_of_another_form_is_refused(order, told):
    assert refused(order, f"tell {json.dumps(told)}") == apart.CRASHED


def test_what_is_told_stays_short_and_in_bounds(order):
    media = order("tell " + json.dumps({"duration": 1e9, "notes": ["a\nb " * 300] * 30}))
    assert media.duration == 60 and len(media.notes) == apart.MOST_NOTES and all(len(note) <= apart.LONGEST_NOTE and "\n" not in note for note in media.notes)
    assert refused(order, "shout") == apart.CRASHED


def test_the_child_has_no_key_and_reaches_nothing(order, hostile, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-owner")
    hostile.stop()
    passwd, environ, connected, killed, written, names = order(f"spy {os.getpid()}").notes
    assert "OPENAI_API_KEY" not in names.split(",") and "PYTHONPATH" in names.split(",")
    if confine.version():
        assert passwd == environ == written == "PermissionError"
    if confine.version() >= 4:
        assert connected == "PermissionError"
    if confine.version() >= 6:
        assert killed == "PermissionError"


def test_many_at_once_and_a_decoder_that_died_between(order, hostile):
    order("be honest")
    os.kill(hostile._process.pid, signal.SIGKILL)
    results: list = []
    threads = [threading.Thread(target=lambda: results.append(order("be honest").duration)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [1.0] * 6


def test_a_picture_too_large_for_its_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "current", lambda: Limits(decode_mb=128))
    Image.new("RGBA", (8000, 8000)).save(tmp_path / "large.png", compress_level=1)       # 256 MB decoded
    assert "more than the 128 MB of memory" in refused(apart.picture_apart, tmp_path / "large.png", 8192 * 8192)


def test_the_decoder_ends_with_the_server_however_it_ends():
    code = ("import os, signal, sys\nfrom msademo import apart\napart.prepare()\nprint(apart._decoder._process.pid, flush=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL) if sys.argv[1] == 'killed' else None")
    for how in ("killed", "quietly"):
        server = subprocess.run([sys.executable, "-c", code, how], cwd=ROOT, capture_output=True, text=True, timeout=60)
        child = int(server.stdout)
        deadline = time.monotonic() + 20
        while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
            if Path(f"/proc/{child}/status").read_text().split("State:")[1].split()[0] == "Z":
                break                                       # dead; whoever inherited it has not looked yet
            time.sleep(0.1)
        else:
            assert not Path(f"/proc/{child}").exists()


def test_without_a_process_apart_it_is_decoded_here_and_said(monkeypatch, caplog):
    monkeypatch.setattr(apart, "possible", lambda: False)
    monkeypatch.setattr(apart, "_decoder", None)
    apart.prepare()
    assert "cannot decode in a process apart" in caplog.text
    assert len(load_clip(EXAMPLES / "happy.mp4", "", apart=True).frames) and load_post(EXAMPLES / "cat.jpg", "", True).picture.size
