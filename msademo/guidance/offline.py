"""Prompts without a language model: plain sentences about what was measured. Deterministic, and it never sees a label.

The words go through VADER (Hutto & Gilbert 2014), the face through the expression probabilities at the end of its tokens, the voice
through level and movement of its audio tokens. The sentences about voice and face come from a small vocabulary, so that their text
features can be remembered by sentence. Loudness has no level here: a gain changes nothing in the tokens (features/audio.py), but a
raised voice has more in its upper bands, and that is what "effort" means below.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Sequence

import numpy as np

from msademo.backbones.expression import EXPRESSIONS
from msademo.errors import InputError
from msademo.features.audio import AUDIO_NAMES, N_CQT, N_MEL, N_MFCC
from msademo.features.bundle import Track
from msademo.features.voice import VOICE_NAMES
from msademo.guidance.prompt import Prompt

MAX_WORDS = 300             # looked at; the text encoder reads some 250
MAX_NAMED = 5               # sentiment words named, a sign
TONES = ((0.05, "neutral"), (0.35, "slightly {}"), (0.70, "clearly {}"), (1.01, "strongly {}"))      # |compound|; 0.05 is VADER's own bound

# Function words that tell languages apart; VADER knows English only, and German "die" is not its "die".
ENGLISH = frozenset("the and of you this that is it its it's with for are have has my they be not do he she we i to at but your what".split())
FOREIGN = frozenset("""der die das und ist nicht ich sie ein eine mit auf den dem zu wir ihr auch es liegt war
    le la les est et un une que je pas dans pour sur ce qui il elle nous vous des du el esto y muy por con pero lo
    di che non per sono gli della una não os uma het een niet ik van dat zijn""".split())

SIGN = {"happy": 1, "angry": -1, "disgust": -1, "fear": -1, "sad": -1, "neutral": 0, "surprise": 0}
LOOKS = {"angry": "angry", "disgust": "disgusted", "fear": "afraid", "happy": "happy", "neutral": "neutral", "sad": "sad", "surprise": "surprised"}

# Thirds of 355 training voices (RAVDESS and Emo-DB, every fourth; acted, so calm and agitated are both among them): below the first number
# lies the lowest third, above the second the highest. Their augmented variants have nearly the same thirds.
EFFORT = (-7.9, -0.7)       # dB: bands above 1.5 kHz less those below 200 Hz
PITCH = (1.61, 2.10)        # octaves above 55 Hz: 168 and 236 Hz
MOVEMENT = (0.40, 0.59)     # octaves between the 10th and the 90th percentile of F0
SWING = (1.64, 2.16)        # dB, deviation of the mean mel level
# The outer quarters of the same voices: last third of the voice less its first third. Speech sinks, so no change at all is a rise.
LOUDER = (-1.2, 0.6)        # dB
HIGHER = (-0.26, 0.0)       # octaves
AROUSAL = (3, 6)            # sum of the four levels above

# Composed sequences of every third valid face: thirds of the largest probability, and the two inner bounds of mood that best tell unpleasant,
# neutral and pleasant sequences apart (75 %; an uncertain face spreads over four unpleasant looks and one pleasant, so the first lies far
# below 0). The outer bounds are the medians of the unpleasant and of the pleasant ones.
SURE = (0.48, 0.65)                     # mean over frames of the largest probability
MOOD = (-0.66, -0.45, 0.08, 0.45)       # mean of the pleasant probability less the unpleasant ones
MOODS = ("clearly unpleasant", "somewhat unpleasant", "neither pleasant nor unpleasant", "somewhat pleasant", "clearly pleasant")
PLEASANT = np.array([SIGN[name] for name in EXPRESSIONS])


@dataclass(frozen=True)
class Told:
    """Sentences of one modality, with what the others are compared with: sign in {-1, 0, 1}, or None where nothing can be said."""

    sentences: tuple[str, ...]
    sign: int | None = None
    strength: int = 0


@lru_cache(maxsize=1)
def analyser():
    """VADER's analyser; built once, for its lexicon takes a tenth of a second to read."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    return SentimentIntensityAnalyzer()


