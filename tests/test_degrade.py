"""Signal-level corruption: seeded, the identity at 0, more harm with more severity, shapes kept, odd input survives, bad input refused."""

import numpy as np
import pytest

from msademo import degrade
from msademo.degrade import AUDIO_KINDS, DESCRIPTIONS, TEXT_KINDS, VIDEO_KINDS, degrade_audio, degrade_frames, degrade_words
from msademo.errors import InputError
from msademo.features.audio import audio_tokens
from msademo.media import SAMPLE_RATE, Word

LADDER = [0, 0.1, 0.25, 0.5, 0.75, 1]
WORDS = tuple(Word(text, i / 3, i / 3 + 0.3) for i, text in enumerate(
    "I really LOVED this movie, but the acting was Terrible! Nothing good about 你好 😀 42 xyz ... it's GREAT".split() * 3))


@pytest.fixture(scope="module")
def wave():
    rng = np.random.default_rng(0)
    time = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    buzz = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 30))
    return (0.2 * buzz * (0.6 + 0.4 * np.sin(8 * time)) + 1e-3 * rng.standard_normal(len(time))).astype(np.float32)


@pytest.fixture(scope="module")
def frames():
    """(12, 120, 160, 3): smooth patterns that differ from frame to frame, bright enough for darkness to show."""
    y, x = np.mgrid[:120, :160]
    patterns = [np.stack([128 + 60 * np.sin(x / 5 + i + c) + 50 * np.cos(y / 4 - i) for c in range(3)], axis=-1) for i in range(12)]
    return np.stack(patterns).astype(np.uint8)


def likeness(a, b):
    return np.corrcoef(np.ravel(a).astype(float), np.ravel(b).astype(float))[0, 1]


def error(a, b):
    return np.mean((a.astype(float) - b.astype(float)) ** 2)


def test_every_kind_is_described_once():
    kinds = [*AUDIO_KINDS, *VIDEO_KINDS, *TEXT_KINDS]
    assert len(kinds) == len(set(kinds)) and set(kinds) == set(DESCRIPTIONS)


@pytest.mark.parametrize("kind", AUDIO_KINDS)
def test_audio(kind, wave):
    assert np.array_equal(degrade_audio(wave, kind, 0, 3), wave)
    for severity in LADDER:
        out = degrade_audio(wave, kind, severity, 3)
        assert out.shape == wave.shape and out.dtype == np.float32 and np.abs(out).max() <= 1 + 1e-6
        assert np.array_equal(out, degrade_audio(wave, kind, severity, 3))
    alike = [likeness(degrade_audio(wave, kind, s, 3), wave) for s in LADDER if s < 1 or kind != "dropouts"]
    assert all(a > b for a, b in zip(alike, alike[1:]))


@pytest.mark.parametrize("kind", AUDIO_KINDS)
def test_audio_harms_the_features(kind, wave):
    clean = audio_tokens(wave).values
    mild, severe = (error(audio_tokens(degrade_audio(wave, kind, s, 0)).values, clean) for s in (0.05, 0.8))
    assert severe > 2 * mild


@pytest.mark.parametrize("severity, expected", [(0.25, 20), (0.5, 10), (1, -10)])
def test_noise_has_the_stated_ratio(wave, severity, expected):
    noisy = degrade_audio(0.05 * wave, "noise", severity, 1).astype(float)
    clean = 0.05 * wave.astype(float)
    signal = clean * (noisy @ clean) / (clean @ clean)
    assert 10 * np.log10(np.sum(signal**2) / np.sum((noisy - signal) ** 2)) == pytest.approx(expected, abs=0.5)


def test_dropouts_are_nested_bursts_of_the_stated_share(wave):
    loud = np.abs(wave) + 0.1
    lost = [degrade_audio(loud, "dropouts", s, 5) == 0 for s in LADDER]
    assert all((a <= b).all() for a, b in zip(lost, lost[1:]))
    assert [m.mean() for m in lost] == pytest.approx(LADDER, abs=0.02)
    assert audio_tokens(degrade_audio(wave, "dropouts", 1, 5)).values.shape[0] == 0
    starts = np.sum(np.diff(lost[3].astype(int)) == 1)
    assert starts < 0.7 * 0.25 * 3 / degrade.PACKET_SECONDS       # independent losses would start at a quarter of all packets


