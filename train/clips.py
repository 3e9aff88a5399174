"""Training a fusion model on composed clips: what PGLH, PGMF and the mean-pool MLP have in common."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Sequence

import numpy as np
import torch
from torch import nn

from msademo.backbones.voice import EMOTIONS, beside
from msademo.checkpoint import file_hash, in_eight_bits, save_checkpoint
from msademo.corruption import MODALITIES, missing
from msademo.errors import InputError
from msademo.features.bundle import Features, Statistics, collate, heard_together, predict, token_masks
from msademo.features.prompt import PromptReader
from msademo.features.text import TextTokens, load_text_encoder
from msademo.metrics import regression_metrics
from train.compose import BROAD, CLOSE, Composer, Composition, blurred
from train.data import Transcript, read_transcripts, training_transcripts
from train.execution import add_execution_arguments
from train.jobs import CACHE
from train.labelled import extractor_of
from train.loop import Fitted, Schedule, best_device, fit
from train.prepare import load_pool
from train.processes import Share, Sliced, is_main, main_first
from train.prompts import PromptBook, fixed_clip
from train.text import similar_lengths
from train.words import Masking, WordReader, read_sentences

VALID_RATES = (0.0, 0.3, 0.6, 0.9)
VALID_COMPOSITIONS = 3


class ClipTask(Sliced):
    """Composed clips for train.loop.fit. `build(dims)` makes the model once the widths of the features are known.

    close_from: the first epoch, from 0, that is mostly MOSI (WordReader). compositions: how many fixed compositions of each transcript clips are
    drawn from; 0 composes every epoch anew.
    book: the prompts of those compositions, for a model that is guided.
    """

    def __init__(self, name: str, build, data: Path, text: Path, face: Path, cache: Path, masking: Masking, composition: Composition, seed: int,
                 batch: int = 64, corpora: Sequence[str] = ("mosi", "mosei"), say=print, compositions: int = 0, book: PromptBook | None = None,
                 close_from: int | None = None):
        self.name, self.masking, self.seed, self.compositions, self.book = name, masking, seed, compositions, book
        self.encoder = load_text_encoder(text).to(best_device())
        self.composer, self.valid_composer = (Composer(load_pool(data, split, face, cache, say=say), composition) for split in ("train", "valid"))
        transcripts = training_transcripts(data, corpora)
        self.words = WordReader(self.encoder, transcripts, masking, seed, cache, file_hash(text), close_from)
        self.statistics = self.measure()
        torch.manual_seed(seed)
        self.model = build({m: len(self.statistics.mean[m]) for m in MODALITIES}).to(best_device())
        self.batch = min(batch, *(len(self.words.rows(epoch)) for epoch in (0, close_from or 0)))
        self.steps_per_epoch = len(self.words.rows(0)) // self.batch
        self.reader = read_sentences(book, PromptReader(self.encoder, remembered=10**6), cache, file_hash(text)) if book is not None else None
        self.prepare_valid(read_transcripts(data, "mosi", "valid"))

    def measure(self) -> Statistics:
        """Mean and deviation of each feature over a sample of the training data."""
        some = np.random.default_rng(self.seed).permutation(len(self.words.clean))[:1000]
        words = torch.cat([self.words.clean[i] for i in some]).float()
        pool = self.composer.pool
        heard = [heard_together(v, np.zeros(len(v), bool), len(EMOTIONS)) for variants in pool.voices for v in variants]
        return Statistics.of({"text": words.numpy(), "audio": np.concatenate(heard),
                              "vision": pool.faces.reshape(-1, pool.faces.shape[-1]).astype(np.float32)}, len(EMOTIONS))

    def compose(self, row: int, rng: np.random.Generator) -> Features:
        """A training clip of transcript `row`."""
        tokens, score = self.words.tokens[row], self.words.transcripts[row].score
        if not self.compositions:
            return self.composer.clip(tokens, score, rng, augmented=True)
        return fixed_clip(self.composer, tokens, score, self.seed, int(rng.integers(self.compositions)), row)

    def guidance(self, clips: Sequence[Features], texts: Sequence[Sequence[str]]) -> list[torch.Tensor] | None:
        """Features of the clips' prompts, which know the complete clips; None without a book."""
        return [self.reader(self.book.get(clip, words)) for clip, words in zip(clips, texts)] if self.book is not None else None

    def size(self, tokens: TextTokens, gone: np.ndarray) -> int:
        """What makes a text long to work on; texts of one batch should be alike in it."""
        return len(tokens)

    def slices(self, epoch: int, share: Share):
        with main_first():
            words = self.words.epoch(epoch)
        rng, blur = np.random.default_rng([self.seed, epoch, 1]), self.words.mixture(epoch).blur
        together = lambda features: nn.utils.rnn.pad_sequence(features, batch_first=True).float().to(best_device())
        lengths = [self.size(self.words.tokens[i], gone) for i, gone in zip(words.rows, words.gone)]
        for group in similar_lengths(lengths, self.batch, rng)[:self.steps_per_epoch]:
            clips, masks = [], []
            for j in group:
                clip = self.compose(words.rows[j], rng)
                gone = {m: self.masking.draw(clip.units(m), m, words.absent[j], rng) for m in ("audio", "vision")}
                clips.append(clip)
                masks.append(token_masks(clip, {"text": words.gone[j], **gone}))
            texts = [words.features[j] for j in group]
            if blur:
                texts = blurred(texts, [mask["text"] for mask in masks], self.statistics.mean["text"], blur, rng)
            yield [collate(clips[part], masks[part], together(texts[part]), self.statistics,
                           together([self.words.clean[words.rows[j]] for j in group[part]]),
                           self.guidance(clips[part], [self.words.transcripts[words.rows[j]].words for j in group[part]]))
                   for part in share.cut(len(group))]

    def loss(self, batch, counts: torch.Tensor | None = None) -> torch.Tensor:
        return self.model_losses(batch, counts)["total"]

    def prepare_valid(self, transcripts: list[Transcript]) -> None:
        """Fixed clips and masks; the words' features are the same every epoch, so they are computed once."""
        tokens = [self.encoder.tokenize(row.words) for row in transcripts]
        self.valid, self.truth = [], np.array([row.score for row in transcripts])
        compositions = []
        for number in range(VALID_COMPOSITIONS):
            # With fixed compositions, those whose prompts a book holds: they are what train.evaluate measures on.
            rng = np.random.default_rng([self.seed, number] if self.compositions else [number, 7])
            clips = [self.valid_composer.clip(t, row.score, rng) for t, row in zip(tokens, transcripts)]
            compositions.append((clips, self.guidance(clips, [row.words for row in transcripts])))
        cases = [({m: rate for m in MODALITIES}, rate) for rate in VALID_RATES] + [({"text": 1.0, "audio": 0.0, "vision": 0.0}, "text absent")]
        for ratios, name in cases:
            gone = [missing(t.words, ratios["text"], "text", i) for i, t in enumerate(tokens)]
            words = self.encoder.encode(tokens, [t.missing(g) for t, g in zip(tokens, gone)])
            for clips, prompts in compositions:
                masks = [token_masks(clip, {m: g if m == "text" else missing(clip.units(m), ratios[m], m, i) for m in MODALITIES})
                         for i, (clip, g) in enumerate(zip(clips, gone))]
                self.valid.append((name, clips, masks, words, prompts))

    def validate(self) -> dict[str, float]:
        return self.measure_valid(self.model)

    def measure_valid(self, model: nn.Module, guided: bool = True) -> dict[str, float]:
        """score: minus the mean absolute error, averaged over the rates and the clips without text. guided: with the prompts there are."""
        report: dict[str, list[float]] = {}
        for name, clips, masks, words, prompts in self.valid:
            metrics = regression_metrics(predict(model, self.statistics, clips, masks, words, prompts=prompts if guided else None), self.truth)
            report.setdefault(f"mae@{name}", []).append(metrics["mae"])
            report.setdefault(f"corr@{name}", []).append(metrics["corr"])
            report.setdefault(f"acc2@{name}", []).append(metrics["acc2_balanced" if name == "text absent" else "acc2_non0"])
        means = {key: float(np.mean(values)) for key, values in report.items()}
        return {"score": -float(np.mean([value for key, value in means.items() if key.startswith("mae")])), **means}


