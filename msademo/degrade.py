"""What really happens to clips, on the raw signal before features: bad sound, bad pictures, misheard words.

Every kind is seeded, leaves the input untouched at severity 0 and only takes more away as severity rises to 1: the random draw
depends on the seed alone, severity decides how much of it is used. Kinds live in three registries, descriptions in one.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import replace
from numbers import Integral, Real

import cv2
import numpy as np

from msademo.errors import InputError, shown
from msademo.media import SAMPLE_RATE, Word

SNR_DB = (30.0, -10.0)              # noise at severity 0+ and 1
OVERDRIVE_DB = 40.0                 # gain before the clipping stage at severity 1
PACKET_SECONDS = 0.04               # what a lossy connection drops at once
BURST = 5                           # packets or frames over which losses cluster
LOWEST_CUTOFF = 400.0               # Hz, bandwidth at severity 1
BLUR_SIGMA = 0.04                   # of the frame's shorter side, at severity 1
FACE_MARGIN = 0.15                  # how far an obstacle reaches beyond the face box
STOPS = 6.0                         # exposure lost in darkness, powers of two
SENSOR_NOISE = 3.0                  # grey levels, in full darkness
BEST_QUALITY, SMALLEST_SCALE = 95, 0.25     # of the JPEG at severity 0+; of the picture inside it at severity 1

# Words between bars sound alike to a bad microphone; any member may be heard for any other.
SOUND_ALIKE = """
good could hood | bad bat bed | love live loaf | hate ate hat | like lake lack | not knot nod | never ever lever
great grate rate | best bets west | worst word wurst | nice ice niece | happy happen hobby | sad said sat | angry hungry
fun fan phone | funny phoney sunny | boring pouring burning | awful offal waffle | terrible treble | amazing amaze
really rarely real | very fairly vary | well while wheel | film fill firm | movie move moody | actor after factor
story sorry | think thing sink | know no now | their there they're | to two too | for four far | right write ride
would wood wool | hear here hair | see sea she | week weak | scene seen sin | plot blot lot | cast cost | end and ant
but put bat | was wise whats | were where we're | is his ease | it eat hit | this these dis | that hat fat | with wit width
can can't ken | don't done doubt | didn't did | do due dew | does dust | won't want one | just jest chest | so sew saw
people purple | some sum same | because cause | watch wash what | time dime thyme | way weigh why | make mic
man men main | woman women | laugh left | cry crime cried | enjoy annoy joy | hope hop hoop | sure shore shoe | feel fill
better bitter butter | perfect prefect | beautiful bountiful | horrible horror | stupid stooped | wrong long | hard heart
new knew | one won | by buy bye | our hour are | him hymn ham | her hair hurt | you ewe your | my mine might | me mean | he heat
all awl old | be bee | have half halve | has as haze | of off | on own in | at add | the a | a uh | i eye | and end
"""
HOMOPHONES = {word: [other for other in group.split() if other != word]
              for group in reversed(re.split(r"[|\n]", SOUND_ALIKE)) for word in group.split()}
CONFUSIONS = [("th", "d"), ("ee", "i"), ("ea", "e"), ("oo", "u"), ("ou", "o"), ("sh", "s"), ("ch", "sh"), ("p", "b"), ("b", "p"),
              ("t", "d"), ("d", "t"), ("k", "g"), ("g", "k"), ("f", "v"), ("v", "f"), ("s", "z"), ("z", "s"), ("m", "n"), ("n", "m"),
              ("l", "r"), ("r", "l"), ("w", "v"), ("a", "e"), ("e", "i"), ("i", "e"), ("o", "a"), ("u", "o")]


def coloured_noise(length: int, slope: float, rng: np.random.Generator) -> np.ndarray:
    """(length,) of unit power whose power falls with frequency^-slope: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    spectrum[1:] *= np.arange(1, len(spectrum)) ** (-slope / 2)
    if length > 1:
        spectrum[0] = 0
    noise = np.fft.irfft(spectrum, length)
    return noise / max(np.sqrt(np.mean(noise**2)), 1e-12)


def _lost(count: int, severity: float, rng: np.random.Generator) -> np.ndarray:
    """(count,) bool with round(severity * count) True, in bursts, nested over severity."""
    smooth = np.convolve(rng.standard_normal(count + BURST - 1), np.ones(BURST), "valid")[:count]
    return smooth.argsort(kind="stable").argsort(kind="stable") < round(severity * count)


# Sound: (wave (S,) float64, severity, rng, sample_rate) -> (S,) float64


