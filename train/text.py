"""python -m train text: tune the text encoder's upper layers on transcripts with human scores, under missing words.

One encoder for every clip model: it is tuned once, here, to tell the score from whatever words are left (L1 loss on a
linear read-out of the mean token), and then frozen. Each epoch draws new masks, so no sentence looks the same twice.
Rated sentences that nobody speaks, and rated words, can stand beside the transcripts; each of their corpora has a read-out of
its own, for what its raters call 2 is not what MOSI's do. --average makes one encoder of several that were tuned from one start.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Sequence

import numpy as np
import torch
from torch import nn

from msademo.checkpoint import file_hash, in_eight_bits, read_checkpoint, save_checkpoint
from msademo.corruption import missing
from msademo.errors import InputError
from msademo.features.text import TextEncoder, TextTokens, load_text_encoder
from msademo.metrics import regression_metrics
from train.data import LEXICON, RATED, Transcript, read_lexicon, read_rated, read_transcripts
from train.execution import add_execution_arguments, execution_of
from train.loop import Schedule, best_device, fit
from train.processes import Share, Sliced, is_main

VALID_RATES = (0.0, 0.3, 0.6)
MOSEI_VALID = 500         # rows of MOSEI's valid split that choose the epoch; all of them would cost minutes an epoch
SPOKEN = re.compile(r"[^\w\s]")
RATED_TOLD = "; rated tweets, film and product reviews and newspaper editorials of Hutto and Gilbert (2014), MIT"
LEXICON_TOLD = "; the words of VADER's lexicon, of the same"
READ_OUTS = {"mosi": 0, "mosei": 0, **{corpus: i for i, corpus in enumerate((*RATED, LEXICON), start=1)}}


@dataclass(frozen=True)
class TextSettings:
    """What is tuned and on what.

    mosi_repeats: MOSI's few rows are seen this often an epoch. neutral_share: the share of near-zero MOSEI rows (nearly
    half of it) drawn each epoch. rated_share: the share of the rated sentences and words drawn each epoch. clean_share: samples left
    whole. spoken_share: rows of other corpora written as MOSI writes them, lower case without punctuation, so that both
    spellings are read alike.
    """

    tuned_layers: int = 6
    batch: int = 32
    mosi_repeats: int = 2
    neutral_share: float = 0.5
    rated_share: float = 0.0
    clean_share: float = 0.35
    highest_rate: float = 0.9
    span_share: float = 0.3
    spoken_share: float = 0.5
    dropout: float = 0.2

    def __post_init__(self):
        shares = (self.neutral_share, self.rated_share, self.clean_share, self.highest_rate, self.span_share, self.spoken_share, self.dropout)
        if self.tuned_layers < 1 or self.batch < 1 or self.mosi_repeats < 1 or not all(0 <= share <= 1 for share in shares):
            raise InputError(f"These settings cannot be trained: {asdict(self)}; counts must be positive and shares in [0, 1].")


class ScoreReader(nn.Module):
    """The text encoder with the linear read-outs it is tuned through (thrown away afterwards)."""

    def __init__(self, encoder: TextEncoder, dropout: float, read_outs: int):
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Linear(encoder.dim, read_outs)

    def lr_scale(self, name: str) -> float:
        return 10.0 if name.startswith("score") else 1.0      # a new layer on top of trained ones

    def forward(self, tokens: list[TextTokens], gone: list[np.ndarray], read_outs: Sequence[int] | None = None) -> torch.Tensor:
        """(B,) scores, each by the read-out named (READ_OUTS); None: all by MOSI's."""
        hidden = self.encoder(tokens, gone)
        left = torch.from_numpy(np.array([len(t) - g.sum() for t, g in zip(tokens, gone)])).to(hidden)
        scores = self.score(self.dropout(hidden.sum(1) / left.clamp(min=1)[:, None]))
        return scores[:, 0] if read_outs is None else scores[torch.arange(len(tokens)), torch.tensor(read_outs)]


def as_spoken(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for word in (SPOKEN.sub("", word.lower()) for word in words) if word) or words


def read_aloud(transcript: Transcript, settings: TextSettings, rng: np.random.Generator) -> tuple[str, ...]:
    """The words as they are, or with the punctuation that MOSI lacks taken off."""
    spoken = transcript.corpus != "mosi" and rng.random() < settings.spoken_share
    return as_spoken(transcript.words) if spoken else transcript.words