def train_clips(name: str, build, config_of, args, schedule: Schedule, masking: Masking, batch: int = 64) -> Fitted:
    """Train, then write the checkpoint with all it needs to be used. `config_of(model)` is the model's config as a dict."""
    with main_first():
        task = ClipTask(name, build, args.data, args.text, args.face, args.cache, masking, Composition(), args.seed, batch, close_from=close_from(args))
    settings = clip_settings(args, masking, batch, config=config_of(task.model))
    best = fit(task, schedule, args.work, settings)
    save_clip_model(args.out, task, name, config_of(task.model), task.model, best, best.metrics, args, schedule, settings)
    return best


def close_from(args) -> int:
    """The first of a run's last epochs, those of the mixture CLOSE; InputError when the run has not so many."""
    return args.epochs - close_epochs(args)


def close_epochs(args) -> int:
    close = round(args.epochs / 3) if args.close_epochs is None else args.close_epochs
    if not 0 <= close <= args.epochs:
        raise InputError(f"--close-epochs {close} is not a part of {args.epochs} epochs; give 0 to {args.epochs}.")
    return close


def clip_settings(args, masking: Masking, batch: int, **more) -> dict:
    """What, with the schedule, decides a run's outcome."""
    return {"masking": asdict(masking), "composition": asdict(Composition()), "batch": batch,
            "broad": asdict(BROAD), "close": asdict(CLOSE), "close_epochs": close_epochs(args), **more, "text": file_hash(args.text), "face": file_hash(args.face), "voice": file_hash(beside(args.face))}


