"""Files that people really upload: each gives a clip with the right content and notes, or one clear sentence."""

from __future__ import annotations

import gc
import resource
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from msademo import asr, decoding
from msademo.errors import InputError
from msademo.media import FRAME_RATE, MAX_SECONDS, MAX_WORDS, SAMPLE_RATE, Word, load_clip
from tests import mediafiles
from tests.mediafiles import brightness, m4a_with_cover, tone, truncated, with_cover, write_float_wav, write_media

REAL_CLIPS = sorted((Path(__file__).parents[2] / "shared/data/clips").glob("*.mp4"))


def sentence(*args, **kwargs) -> str:
    """The message with which loading is refused; it is one line."""
    with pytest.raises(InputError) as refusal:
        load_clip(*args, **kwargs)
    assert "\n" not in str(refusal.value) and str(refusal.value).endswith(".")
    return str(refusal.value)


def says(clip, words: str) -> bool:
    return any(words in note for note in clip.notes)


def pitch(audio: np.ndarray) -> float:
    return np.abs(np.fft.rfft(audio)).argmax() * SAMPLE_RATE / len(audio)


def corners(image: np.ndarray) -> list[str]:
    """Which corners are red, clockwise from the upper left."""
    h, w = image.shape[0] // 8, image.shape[1] // 8
    places = [image[h, w], image[h, -w], image[-h, -w], image[-h, w]]
    return [name for name, p in zip(("left top", "right top", "right bottom", "left bottom"), places)
            if int(p[0]) - int(p[1]) > 100]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".webm", ".avi", ".mkv"])
def test_picture_and_sound_of_every_video_kind(tmp_path, suffix):
    clip = load_clip(write_media(tmp_path / f"a{suffix}", 2.0), "")
    assert clip.frames.dtype == np.uint8 and clip.frames.shape[1:] == (120, 160, 3)
    assert len(clip.frames) == len(clip.frame_times) == 10
    np.testing.assert_allclose(clip.frame_times, np.arange(10) / FRAME_RATE, atol=0.045)
    grey = clip.frames[:, 90:110, 100:140].mean(axis=(1, 2, 3))         # every frame shows the very time it claims
    np.testing.assert_allclose(grey, [brightness(t, 2.0) for t in clip.frame_times], atol=6)
    assert corners(clip.frames[0]) == ["left top"]
    assert clip.audio.dtype == np.float32 and len(clip.audio) == pytest.approx(2.0 * SAMPLE_RATE, rel=0.05)
    assert pitch(clip.audio) == pytest.approx(440, abs=3)
    assert np.percentile(np.abs(clip.audio), 99) == pytest.approx(0.5, abs=0.06)
    assert clip.duration == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".m4a"])
def test_sound_alone_leaves_the_face_missing(tmp_path, suffix):
    clip = load_clip(write_media(tmp_path / f"a{suffix}", 1.0), "fine")
    assert clip.frames.shape == (0, 0, 0, 3) and clip.frame_times.shape == (0,)
    assert pitch(clip.audio) == pytest.approx(440, abs=3)
    assert says(clip, "no picture") and not says(clip, "no sound")


def test_cover_art_is_no_picture(tmp_path):
    for path in (with_cover(write_media(tmp_path / "a.mp3", 1.0)),
                 m4a_with_cover(tmp_path / "b.m4a", write_media(tmp_path / "a.m4a", 1.0))):
        clip = load_clip(path, "")
        assert len(clip.frames) == 0 and says(clip, "no picture") and clip.audio is not None


def test_frames_are_freed_without_waiting_for_the_collector(tmp_path):
    upright, turned = (write_media(tmp_path / f"{r}.mp4", 2.0, rotation=r, sound=None) for r in (None, 90))
    gc.collect()
    gc.disable()
    try:
        for path, left in ((upright, 0), (turned, 1)):          # an 8K frame is 50 MB
            load_clip(path, "")
            assert sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects()) <= left
    finally:
        gc.enable()