def draw_epoch(train: list[Transcript], settings: TextSettings, rng: np.random.Generator) -> np.ndarray:
    """The rows of one epoch: MOSI several times, MOSEI's near-zero rows and the rated sentences only in part."""
    rows = []
    for index, row in enumerate(train):
        if row.corpus == "mosi":
            rows += [index] * settings.mosi_repeats
        elif row.corpus in RATED or row.corpus == LEXICON:
            rows += [index] * int(rng.random() < settings.rated_share)
        elif abs(row.score) > 0.4 or rng.random() < settings.neutral_share:
            rows.append(index)
    return rng.permutation(rows)


class TextTask(Sliced):
    """Tuning the encoder, as train.loop.fit wants it."""

    name = "text"

    def __init__(self, train: list[Transcript], valid: list[Transcript], settings: TextSettings, seed: int, encoder: TextEncoder | None = None):
        """encoder: a tuned one to go on from; its layers are opened again."""
        self.settings, self.seed, self.train = settings, seed, train
        torch.manual_seed(seed)
        encoder = encoder or TextEncoder(settings.tuned_layers)
        encoder.backbone.tune(settings.tuned_layers)
        read_outs = 1 + max(READ_OUTS[row.corpus] for row in train)
        self.model = ScoreReader(encoder, settings.dropout, read_outs).to(best_device())
        self.steps_per_epoch = len(draw_epoch(train, settings, np.random.default_rng([seed, 0]))) // settings.batch
        self.valid = [(row, self.model.encoder.tokenize(row.words)) for row in valid]

    def slices(self, epoch: int, share: Share):
        rng = np.random.default_rng([self.seed, epoch])
        settings, samples = self.settings, []
        for index in draw_epoch(self.train, settings, rng):
            row = self.train[index]
            words = read_aloud(row, settings, rng)
            rate = 0.0 if rng.random() < settings.clean_share else rng.random() * settings.highest_rate
            kind = "span" if rng.random() < settings.span_share else "random"
            tokens = self.model.encoder.tokenize(words)
            samples.append((tokens, tokens.missing(missing(len(words), rate, "text", int(rng.integers(2**31)), kind)), row.score, READ_OUTS[row.corpus]))
        for rows in similar_lengths([len(t) - g.sum() for t, g, *_ in samples], settings.batch, rng)[:self.steps_per_epoch]:
            yield [[samples[i] for i in rows[part]] for part in share.cut(len(rows))]

    def loss(self, batch, counts: torch.Tensor | None = None) -> torch.Tensor:
        tokens, gone, scores, read_outs = zip(*batch)
        predicted = self.model(list(tokens), list(gone), read_outs)
        return self.weighted({"total": (predicted - torch.tensor(scores).to(predicted)).abs().mean()}, batch, counts)["total"]

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        report = {}
        for corpus in ("mosi", "mosei"):
            for rate in VALID_RATES:
                rows = [(tokens, row.score) for row, tokens in self.valid if row.corpus == corpus]
                predicted = []
                for start in range(0, len(rows), 64):
                    part = [tokens for tokens, _ in rows[start:start + 64]]
                    gone = [t.missing(missing(t.words, rate, "text", start + i)) for i, t in enumerate(part)]
                    predicted.append(self.model(part, gone).float().cpu())
                metrics = regression_metrics(torch.cat(predicted).numpy(), np.array([score for _, score in rows]))
                report |= {f"{corpus}_mae@{rate}": metrics["mae"], f"{corpus}_acc2@{rate}": metrics["acc2_non0"]}
        return {"score": -float(np.mean([value for name, value in report.items() if "mae" in name])), **report}


