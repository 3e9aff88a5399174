"""The example clips are what examples/README.md and the page say they are."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from msademo.backbones.voice import EMOTIONS, load_voice
from msademo.features.vision import EXPRESSIONS, LANDMARKS, face_track, load_expression, vision_tokens
from msademo.media import SAMPLE_RATE, load_clip

ROOT = Path(__file__).resolve().parent.parent
FOLDER, FACE = ROOT / "examples", ROOT / "checkpoints" / "face.safetensors"
LISTED = json.loads((FOLDER / "examples.json").read_text(encoding="utf-8"))
NAMES = [entry["file"] for entry in LISTED]


@pytest.fixture(scope="module")
def maker():
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("make_clips", FOLDER / "make_clips.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["make_clips"] = module      # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("make_clips", None)
        sys.modules.pop("puppet", None)


@pytest.fixture(scope="module")
def opened():
    """name -> (clip, face track); decoded once for all tests."""
    clips = {entry["file"]: load_clip(str(FOLDER / entry["file"]), entry["transcript"]) for entry in LISTED}
    return {name: (clip, face_track(clip.frames, clip.frame_times)) for name, clip in clips.items()}


def test_list_and_folder_agree(maker):
    assert LISTED == maker.listing()
    assert sorted(NAMES) == sorted(path.name for path in FOLDER.glob("*.mp4")) == ["conflict.mp4", "happy.mp4", "sad.mp4"]
    assert all(set(entry) == {"file", "title", "transcript", "note"} and all(entry.values()) for entry in LISTED)


@pytest.mark.parametrize("name", NAMES)
def test_small_and_playable_in_a_browser(name):
    data = (FOLDER / name).read_bytes()
    assert len(data) < 1_000_000
    assert data.index(b"moov") < data.index(b"mdat"), "the index must come first, so that playing starts at once"
    with av.open(str(FOLDER / name)) as film:
        video, voice = film.streams.video[0], film.streams.audio[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt, voice.codec_context.name) == ("h264", "yuv420p", "aac")


@pytest.mark.parametrize("name", NAMES)
def test_brings_all_three_modalities(opened, name):
    clip, track = opened[name]
    assert 5 <= clip.duration <= 9
    assert clip.audio is not None and clip.transcript_source == "given"
    assert len(clip.words) >= 8
    assert abs(len(clip.audio) / SAMPLE_RATE - len(clip.frames) / 5) < 0.5
    assert track.found.mean() >= 0.8 and track.faces_seen == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_mouth_moves_with_the_voice(opened, name):
    clip, track = opened[name]
    upper, lower, brow, chin = (track.landmarks[:, list(LANDMARKS).index(key)]
                                for key in ("lip_upper_inner", "lip_lower_inner", "forehead", "chin"))
    gap = np.linalg.norm(lower - upper, axis=-1) / np.linalg.norm(chin - brow, axis=-1)
    reach = SAMPLE_RATE // 20
    loud = [np.sqrt(np.mean(clip.audio[max(0, at - reach):at + reach] ** 2)) for at in (clip.frame_times * SAMPLE_RATE).astype(int)]
    assert np.corrcoef(gap, loud)[0, 1] > 0.5


@pytest.mark.skipif(not FACE.exists(), reason="the expression network is not there")
def test_the_network_reads_the_faces_as_told(opened):
    network = load_expression(FACE)
    mean = {}
    for name, (clip, track) in opened.items():
        tokens = vision_tokens(track, network, clip.frame_times)
        mean[name] = dict(zip(EXPRESSIONS, tokens.probabilities[~tokens.missing].mean(0)))
    assert max(mean["happy.mp4"], key=mean["happy.mp4"].get) == "happy"
    for name in ("sad.mp4", "conflict.mp4"):
        assert max(mean[name], key=mean[name].get) == "sad"


def test_the_network_hears_the_voices_as_told(opened):
    net = load_voice(ROOT / "checkpoints" / "voice.safetensors").net
    heard = {name: EMOTIONS[net.evidence(clip.audio).mean(0).argmax()] for name, (clip, track) in opened.items()}
    assert heard == {"happy.mp4": "happy", "sad.mp4": "sad", "conflict.mp4": "bored"}


def test_missing_tools_give_one_sentence(maker, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(SystemExit, match="apt-get install flite"):
        maker.speak(maker.STORIES[0])
    monkeypatch.setattr(maker, "find_spec", lambda package: None)
    with pytest.raises(SystemExit, match="pip install scikit-image"):
        maker.portrait(maker.STORIES[0])