def _noise(wave, severity, rng, sample_rate):
    snr = SNR_DB[0] + severity * (SNR_DB[1] - SNR_DB[0])
    level = np.sqrt(np.mean(wave**2)) * 10 ** (-snr / 20)
    noisy = wave + level * coloured_noise(len(wave), 1, rng)
    return noisy / max(np.abs(noisy).max(), 1.0)        # full scale is 1; turning down keeps the ratio


def _clipping(wave, severity, rng, sample_rate):
    peak = np.abs(wave).max()
    return np.clip(wave * 10 ** (severity * OVERDRIVE_DB / 20), -peak, peak)


def _dropouts(wave, severity, rng, sample_rate):
    packet = max(1, round(PACKET_SECONDS * sample_rate))
    lost = _lost(-(-len(wave) // packet), severity, rng)
    return np.where(np.repeat(lost, packet)[: len(wave)], 0, wave)


def _lowband(wave, severity, rng, sample_rate):
    top = sample_rate / 2
    cutoff = top * (min(LOWEST_CUTOFF, top) / top) ** severity
    freqs = np.fft.rfftfreq(len(wave), 1 / sample_rate)
    return np.fft.irfft(np.fft.rfft(wave) / np.sqrt(1 + (freqs / cutoff) ** 16), len(wave))


# Pictures: (frames (N, H, W, 3) uint8, severity, rng, boxes (N, 4)) -> the same shape and type


def _blur(frames, severity, rng, boxes):
    sigma = severity * BLUR_SIGMA * min(frames.shape[1:3])
    # A wide blur of the full picture and of a smaller copy look alike; the copy is many times cheaper.
    shrink = max(1, int(sigma / 2))
    height, width = frames.shape[1:3]
    size = (max(1, width // shrink), max(1, height // shrink))
    small = (cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames)
    soft = (cv2.GaussianBlur(frame, (0, 0), max(sigma / shrink, 1e-3)) for frame in small)
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in soft])


def _occlusion(frames, severity, rng, boxes):
    height, width = frames.shape[1:3]
    anchor, colour = rng.uniform(0.25, 0.75, 2), rng.integers(20, 120, 3)
    out = frames.copy()
    for frame, box in zip(out, boxes):
        if not np.isfinite(box).all():
            continue                                    # no face in this frame, nothing to hide
        low, high = box[:2], box[2:]
        low, high = low - FACE_MARGIN * (high - low), high + FACE_MARGIN * (high - low)
        point = low + anchor * (high - low)
        grow = np.sqrt(severity)                        # area, not width, is proportional to severity
        x0, y0 = np.clip(np.round(point + grow * (low - point)), 0, (width, height)).astype(int)
        x1, y1 = np.clip(np.round(point + grow * (high - point)), 0, (width, height)).astype(int)
        frame[y0:y1, x0:x1] = colour
    return out


def _darkness(frames, severity, rng, boxes):
    grain = rng.standard_normal(frames.shape[1:]).astype(np.float32) * (SENSOR_NOISE * severity)
    gain = np.float32(2 ** (-STOPS * severity))
    out = np.empty_like(frames)
    for target, frame in zip(out, frames):
        # One noise picture, shifted anew for each frame: fresh grain without a fresh draw of millions.
        shifted = np.roll(grain, rng.integers(frames.shape[1:3]), axis=(0, 1))
        target[:] = np.clip(np.round(frame * gain + shifted), 0, 255)
    return out


def _freeze(frames, severity, rng, boxes):
    held = np.append(False, _lost(len(frames) - 1, severity, rng))
    return frames[np.maximum.accumulate(np.where(held, 0, np.arange(len(frames))))]


def _jpeg(frames, severity, rng, boxes):
    height, width = frames.shape[1:3]
    scale, quality = SMALLEST_SCALE**severity, max(1, round(BEST_QUALITY ** (1 - severity)))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    out = np.empty_like(frames)
    for target, frame in zip(out, frames):
        small = cv2.resize(frame[..., ::-1], size, interpolation=cv2.INTER_AREA)
        _, code = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
        target[:] = cv2.resize(cv2.imdecode(code, cv2.IMREAD_COLOR), (width, height), interpolation=cv2.INTER_LINEAR)[..., ::-1]
    return out


# Words: (word, rng) -> what is heard instead, None where the word is gone


def _delete(word, rng):
    return None


def _confuse(letters: str, rng: np.random.Generator) -> str | None:
    """One sound of the word replaced by its neighbour; None if no sound of ours is in it."""
    sites = [(match.start(), sound, other) for sound, other in CONFUSIONS for match in re.finditer(sound, letters)]
    if not sites:
        return None
    place, sound, other = sites[rng.integers(len(sites))]
    return letters[:place] + other + letters[place + len(sound):]


def _mishear(word: str, rng: np.random.Generator) -> str | None:
    """What a speech recogniser hears instead, capitals and punctuation kept: a near-homophone, a confused sound, or nothing."""
    before, core, after = re.fullmatch(r"(\W*)(.*?)(\W*)", word, re.DOTALL).groups()
    letters = core.lower()
    heard = str(rng.choice(HOMOPHONES[letters])) if letters in HOMOPHONES else _confuse(letters, rng)
    if heard is None:
        return None
    if core.isupper() and len(core) > 1:
        heard = heard.upper()
    elif core[0].isupper():
        heard = heard[0].upper() + heard[1:]
    return before + heard + after


AUDIO_KINDS = {"noise": _noise, "clipping": _clipping, "dropouts": _dropouts, "lowband": _lowband}
VIDEO_KINDS = {"blur": _blur, "occlusion": _occlusion, "darkness": _darkness, "freeze": _freeze, "jpeg": _jpeg}
TEXT_KINDS = {"deletion": _delete, "asr_errors": _mishear}
DESCRIPTIONS = {
    "noise": "Background noise (pink), from 30 dB below the voice to 10 dB above it.",
    "clipping": "The microphone is overdriven by up to 40 dB and cuts the peaks off.",
    "dropouts": "A bad connection loses packets of 40 ms in bursts, up to all of them.",
    "lowband": "High frequencies are lost, down to 400 Hz of bandwidth.",
    "blur": "The camera is out of focus.",
    "occlusion": "Something grows in front of the face until it is hidden.",
    "darkness": "The light goes, up to six stops, and the sensor's noise shows.",
    "freeze": "The picture stands still while the sound goes on, up to a single frame for the whole clip.",
    "jpeg": "Heavy compression: blocks and smeared detail.",
    "deletion": "Words are lost from the transcript, up to all of them.",
    "asr_errors": "Words are misheard as a speech recogniser might: near-homophones, confused sounds, missed words.",
}


def _start(kind: str, kinds: dict, severity: float, seed: int) -> np.random.Generator:
    """Check what the user chose; a stream of its own for each kind and seed."""
    if kind not in kinds:
        raise InputError(f"There is no corruption called {shown(kind)} here; choose one of {', '.join(kinds)}.")
    if isinstance(severity, bool) or not isinstance(severity, Real) or not 0 <= severity <= 1:
        raise InputError(f"A severity of {shown(severity)} is not possible; give a number from 0 (untouched) to 1 (worst).")
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise InputError(f"A seed of {shown(seed)} is not possible; give a whole number from 0 up.")
    return np.random.default_rng([int(seed), zlib.crc32(kind.encode())])


def degrade_audio(wave: np.ndarray, kind: str, severity: float, seed: int, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """(S,) float32 mono -> (S,) float32; the input itself at severity 0 and for silence (noise is relative to the voice)."""
    rng = _start(kind, AUDIO_KINDS, severity, seed)
    if severity == 0 or not np.any(wave):
        return wave
    return AUDIO_KINDS[kind](np.asarray(wave, np.float64), float(severity), rng, sample_rate).astype(np.float32)


def degrade_frames(frames: np.ndarray, kind: str, severity: float, seed: int, boxes: np.ndarray | None = None) -> np.ndarray:
    """(N, H, W, 3) uint8 RGB -> the same shape and type; the input itself at severity 0.

    boxes: (N, 4) face boxes x0, y0, x1, y1 in pixels, NaN where a frame has no face; without boxes, the middle of the frame.
    """
    rng = _start(kind, VIDEO_KINDS, severity, seed)
    if severity == 0 or len(frames) == 0:
        return frames
    height, width = frames.shape[1:3]
    if boxes is None:
        boxes = np.tile(np.array([0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height]), (len(frames), 1))
    boxes = np.asarray(boxes, np.float64)
    if boxes.shape != (len(frames), 4):
        raise InputError(f"Face boxes of shape {boxes.shape} do not fit {len(frames)} frames; give one x0, y0, x1, y1 a frame.")
    return VIDEO_KINDS[kind](frames, float(severity), rng, boxes)


def degrade_words(words: tuple[Word, ...], kind: str, severity: float, seed: int) -> tuple[tuple[Word, ...], np.ndarray]:
    """Words -> words left or misheard (times kept), and changed (n,) bool over the original words, nested over severity."""
    rng = _start(kind, TEXT_KINDS, severity, seed)
    changed = rng.random(len(words)) < severity
    heard = []
    for index, word in enumerate(words):
        # A stream for each place, so that a word is misheard alike whatever else is.
        text = TEXT_KINDS[kind](word.text, np.random.default_rng([int(seed), index])) if changed[index] else word.text
        if text is not None:
            heard.append(replace(word, text=text))
    return tuple(heard), changed