def valences(words: Sequence[str]) -> tuple[list[tuple[str, float, float]], float]:
    """VADER's reading: (word, valence in its context, valence in the lexicon) of each word with one, and the compound in [-1, 1].

    The loop is polarity_scores' own, kept here because that keeps only the sums.
    """
    from vaderSentiment.vaderSentiment import BOOSTER_DICT, SentiText
    vader, text = analyser(), " ".join(words)
    read = SentiText(text)
    tokens = read.words_and_emoticons
    scores: list[float] = []
    for i, token in enumerate(tokens):
        lower = token.lower()
        if lower in BOOSTER_DICT or (lower == "kind" and i + 1 < len(tokens) and tokens[i + 1].lower() == "of"):
            scores.append(0)
        else:
            scores = vader.sentiment_valence(0, read, token, i, scores)
    found = [(token, score, vader.lexicon.get(token.lower(), 0.0)) for token, score in zip(tokens, scores) if score]
    return found, vader.score_valence(vader._but_check(tokens, list(scores)), text)["compound"]


def foreign(words: Sequence[str]) -> bool:
    """Is this plainly no English? By its letters, else by its function words; one alone is not enough, for "die" may be meant."""
    letters = [c for word in words for c in word if c.isalpha()]
    if sum(not c.isascii() for c in letters) > 0.3 * len(letters):
        return True
    bare = [re.sub(r"[^\w']", "", word).lower() for word in words]
    return sum(word in FOREIGN for word in bare) > max(1, sum(word in ENGLISH for word in bare))


