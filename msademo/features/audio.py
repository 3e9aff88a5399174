"""Voice -> audio tokens: 20 MFCC, 12 constant-Q bands, log F0, about ten tokens a second (the 33 dims of CH-SIMS).

One short-time spectrum serves everything and nothing is compiled at first use: librosa's own functions would make the first
clip wait many seconds for numba. The mel bank and the DCT follow librosa's definitions (Slaney mel scale, orthonormal DCT-II);
the constant-Q bands are Gaussians on the spectrum, two an octave; F0 comes from the autocorrelation (Boersma 1993).

Normalisation, chosen on unseen speakers with clean and degraded sound: only the loudness of the clip is taken away (one number for
MFCC 0, one for all bands, both over the frames within ACTIVE_DB of the loudest), and F0 stays absolute (octaves above 55 Hz), for F0
relative to the clip's median was better or worse by less than two points. Full cepstral means cost two to three points of balanced
accuracy there, variances three more, because a clip's mean spectrum carries effort and tension; channels are left to augmentation in
training. What counts across corpora is a short range (RANGE_DB). A gain changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, gcd

import numpy as np

from msademo.errors import InputError
from msademo.media import SAMPLE_RATE
from msademo.mel import mel_bank

HOP = 441                   # samples between frames: 20 ms
WINDOW = 2048               # samples a frame: 93 ms, two periods of the lowest voice
FRAMES_PER_TOKEN = 5        # 100 ms a token; more in clips that would exceed MAX_TOKENS
MAX_TOKENS = 200
MIN_SECONDS = 0.1           # shorter sounds give no token
SILENT_PEAK = 1e-4          # full scale is 1; below this (-80 dB) there is nothing but rounding noise
N_MEL, N_MFCC, N_CQT = 128, 20, 12
CQT_LOWEST = 65.41          # Hz, C2; two bands an octave reach 3 kHz
F0_RANGE = (65.0, 600.0)    # Hz
VOICED_STRENGTH = 0.5       # normalised autocorrelation from which a frame counts as voiced
RANGE_DB = 40.0             # what lies further below the clip's loudest band is floor: rooms and recorders differ most down there
ACTIVE_DB = 30.0            # frames this far below the loudest (95th percentile) are pauses, and do not set the level
BLOCK = 1000                # frames transformed at once, bounds the memory

AUDIO_NAMES = tuple([f"mfcc_{i}" for i in range(N_MFCC)] + [f"cqt_{i}" for i in range(N_CQT)] + ["log_f0"])


@dataclass(frozen=True)
class AudioTokens:
    """values: (T, 33) float32, columns named by AUDIO_NAMES. times: (T, 2) float64, start and end of each token in seconds."""

    values: np.ndarray
    times: np.ndarray


@lru_cache(maxsize=1)
def _cqt_bank() -> np.ndarray:
    """(N_CQT, bins) Gaussian bands half an octave apart, so that width over centre (Q) is the same in every band."""
    freqs = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE)
    octaves = np.log2(np.maximum(freqs, 1) / CQT_LOWEST)
    bank = np.exp(-0.5 * ((octaves - np.arange(N_CQT)[:, None] / 2) / 0.25) ** 2)
    return (bank / bank.sum(axis=1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=1)
def _dct() -> np.ndarray:
    """(N_MFCC, N_MEL) orthonormal DCT-II."""
    basis = np.cos(np.pi * np.arange(N_MFCC)[:, None] * (np.arange(N_MEL) + 0.5) / N_MEL) * np.sqrt(2 / N_MEL)
    basis[0] /= np.sqrt(2)
    return basis.astype(np.float32)


def _decibels(power: np.ndarray) -> np.ndarray:
    """Power (F, bands) -> dB, with everything RANGE_DB below the clip's maximum raised to that floor."""
    db = 10 * np.log10(np.maximum(power, 1e-12))
    return np.maximum(db, db.max() - RANGE_DB)