@pytest.mark.parametrize("severity, cutoff", [(0.5, 2100), (1, 400)])
def test_lowband_removes_what_lies_above(severity, cutoff):
    noise = np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32) * 0.1
    power = np.abs(np.fft.rfft(degrade_audio(noise, "lowband", severity, 0))) ** 2
    before = np.abs(np.fft.rfft(noise)) ** 2
    freqs = np.fft.rfftfreq(len(noise), 1 / SAMPLE_RATE)
    assert power[freqs > 2 * cutoff].sum() < 1e-4 * before[freqs > 2 * cutoff].sum()
    assert power[freqs < cutoff / 2].sum() > 0.98 * before[freqs < cutoff / 2].sum()


def test_sample_rate_is_used(wave):
    assert not np.array_equal(degrade_audio(wave, "lowband", 0.5, 0), degrade_audio(wave, "lowband", 0.5, 0, 8000))


@pytest.mark.parametrize("kind", AUDIO_KINDS)
@pytest.mark.parametrize("size", [0, 1, 2, 5000])
def test_silence_and_specks_of_sound(kind, size):
    silent = np.zeros(size, np.float32)
    assert np.array_equal(degrade_audio(silent, kind, 0.7, 0), silent)
    out = degrade_audio(silent + 0.3, kind, 0.7, 0)
    assert out.shape == (size,) and out.dtype == np.float32 and np.isfinite(out).all()


@pytest.mark.parametrize("kind", VIDEO_KINDS)
def test_frames(kind, frames):
    before = frames.copy()
    assert np.array_equal(degrade_frames(frames, kind, 0, 3), frames)
    outs = [degrade_frames(frames, kind, s, 3) for s in LADDER]
    for severity, out in zip(LADDER, outs):
        assert out.shape == frames.shape and out.dtype == np.uint8
        assert np.array_equal(out, degrade_frames(frames, kind, severity, 3))
    assert np.array_equal(frames, before)
    harm = [np.sum(np.any(out != frames, axis=(1, 2, 3))) if kind == "freeze" else error(out, frames) for out in outs]
    assert all(a < b for a, b in zip(harm, harm[1:]))


@pytest.mark.parametrize("kind", VIDEO_KINDS)
@pytest.mark.parametrize("shape", [(0, 48, 64, 3), (1, 48, 64, 3), (2, 1, 1, 3), (2, 7, 3, 3)])
def test_few_and_tiny_frames(kind, shape):
    few = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    out = degrade_frames(few, kind, 1, 0)
    assert out.shape == shape and out.dtype == np.uint8


def test_occlusion_covers_the_face_and_only_it(frames):
    boxes = np.tile([40.0, 20.0, 100.0, 80.0], (12, 1))
    boxes[4] = np.nan
    boxes[5] = [-10, -10, 300, 300]
    half, full = (degrade_frames(frames, "occlusion", s, 2, boxes) != frames for s in (0.5, 1))
    assert not full[4].any() and full[5].any(-1).mean() > 0.99
    hidden = full[0].any(-1)
    assert hidden[20:80, 40:100].mean() > 0.99 and not hidden[:10].any() and not hidden[:, 115:].any()
    assert 0.35 < half[0].any(-1).sum() / hidden.sum() < 0.65