@pytest.mark.parametrize("rotation, flip, corner, shape", [
    (90, False, "left bottom", (160, 120)), (-90, False, "right top", (160, 120)), (180, False, "right bottom", (120, 160)),
    (0, True, "right top", (120, 160))])
def test_phone_video_stands_upright(tmp_path, rotation, flip, corner, shape):
    path = write_media(tmp_path / "phone.mp4", 0.6, rotation=rotation, flip=flip, sound=None)
    clip = load_clip(path, "")
    assert clip.frames.shape[1:3] == shape
    assert corners(clip.frames[0]) == [corner]


def test_large_frames_shrink_and_wide_pixels_are_stretched(tmp_path):
    large = load_clip(write_media(tmp_path / "large.mp4", 0.4, size=(1280, 720), sound=None), "")
    assert large.frames.shape[1:3] == (360, 640)
    tape = load_clip(write_media(tmp_path / "tape.mp4", 0.4, size=(160, 120), aspect=Fraction(4, 3), sound=None), "")
    assert tape.frames.shape[1:3] == (120, 213)


@pytest.mark.parametrize("suffix, pixels", [(".mkv", "gray"), (".mkv", "yuv444p10le"), (".mkv", "bgra"), (".mp4", "yuv422p")])
def test_odd_pixel_formats(tmp_path, suffix, pixels):
    clip = load_clip(write_media(tmp_path / f"a{suffix}", 0.6, pixels=pixels, sound=None, size=(102, 66)), "")
    grey = clip.frames[:, 50:60, 70:90].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(grey, [brightness(t, 0.6) for t in clip.frame_times], atol=8)


def test_variable_rate_keeps_real_times(tmp_path):
    given = [0.0, 0.03, 0.07, 0.18, 0.27, 0.42, 0.45, 1.9, 2.0, 2.04]
    path = write_media(tmp_path / "recorder.webm", 2.1, times=given, options={"live": "1"})     # as a browser: no duration
    clip = load_clip(path, "")
    assert all(np.abs(np.array(given) - t).min() < 0.002 for t in clip.frame_times)
    assert (np.diff(clip.frame_times) > 0).all()
    nearest = {min(given, key=lambda t: abs(t - tick)) for tick in np.arange(0, 2.1, 1 / FRAME_RATE)}
    assert set(np.round(clip.frame_times, 2)) == nearest
    assert clip.duration == pytest.approx(2.1, abs=0.1) and not says(clip, "cut off")


def test_sound_stays_in_step_with_the_picture(tmp_path):
    clip = load_clip(write_media(tmp_path / "late.mkv", 2.0, sound=tone(1.0), sound_start=1.0), "")
    assert np.abs(clip.audio[:int(0.9 * SAMPLE_RATE)]).max() < 0.01
    assert np.abs(clip.audio[int(1.1 * SAMPLE_RATE):]).max() > 0.4


def test_audio_stays_in_range_and_finite(tmp_path):
    loud = load_clip(write_media(tmp_path / "a.wav", 1.0, sound=tone(1.0, level=0.95)), "")
    assert np.abs(loud.audio).max() == pytest.approx(0.95, abs=0.03)        # two channels, not 1.4 times as loud
    wave = 3 * tone(1.0, SAMPLE_RATE)
    wave[500:600] = np.nan
    wave[700] = np.inf
    strange = load_clip(write_float_wav(tmp_path / "b.wav", wave), "")
    assert np.isfinite(strange.audio).all() and np.abs(strange.audio).max() == 1.0
    assert (strange.audio[500:600] == 0).all()
    array = load_clip(write_float_wav(tmp_path / "c.wav", tone(1.0, 44_100), 44_100, channels=16), "")
    assert pitch(array.audio) == pytest.approx(440, abs=3) and np.abs(array.audio).max() == pytest.approx(0.5, abs=0.02)