def _pitch(autocorrelation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(F, lags) of windowed frames -> F0 in Hz and strength in [0, 1], (F,) each. Boersma (1993): divided by the window's own."""
    low, high = int(SAMPLE_RATE / F0_RANGE[1]), int(SAMPLE_RATE / F0_RANGE[0]) + 1
    window = _autocorrelation(np.hanning(WINDOW)[None].astype(np.float32))[0]
    lags = np.arange(low, high + 1)
    ratio = autocorrelation / np.maximum(autocorrelation[:, :1], 1e-12) / (window / window[0])[: autocorrelation.shape[1]]
    inner = ratio[:, lags]
    peak = (inner >= ratio[:, lags - 1]) & (inner >= ratio[:, lags + 1])
    # Double the period correlates as well as the period itself: a small cost an octave prefers the shorter one.
    score = np.where(peak, inner - 0.02 * np.log2(lags / low), -np.inf)
    best = lags[score.argmax(axis=1)]
    rows = np.arange(len(ratio))
    before, at, after = ratio[rows, best - 1], ratio[rows, best], ratio[rows, best + 1]
    bend = before - 2 * at + after
    shift = np.where(np.abs(bend) > 1e-9, 0.5 * (before - after) / np.where(np.abs(bend) > 1e-9, bend, 1), 0)
    strength = np.where(np.isfinite(score.max(axis=1)), np.clip(at, 0, 1), 0)
    return SAMPLE_RATE / (best + np.clip(shift, -1, 1)), strength


def _autocorrelation(frames: np.ndarray) -> np.ndarray:
    """(F, WINDOW) -> (F, longest pitch lag + 3), through a zero-padded power spectrum so that nothing wraps round."""
    power = np.abs(np.fft.rfft(frames, 2 * WINDOW)) ** 2
    return np.fft.irfft(power)[:, : int(SAMPLE_RATE / F0_RANGE[0]) + 4].astype(np.float32)


def raw_frames(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(S,) at SAMPLE_RATE -> features (F, 33) before normalisation (dB, dB, octaves above 55 Hz; NaN in F0 where unvoiced), power (F,)."""
    count = ceil(len(wave) / HOP)
    padded = np.pad(wave, (WINDOW // 2, WINDOW))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[:: HOP][:count]
    window = np.hanning(WINDOW).astype(np.float32)
    mel, cqt, f0, strength, loud = [], [], [], [], []
    for start in range(0, count, BLOCK):
        block = frames[start : start + BLOCK] * window
        power = (np.abs(np.fft.rfft(block)) ** 2).astype(np.float32)
        mel.append(power @ mel_bank(N_MEL, WINDOW, SAMPLE_RATE).T)
        cqt.append(power @ _cqt_bank().T)
        loud.append(np.mean(block**2, axis=1))
        for values, found in zip((f0, strength), _pitch(_autocorrelation(block))):
            values.append(found)
    loud = np.concatenate(loud)
    voiced = (np.concatenate(strength) >= VOICED_STRENGTH) & (loud > loud.max() * 1e-4)
    octaves = np.where(voiced, np.log2(np.concatenate(f0) / 55), np.nan)
    mfcc = _decibels(np.concatenate(mel)) @ _dct().T
    return np.column_stack([mfcc, _decibels(np.concatenate(cqt)), octaves]), loud


def normalise(frames: np.ndarray, power: np.ndarray) -> np.ndarray:
    """raw_frames' result -> (F, 33): level over the active frames removed, unvoiced F0 set to the clip's median (0 if none)."""
    out = frames.copy()
    active = power > np.percentile(power, 95) * 10 ** (-ACTIVE_DB / 10)
    active |= power == power.max()
    bands = slice(N_MFCC, N_MFCC + N_CQT)
    out[:, 0] -= out[active, 0].mean()
    out[:, bands] -= out[active, bands].mean()
    unvoiced = np.isnan(out[:, -1])
    out[unvoiced, -1] = 0 if unvoiced.all() else np.median(out[~unvoiced, -1])
    return out


def audio_tokens(wave: np.ndarray, sample_rate: int = SAMPLE_RATE) -> AudioTokens:
    """(S,) float mono in [-1, 1] -> T tokens of 100 ms, or longer so that T <= MAX_TOKENS; T = 0 for silence or under 0.1 s.

    Other rates are resampled. The last token may cover less than the others. InputError for what is not mono sound.
    """
    wave = np.asarray(wave, np.float32)
    if wave.ndim != 1:
        raise InputError(f"The sound has shape {wave.shape}; mix it down to one channel, a flat array of samples.")
    if not np.isfinite(wave).all():
        raise InputError("The sound holds NaN or infinite samples; decode it again or clean it first.")
    if sample_rate <= 0:
        raise InputError(f"A sample rate of {sample_rate} Hz is impossible; give the rate the sound was recorded at.")
    if sample_rate != SAMPLE_RATE and wave.size:
        from scipy.signal import resample_poly      # imported here: it takes most of a second, and clips already come at SAMPLE_RATE

        common = gcd(int(sample_rate), SAMPLE_RATE)
        wave = resample_poly(wave, SAMPLE_RATE // common, int(sample_rate) // common).astype(np.float32)
    seconds = len(wave) / SAMPLE_RATE
    wave = wave - wave.mean() if wave.size else wave
    if seconds < MIN_SECONDS or np.abs(wave).max() < SILENT_PEAK:
        return AudioTokens(np.zeros((0, len(AUDIO_NAMES)), np.float32), np.zeros((0, 2)))
    frames = normalise(*raw_frames(wave))
    span = max(FRAMES_PER_TOKEN, ceil(len(frames) / MAX_TOKENS))
    starts = np.arange(0, len(frames), span)
    counts = np.diff(np.append(starts, len(frames)))
    values = np.add.reduceat(frames, starts, axis=0) / counts[:, None]
    edges = np.minimum(np.append(starts, len(frames)) * HOP / SAMPLE_RATE, seconds)
    return AudioTokens(values.astype(np.float32), np.column_stack([edges[:-1], edges[1:]]))
