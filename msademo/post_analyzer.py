"""PostAnalyzer: load SPRO once, take a post apart once, then answer as often as asked under new masks of words and patches."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path as File
from typing import Callable, Mapping

import numpy as np
import torch

from msademo.backbones.expression import ExpressionNet, load_expression
from msademo.corruption import check_seed, missing
from msademo.errors import InputError, shown
from msademo.features.picture import Seen, look
from msademo.features.text import TextTokens
from msademo.guidance.chat import Chat, ChatSettings, has_key
from msademo.guidance.posts import CAPTION_SOURCES, Captions, stage_captions, typed_captions
from msademo.models.spro import SPRO, STAGES, Prediction
from msademo.options import ratios_of
from msademo.post import Post, load_post, replace_text
from msademo.post_overlays import face_cover, overlay
from msademo.post_results import PATHS, Overlay, Path, PostCurve, PostResult
from msademo.registry import load_spro
from msademo.relevance import class_direction, combine, image_relevance, text_relevance

HALVES = {"text": "text", "image": "vision"}        # of a post, and the stream of corruption.py that takes each away
CURVE_RATES = np.round(np.arange(10) / 10, 1)
BATCH = 4                   # masked pictures looked at together; 16 are no faster on a CPU and take 200 MB more
CHAT_SECONDS = 20.0         # how long a language model may take, all attempts together, before offline captions stand in


@dataclass(frozen=True)
class PostModels:
    spro: SPRO
    expression: ExpressionNet


@dataclass(frozen=True)
class OpenedPost:
    """A post taken apart. Plain memory; analyses never change it.

    tokens: of all words. pixels: (3, S, S), and patches: (1, P, C) with nothing hidden; seen, captions and captioned (3, J), the captions'
    embeddings: None without a picture. complete: the answer with nothing taken away. held: the models that all of this is of.
    """

    post: Post
    tokens: TextTokens
    pixels: torch.Tensor | None
    patches: torch.Tensor | None
    seen: Seen | None
    captions: Captions | None
    captioned: torch.Tensor | None
    complete: Prediction
    notes: tuple[str, ...]
    held: PostModels | None = None


def check_captions(given) -> None:
    """What `captions` may be: None, a source, or texts by stage. Refused before any work is done."""
    if given is None or isinstance(given, Mapping) or given in CAPTION_SOURCES:
        return
    told = shown(given) if isinstance(given, str) else type(given).__name__
    raise InputError(f"Captions must be {', '.join(CAPTION_SOURCES)}, or texts by stage ({', '.join(STAGES)}); {told} is neither.")


class PostAnalyzer:
    """Analyses posts with the checkpoints of one folder. Cheap to make: models load at the first use, once, in any thread."""

    def __init__(self, folder: str | os.PathLike):
        self.folder, self.file = File(folder), "spro.safetensors"
        self._lock = threading.Lock()
        self._models: PostModels | None = None

    @property
    def available(self) -> bool:
        """Is there a checkpoint at all?"""
        return self._checkpoint.is_file()

    @property
    def _checkpoint(self) -> File:
        return self.folder / self.file

    def warm(self) -> PostModels:
        """Load the models now. InputError says in one sentence which checkpoint is absent or unusable and why."""
        with self._lock:
            if self._models is None:
                if not self.available:
                    raise InputError("Posts need the checkpoint spro.safetensors, which is not here; train it with `python -m train spro` or restore it.")
                self._models = self._load(self._checkpoint)
            return self._models

    def _load(self, path: File) -> PostModels:
        # Weights made in inference mode could never take part in a gradient, which relevance needs; a caller may be in it.
        with torch.inference_mode(False):
            return PostModels(load_spro(path), load_expression(self.folder / "face.safetensors"))

    def choose(self, file: str) -> None:
        """Use another checkpoint of the folder from now on. InputError, and nothing changes, when it cannot be used."""
        models = self._load(self.folder / file)
        with self._lock:
            self.file, self._models = file, models

    @torch.no_grad()
    def _current(self, opened: OpenedPost) -> OpenedPost:
        """The same post by the model now in use, where another was chosen since it was opened."""
        spro = self.warm().spro
        if opened.held is self.warm():
            return opened
        pixels = patches = captioned = None
        if opened.post.picture is not None:
            pixels = spro.image.prepare(opened.post.picture)
            patches, captioned = spro.image.patches(pixels[None], None), spro.encode_captions(list(opened.captions.texts()))
        return replace(self._read(opened.post, pixels, patches, opened.seen), captions=opened.captions, captioned=captioned)

    @torch.no_grad()
    def open(self, image, text: str | None, captions: str | Mapping[str, str] | None = None, say: Callable[[str, float], None] | None = None) -> OpenedPost:
        """Read a post and look at it. image, text: as for load_post. captions: "offline" (None) or "openai", or texts by stage.

        say(what, share done) reports progress. InputError, one sentence, for what cannot be used.
        """
        say = say or (lambda what, share: None)
        check_captions(captions)
        say("Reading the post", 0.05)
        post = load_post(image, text, apart=True)
        pixels = patches = seen = None
        if post.picture is not None:
            say("Looking at the picture", 0.2)
            spro = self.warm().spro
            pixels = spro.image.prepare(post.picture)
            patches = spro.image.patches(pixels[None], None)
            seen = look(post.picture, self.warm().expression)
        say("Asking the model", 0.7)
        opened = self._read(post, pixels, patches, seen)
        return opened if seen is None else self.with_captions(opened, captions)

    @torch.no_grad()
    def with_text(self, opened: OpenedPost, text: str | None) -> OpenedPost:
        """The same post with other words; the picture is not looked at again."""
        read = self._read(replace_text(opened.post, text), opened.pixels, opened.patches, opened.seen)
        return replace(read, captions=opened.captions, captioned=opened.captioned)

    def _read(self, post: Post, pixels: torch.Tensor | None, patches: torch.Tensor | None, seen: Seen | None) -> OpenedPost:
        """The words of a post, and the answer with nothing taken away; without captions yet."""
        tokens = self.warm().spro.text.tokenize(post.words)
        notes = (*post.notes, f"The text is long: its last {tokens.cut} words do not fit the text encoder and are not read.") if tokens.cut else post.notes
        complete = self._predict(patches, self._nothing(), tokens, np.zeros(len(post.words), bool))
        return OpenedPost(post, tokens, pixels, patches, seen, None, None, complete, notes, self.warm())

    @torch.no_grad()
    def with_captions(self, opened: OpenedPost, captions: str | Mapping[str, str] | None, key: str | None = None) -> OpenedPost:
        """The same post with other captions; picture and words are not looked at again. key: for the language model, instead of OPENAI_API_KEY."""
        check_captions(captions)
        if opened.seen is None:
            return opened
        if isinstance(captions, Mapping):
            written = typed_captions(captions, opened.captions or stage_captions("offline", opened.post.picture, opened.seen))
        else:
            source = captions or "offline"
            chat = Chat(ChatSettings.from_environment(timeout_s=CHAT_SECONDS), key) if source == "openai" and (key or has_key()) else None
            written = stage_captions(source, opened.post.picture, opened.seen, chat)
        return replace(opened, captions=written, captioned=self.warm().spro.encode_captions(list(written.texts())))

    def analyze(self, opened: OpenedPost, missing: Mapping[str, float] | float | None = None, seed: int = 0, overlays: bool = True) -> PostResult:
        """Predict with parts of words and picture taken away. missing: a ratio in [0, 1] for "text" and "image".

        overlays: also where similarities and answer come from; they cost more than the answer itself.
        """
        opened, spro, ratios, seed = self._current(opened), self.warm().spro, ratios_of(missing, HALVES), check_seed(seed)
        words = self._mask(len(opened.post.words), ratios["text"], "text", seed)
        hidden = self._mask(self._patches(opened), ratios["image"], "image", seed)
        gone = opened.tokens.missing(words)
        with torch.no_grad():
            patches, hidden_row = self._hide(opened, hidden)
            answer = self._predict(patches, hidden_row, opened.tokens, words)
        best = int(answer.fusion[0].argmax())
        told = self._overlays(opened, patches, hidden_row, class_direction(spro, best)) if overlays and patches is not None else {} if overlays else None
        relevance = None
        if overlays and not gone.all():
            relevance = text_relevance(spro, opened.tokens, gone, class_direction(spro, best))
            relevance = relevance / max(float(relevance.sum()), 1e-12)
        size = () if opened.post.picture is None else opened.post.picture.shape[:2]
        notes = [*opened.notes, *([opened.captions.note] if opened.captions and opened.captions.note else ())]
        if len(words) and gone.all():
            notes.append("No word is left, so the answer comes from the picture alone.")
        if len(hidden) and hidden.all():
            notes.append("No patch of the picture is left, so the answer comes from the words alone.")
        return PostResult(
            classes=spro.classes, paths={name: self._path(name, answer, opened.complete) for name in PATHS}, words=opened.post.words, word_missing=words,
            word_relevance=relevance, patch_missing=hidden, grid=tuple(spro.image.grid) if size else (0, 0),
            box=tuple(spro.image.box(*size)) if size else (0, 0, 0, 0),
            captions=opened.captions, overlays=told, image_weight=spro.config.image_weight, ratios=ratios, seed=seed, notes=tuple(notes),
            provenance={"checkpoint": "spro", "data": str(spro.meta.get("data", "unknown"))})

    @torch.no_grad()
    def curve(self, opened: OpenedPost, seed: int = 0, masks: int = 5) -> PostCurve:
        """The probability of the complete post's class over the share of words and patches missing, under several masks."""
        opened, spro, seed = self._current(opened), self.warm().spro, check_seed(seed)
        if not isinstance(masks, int) or masks < 1:
            raise InputError(f"The number of masks must be a whole number from 1 on; {masks!r} is not.")
        best = int(opened.complete.fusion[0].argmax())
        drawn = [(self._mask(len(opened.post.words), rate, "text", seed + 1000 * k), self._mask(self._patches(opened), rate, "image", seed + 1000 * k))
                 for k in range(masks) for rate in CURVE_RATES]
        images, texts = self._images(opened, [hidden for _, hidden in drawn]), self._texts(opened, [words for words, _ in drawn])
        found = {name: np.full(len(drawn), np.nan) for name in PATHS}
        for i in range(len(drawn)):
            image, text = images.get(i), texts.get(i)
            if image is None and text is None:          # a post of three words may lose all of them early
                continue
            answer = spro.predict(image, text)
            for name in PATHS:
                if (values := getattr(answer, name)) is not None:
                    found[name][i] = float(values[0, best])
        found = {name: values.reshape(masks, len(CURVE_RATES)) for name, values in found.items()}
        share = spro.meta.get("class_shares") or {}
        return PostCurve(spro.classes[best], CURVE_RATES, found, share.get(spro.classes[best]))

    def post(self, image, text: str | None = None, missing: Mapping[str, float] | float | None = None, seed: int = 0,
             captions: str | Mapping[str, str] | None = None) -> PostResult:
        """Open a post and analyse it once; see `open` and `analyze`. Wrong ratios are refused before anything is read."""
        ratios_of(missing, HALVES), check_seed(seed), check_captions(captions)
        return self.analyze(self.open(image, text, captions), missing, seed)

    # ---- masks and models --------------------------------------------------------------------------------------------------

    @staticmethod
    def _mask(count: int, ratio: float, half: str, seed: int) -> np.ndarray:
        return missing(count, ratio, HALVES[half], seed)

    @staticmethod
    def _patches(opened: OpenedPost) -> int:
        return 0 if opened.patches is None else opened.patches.shape[1]

    def _nothing(self) -> torch.Tensor:
        rows, columns = self.warm().spro.image.grid
        return torch.zeros(1, rows * columns, dtype=torch.bool)

    def _hide(self, opened: OpenedPost, hidden: np.ndarray) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Patches (1, P, C) with the hidden ones really gone - greyed before the network looks - and their mask (1, P). None: none left."""
        row = torch.from_numpy(hidden)[None]
        if opened.patches is None or hidden.all():
            return None, row
        return (self.warm().spro.image.patches(opened.pixels[None], row) if hidden.any() else opened.patches), row

    def _predict(self, patches: torch.Tensor | None, hidden: torch.Tensor, tokens: TextTokens, words: np.ndarray) -> Prediction:
        """patches: None for an absent picture; words: (W,) bool, True = taken away. InputError when nothing is left."""
        spro, gone = self.warm().spro, tokens.missing(words)
        image = None if patches is None else spro.encode_image(patches, hidden)
        text = None if gone.all() else spro.encode_text([tokens], [gone])
        return spro.predict(image, text)

    def _images(self, opened: OpenedPost, masks: list[np.ndarray]) -> dict[int, torch.Tensor]:
        """Embeddings (1, J) by the number of the mask (P,), of those that leave any patch; read in batches."""
        image, rows = self.warm().spro.image, [i for i, hidden in enumerate(masks) if not hidden.all()]
        found: dict[int, torch.Tensor] = {}
        for start in range(0, len(rows) if opened.pixels is not None else 0, BATCH):
            here = rows[start:start + BATCH]
            hidden = torch.from_numpy(np.stack([masks[i] for i in here]))
            embedded = self.warm().spro.encode_image(image.patches(opened.pixels.expand(len(here), -1, -1, -1), hidden), hidden)
            found |= {i: z[None] for i, z in zip(here, embedded)}
        return found

    def _texts(self, opened: OpenedPost, masks: list[np.ndarray]) -> dict[int, torch.Tensor]:
        """The same of the words, by the number of the mask (W,)."""
        gone = [opened.tokens.missing(words) for words in masks]
        rows = [i for i, tokens in enumerate(gone) if not tokens.all()]
        embedded = self.warm().spro.encode_text([opened.tokens] * len(rows), [gone[i] for i in rows]) if rows else ()
        return {i: z[None] for i, z in zip(rows, embedded)}

    @staticmethod
    def _path(name: str, now: Prediction, complete: Prediction) -> Path:
        row = lambda values: None if values is None else values[0].numpy().astype(np.float64)
        return Path(tuple(SPRO.classes), row(getattr(now, name)), row(getattr(complete, name)))

    # ---- overlays ----------------------------------------------------------------------------------------------------------

    def _overlays(self, opened: OpenedPost, patches: torch.Tensor, hidden: torch.Tensor, direction: torch.Tensor) -> dict[str, Overlay]:
        """Of each stage's caption, and "final": all stages and the predicted class together."""
        spro = self.warm().spro
        maps = image_relevance(spro, patches, hidden, torch.cat([opened.captioned, direction[None]]))
        with torch.no_grad():
            similar = (opened.captioned @ spro.encode_image(patches, hidden)[0]).tolist()
        on_face = self._on_faces(opened)
        shares = (maps / maps.sum(1, keepdim=True).clamp(min=1e-12)).numpy()
        told = {stage: overlay(shares[k], hidden[0].numpy(), on_face, similar[k]) for k, stage in enumerate(STAGES)}
        return told | {"final": overlay(combine(maps).numpy(), hidden[0].numpy(), on_face, None)}

    def _on_faces(self, opened: OpenedPost) -> np.ndarray | None:
        """(P,) the share of each patch that faces cover; None without a face."""
        if not opened.seen.faces:
            return None
        image = self.warm().spro.image
        return face_cover(opened.post.picture.shape[:2], [face.box for face in opened.seen.faces], image.box(*opened.post.picture.shape[:2]), image.grid)
