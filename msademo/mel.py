"""The mel scale as filters, for whoever looks at sound."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=2)
def mel_bank(bands: int, window: int, rate: int) -> np.ndarray:
    """(bands, window // 2 + 1) triangular filters of equal area on the Slaney mel scale: linear below 1 kHz, logarithmic above.

    window: samples of a spectrum, at `rate` Hz. librosa's definition, without the seconds that librosa takes to compile."""
    step, knee = 200 / 3, 15.0                       # Hz a mel in the linear part; mels at 1 kHz
    top = knee + 27 * np.log(rate / 2 / 1000) / np.log(6.4)
    mels = np.linspace(0, top, bands + 2)
    edges = np.where(mels < knee, mels * step, 1000 * np.exp((mels - knee) * np.log(6.4) / 27))
    freqs = np.fft.rfftfreq(window, 1 / rate)
    low, mid, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bank = np.clip(np.minimum((freqs - low) / (mid - low), (high - freqs) / (high - mid)), 0, None)
    return (bank * 2 / (high - low)).astype(np.float32)