def test_no_sound_and_silence_are_missing_and_told_apart(tmp_path):
    mute = load_clip(write_media(tmp_path / "mute.mp4", 0.6, sound=None))
    assert mute.audio is None and says(mute, "no sound") and says(mute, "no transcript")
    hush = load_clip(write_media(tmp_path / "hush.mp4", 0.6, sound=tone(0.6, level=5e-4)), "")
    assert hush.audio is None and says(hush, "silent") and not says(hush, "no sound")
    soft = load_clip(write_media(tmp_path / "soft.wav", 0.6, sound=tone(0.6, level=5e-3)), "")
    assert soft.audio is not None


def test_nothing_at_all_is_refused_but_words_alone_are_not(tmp_path):
    silent = write_media(tmp_path / "silent.wav", 1.0, sound=np.zeros(44_100, np.float32))
    assert "neither" in sentence(silent, "")
    assert "neither" in sentence(None)
    assert [w.text for w in load_clip(silent, "still good").words] == ["still", "good"]
    alone = load_clip(None, "words alone")
    assert alone.words == (Word("words"), Word("alone")) and alone.duration == 0.0


def test_only_the_first_minute(tmp_path):
    path = write_media(tmp_path / "long.mp4", 70.0, size=(64, 48), rate=6)
    clip = load_clip(path, "")
    assert clip.duration == MAX_SECONDS and clip.frame_times.max() < MAX_SECONDS
    assert len(clip.frames) == pytest.approx(MAX_SECONDS * FRAME_RATE, abs=1)
    assert len(clip.audio) == MAX_SECONDS * SAMPLE_RATE
    assert says(clip, "first 60 s") and not says(clip, "cut off")
    exact = load_clip(write_media(tmp_path / "exact.mp4", 60.0, size=(64, 48), rate=2), "")
    assert not says(exact, "first 60 s")


def test_an_hour_of_sound_costs_a_minute(tmp_path):
    path = write_media(tmp_path / "hour.wav", sound=tone(3600, 8_000), sound_rate=8_000, channels=1)
    begin = time.perf_counter()
    clip = load_clip(path, "")
    assert time.perf_counter() - begin < 3 and clip.duration == MAX_SECONDS and says(clip, "first 60 s")


def test_memory_stays_bounded_however_many_frames(tmp_path):
    """Frames that are not kept are not held: all 150 of 1080p would be 930 MB of RGB."""
    path = write_media(tmp_path / "many.mp4", 3.0, size=(1920, 1080), rate=50, sound=None, video_options={"preset": "ultrafast"})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clip = load_clip(path, "")
    assert clip.frames.shape == (15, 360, 640, 3)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000       # kB


def test_huge_video_uses_key_frames_and_absurd_video_is_refused(tmp_path, monkeypatch):
    path = write_media(tmp_path / "a.mp4", 4.0, sound=None, video_options={"x264-params": "keyint=25:min-keyint=25:scenecut=0"})
    monkeypatch.setattr(decoding, "MAX_DECODED", 160 * 120 * 25)
    clip = load_clip(path, "")
    np.testing.assert_allclose(clip.frame_times, [0, 1, 2, 3], atol=0.01)
    assert says(clip, "key frames")
    with pytest.raises(InputError, match="160 x 120 pixels, which is too large"):
        decoding.decode(path, pixels=100 * 100)


def test_files_that_are_no_media(tmp_path):
    assert "does not exist" in sentence(str(tmp_path / "none.mp4"))
    assert "does not exist" in sentence(str(tmp_path))
    assert "does not exist" in sentence("http://localhost/a.mp4")
    assert "does not exist" in sentence("a\0b.mp4")
    (tmp_path / "empty.mp4").touch()
    assert "0 bytes" in sentence(str(tmp_path / "empty.mp4"))
    for name in ("text.mp4", "text.mp3", "text.wav", "text.aac", "text.webm"):
        (tmp_path / name).write_text("This is no film.\n" * 200)
        assert sentence(str(tmp_path / name))
    (tmp_path / "noise.mp3").write_bytes(np.random.default_rng(0).bytes(2000))
    assert sentence(str(tmp_path / "noise.mp3"))