def similar_lengths(lengths: list[int], batch: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Full batches of samples of similar length (padding costs time), in random order."""
    jittered = np.asarray(lengths) * rng.uniform(0.9, 1.1, len(lengths))
    order = np.argsort(jittered, kind="stable")
    groups = [order[start:start + batch] for start in range(0, len(order) - batch + 1, batch)]
    return [groups[i] for i in rng.permutation(len(groups))]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=None, help="folder with mosi/label.csv and mosei/label.csv")
    parser.add_argument("--out", type=Path, default=Path("checkpoints/text.safetensors"))
    parser.add_argument("--work", type=Path, default=Path("runs/text"), help="where the resumable state is kept")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--mosi-repeats", type=int, default=TextSettings.mosi_repeats, help="how often MOSI's rows are seen an epoch")
    parser.add_argument("--rated", type=Path, default=None, help="folder hutto_ICWSM_2014 with rated sentences to learn from beside the transcripts")
    parser.add_argument("--lexicon", action="store_true", help="learn from the rated words in that folder too")
    parser.add_argument("--average", type=Path, nargs="+", default=None, help="train nothing: the mean of these text checkpoints' weights")
    parser.add_argument("--start", type=Path, default=None, help="text checkpoint to go on from instead of the backbone as it came")
    parser.add_argument("--seed", type=int, default=1111)
    add_execution_arguments(parser)


def started_from(path: Path | None) -> tuple[TextEncoder | None, dict]:
    """The encoder a further leg goes on from, and what the new checkpoint tells of the leg before."""
    if path is None:
        return None, {}
    before = read_checkpoint(path, "text").meta
    told = {"sha256": file_hash(path), **{key: before.get(key) for key in ("command", "schedule", "settings", "epoch", "start")}}
    return load_text_encoder(path), {"start": told}


def average(paths: Sequence[Path], out: Path) -> None:
    """One encoder whose weights are the means of several, which must be tuned from one backbone, equally deep (Wortsman et al. 2022). Its data are
    told as by the one that saw most, for legs differ in what they saw beside the transcripts."""
    parts = [read_checkpoint(path, "text") for path in paths]
    for part in parts[1:]:
        if part.config != parts[0].config or part.tensors.keys() != parts[0].tensors.keys():
            raise InputError(f"{part.path.name} and {parts[0].path.name} cannot be averaged, for they are not tuned from the same layers; give checkpoints of one kind.")
    mean = {name: torch.stack([part.tensors[name].float() for part in parts]).mean(0) for name in parts[0].tensors}
    told = [{"sha256": file_hash(part.path), **{key: part.meta.get(key) for key in ("command", "schedule", "settings", "epoch", "metrics", "start")}} for part in parts]
    save_checkpoint(out, "text", parts[0].config, in_eight_bits(mean), averaged=told, data=max((str(part.meta.get("data")) for part in parts), key=len),
                    command=shlex.join(["python", "-m", "train", *sys.argv[1:]]))
    print(f"wrote {out}: the mean of {len(parts)} encoders")


def run(args: argparse.Namespace) -> None:
    if args.average:
        return average(args.average, args.out)
    if args.data is None:
        raise InputError("Tuning needs --data, the folder of the transcripts.")
    if args.lexicon and not args.rated:
        raise InputError("--lexicon needs --rated, the folder the words lie in.")
    schedule = Schedule(epochs=args.epochs, lr=args.lr, ema=0.99, seed=args.seed, execution=execution_of(args))
    encoder, start = started_from(args.start)
    settings = TextSettings(mosi_repeats=args.mosi_repeats, rated_share=0.5 if args.rated else 0.0, **({"tuned_layers": encoder.tuned} if encoder else {}))
    corpora = ("mosi", "mosei")
    train = [row for corpus in corpora for row in read_transcripts(args.data, corpus, "train")]
    train += read_rated(args.rated) if args.rated else []
    train += read_lexicon(args.rated) if args.lexicon else []
    valid = read_transcripts(args.data, "mosi", "valid") + read_transcripts(args.data, "mosei", "valid")[::4][:MOSEI_VALID]
    task = TextTask(train, valid, settings, args.seed, encoder)
    best = fit(task, schedule, args.work, {**asdict(settings), **start})
    if not is_main():
        return
    save_checkpoint(
        args.out, "text", {"backbone": task.model.encoder.backbone.name, "tuned_layers": settings.tuned_layers},
        task.model.encoder.tuned_weights(), settings=asdict(settings), schedule=asdict(schedule), epoch=best.epoch,
        metrics={"split": "valid", "protocol": "words alone, a linear read-out of the mean token", **best.metrics},
        data="CMU-MOSI and CMU-MOSEI transcripts and scores (train); research use" + RATED_TOLD * bool(args.rated) + LEXICON_TOLD * args.lexicon,
        command=shlex.join(["python", "-m", "train", *sys.argv[1:]]), **start)
    print(f"wrote {args.out}: epoch {best.epoch}, valid score {best.metrics['score']:.4f}")
