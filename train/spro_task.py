"""Posts as SPRO's training sees them: stems out of the cache, words and patches taken away, captions read when an epoch starts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Sequence

import numpy as np
import torch

from msademo.backbones.prompted import Tokens, encode
from msademo.corruption import missing
from msademo.errors import InputError
from msademo.features.posts import post_words
from msademo.metrics import class_metrics
from msademo.models.spro import CLASSES, SPRO, PostBatch, stage_factors, stage_texts
from train.loop import device_of
from train.posts import Post
from train.processes import Share, Sliced
from train.stems import grids, text_stems, together
from train.text import similar_lengths

CAPTION_TOKENS = 40          # longer captions are cut in training
WEIGHTS = tuple(round(0.05 * i, 2) for i in range(21))


@dataclass(frozen=True)
class SPROSettings:
    """How posts are shown in training. whole_texts: share of the texts left whole, the others lose r ~ U[0, highest] of their words.
    hidden_patches: the most of a picture's patches that are hidden, r ~ U[0, hidden_patches]. views: augmented views a picture, beside
    itself; half of what is shown is mirrored."""

    batch: int = 32
    whole_texts: float = 0.6
    highest: float = 0.8
    hidden_patches: float = 0.4
    views: int = 1

    def __post_init__(self):
        if self.batch < 2 or self.views < 0 or not all(0 <= share <= 1 for share in (self.whole_texts, self.highest, self.hidden_patches)):
            raise InputError(f"These settings cannot be trained: {asdict(self)}; shares must be in [0, 1], and a batch needs two posts.")


def mirrored(patches: torch.Tensor, gone: torch.Tensor, grid: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The grid (P, C) and its mask (P,) with left and right exchanged: near to what the mirrored picture would give, and free."""
    return patches.unflatten(0, grid).flip(1).flatten(0, 1), gone.unflatten(0, grid).flip(1).flatten()


