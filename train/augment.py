"""Voices as phones and rooms deliver them: seeded variants of studio recordings, for training features that travel."""

from __future__ import annotations

import numpy as np
from scipy.signal import butter, fftconvolve, resample_poly, sosfilt

from msademo.degrade import coloured_noise
from msademo.media import SAMPLE_RATE

SPEEDS = (0.92, 0.95, 0.97, 1.0, 1.03, 1.05, 1.08)
SNR_DB = (5.0, 30.0)
REVERB_SECONDS = (0.1, 0.6)     # time to fall by 60 dB
WARP, TILT = 0.1, 0.05           # of a spectrum's bands; a tilt in units of Whisper's spectrum, four powers of ten
CHANCE = {"speed": 0.5, "room": 0.5, "noise": 0.7, "codec": 0.5}


def babble(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(S,) of unit power: six reversed, shifted copies of the voice over one another; a crowd's spectrum without its words."""
    crowd = sum(np.roll(wave[::-1], int(rng.integers(len(wave)))) * rng.uniform(0.5, 1) for _ in range(6))
    return crowd / max(np.sqrt(np.mean(crowd**2)), 1e-12)


def _noise(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    kind = rng.choice(["white", "pink", "brown", "babble"])
    noise = babble(wave, rng) if kind == "babble" else coloured_noise(len(wave), ["white", "pink", "brown"].index(kind), rng)
    level = np.sqrt(np.mean(wave**2)) * 10 ** (-rng.uniform(*SNR_DB) / 20)
    return wave + level * noise


def _room(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Direct sound, then noise that decays exponentially (Polack's model of late reverberation)."""
    seconds = rng.uniform(*REVERB_SECONDS)
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    tail[: int(0.003 * SAMPLE_RATE)] = 0        # the first wall is a metre away
    tail *= rng.uniform(0.2, 1.0) / max(np.sqrt(np.sum(tail**2)), 1e-12)
    tail[0] = 1
    return fftconvolve(wave, tail)[: len(wave)]


def _codec(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Band limits of a phone or a compressed video, a tilt of the microphone, and at times 8-bit mu-law steps."""
    high = rng.uniform(3400, 9000)
    wave = sosfilt(butter(4, high, output="sos", fs=SAMPLE_RATE), wave)
    wave = sosfilt(butter(2, rng.uniform(50, 250), "highpass", output="sos", fs=SAMPLE_RATE), wave)
    tilt = rng.uniform(-0.4, 0.4)               # first-order shelf: duller or brighter
    wave = sosfilt(np.array([[1, tilt, 0, 1, 0, 0]]), wave)
    if rng.random() < 0.5:
        peak = max(np.abs(wave).max(), 1e-12)
        squeezed = np.sign(wave) * np.log1p(255 * np.abs(wave) / peak) / np.log(256)
        squeezed = np.round(squeezed * 127) / 127
        wave = np.sign(squeezed) * np.expm1(np.abs(squeezed) * np.log(256)) / 255 * peak
    return wave


def _speed(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A tape played slightly faster or slower: length and pitch move together."""
    return resample_poly(wave, 100, round(100 * rng.choice(SPEEDS)))


STEPS = {"speed": _speed, "room": _room, "noise": _noise, "codec": _codec}      # in the order sound travels


def augment_voice(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(S,) float32 mono at SAMPLE_RATE -> (S',) float32 in [-1, 1]; S' differs from S by at most 9 %. Silence stays silence."""
    out = np.asarray(wave, np.float64)
    if out.size < 2 or not np.any(out):
        return np.asarray(wave, np.float32).copy()
    for name, step in STEPS.items():
        if rng.random() < CHANCE[name]:
            out = step(out, rng)
    peak = np.abs(out).max()
    return (out / peak * 10 ** (rng.uniform(-30, 0) / 20)).astype(np.float32) if peak > 0 else out.astype(np.float32)


def warped(mel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(T, bands) log-mel -> the same as another vocal tract and microphone would give it: bands stretched or squeezed by up to WARP (vocal tract
    length perturbation, Jaitly & Hinton 2013), and tilted. (T, bands) float32."""
    bands = mel.shape[1]
    places = np.minimum(np.arange(bands) * rng.uniform(1 - WARP, 1 + WARP), bands - 1)
    below = np.minimum(places.astype(int), bands - 2)
    share = (places - below).astype(np.float32)
    tilt = rng.normal(0, TILT) * np.linspace(-1, 1, bands, dtype=np.float32)
    values = np.asarray(mel, np.float32)
    return values[:, below] * (1 - share) + values[:, below + 1] * share + tilt.astype(np.float32)