def test_files_that_name_other_files_are_not_followed(tmp_path):
    inner = write_media(tmp_path / "inner.mp4", 0.6)
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile {Path(inner).name}\n")
    (tmp_path / "play.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{inner}\n#EXT-X-ENDLIST\n")
    assert "cannot be read" in sentence(str(tmp_path / "list.mp4"))
    assert "cannot be read" in sentence(str(tmp_path / "play.mp4"))


def test_truncated_files(tmp_path):
    lost = truncated(write_media(tmp_path / "lost.mp4", 4.0), 0.6)       # its index came last
    assert "cut off" in sentence(lost)
    for name, options in (("index_first.mp4", {"movflags": "faststart"}), ("part.webm", {}), ("part.avi", {})):
        path = write_media(tmp_path / name, 4.0, rate=15, options=options)
        clip = load_clip(truncated(path, 0.4), "")
        assert says(clip, "cut off or damaged"), name
        assert 0 < clip.duration < 3, name
    wave = load_clip(truncated(write_media(tmp_path / "part.wav", 4.0), 0.4), "")       # a wav cannot tell its true length
    assert wave.duration == pytest.approx(1.6, abs=0.1)


def test_any_cut_or_flipped_bytes_give_a_clip_or_one_sentence(tmp_path):
    generator = np.random.default_rng(0)
    whole = Path(write_media(tmp_path / "whole.mp4", 1.0, options={"movflags": "faststart"})).read_bytes()
    broken = tmp_path / "broken.mp4"
    outcomes = set()
    for trial in range(40):
        data = bytearray(whole[:generator.integers(1, len(whole))] if trial % 2 else whole)
        for place in generator.integers(0, len(data), 30):
            data[place] = generator.integers(256)
        broken.write_bytes(data)
        try:
            clip = load_clip(str(broken), "")
            outcomes.add("clip")
            assert len(clip.frames) == len(clip.frame_times) and 0 < clip.duration <= MAX_SECONDS
        except InputError:
            outcomes.add("refused")
    assert outcomes == {"clip", "refused"}


def test_given_words_are_spread_over_the_clip(tmp_path):
    clip = load_clip(write_media(tmp_path / "a.wav", 3.0), "I am so happy today")
    assert clip.transcript_source == "given" and says(clip, "estimated")
    starts, ends = [w.start for w in clip.words], [w.end for w in clip.words]
    assert starts[0] == 0.0 and ends[-1] == pytest.approx(clip.duration) and starts[1:] == ends[:-1]
    lengths = np.subtract(ends, starts)
    assert lengths[3] == pytest.approx(5 * lengths[0])


def test_subtitles_by_path_and_by_content(tmp_path):
    path = write_media(tmp_path / "a.wav", 4.0)
    text = "1\n00:00:01,000 --> 00:00:02,000\nso good\n\n2\n00:00:03,500 --> 00:00:09,000\nlast\n\n3\n00:00:20,000 --> 00:00:21,000\ntoo late\n"
    (tmp_path / "a.srt").write_text(text)
    by_path = load_clip(path, subtitles=str(tmp_path / "a.srt"))
    by_content = load_clip(path, text)
    assert by_path.words == by_content.words and by_path.transcript_source == "subtitles"
    assert [w.text for w in by_path.words] == ["so", "good", "last"]
    assert (by_path.words[0].start, by_path.words[1].end, by_path.words[2].start) == (1.0, 2.0, 3.5)
    assert by_path.words[2].end == by_path.duration and says(by_path, "after the end")
    assert "only one" in sentence(path, "words", subtitles=str(tmp_path / "a.srt"))
    (tmp_path / "plain.srt").write_text("no times here")
    assert "No subtitle" in sentence(path, subtitles=str(tmp_path / "plain.srt"))


