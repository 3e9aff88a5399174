"""Audio tokens: shapes and times, invariances, known pitches, agreement with librosa's filter bank, odd input; augmentation."""

import numpy as np
import pytest

from msademo.errors import InputError
from msademo.features import audio
from msademo.features.audio import AUDIO_NAMES, MAX_TOKENS, SAMPLE_RATE, audio_tokens
from train.augment import augment_voice

F0 = AUDIO_NAMES.index("log_f0")


def voice(seconds: float, hertz: float = 160.0, seed: int = 0) -> np.ndarray:
    """A buzz of harmonics with syllables of uneven loudness and short pauses, in [-1, 1]."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    buzz = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 12))
    beats = np.interp(time, np.arange(0, seconds + 1, 0.13), rng.uniform(0, 1, len(np.arange(0, seconds + 1, 0.13))))
    return (0.2 * buzz * beats + 1e-4 * rng.standard_normal(len(time))).astype(np.float32)


@pytest.mark.parametrize("seconds, expected", [(0.1, 1), (0.25, 3), (3.0, 30), (19.9, 199), (60.0, 200), (47.3, 198)])
def test_shapes_and_times(seconds, expected):
    tokens = audio_tokens(voice(seconds))
    assert tokens.values.shape == (expected, 33) and tokens.values.dtype == np.float32
    assert tokens.times.shape == (expected, 2) and tokens.times.dtype == np.float64
    assert expected <= MAX_TOKENS and np.isfinite(tokens.values).all()
    assert tokens.times[0, 0] == 0 and tokens.times[-1, 1] == pytest.approx(seconds, abs=1e-3)
    assert np.array_equal(tokens.times[1:, 0], tokens.times[:-1, 1]) and (np.diff(tokens.times, axis=1) > 0).all()


def test_names_are_the_33_dims():
    assert len(AUDIO_NAMES) == len(set(AUDIO_NAMES)) == 33


@pytest.mark.parametrize("wave", [np.zeros(0), np.zeros(SAMPLE_RATE), np.full(SAMPLE_RATE, 0.5), voice(0.09),
                                  1e-5 * voice(1), np.ones(1)])
def test_nothing_usable_gives_no_tokens(wave):
    tokens = audio_tokens(wave.astype(np.float32))
    assert tokens.values.shape == (0, 33) and tokens.times.shape == (0, 2)


@pytest.mark.parametrize("wave", [np.eye(1, SAMPLE_RATE, 5000)[0], np.sign(voice(1)), np.random.default_rng(0).normal(size=SAMPLE_RATE)])
def test_click_square_and_noise_stay_finite(wave):
    assert np.isfinite(audio_tokens(wave).values).all()


@pytest.mark.parametrize("hertz", [80, 120, 200, 330, 500])
def test_pitch_is_found(hertz):
    found = 55 * 2 ** np.median(audio_tokens(voice(2, hertz)).values[:, F0])
    assert found == pytest.approx(hertz, rel=0.02)


def test_pitch_follows_a_glide():
    time = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    hertz = 110 * 2 ** (time / 3)
    phase = 2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE
    tokens = audio_tokens(0.1 * sum(np.sin(k * phase) / k for k in range(1, 9)))
    assert np.abs(tokens.values[2:-2, F0] - np.log2(110 / 55) - tokens.times.mean(1)[2:-2] / 3).max() < 0.05


def test_noise_has_no_pitch_contour():
    noise = 0.1 * np.random.default_rng(1).standard_normal(2 * SAMPLE_RATE)
    assert np.isnan(audio.raw_frames(noise.astype(np.float32))[0][:, F0]).mean() > 0.95


def test_gain_and_offset_change_nothing():
    wave = voice(3)
    plain = audio_tokens(wave).values
    assert np.allclose(audio_tokens(0.1 * wave + 0.05).values, plain, atol=0.02)


def test_level_moves_within_the_clip():
    wave = 0.1 * np.random.default_rng(3).standard_normal(4 * SAMPLE_RATE)
    wave[2 * SAMPLE_RATE :] *= 0.3162
    loudness = audio_tokens(wave).values[:, 0]
    assert loudness[:20].mean() - loudness[20:].mean() == pytest.approx(10 * np.sqrt(audio.N_MEL), rel=0.1)


def test_brightness_survives():
    wave = voice(3) + 0.05 * np.random.default_rng(2).standard_normal(3 * SAMPLE_RATE)
    dull = np.convolve(wave, np.ones(4) / 4, "same")
    assert audio_tokens(dull).values[:, 1].mean() > audio_tokens(wave).values[:, 1].mean() + 10


def test_blocks_do_not_show(monkeypatch):
    wave = voice(3)
    whole = audio_tokens(wave).values
    monkeypatch.setattr(audio, "BLOCK", 7)
    assert np.allclose(audio_tokens(wave).values, whole, atol=1e-4)


def test_other_sample_rates():
    wave = voice(3)
    low = audio_tokens(np.interp(np.arange(0, 3, 1 / 16000), np.arange(len(wave)) / SAMPLE_RATE, wave), 16000)
    assert low.values.shape == (30, 33)
    assert np.median(low.values[:, F0]) == pytest.approx(np.median(audio_tokens(wave).values[:, F0]), abs=0.02)


def test_mel_bank_is_librosas():
    filters = pytest.importorskip("librosa.filters")
    assert np.allclose(audio.mel_bank(audio.N_MEL, audio.WINDOW, SAMPLE_RATE), filters.mel(sr=SAMPLE_RATE, n_fft=audio.WINDOW, n_mels=audio.N_MEL), atol=1e-6)


def test_dct_is_orthonormal():
    assert np.allclose(audio._dct() @ audio._dct().T, np.eye(audio.N_MFCC), atol=1e-5)


@pytest.mark.parametrize("wave, rate", [(np.zeros((2, 100)), SAMPLE_RATE), (np.array([0, np.nan] * SAMPLE_RATE), SAMPLE_RATE), (voice(1), 0)])
def test_bad_sound_is_refused(wave, rate):
    with pytest.raises(InputError):
        audio_tokens(wave, rate)


def test_augmentation_is_seeded_bounded_and_varied():
    wave = voice(2)
    variants = [augment_voice(wave, np.random.default_rng(seed)) for seed in range(12)]
    again = [augment_voice(wave, np.random.default_rng(seed)) for seed in range(12)]
    assert all(np.array_equal(a, b) for a, b in zip(variants, again))
    for variant in variants:
        assert variant.dtype == np.float32 and np.isfinite(variant).all() and np.abs(variant).max() <= 1
        assert 0.9 < len(variant) / len(wave) < 1.1
    assert len({variant.tobytes() for variant in variants}) == 12


def test_augmentation_keeps_the_pitch_audible():
    wave = voice(2)
    found = [np.median(audio_tokens(augment_voice(wave, np.random.default_rng(seed))).values[:, F0]) for seed in range(12)]
    assert np.median(np.abs(np.array(found) - np.log2(160 / 55))) < 0.15        # speed moves it by 0.12 octaves at most


@pytest.mark.parametrize("wave", [np.zeros(0), np.zeros(1000), np.ones(1)])
def test_augmentation_of_silence(wave):
    out = augment_voice(wave.astype(np.float32), np.random.default_rng(0))
    assert out.shape == wave.shape and np.array_equal(out, wave)