def save_clip_model(path: Path, task: ClipTask, method: str, config: dict, model: nn.Module, best: Fitted, metrics: dict, args,
                    schedule: Schedule, settings: dict, options: str = "", **more) -> None:
    """Write one clip model's checkpoint; metrics: its own on valid at the best epoch. options: what the command had beside the shared ones."""
    if not is_main():
        return
    save_checkpoint(
        path, method, config, in_eight_bits(model.state_dict()),
        statistics=task.statistics.to_dict(), scale=[-3.0, 3.0], median=float(np.median([row.score for row in task.words.transcripts])),
        extractor=extractor_of({"encoder": args.text, "sha256": settings["text"]}, args.face),
        settings=settings, schedule=asdict(schedule), epoch=best.epoch, seed=args.seed, history=best.history,
        metrics={"corpus": "composed corpus", "split": "valid", "protocol": "MOSI valid, 3 compositions, one mask draw a rate; epoch chosen here", **metrics},
        data="composed corpus: CMU-MOSI and CMU-MOSEI transcripts and scores, RAVDESS and Emo-DB voices, FER2013 faces (train splits); "
             "research use, RAVDESS CC BY-NC-SA 4.0",
        command=f"python -m train {task.name} --data DATA --epochs {schedule.epochs} --close-epochs {close_epochs(args)} --lr {schedule.lr} --seed {args.seed}"
                f"{options}{schedule.execution.options()}", **more)
    print(f"wrote {path}: epoch {best.epoch}, valid score {metrics['score']:.4f}")


def add_clip_arguments(parser, name: str, epochs: int, lr: float) -> None:
    """The options every clip model's training shares."""
    parser.add_argument("--data", type=Path, required=True, help="folder with mosi/, mosei/, voices/ and faces/")
    parser.add_argument("--text", type=Path, default=Path("checkpoints/text.safetensors"), help="the tuned text encoder")
    parser.add_argument("--face", type=Path, default=Path("checkpoints/face.safetensors"), help="the expression network")
    parser.add_argument("--out", type=Path, default=Path(f"checkpoints/{name}.safetensors"))
    parser.add_argument("--work", type=Path, default=Path(f"runs/{name}"), help="where the resumable state is kept")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where extracted features are kept")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--lr", type=float, default=lr)
    parser.add_argument("--close-epochs", type=int, default=None, metavar="N",
                        help=f"the last N epochs have MOSI's transcripts {CLOSE.mosi_repeats} times and {CLOSE.mosei_share:.0%}% of MOSEI's, the others "
                             f"MOSI's {BROAD.mosi_repeats} times and all of MOSEI's; not given: a third of the epochs")
    parser.add_argument("--seed", type=int, default=1111)
    add_execution_arguments(parser)
