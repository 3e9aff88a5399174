"""Analyzer: load the models once, take a clip apart once, then answer as often as asked under new masks."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable, Iterable, Mapping

import numpy as np
import torch

from msademo import account, degrade
from msademo.corruption import KINDS, MODALITIES, check_seed, missing
from msademo.errors import InputError
from msademo.features.bundle import Features, Track, collate, predict, token_masks
from msademo.features.vision import VISION_NAMES, FaceTrack, face_track, vision_tokens
from msademo.features.voice import VOICE_NAMES, voice_tokens
from msademo.guidance.chat import Chat, ChatSettings, has_key
from msademo.guidance.clips import clip_guidance
from msademo.guidance.given import COMPLETE, LEFT, Guidance, given_guidance, guided_by
from msademo.media import Clip, load_clip, replace_words
from msademo.options import kinds_of, models_of, ratios_of
from msademo.post_analyzer import PostAnalyzer
from msademo.post_results import PostResult
from msademo.results import ClipResult, Curve, ModalityView, Prediction
from msademo.shelf import Models, Shelf
from msademo.transcript import Word

CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"
CURVE_RATES = np.round(np.arange(10) / 10, 1)
KEPT_DEGRADED = 6         # re-extracted degraded signals remembered per clip
KEPT_TOLD = 32            # prompts written for a clip, and complete scores under other prompts, remembered per clip
GUIDANCE_SECONDS = 20.0     # how long a language model may take, all attempts together, before the offline prompt stands in


@dataclass(frozen=True)
class OpenedClip:
    """A clip taken apart: decoded once, features extracted once. Plain memory; analyses never change it (but for the memos of
    degraded signals, prompts and the teacher's complete scores, which only spare work).

    clean_text: (T, D) features of all words. complete: the models' scores with nothing taken away, by model name; the teacher's
    with `guidance`, the prompt written offline from the complete clip. held: the models that `complete` is of.
    """

    clip: Clip
    faces: FaceTrack | None
    features: Features
    clean_text: torch.Tensor
    complete: Mapping[str, float]
    guidance: Guidance
    notes: tuple[str, ...]
    degraded: OrderedDict = field(default_factory=OrderedDict, repr=False, compare=False)
    told: OrderedDict = field(default_factory=OrderedDict, repr=False, compare=False)
    held: Models | None = field(default=None, repr=False, compare=False)


def remember(memo: OrderedDict, key, value, kept: int):
    memo[key] = value
    while len(memo) > kept:
        memo.popitem(last=False)
    return value


def empty_track(width: int) -> Track:
    return Track(np.zeros((0, width), np.float32), np.zeros(0, bool), np.zeros((0, 2)))


class Analyzer:
    """Analyses clips with the checkpoints of one folder. Cheap to make: models load at the first use, once, in any thread.

    PGLH must be there; where one of PGMF's checkpoints is missing or unusable, the others answer and a note says so.
    """

    def __init__(self, folder: str | Path = CHECKPOINTS):
        self.folder = Path(folder)
        self.posts = PostAnalyzer(self.folder)
        self.shelf = Shelf(self.folder)

    def warm(self) -> Models:
        """Load the models now. InputError says in one sentence which checkpoint is unusable and why."""
        return self.shelf.warm()

    def _current(self, opened: OpenedClip) -> OpenedClip:
        """The same clip by the models now in use, where others were chosen since it was opened."""
        if opened.held is self.warm():
            return opened
        again = self._finish(opened.clip, opened.faces, opened.features.audio, opened.features.vision, [], opened.degraded)
        written = OrderedDict((key, told) for key, told in opened.told.items() if isinstance(told, Guidance))       # not the other models' scores
        return replace(again, notes=opened.notes, told=written)

    def open(self, path: str | Path | None, transcript: str | None = None, subtitles: str | None = None, asr: bool = True,
             say: Callable[[str, float], None] | None = None) -> OpenedClip:
        """Decode a clip and extract its features. transcript: None = recognise the speech, "" = there are no words, else the
        words or the content of an .srt/.vtt file. say(what, share done) reports progress."""
        say = say or (lambda what, share: None)
        say("Reading the file", 0.05)
        clip = load_clip(None if path is None else str(path), transcript, subtitles=subtitles, asr=asr, apart=True)
        self.warm()
        audio, vision, faces, notes = empty_track(len(VOICE_NAMES)), empty_track(len(VISION_NAMES)), None, list(clip.notes)
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
        guidance = guided_by(clip_guidance("offline", [word.text for word in clip.words], audio, vision, clip.frames, None), COMPLETE)
        told = {"pgmf-teacher": [models.read(guidance.prompt)]}
        complete = {name: float(predict(f.model, f.statistics, [features], [nothing], clean, prompts=told.get(name))[0])
                    for name, f in models.fusion.items()}
        return OpenedClip(clip, faces, features, clean[0], complete, guidance, tuple(notes), degraded if degraded is not None else OrderedDict(), held=models)

    def hear(self, wave: np.ndarray) -> Track:
        tokens = voice_tokens(wave, self.warm().voice)
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
                frames = self._degraded_frames(opened, kind, severity, seed)
                track = self.see(face_track(frames, clip.frame_times), clip)
            if len(track.values) != len(opened.features.track(modality).values):       # nothing usable is left of the signal
                clean = opened.features.track(modality)
                track = replace(clean, missing=np.ones(len(clean.values), bool))
            remember(opened.degraded, key, track, KEPT_DEGRADED)
        return track

    def _degraded_frames(self, opened: OpenedClip, kind: str, severity: float, seed: int) -> np.ndarray:
        boxes = np.where(opened.faces.found[:, None], opened.faces.boxes, np.nan)      # no face, nothing to cover
        return degrade.degrade_frames(opened.clip.frames, kind, severity, seed, boxes)

    def write_guidance(self, opened: OpenedClip, source: str = "offline", missing: Mapping[str, float] | float | None = None,
                       kind: str | Mapping[str, str] = "random", seed: int = 0, key: str | None = None) -> Guidance:
        """Write a clip's prompt again, "offline" or by the language model that OPENAI_API_KEY and OPENAI_BASE_URL name ("openai").

        missing: None = from the complete clip, else from what those ratios leave of it. A language model that gives nothing within
        GUIDANCE_SECONDS is replaced by the offline prompt, whose note says so; it is asked anew the next time. key: instead of OPENAI_API_KEY.
        """
        settings = None if missing is None else (tuple(ratios_of(missing).items()), tuple(kinds_of(kind).items()), check_seed(seed))
        found = opened.told.get((source, settings))
        if found is not None and found.source == source:
            return found
        words, audio, vision, frames = [word.text for word in opened.clip.words], opened.features.audio, opened.features.vision, opened.clip.frames
        if settings is not None:
            words, audio, vision, frames = self._left(opened, *(dict(part) for part in settings[:2]), settings[2])
        chat = Chat(ChatSettings.from_environment(timeout_s=GUIDANCE_SECONDS), key) if source == "openai" and (key or has_key()) else None
        guidance = guided_by(clip_guidance(source, words, audio, vision, frames, chat), COMPLETE if settings is None else LEFT)
        return remember(opened.told, (source, settings), guidance, KEPT_TOLD)

    def _left(self, opened: OpenedClip, ratios: dict, kinds: dict, seed: int):
        """Words, tracks and frames as a corruption leaves them."""
        features, words, masks = self._corrupt(opened, ratios, kinds, seed)
        tracks = [replace(features.track(m), missing=features.track(m).missing | masks[m]) for m in ("audio", "vision")]
        frames = opened.clip.frames
        if kinds["vision"] not in KINDS and len(frames) and ratios["vision"] > 0:
            frames = self._degraded_frames(opened, kinds["vision"], ratios["vision"], seed)
        return [word.text for word, gone in zip(words, masks["text"]) if not gone], *tracks, frames[~masks["vision"]]

    def _guided(self, opened: OpenedClip, given) -> Guidance:
        """What a caller's guidance stands for on this clip. A name is written once and then remembered, even where it came to nothing."""
        given = given_guidance(given)
        if given is None:
            return opened.guidance
        if not isinstance(given, str):
            return given
        return opened.told.get((given, None)) or self.write_guidance(opened, given)

    def _complete(self, opened: OpenedClip, name: str, guidance: Guidance) -> float:
        """A model's score of the complete clip; the teacher's depends on what it is told."""
        if name != "pgmf-teacher" or guidance.key == opened.guidance.key:
            return opened.complete[name]
        score = opened.told.get(guidance.key)
        if score is None:
            models, features = self.warm(), opened.features
            nothing = token_masks(features, {m: np.zeros(features.units(m), bool) for m in MODALITIES})
            teacher = models.fusion[name]
            score = float(predict(teacher.model, teacher.statistics, [features], [nothing], [opened.clean_text], prompts=[models.read(guidance.prompt)])[0])
            remember(opened.told, guidance.key, score, KEPT_TOLD)
        return score

    def analyze(self, opened: OpenedClip, missing: Mapping[str, float] | float | None = None, kind: str | Mapping[str, str] = "random",
                seed: int = 0, models: str | Iterable[str] | None = None, guidance=None) -> ClipResult:
        """Predict under missing data. missing: a ratio in [0, 1] a modality (severity, for signal-level kinds).

        models: names of options.MODELS, None = all there are. guidance, for the teacher: None = the prompt written offline from the complete
        clip, "offline", "openai", "none", a Prompt or Guidance, or what a person types: a mapping of sections or a text.
        """
        ratios, kinds, seed, asked = ratios_of(missing), kinds_of(kind), check_seed(seed), models_of(models)
        opened, held = self._current(opened), self.warm()
        names, guidance = held.chosen(asked), self._guided(opened, guidance)
        features, words, masks = self._corrupt(opened, ratios, kinds, seed)
        here = token_masks(features, masks)
        text = held.text.encode([features.tokens], [here["text"]])[0]
        predictions, drawn, pglh = {}, {}, None
        for name in names:
            fusion = held.fusion[name]
            prompt = held.read(guidance.prompt) if name == "pgmf-teacher" else text[:0]
            views = {"pgmf-student": ["student"], "pgmf-teacher": ["teacher", "without"] if len(prompt) else ["without"]}.get(name, ["pglh"])
            # The teacher's answer without its prompt goes along in the same batch, for its maps.
            batch = collate([features] * len(views), [here] * len(views), text.expand(len(views), -1, -1), fusion.statistics,
                            prompts=[prompt, prompt[:0]][:len(views)])
            explained = fusion.model.explain(batch)
            predictions[name] = Prediction(name, float(explained.score[0]), self._complete(opened, name, guidance))
            if name == "pglh":
                pglh = batch, explained
            else:
                drawn |= {view: {m: maps[row] for m, maps in explained.maps.items()} for row, view in enumerate(views)}
        first = held.fusion[names[0]].meta
        told = (*opened.notes, *(held.notes if asked is None else ()), *([guidance.note] if guidance.note and "pgmf-teacher" in names else ()))
        result = ClipResult(
            predictions=predictions, modalities={m: self._view(opened, words, m, masks[m], ratios[m], kinds[m], account.shown(features, m, here[m])) for m in MODALITIES}, words=words,
            recovery={}, attention={}, alpha={}, beta={}, transcript_source=opened.clip.transcript_source,
            duration=opened.clip.duration, seed=seed, notes=told, scale=tuple(first["scale"]),
            provenance={"checkpoint" if len(names) == 1 else "checkpoints": ", ".join(names), "data": first["data"]},
            guidance=guidance if "pgmf-teacher" in names else None, alignments=account.alignments(features, words, here, drawn))
        return result if pglh is None else self._with_pglh(result, opened, features, here, *pglh)

    def _with_pglh(self, result: ClipResult, opened: OpenedClip, features: Features, here: dict, batch, explained) -> ClipResult:
        """The result with PGLH's account of itself."""
        statistics = self.warm().fusion["pglh"].statistics
        times = account.token_times(result.words, opened.clip.duration, features)
        there = [m for m in MODALITIES if features.units(m)]
        return replace(result, alpha=explained.alpha, beta=explained.beta,
                       recovery={m: account.recovery(opened.features, opened.clean_text, features, times, m, here[m], batch, explained, statistics)
                                 for m in there},
                       attention={m: account.prompt_attention(features, m, explained) for m in there if m in explained.self_attention})

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

    def _view(self, opened: OpenedClip, words: tuple[Word, ...], m: str, gone: np.ndarray, ratio: float, kind: str, shows: dict[str, float]) -> ModalityView:
        if m == "text":
            times = np.array([(w.start or 0.0, w.end or 0.0) for w in words], dtype=np.float64).reshape(-1, 2)
            return ModalityView(ratio, kind, gone, times, bool(opened.clip.words))
        clean = opened.features.track(m)
        return ModalityView(ratio, kind, gone | clean.missing, clean.times, clean.present, shows)

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
             kind: str | Mapping[str, str] = "random", seed: int = 0, models: str | Iterable[str] | None = None, guidance=None, **opening) -> ClipResult:
        """Open a clip and analyse it once; see `open` and `analyze`. Wrong wishes are refused before the file is read."""
        ratios_of(missing), kinds_of(kind), check_seed(seed), given_guidance(guidance), self.warm().chosen(models_of(models))
        return self.analyze(self.open(path, transcript, **opening), missing, kind, seed, models, guidance)

    def post(self, image, text: str | None = None, missing: Mapping[str, float] | float | None = None, seed: int = 0, captions=None) -> PostResult:
        """Analyse an image-text post once; see PostAnalyzer. missing: a ratio for "text" and "image"."""
        return self.posts.post(image, text, missing, seed, captions)