class StageCaptions:
    """One stage's captions of the training posts: the distinct ones' stems, and whose is which."""

    def __init__(self, model: SPRO, texts: Sequence[str], cache: Path, text_name: str):
        distinct = sorted(set(texts))
        number = {text: i for i, text in enumerate(distinct)}
        self.stems = [stem[:CAPTION_TOKENS] for stem in text_stems(model.text, distinct, cache, text_name)]
        self.whose = np.array([number[text] for text in texts])
        self.changes = model.config.tuned_layers > 0
        self.pooled: torch.Tensor | None = None

    @classmethod
    def of(cls, model: SPRO, posts: Sequence[Post], captions: dict[str, tuple[str, ...]], cache: Path, text_name: str) -> list[StageCaptions]:
        absent = [post.key for post in posts if post.key not in captions]
        if absent:
            raise InputError(f"{len(absent)} training posts have no captions, the first is {absent[0]}; go on with `python -m train captions`.")
        by_stage = zip(*(stage_texts(model.config, captions[post.key]) for post in posts))
        return [cls(model, texts, cache, text_name) for texts in by_stage]

    @torch.no_grad()
    def read(self, model: SPRO) -> torch.Tensor:
        """Pooled embeddings (N, d) of the distinct captions by the text tower as it is now. Once an epoch where the tower changes, for at
        every step this would cost more than the rest of the step; else once."""
        if self.pooled is None or self.changes:
            model.eval()
            order = np.argsort([len(stem) for stem in self.stems], kind="stable")
            self.pooled = torch.empty(len(order), model.text.dim, device=device_of(model))
            for start in range(0, len(order), 64):
                rows = order[start:start + 64]
                self.pooled[rows] = encode(model.text, model.text.tokens(*together([self.stems[i] for i in rows], self.pooled.device)))
            model.train()
        return self.pooled

    def batch(self, pooled: torch.Tensor | None, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The rows' distinct captions (N, d) and whose is which (B,); None for a stage that has not begun. A slice of a batch is held
        against all N, for they are its images' negatives."""
        if pooled is None:
            return None
        distinct, own = np.unique(self.whose[rows], return_inverse=True)
        return pooled[distinct], torch.from_numpy(own).to(pooled.device)


class SPROTask(Sliced):
    """Posts for train.loop.fit. captions: by post id, or None where the config wants none."""

    name = "spro"

    def __init__(self, model: SPRO, train: list[Post], valid: list[Post], captions: dict[str, tuple[str, ...]] | None,
                 settings: SPROSettings, seed: int, cache: Path, stem_names: tuple[str, str], say=print):
        self.model, self.settings, self.seed = model, settings, seed
        text_name, image_name = stem_names
        self.views = [grids(model.image, train, view, seed, cache, image_name, say) for view in range(settings.views + 1)]
        self.tokens = [model.text.tokenize(post_words(post.text)) for post in train]
        self.texts = text_stems(model.text, [post.text for post in train], cache, text_name)
        self.labels = torch.tensor([CLASSES.index(post.label) for post in train])
        self.captions = [] if captions is None else StageCaptions.of(model, train, captions, cache, text_name)
        self.steps_per_epoch = len(train) // settings.batch
        self.valid_patches, self.valid_gone = grids(model.image, valid, 0, seed, cache, image_name, say)
        self.valid_texts = text_stems(model.text, [post.text for post in valid], cache, text_name)
        self.truth = np.array([CLASSES.index(post.label) for post in valid])

    def words_gone(self, rows: Sequence[int], rng: np.random.Generator) -> list[np.ndarray | None]:
        """Which tokens of each text are taken away; None for a text that is left whole."""
        found = []
        for i in rows:
            rate = 0.0 if rng.random() < self.settings.whole_texts else rng.random() * self.settings.highest
            gone = self.tokens[i].missing(missing(self.tokens[i].words, rate, "text", int(rng.integers(2**31))))
            found.append(gone if gone.any() and not gone.all() else None)          # a text without any word would teach nothing
        return found

    def text_tokens(self, rows: Sequence[int], gone: Sequence[np.ndarray | None]) -> Tokens:
        """Whole texts come from the cache; those that lose words are read anew, for the words are gone before the encoder."""
        stems, masked = [self.texts[i] for i in rows], [place for place, tokens in enumerate(gone) if tokens is not None]
        if masked:
            values, there = self.model.text.stem([self.tokens[rows[place]] for place in masked], [gone[place] for place in masked])
            for place, value, kept in zip(masked, values.half().cpu(), there.cpu()):
                stems[place] = value[kept]
        return self.model.text.tokens(*together(stems, device_of(self.model)))

    def pictures(self, rows: Sequence[int], rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        patches, masks = [], []
        for i in rows:
            values, gone = (part[i] for part in self.views[rng.integers(len(self.views))])
            if rng.random() < 0.5:
                values, gone = mirrored(values, gone, self.model.image.grid)
            hidden = torch.from_numpy(missing(len(gone), rng.random() * self.settings.hidden_patches, "vision", int(rng.integers(2**31))))
            patches.append(values)
            masks.append(gone | hidden)
        return torch.stack(patches), torch.stack(masks)

    def slices(self, epoch: int, share: Share):
        rng = np.random.default_rng([self.seed, epoch])
        device, factors = device_of(self.model), stage_factors(self.model.config, epoch)
        read = [stage.read(self.model) if beta else None for beta, stage in zip(factors, self.captions)]
        for rows in similar_lengths([len(text) for text in self.texts], self.settings.batch, rng)[:self.steps_per_epoch]:
            captions = [stage.batch(pooled, rows) for pooled, stage in zip(read, self.captions)]
            gone, (patches, hidden) = self.words_gone(rows, rng), self.pictures(rows, rng)
            yield [PostBatch(self.text_tokens(rows[part], gone[part]), patches[part].to(device).float(), hidden[part].to(device), self.labels[rows[part]].to(device),
                             [stage and (stage[0], stage[1][part]) for stage in captions], epoch) for part in share.cut(len(rows))]

    def loss(self, batch: PostBatch, counts: torch.Tensor | None = None) -> torch.Tensor:
        return self.model_losses(batch, counts)["total"]

    @torch.no_grad()
    def valid_logits(self) -> tuple[np.ndarray, np.ndarray]:
        """Logits (N, 3) of the image and of the text path over valid, nothing missing."""
        model, device, image, text = self.model, device_of(self.model), [], []
        prototypes = model.prototypes()
        for start in range(0, len(self.truth), 64):
            part = slice(start, start + 64)
            image.append(model.logits(model.encode_image(self.valid_patches[part].to(device).float(), self.valid_gone[part].to(device)), prototypes))
            text.append(model.logits(model.forward_text(model.text.tokens(*together(self.valid_texts[part], device))), prototypes))
        return torch.cat(image).float().cpu().numpy(), torch.cat(text).float().cpu().numpy()

    def metrics(self, image_weight: float) -> dict[str, dict]:
        """All metrics of each path and of their fusion on valid."""
        image, text = self.valid_logits()
        paths = {"image": image, "text": text, "fusion": image_weight * image + (1 - image_weight) * text}
        return {name: class_metrics(logits.argmax(-1), self.truth, CLASSES) for name, logits in paths.items()}

    def validate(self) -> dict[str, float]:
        """score: the mean of accuracy and weighted F1 of the fusion, at the weight that is best here."""
        weight = choose_weight(*self.valid_logits(), self.truth)
        found = self.metrics(weight)
        numbers = {f"{path}_{key}": found[path][key] for path in ("fusion", "image", "text") for key in ("accuracy", "weighted_f1")}
        return {"score": (numbers["fusion_accuracy"] + numbers["fusion_weighted_f1"]) / 2, "image_weight": weight, **numbers}


def choose_weight(image: np.ndarray, text: np.ndarray, truth: np.ndarray) -> float:
    """The image path's share of the fused logits with the best mean of accuracy and weighted F1. Scores are averaged over
    neighbouring weights first: with a few hundred posts a single peak is luck."""
    found = [class_metrics((w * image + (1 - w) * text).argmax(-1), truth, CLASSES) for w in WEIGHTS]
    scores = np.array([(row["accuracy"] + row["weighted_f1"]) / 2 for row in found])
    smooth = np.convolve(np.pad(scores, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    return WEIGHTS[int(np.argmax(smooth))]