def test_freeze_holds_earlier_frames_and_nests(frames):
    masks = []
    for severity in LADDER:
        out = degrade_frames(frames, "freeze", severity, 1)
        origin = [int(np.flatnonzero([np.array_equal(f, g) for g in frames])[0]) for f in out]
        assert origin[0] == 0 and all(a <= b for a, b in zip(origin, origin[1:]))
        masks.append(np.array(origin) != np.arange(len(frames)))
    assert all((a <= b).all() for a, b in zip(masks, masks[1:])) and masks[-1][1:].all()


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_words(kind):
    same, changed = degrade_words(WORDS, kind, 0, 3)
    assert same == WORDS and not changed.any()
    masks = []
    for severity in LADDER:
        out, changed = degrade_words(WORDS, kind, severity, 3)
        again, _ = degrade_words(WORDS, kind, severity, 3)
        assert out == again and changed.dtype == bool and changed.shape == (len(WORDS),)
        starts = [word.start for word in out]
        left = [word for word in WORDS if word.start in starts]
        assert len(left) == len(out)                        # nothing invented, order and times kept
        heard = dict(zip(starts, out))
        for word, flag in zip(WORDS, changed):
            assert (heard.get(word.start) != word) == flag
        masks.append(changed)
    assert all((a <= b).all() for a, b in zip(masks, masks[1:]))
    assert masks[-1].all() and 0.25 < masks[3].mean() < 0.75


def test_deletion_removes_all_and_mishearing_most_stay():
    assert degrade_words(WORDS, "deletion", 1, 0)[0] == ()
    heard, _ = degrade_words(WORDS, "asr_errors", 1, 0)
    assert len(heard) > 0.7 * len(WORDS)


def test_a_word_is_misheard_alike_at_every_severity():
    few, flags = degrade_words(WORDS, "asr_errors", 0.4, 7)
    all_heard = {word.start: word.text for word in degrade_words(WORDS, "asr_errors", 1, 7)[0]}
    touched = {word.start for word, flag in zip(WORDS, flags) if flag}
    assert all(all_heard[word.start] == word.text for word in few if word.start in touched)


def test_capitals_and_punctuation_are_kept():
    words = (Word("GREAT!"), Word("(Terrible),"), Word("love"))
    great, terrible, love = (word.text for word in degrade_words(words, "asr_errors", 1, 0)[0])
    assert great[:-1].isupper() and great.endswith("!")
    assert terrible.startswith("(T") and terrible.endswith("),") and love in ("live", "loaf")


def test_homophones_never_are_the_word_itself():
    assert all(others and word not in others for word, others in degrade.HOMOPHONES.items())
    assert all(sound != other for sound, other in degrade.CONFUSIONS)


def test_seeds_and_kinds_have_streams_of_their_own(wave, frames):
    assert not np.array_equal(degrade_audio(wave, "noise", 0.5, 0), degrade_audio(wave, "noise", 0.5, 1))
    assert not np.array_equal(degrade_frames(frames, "freeze", 0.5, 0), degrade_frames(frames, "freeze", 0.5, 1))
    deleted, misheard = (degrade_words(WORDS, kind, 0.5, 0)[1] for kind in ("deletion", "asr_errors"))
    assert not np.array_equal(deleted, misheard)


@pytest.mark.parametrize("severity", [float("nan"), -0.1, 1.1, "0.5", None, True])
def test_bad_severity_is_refused(severity, wave, frames):
    for call in (lambda: degrade_audio(wave, "noise", severity, 0), lambda: degrade_frames(frames, "blur", severity, 0),
                 lambda: degrade_words(WORDS, "deletion", severity, 0)):
        with pytest.raises(InputError, match="0 .*1"):
            call()


def test_bad_kind_names_the_choices(wave, frames):
    with pytest.raises(InputError, match="noise, clipping, dropouts, lowband"):
        degrade_audio(wave, "blur", 0, 0)
    with pytest.raises(InputError, match="occlusion"):
        degrade_frames(frames, "noise", 0.5, 0)
    with pytest.raises(InputError, match="asr_errors"):
        degrade_words(WORDS, "", 0.5, 0)


def test_bad_seed_and_boxes_are_refused(wave, frames):
    for seed in (-1, 0.5, None):
        with pytest.raises(InputError, match="seed"):
            degrade_audio(wave, "noise", 0.5, seed)
    with pytest.raises(InputError, match="boxes"):
        degrade_frames(frames, "occlusion", 0.5, 0, np.zeros((3, 4)))