def named(found: list[tuple[str, float, float]], sign: int) -> str:
    """The sentiment words of one sign, strongest first, each once: "great (stressed), bad (reversed)"."""
    out: dict[str, str] = {}
    for word, value, alone in sorted((f for f in found if f[1] * sign > 0), key=lambda f: -abs(f[1])):
        mark = " (reversed)" if value * alone < 0 else " (stressed)" if abs(value) > abs(alone) + 0.01 else " (weakened)" if abs(value) < abs(alone) - 0.01 else ""
        out.setdefault(word.lower(), mark)
    more = len(out) - MAX_NAMED
    return ", ".join(f"{word}{mark}" for word, mark in list(out.items())[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


@lru_cache(maxsize=4096)
def tell_words(words: tuple[str, ...]) -> Told:
    if not words:
        return Told(("There are no words.",))
    if foreign(words):
        return Told(("The words are in a language that the sentiment lexicon does not know.",))
    found, compound = valences(words)
    if not found:
        return Told(("No word is in the sentiment lexicon.",), 0)
    sentences = [f"{name} words: {named(found, sign)}." for name, sign in (("Positive", 1), ("Negative", -1)) if any(f[1] * sign > 0 for f in found)]
    strength = next(i for i, (bound, _) in enumerate(TONES) if abs(compound) < bound)
    sign = int(np.sign(compound)) if strength else 0
    tone = TONES[strength][1].format("positive" if sign > 0 else "negative")
    mixed = "are mixed and " if len(sentences) == 2 else ""
    return Told((*sentences, f"Overall the words {mixed}sound {tone}."), sign, strength)


def tell_face(vision: Track) -> Told:
    """The course of the expression over the frames that show a face."""
    if not vision.present:
        return Told(("No face can be seen.",))
    if vision.values.shape[1] < len(EXPRESSIONS):
        raise InputError(f"The face's tokens have {vision.values.shape[1]} numbers and hold no expression probabilities; use the bundled extractor's features.")
    seen = vision.values[~vision.missing, -len(EXPRESSIONS):]
    winners = seen.argmax(1)
    share = np.bincount(winners, minlength=len(EXPRESSIONS)) / len(seen)
    order = np.argsort(-share, kind="stable")
    first, second = order[:2]
    often = "almost all the time" if share[first] >= 0.9 else "most of the time" if share[first] >= 0.55 else "more often than anything else"
    also = f", at times {LOOKS[EXPRESSIONS[second]]}" if share[second] >= 0.15 else ""
    sentences = [f"The face looks {LOOKS[EXPRESSIONS[first]]} {often}{also}."]
    thirds = [EXPRESSIONS[part.mean(0).argmax()] for part in np.array_split(seen, 3) if len(part)]
    begin, middle, end = thirds[0], thirds[len(thirds) // 2], thirds[-1]
    if begin != end:
        sentences.append(f"It begins {LOOKS[begin]} and ends {LOOKS[end]}.")
    elif middle != begin:
        sentences.append(f"It turns {LOOKS[middle]} in the middle and comes back.")
    sure = float(seen.max(1).mean())
    sentences.append(f"The expression is {('hard to read', 'fairly clear', 'very clear')[level(sure, SURE)]}.")
    if vision.missing.mean() >= 0.2:
        sentences.append("The face is out of sight for part of the time.")
    mood = level(float(seen.mean(0) @ PLEASANT), MOOD)
    sentences.append(f"On the whole the face looks {MOODS[mood]}.")
    return Told(tuple(sentences), int(np.sign(mood - 2)), abs(mood - 2))


def level(value: float, bounds: tuple[float, ...]) -> int:
    """How many of the ascending bounds the value has reached."""
    return sum(value >= bound for bound in bounds)


def tell_voice(audio: Track) -> Told:
    """Effort, loudness and pitch of the voice; strength: 0 calm, 1 in between, 2 agitated. A voice measured so has no sign."""
    if not audio.present:
        return Told(("There is no voice.",))
    if audio.values.shape[1] not in (len(AUDIO_NAMES), len(VOICE_NAMES)):
        raise InputError(f"The voice's tokens have {audio.values.shape[1]} numbers where the bundled extractor's have {len(AUDIO_NAMES)} or {len(VOICE_NAMES)}; use its features.")
    tokens = audio.values[~audio.missing, :len(AUDIO_NAMES)]
    loudness = tokens[:, 0] / np.sqrt(N_MEL)             # MFCC 0 of an orthonormal DCT: the mean mel level times sqrt(N_MEL)
    bands, pitch = tokens[:, N_MFCC:N_MFCC + N_CQT], tokens[:, -1]
    low, middle, high = np.sort(pitch)[[int(share * (len(pitch) - 1) + 0.5) for share in (0.1, 0.5, 0.9)]]      # np.percentile is slow on so few
    effort = level(bands[:, -3:].mean() - bands[:, :4].mean(), EFFORT)
    height, movement, swing = level(middle, PITCH), level(high - low, MOVEMENT), level(loudness.std(), SWING)
    third = max(1, len(tokens) // 3)
    louder, higher = (level(x[-third:].mean() - x[:third].mean(), bounds) for x, bounds in ((loudness, LOUDER), (pitch, HIGHER)))
    sentences = (f"The voice is {('soft', 'of ordinary effort', 'raised')[effort]}; its loudness is {('even', 'fairly even', 'changing a lot')[swing]}"
                 f"{(' and fades', '', ' and grows')[louder]}.",
                 f"The pitch is {('low', 'medium', 'high')[height]} and {('flat', 'moderately varied', 'lively')[movement]}{(', sinking', '', ', rising')[higher]}.")
    arousal = level(effort + height + movement + swing, AROUSAL)
    return Told((*sentences, f"The voice sounds {('calm', 'neither calm nor agitated', 'agitated')[arousal]}."), None, arousal)


def compare(words: Told, face: Told, voice: Told, heard: bool) -> list[str]:
    """Whether words and face agree, and whether the voice's agitation goes with how strongly they speak."""
    told = []
    names = {1: "positive", 0: "neutral", -1: "negative"}
    if words.sign is not None and face.sign is not None:
        if words.sign == face.sign:
            told.append(f"Words and face agree: both are {names[words.sign]}.")
        elif words.sign * face.sign < 0:
            told.append(f"Words and face conflict: the words are {names[words.sign]}, the face is {names[face.sign]}.")
        else:
            told.append(f"The words are {names[words.sign]} and the face is {names[face.sign]}.")
    strongest = max((part.strength for part in (words, face) if part.sign is not None), default=None)
    if heard and strongest is not None and voice.strength != 1:
        told.append({(0, False): "The voice is calm like the rest.", (0, True): "The voice stays calm although words or face are strong.",
                     (2, False): "The voice is more agitated than words or face.", (2, True): "The voice is agitated, as words or face are strong."}[voice.strength, strongest >= 2])
    return told


def write_prompt(words: Sequence[str], audio: Track, vision: Track) -> Prompt:
    """The offline prompt of a clip: its words, and the tokens of its voice and face. Missing tokens are not looked at.

    InputError when the tokens are not the bundled extractor's. The same clip gives the same prompt, on every machine.
    """
    said, face, voice = tell_words(tuple(words[:MAX_WORDS])), tell_face(vision), tell_voice(audio)
    note = f"Of the words only the first {MAX_WORDS} were looked at." if len(words) > MAX_WORDS else ""
    together = [*voice.sentences, *compare(said, face, voice, audio.present)]
    return Prompt(" ".join(face.sentences), " ".join(said.sentences), " ".join(together), "offline", note)
