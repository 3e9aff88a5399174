"""Training on the features of a pickle: its samples as Features, and the task that train.loop.fit works on."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from msademo.backbones.voice import EMOTIONS
from msademo.corruption import MODALITIES, missing
from msademo.errors import InputError
from msademo.features.audio import AUDIO_NAMES
from msademo.features.bundle import Features, Statistics, Track, collate, heard_together, predict, token_masks
from msademo.features.prompt import PromptReader
from msademo.guidance.given import sections_of
from msademo.guidance.offline import write_prompt
from msademo.guidance.prompt import Prompt, typed_prompt
from msademo.metrics import regression_metrics, sims_metrics
from msademo.models.pgmf import distillation
from msademo.registry import FusionModel
from msademo.transcript import split_words
from train.loop import best_device
from train.pickles import Split
from train.processes import Share, Sliced, is_main
from train.readers import Encoder, Texts, read_texts
from train.recipes import Recipe

METRICS = {"mosi": regression_metrics, "mosei": regression_metrics, "sims": sims_metrics, "folder-3": regression_metrics, "folder-1": sims_metrics}
SAMPLED = 1000              # training samples that means and deviations are taken from
NO_TRACK = Track(np.zeros((0, len(AUDIO_NAMES)), np.float32), np.zeros(0, bool), np.zeros((0, 2)))


@dataclass(frozen=True, eq=False)
class Featured:
    """One split for a model, of a pickle or a folder (train.labelled.Part). samples: Features each, without times where a pickle is read; texts: their
    words; prompts: features (T_P, D) of each sample's guidance; bundled: are voice and face of the bundled extractors?"""

    split: Split
    samples: Sequence[Features]
    texts: Texts
    prompts: Sequence[torch.Tensor] | None = None
    bundled: bool = False

    @property
    def truth(self) -> np.ndarray:
        return self.split.scores


def featured(split: Split, encoder: Encoder | None, longest: Mapping[str, int] | None) -> Featured:
    """longest: the most tokens a modality may have (None: all); what is behind is cut off, as MMSA's padded lengths do."""
    longest = longest or {}
    texts = read_texts(split, encoder, longest.get("text"))

    def track(modality: str, i: int) -> Track:
        length = min(int(split.lengths[modality][i]), longest.get(modality, 1 << 30))
        values = getattr(split, modality)[i, :length]
        return Track(values, ~(values != 0).any(-1), np.full((length, 2), np.nan))         # a step of zeros alone: no face was found, nothing was heard

    samples = [Features(texts.tokens[i], track("audio", i), track("vision", i), float(split.scores[i])) for i in range(len(split))]
    return Featured(split, samples, texts)


def prompts_of(data: Featured) -> tuple[list[Prompt], str]:
    """Each sample's guidance and where it comes from: the pickle's key `prompt`, or written offline from what is known of the complete clip."""
    split = data.split
    if data.bundled:
        return [write_prompt(split_words(text), sample.audio, sample.vision) for text, sample in zip(split.raw, data.samples)], "written offline from the complete clips"
    if split.prompts is not None:
        sections = [sections_of(text) for text in split.prompts]
        return [typed_prompt(found["visual"], found["language"], found["multimodal"]) for found in sections], "the pickle's key 'prompt'"
    if split.raw is None:
        raise InputError(f"The split {split.name!r} has neither prompts (key 'prompt') nor raw_text to write them from; give --without-prompt.")
    # Its features are not those of the bundled extractors, so nothing can be told of voice and face.
    return [replace(write_prompt(split_words(text), NO_TRACK, NO_TRACK), visual="", multimodal="") for text in split.raw], "written offline from the words alone"


def with_prompts(data: Featured, encoder: Encoder | None) -> tuple[Featured, str]:
    """The split with its guidance read by the text encoder, in half precision, and where the guidance comes from."""
    if encoder is None:
        raise InputError("A guided teacher reads its prompts with a text encoder; give --text-encoder bundled or a BERT, or --without-prompt.")
    prompts, origin = prompts_of(data)
    reader = PromptReader(encoder)
    return replace(data, prompts=[reader(prompt).half() for prompt in prompts]), origin


def signature(splits: Mapping[str, Split]) -> str:
    """Names the data of a run: a state or a teacher of other data is refused. The arrays' sums stand for the arrays, a digest for a folder's files."""
    told = [(name, part.ids, part.scores.tolist(), [(key, list(value.shape), float(value.sum(dtype=np.float64)))
             for key in ("text", "audio", "vision", "bert") if (value := getattr(part, key)) is not None] or part.digest) for name, part in sorted(splits.items())]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def padded(features: Sequence[torch.Tensor]) -> torch.Tensor:
    return nn.utils.rnn.pad_sequence(list(features), batch_first=True).float().to(best_device())


@lru_cache(maxsize=2)           # the seeds of a method share them
def clean_features(data: Featured, say=print) -> Sequence[np.ndarray]:
    """(T_i, D) of every sample's words with none missing; in half precision where an encoder read them."""
    if data.texts.values is not None:
        return data.texts.values
    found, said = [], time.monotonic()
    for start in range(0, len(data.samples), 256):
        rows = range(start, min(start + 256, len(data.samples)))
        found += [f.half().cpu().numpy() for f in data.texts.features(rows, [np.zeros(len(data.texts.tokens[i]), bool) for i in rows])]
        if time.monotonic() - said > 15:
            said = time.monotonic()
            say(f"{data.split.name}: {len(found)} of {len(data.samples)} texts read")
    return found


