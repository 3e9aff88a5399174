"""Analyzer: load the models once, take a clip apart once, then answer as often as asked under new masks."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable, Mapping

import numpy as np
import torch

from msademo import degrade
from msademo.backbones.expression import load_expression
from msademo.corruption import KINDS, MODALITIES, check_ratio, check_seed, missing
from msademo.errors import InputError
from msademo.features.audio import AUDIO_NAMES, audio_tokens
from msademo.features.bundle import Features, Track, collate, predict, token_masks
from msademo.features.text import load_text_encoder
from msademo.features.vision import VISION_NAMES, FaceTrack, face_track, vision_tokens
from msademo.media import Clip, load_clip, replace_words
from msademo.registry import load_fusion
from msademo.models.pglh import Batch, Explained
from msademo.results import ClipResult, Curve, ModalityView, Prediction, PromptAttention, Recovery
from msademo.transcript import Word

CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"
SIGNAL_KINDS = {"text": degrade.TEXT_KINDS, "audio": degrade.AUDIO_KINDS, "vision": degrade.VIDEO_KINDS}
CURVE_RATES = np.round(np.arange(10) / 10, 1)
KEPT_DEGRADED = 6         # re-extracted degraded signals remembered per clip


@dataclass(frozen=True)
class OpenedClip:
    """A clip taken apart: decoded once, features extracted once. Plain memory; analyses never change it (but for the memo of
    degraded signals, which only spares work).

    clean_text: (T, D) features of all words. complete: the models' scores with nothing taken away, by model name.
    """

    clip: Clip
    faces: FaceTrack | None
    features: Features
    clean_text: torch.Tensor
    complete: Mapping[str, float]
    notes: tuple[str, ...]
    degraded: OrderedDict = field(default_factory=OrderedDict, repr=False, compare=False)


@dataclass(frozen=True)
class Models:
    """What one Analyzer holds once it is warm."""

    text: object
    expression: object
    fusion: Mapping[str, object]


def empty_track(width: int) -> Track:
    return Track(np.zeros((0, width), np.float32), np.zeros(0, bool), np.zeros((0, 2)))


def kinds_of(kind: str | Mapping[str, str]) -> dict[str, str]:
    """One kind a modality. A token kind ("random", "span") holds for all; names joined with "+" ("noise+blur") or a mapping
    choose for the modalities they belong to, the others stay random."""
    if isinstance(kind, Mapping):
        unknown = set(kind) - set(MODALITIES)
        if unknown:
            raise InputError(f"There is no modality {sorted(unknown, key=str)[0]!r}; choose among {', '.join(MODALITIES)}.")
        chosen = {m: str(kind.get(m, "random")) for m in MODALITIES}
        for m, name in chosen.items():
            if name not in KINDS and name not in SIGNAL_KINDS[m]:
                raise InputError(f"There is no corruption of {m} called {name!r}; choose one of: {', '.join([*KINDS, *SIGNAL_KINDS[m]])}.")
        return chosen
    if isinstance(kind, str) and kind in KINDS:
        return dict.fromkeys(MODALITIES, kind)
    chosen = dict.fromkeys(MODALITIES, "random")
    for name in str(kind).split("+"):
        owner = next((m for m in MODALITIES if name in SIGNAL_KINDS[m]), None)
        if name in KINDS:
            raise InputError(f"{name!r} holds for all modalities and cannot be joined with '+'; give it alone, or a kind for each modality.")
        if owner is None:
            every = [*KINDS, *(name for kinds in SIGNAL_KINDS.values() for name in kinds)]
            raise InputError(f"There is no corruption called {name!r}; choose one of: {', '.join(every)}, or several joined with '+'.")
        if chosen[owner] != "random":
            raise InputError(f"{chosen[owner]!r} and {name!r} both corrupt the {owner}; choose one of them.")
        chosen[owner] = name
    return chosen


def ratios_of(given: Mapping[str, float] | float | None) -> dict[str, float]:
    """A ratio a modality; one number holds for all, what is not named loses nothing."""
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        given = dict.fromkeys(MODALITIES, given)
    unknown = set(given) - set(MODALITIES)
    if unknown:
        raise InputError(f"There is no modality {sorted(unknown, key=str)[0]!r}; choose among {', '.join(MODALITIES)}.")
    return {m: check_ratio(given.get(m, 0.0), f"The missing ratio of {m}") for m in MODALITIES}


class Analyzer:
    """Analyses clips with the checkpoints of one folder. Cheap to make: models load at the first use, once, in any thread."""

    def __init__(self, folder: str | Path = CHECKPOINTS):
        self.folder = Path(folder)
        self._lock = threading.Lock()
        self._models: Models | None = None

    def warm(self) -> Models:
        """Load the models now. InputError says in one sentence which checkpoint is unusable and why."""
        with self._lock:
            if self._models is None:
                text, face = self.folder / "text.safetensors", self.folder / "face.safetensors"
                fusion = {"pglh": load_fusion(self.folder / "pglh.safetensors", text, face, "pglh")}
                self._models = Models(load_text_encoder(text), load_expression(face), fusion)
            return self._models

    def open(self, path: str | Path | None, transcript: str | None = None, subtitles: str | None = None, asr: bool = True,
             say: Callable[[str, float], None] | None = None) -> OpenedClip:
        """Decode a clip and extract its features. transcript: None = recognise the speech, "" = there are no words, else the
        words or the content of an .srt/.vtt file. say(what, share done) reports progress."""
        say = say or (lambda what, share: None)
        say("Reading the file", 0.05)
        clip = load_clip(None if path is None else str(path), transcript, subtitles=subtitles, asr=asr)
        models = self.warm()
        audio, vision, faces, notes = empty_track(len(AUDIO_NAMES)), empty_track(len(VISION_NAMES)), None, list(clip.notes)
        if clip.audio is not None:
            say("Listening to the voice", 0.3)
            audio = self.hear(clip.audio)
        if len(clip.frames):
            say("Looking for the face", 0.5)
            faces = face_track(clip.frames, clip.frame_times)
            notes += faces.notes
            vision = self.see(faces, clip)
        say("Asking the models", 0.9)
        return self._finish(clip, faces, audio, vision, notes)

    def with_transcript(self, opened: OpenedClip, transcript: str) -> OpenedClip:
        """The same clip with other words (or subtitles' content); sound and picture are not looked at again."""
        clip = replace_words(opened.clip, transcript)
        notes = [*clip.notes, *(opened.faces.notes if opened.faces else ())]
        return self._finish(clip, opened.faces, opened.features.audio, opened.features.vision, notes, opened.degraded)

    def _finish(self, clip: Clip, faces, audio: Track, vision: Track, notes: list[str], degraded: OrderedDict | None = None) -> OpenedClip:
        models = self.warm()
        tokens = models.text.tokenize([word.text for word in clip.words])
        if tokens.cut:
            notes = [*notes, f"The transcript is long: its last {tokens.cut} words do not fit the text encoder and are not read."]
        features = Features(tokens, audio, vision)
        if not (tokens.words or audio.present or vision.present):
            raise InputError("There is nothing to analyse: no words, no audible voice and no face were found; give another clip or a transcript.")
        nothing = token_masks(features, {m: np.zeros(features.units(m), bool) for m in MODALITIES})
        clean = models.text.encode([tokens], [nothing["text"]])
        complete = {name: float(predict(f.model, f.statistics, [features], [nothing], clean)[0]) for name, f in models.fusion.items()}
        return OpenedClip(clip, faces, features, clean[0], complete, tuple(notes), degraded if degraded is not None else OrderedDict())

    def hear(self, wave: np.ndarray) -> Track:
        tokens = audio_tokens(wave)
        return Track(tokens.values, np.zeros(len(tokens.values), bool), tokens.times)

    def see(self, faces: FaceTrack, clip: Clip) -> Track:
        tokens = vision_tokens(faces, self.warm().expression, clip.frame_times)
        return Track(tokens.values, tokens.missing, tokens.times)

    def degrade(self, opened: OpenedClip, modality: str, kind: str, severity: float, seed: int) -> Track:
        """The voice or the face of the degraded signal; extracted anew, remembered for the next time."""
        key = (modality, kind, severity, seed)
        track = opened.degraded.get(key)
        if track is None:
            clip = opened.clip
            if modality == "audio":
                track = self.hear(degrade.degrade_audio(clip.audio, kind, severity, seed))
            else:
                boxes = np.where(opened.faces.found[:, None], opened.faces.boxes, np.nan)      # no face, nothing to cover
                frames = degrade.degrade_frames(clip.frames, kind, severity, seed, boxes)
                track = self.see(face_track(frames, clip.frame_times), clip)
            if len(track.values) != len(opened.features.track(modality).values):       # nothing usable is left of the signal
                clean = opened.features.track(modality)
                track = replace(clean, missing=np.ones(len(clean.values), bool))
            opened.degraded[key] = track
            while len(opened.degraded) > KEPT_DEGRADED:
                opened.degraded.popitem(last=False)
        return track

    def analyze(self, opened: OpenedClip, missing: Mapping[str, float] | float | None = None, kind: str | Mapping[str, str] = "random",
                seed: int = 0) -> ClipResult:
        """Predict under missing data. missing: a ratio in [0, 1] a modality (severity, for signal-level kinds)."""
        models, ratios, kinds, seed = self.warm(), ratios_of(missing), kinds_of(kind), check_seed(seed)
        features, words, masks = self._corrupt(opened, ratios, kinds, seed)
        here = token_masks(features, masks)
        text = models.text.encode([features.tokens], [here["text"]])
        pglh = models.fusion["pglh"]
        batch = collate([features], [here], text[0][None], pglh.statistics)
        explained = pglh.model.explain(batch)
        predictions = {name: Prediction(name, float(explained.score[0]) if name == "pglh" else
                                        float(predict(f.model, f.statistics, [features], [here], text)[0]), opened.complete[name])
                       for name, f in models.fusion.items()}
        views = {m: self._view(opened, words, m, masks[m], ratios[m], kinds[m]) for m in MODALITIES}
        return ClipResult(
            predictions=predictions, modalities=views, words=words,
            recovery={m: self._recovery(opened, features, words, m, here[m], batch, explained) for m in MODALITIES if features.units(m)},
            attention={m: self._attention(features, m, explained) for m in MODALITIES if features.units(m)},
            alpha=explained.alpha, beta=explained.beta, transcript_source=opened.clip.transcript_source,
            duration=opened.clip.duration, seed=seed, notes=opened.notes, scale=tuple(pglh.meta["scale"]),
            provenance={"checkpoint": "pglh", "data": pglh.meta["data"]})

    def _corrupt(self, opened: OpenedClip, ratios: dict, kinds: dict, seed: int) -> tuple[Features, tuple[Word, ...], dict[str, np.ndarray]]:
        """Features, words and masks over units after corruption. Token kinds mask; signal kinds change the signal, and
        mask only what can no longer be found in it."""
        features, words, masks = opened.features, opened.clip.words, {}
        for m in MODALITIES:
            count, kind, ratio = opened.features.units(m), kinds[m], ratios[m]
            if kind in KINDS:
                masks[m] = missing(count, ratio, m, seed, kind)
            elif m == "text":
                changed_words, changed = degrade.degrade_words(words, kind, ratio, seed)
                if kind == "deletion":
                    masks[m] = changed
                else:                                   # other words stand there now, perhaps fewer
                    words, masks[m] = changed_words, np.zeros(len(changed_words), bool)
                    features = replace(features, tokens=self.warm().text.tokenize([word.text for word in words]))
            elif count and ratio > 0:
                track = self.degrade(opened, m, kind, ratio, seed)
                features = replace(features, **{m: track})
                masks[m] = track.missing & ~opened.features.track(m).missing
            else:
                masks[m] = np.zeros(count, bool)
        return features, words, masks

    def _view(self, opened: OpenedClip, words: tuple[Word, ...], m: str, gone: np.ndarray, ratio: float, kind: str) -> ModalityView:
        if m == "text":
            times = np.array([(w.start or 0.0, w.end or 0.0) for w in words], dtype=np.float64).reshape(-1, 2)
            return ModalityView(ratio, kind, gone, times, bool(opened.clip.words))
        clean = opened.features.track(m)
        return ModalityView(ratio, kind, gone | clean.missing, clean.times, clean.present)

    def _recovery(self, opened: OpenedClip, features: Features, words: tuple[Word, ...], m: str, gone: np.ndarray, batch: Batch, explained: Explained) -> Recovery:
        """Original, corrupted and recovered, standardised; errors on tokens that were masked and have an original."""
        statistics = self.warm().fusion["pglh"].statistics
        corrupted, recovered = batch.values[m][0].numpy().copy(), explained.recovered[m][0].numpy()
        if m == "text":
            same = len(features.tokens) == len(opened.features.tokens)
            original = statistics.standardise(opened.clean_text, m).numpy() if same else corrupted.copy()
            times, lacking = self._token_times(words, opened.clip.duration, features), np.zeros(len(corrupted), bool)
        else:
            clean = opened.features.track(m)
            original = statistics.standardise(torch.from_numpy(clean.values), m).numpy()
            times, lacking = clean.times, clean.missing
        names = {"text": tuple(f"e5_{i}" for i in range(original.shape[1])), "audio": AUDIO_NAMES, "vision": VISION_NAMES}[m]
        corrupted[gone] = np.nan
        original = original.copy()
        original[lacking] = np.nan
        judged = gone & ~lacking
        errors = [float(np.square(guess - original[judged]).mean()) if judged.any() else None for guess in (recovered[judged], 0.0)]
        return Recovery(original, corrupted, recovered, gone, times, names, *errors)

    def _token_times(self, words: tuple[Word, ...], end: float, features: Features) -> np.ndarray:
        """(T, 2) seconds of the text tokens: their words' times; CLS at the start, SEP at the end."""
        tokens = features.tokens
        times = [(words[a].start or 0.0, words[b].end or 0.0) if a >= 0 else (0.0, 0.0)
                 for a, b in zip(tokens.first, tokens.last)]
        times[-1] = (end, end)
        return np.array(times, dtype=np.float64)

    def _attention(self, features: Features, m: str, explained: Explained) -> PromptAttention:
        pieces = tuple(piece.replace("▁", "") or "▁" for piece in features.tokens.pieces)
        labels = pieces if m == "text" else tuple(f"{t:.1f} s" for t in features.track(m).times[:, 0]) + pieces
        return PromptAttention(explained.self_attention[m][0].numpy(), explained.language_attention[m][0].numpy(), labels)

    def curve(self, opened: OpenedClip, kind: str = "random", seed: int = 0, masks: int = 5) -> Curve:
        """The score over the missing ratio of all modalities together, under several masks. Token kinds only: a signal
        would have to be taken apart again for every point."""
        models, seed = self.warm(), check_seed(seed)
        if not isinstance(masks, int) or masks < 1:
            raise InputError(f"The number of masks must be a whole number from 1 on; {masks!r} is not.")
        pglh, features = models.fusion["pglh"], opened.features
        drawn = [token_masks(features, {m: missing(features.units(m), rate, m, seed + 1000 * k, kind) for m in MODALITIES})
                 for k in range(masks) for rate in CURVE_RATES]
        copies = [features] * len(drawn)
        words = models.text.encode([features.tokens] * len(drawn), [mask["text"] for mask in drawn])
        scores = predict(pglh.model, pglh.statistics, copies, drawn, words)
        return Curve(CURVE_RATES, scores.reshape(masks, len(CURVE_RATES)), pglh.meta["median"], kind)

    def clip(self, path: str | Path, transcript: str | None = None, missing: Mapping[str, float] | float | None = None,
             kind: str | Mapping[str, str] = "random", seed: int = 0, **opening) -> ClipResult:
        """Open a clip and analyse it once; see `open` and `analyze`. Wrong ratios are refused before the file is read."""
        ratios_of(missing), kinds_of(kind), check_seed(seed)
        return self.analyze(self.open(path, transcript, **opening), missing, kind, seed)