def test_long_and_strange_transcripts(tmp_path):
    path = write_media(tmp_path / "a.wav", 1.0)
    long = load_clip(path, "word " * 10_000)
    assert len(long.words) == MAX_WORDS and says(long, "10000 words")
    assert long.words[-1].end == pytest.approx(long.duration)
    assert [w.text for w in load_clip(path, "\U0001f600 \U0001f622\U0001f622").words] == ["\U0001f600", "\U0001f622", "\U0001f622"]
    assert [w.text for w in load_clip(path, "a\0b \x07 c").words] == ["ab", "c"]
    assert "more than" in sentence(path, "a" * 1_000_001)
    for empty in ("", "  \n", "\0"):
        clip = load_clip(path, empty)
        assert clip.words == () and clip.transcript_source == "none" and says(clip, "No words were given")


def test_recognition_only_when_no_words_are_given(tmp_path, monkeypatch):
    heard = (Word("hello", 0.1, 0.4),)
    asked = []
    monkeypatch.setattr(asr, "available", lambda: True)
    monkeypatch.setattr(asr, "transcribe", lambda audio, rate: asked.append((len(audio), rate)) or heard)
    path = write_media(tmp_path / "a.wav", 1.0)
    clip = load_clip(path)
    assert clip.words == heard and clip.transcript_source == "asr" and says(clip, "speech recognition (tiny.en")
    assert asked == [(len(clip.audio), SAMPLE_RATE)]
    load_clip(path, ""), load_clip(path, "given"), load_clip(path, asr=False)
    assert len(asked) == 1
    monkeypatch.setattr(asr, "transcribe", lambda audio, rate: ())
    nothing = load_clip(path)
    assert nothing.transcript_source == "none" and says(nothing, "understood no words")
    monkeypatch.setattr(asr, "available", lambda: False)
    assert says(load_clip(path), "not installed")


def test_missing_recogniser_says_what_to_install(monkeypatch):
    monkeypatch.setattr(asr, "_package_folder", lambda name: None)
    asr._load.cache_clear()
    assert not asr.available()
    with pytest.raises(InputError, match="pip install"):
        asr.transcribe(tone(1.0, SAMPLE_RATE), SAMPLE_RATE)


def test_unknown_model_name_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("MSADEMO_ASR_MODEL", str(tmp_path))
    with pytest.raises(InputError, match="MSADEMO_ASR_MODEL"):
        asr.transcribe(tone(1.0, SAMPLE_RATE), SAMPLE_RATE)


@pytest.mark.skipif(not asr.available(), reason="speech recognition is not installed")
def test_recogniser_invents_nothing_for_noise_tones_and_silence():
    noise = np.random.default_rng(0).normal(0, 0.05, 4 * SAMPLE_RATE).astype(np.float32)
    for wave in (noise, tone(4.0, SAMPLE_RATE), np.zeros(SAMPLE_RATE, np.float32), noise[:3000]):
        assert asr.transcribe(wave, SAMPLE_RATE) == ()


VOICE = Path(__file__).parents[2] / "shared/data/voices/ravdess/03-01-01-01-01-01-01.ogg"


@pytest.mark.skipif(not (VOICE.exists() and asr.available()), reason="needs the development data and speech recognition")
def test_recogniser_hears_a_real_voice():
    clip = load_clip(str(VOICE))
    assert " ".join(w.text for w in clip.words) == "Kids are talking by the door."
    assert all(0 <= w.start < w.end <= clip.duration + 0.1 for w in clip.words)


@pytest.mark.skipif(not REAL_CLIPS, reason="needs the development data")
def test_real_clips_decode():
    for path in REAL_CLIPS:
        clip = load_clip(str(path), "")
        assert len(clip.frames) == pytest.approx(clip.duration * FRAME_RATE, abs=1.5) and clip.audio is not None
        assert len(clip.audio) == pytest.approx(clip.duration * SAMPLE_RATE, rel=0.05)


def test_helper_paints_what_it_says():
    """The other tests lean on it."""
    image = mediafiles.picture(1.0, 2.0, 80, 60)
    assert corners(image) == ["left top"] and image[50, 70, 0] == round(brightness(1.0, 2.0))