@lru_cache(maxsize=2)
def valid_cases(data: Featured, rates: tuple[float, ...]) -> list[tuple]:
    """What an epoch is judged by: per rate its masks and the features of the words left."""
    cases = []
    for rate in rates:
        masks = unit_masks(data, dict.fromkeys(MODALITIES, rate), 0)
        cases.append((rate, masks, data.texts.features(range(len(masks)), [mask["text"] for mask in masks])))
    return cases


class FeaturedTask(Sliced):
    """A method on one pickle. build(dims) makes the model; every epoch shuffles all training samples and draws new masks, from (seed, epoch)."""

    def __init__(self, name: str, build, train: Featured, valid: Featured, recipe: Recipe, seed: int, statistics: Statistics | None = None):
        self.name, self.train, self.valid, self.recipe, self.seed = name, train, valid, recipe, seed
        self.clean = clean_features(train)
        self.statistics = statistics or self.measure()
        torch.manual_seed(seed)
        self.model = build({m: len(self.statistics.mean[m]) for m in MODALITIES}).to(best_device())
        self.steps_per_epoch = -(-len(train.samples) // recipe.batch)
        self.cases = valid_cases(valid, recipe.valid_rates) if is_main() else []         # who validates reads them

    def clean_text(self, rows: Sequence[int]) -> torch.Tensor:
        """(B, T, D): the words of training samples as they are with none missing."""
        return padded([torch.tensor(self.clean[i]) for i in rows])

    def measure(self) -> Statistics:
        """Mean and deviation of each feature over real (not padded) steps of training samples."""
        some = np.random.default_rng(self.seed).permutation(len(self.train.samples))[:SAMPLED]
        emotions = len(EMOTIONS) if self.train.bundled else 0
        # A frame without a face says nothing of faces.
        there = lambda track, m: heard_together(track.values, track.missing, emotions if m == "audio" else 0)[~track.missing]
        sampled = {"text": np.concatenate([np.asarray(self.clean[i], np.float32) for i in some]),
                   **{m: np.concatenate([there(self.train.samples[i].track(m), m) for i in some]) for m in ("audio", "vision")}}
        return Statistics.of({m: values if len(values) else np.tile(np.float32([[-1], [1]]), values.shape[1]) for m, values in sampled.items()}, emotions)

    def slices(self, epoch: int, share: Share):
        rng, masking = np.random.default_rng([self.seed, epoch]), self.recipe.masking
        order = rng.permutation(len(self.train.samples))
        for start in range(0, len(order), self.recipe.batch):
            rows = order[start:start + self.recipe.batch]
            samples, masks = [self.train.samples[i] for i in rows], []
            for sample in samples:
                absent = masking.absent_modalities(rng)
                masks.append(token_masks(sample, {m: masking.draw(sample.units(m), m, absent, rng) for m in MODALITIES}))
            yield [self.read(rows[part], samples[part], masks[part]) for part in share.cut(len(rows))]

    def read(self, rows: np.ndarray, samples: Sequence[Features], masks: Sequence[Mapping[str, np.ndarray]]):
        """The batch of these training samples with the words that their masks leave."""
        text = padded(self.train.texts.features(rows, [mask["text"] for mask in masks]))
        prompts = None if self.train.prompts is None else [self.train.prompts[i].float() for i in rows]
        return collate(samples, masks, text, self.statistics, self.clean_text(rows), prompts)

    def loss(self, batch, counts: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        return self.model_losses(batch, counts)

    def validate(self) -> dict[str, float]:
        """score: minus the mean absolute error, averaged over the recipe's valid_rates."""
        report = {}
        for rate, masks, words in self.cases:
            prompts = None if self.valid.prompts is None else [prompt.float() for prompt in self.valid.prompts]
            metrics = METRICS[self.recipe.dataset](predict(self.model, self.statistics, self.valid.samples, masks, words, prompts=prompts), self.valid.truth)
            report |= {f"{name}@{rate}": metrics[name] for name in ("mae", "corr", "acc2" if "acc2" in metrics else "acc2_non0")}
        return {"score": -float(np.mean([value for name, value in report.items() if name.startswith("mae")])), **report}


class DistilledTask(FeaturedTask):
    """PGMF's student of a frozen teacher, standardised by its statistics; the batch carries the teacher's guidance, which the student ignores."""

    def __init__(self, name: str, build, train: Featured, valid: Featured, recipe: Recipe, seed: int, teacher: FusionModel):
        self.teacher = teacher.model.to(best_device()).eval().requires_grad_(False)
        super().__init__(name, build, train, valid, recipe, seed, teacher.statistics)

    def loss(self, batch, counts: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        config = self.model.config
        keep = "last" if config.alpha else "none"
        guide = None
        if config.alpha or config.beta:
            with torch.no_grad():
                guide = self.teacher.align(batch, keep)
        return self.weighted(distillation(self.model.align(batch, keep), guide, batch.score, config.alpha, config.beta), batch, counts)


def unit_masks(data: Featured, ratios: Mapping[str, float], seed: int) -> list[dict[str, np.ndarray]]:
    """Masks over tokens of every sample: msademo.corruption's, nested in the rate, a stream a sample and modality."""
    return [token_masks(sample, {m: missing(sample.units(m), ratios[m], m, seed + i) for m in MODALITIES}) for i, sample in enumerate(data.samples)]
