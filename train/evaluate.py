"""python -m train evaluate: measure a checkpoint on kept-apart data, under the field's missing rates and with modalities absent.

Clips are composed from the split's own transcripts, voices and faces. Every figure of a fusion model is a mean over
COMPOSITIONS compositions fixed by seed, and, where tokens are missing, over DRAWS mask draws a rate (the PGLH paper repeats
each rate ten times). The words' masks are the same for every composition, so each is read by the text encoder once.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from msademo.backbones.voice import beside
from msademo.checkpoint import read_checkpoint, write_atomically
from msademo.corruption import MODALITIES, missing
from msademo.errors import InputError
from msademo.features.bundle import Features, Statistics, collate, predict, token_masks
from msademo.features.prompt import PromptReader
from msademo.features.text import TextEncoder, load_text_encoder
from msademo.metrics import regression_metrics
from msademo.models.pglh import PGLH
from msademo.registry import FusionModel, load_fusion
from train.compose import Composer
from train.data import read_transcripts
from train.jobs import CACHE
from train.prepare import load_pool
from train.prompts import PromptBook

COMPOSITIONS = 5
DRAWS = 10
ABSENT = {"text": ("text",), "audio": ("audio",), "vision": ("vision",), "audio+vision": ("audio", "vision"), "text+audio": ("text", "audio")}


@dataclass(frozen=True)
class Bench:
    """What a model is measured on: the encoder, and each composition's clips (all over the same transcripts)."""

    encoder: TextEncoder
    clips: list[list[Features]]
    truth: np.ndarray
    seed: int
    prompts: list[list[torch.Tensor]] | None = None         # of each clip, written from the complete clip; for a guided model

    def masks(self, clips: list[Features], ratios: Mapping[str, float], draw: int) -> list[dict[str, np.ndarray]]:
        """Masks over units; they depend on the draw and the clip's place, not on the composition."""
        return [{m: missing(clip.units(m), ratios[m], m, self.seed + 100_000 * draw + i) for m in MODALITIES} for i, clip in enumerate(clips)]

    def measure(self, fusion: FusionModel, cases: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
        """Metrics of each case, averaged over draws and compositions. Cases share their text ratio, so that every masked text
        is read once for all of them. Nothing is drawn where ratios are 0 or 1."""
        draws = DRAWS if any(0 < ratio < 1 for ratios in cases for ratio in ratios.values()) else 1
        found: list[list[dict[str, float]]] = [[] for _ in cases]
        for draw in range(draws):
            first = [token_masks(clip, gone) for clip, gone in zip(self.clips[0], self.masks(self.clips[0], cases[0], draw))]
            words = self.encoder.encode([clip.tokens for clip in self.clips[0]], [mask["text"] for mask in first])
            for ratios, rows in zip(cases, found):
                # Without sound and picture all compositions are the same clips, unless prompts tell them apart.
                alike = ratios["audio"] == ratios["vision"] == 1 and self.prompts is None
                for number, clips in enumerate(self.clips[:1] if alike else self.clips):
                    masks = [token_masks(clip, gone) for clip, gone in zip(clips, self.masks(clips, ratios, draw))]
                    prompts = None if self.prompts is None else self.prompts[number]
                    rows.append(regression_metrics(predict(fusion.model, fusion.statistics, clips, masks, words, prompts=prompts), self.truth))
        return [average(rows) for rows in found]

    @torch.inference_mode()
    def recovery(self, model: PGLH, statistics: Statistics, rate: float = 0.5) -> dict[str, dict[str, float]]:
        """Mean squared error of the recovered voice and face on the masked tokens only, and of filling them with the mean
        (standardised features, so the mean is zero); first composition, one mask draw."""
        clips = self.clips[0]
        masks = [token_masks(clip, gone) for clip, gone in zip(clips, self.masks(clips, dict.fromkeys(MODALITIES, rate), 0))]
        words = self.encoder.encode([clip.tokens for clip in clips], [mask["text"] for mask in masks])
        sums = {m: np.zeros(3) for m in ("audio", "vision")}
        for start in range(0, len(clips), 128):
            part = slice(start, start + 128)
            batch = collate(clips[part], masks[part], nn.utils.rnn.pad_sequence(words[part], batch_first=True), statistics)
            recovered = model.forward_recovery(model.forward_encoders(batch), batch)
            for m, total in sums.items():
                gone, original = batch.missing[m], batch.target[m]
                total += [float((recovered[m] - original)[gone].square().sum()), float(original[gone].square().sum()), float(original[gone].numel())]
        return {m: {"rate": rate, "error": total[0] / total[2], "mean_fill_error": total[1] / total[2]} for m, total in sums.items()}


def average(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def parse_rates(text: str) -> list[float]:
    """"0:0.9:0.1" (from, to and step, both ends included) or "0,0.5" -> rates in [0, 1]."""
    try:
        if ":" in text:
            low, high, step = (float(part) for part in text.split(":"))
            rates = [round(low + i * step, 6) for i in range(int(round((high - low) / step)) + 1)]
        else:
            rates = [float(part) for part in text.split(",")]
    except (ValueError, ZeroDivisionError, OverflowError):
        rates = []
    if not rates or not all(0 <= rate <= 1 for rate in rates):
        raise InputError(f"The rates {text!r} cannot be read; write them as 0:0.9:0.1 or 0,0.3,0.6, each from 0 to 1.")
    return rates


def build_bench(args: argparse.Namespace, encoder: TextEncoder) -> Bench:
    transcripts = [row for row in read_transcripts(args.data, args.corpus, args.split) if row.words]
    if not transcripts:
        raise InputError(f"{args.data} has no {args.split} rows in {args.corpus}/label.csv; choose another --split.")
    composer = Composer(load_pool(args.data, args.split, args.face, args.cache))
    tokens = [encoder.tokenize(row.words) for row in transcripts]
    compositions = []
    for number in range(COMPOSITIONS):
        rng = np.random.default_rng([args.seed, number])
        compositions.append([composer.clip(t, row.score, rng) for t, row in zip(tokens, transcripts)])
    return Bench(encoder, compositions, np.array([row.score for row in transcripts]), args.seed)


def with_prompts(bench: Bench, args: argparse.Namespace, source: str) -> Bench:
    """The bench with its clips' prompts: those of args.prompts, or offline ones written now."""
    book = PromptBook.read(args.prompts) if args.prompts else PromptBook(source)
    if book.source != source:
        raise InputError(f"{args.checkpoint} was trained with prompts of source {source}, and {args.prompts} holds prompts of source {book.source}; give matching ones.")
    rows = [row for row in read_transcripts(args.data, args.corpus, args.split) if row.words]
    reader = PromptReader(bench.encoder)
    return replace(bench, prompts=[[reader(book.get(clip, row.words)) for clip, row in zip(clips, rows)] for clips in bench.clips])


def evaluate_fusion(args: argparse.Namespace) -> dict:
    """All figures of one fusion checkpoint; shares in [0, 1], the error on the label's scale."""
    rates = parse_rates(args.rates)
    path = Path(args.checkpoint)
    if args.baseline:
        path = path.with_name("baseline.safetensors")
    fusion = load_fusion(path, args.text, args.face)
    bench = build_bench(args, load_text_encoder(args.text))
    guided = getattr(fusion.model.config, "guided", False)
    if (args.prompts or args.without_prompt) and not guided:
        raise InputError(f"{path.name} reads no prompts; leave --prompts and --without-prompt to a guided teacher.")
    if guided and not args.without_prompt:
        bench = with_prompts(bench, args, fusion.meta["guidance"]["source"])
    started = time.monotonic()
    by_rate, text_only, absent = [], [], {}
    for number, rate in enumerate(rates, start=1):
        linked, words = bench.measure(fusion, [{m: rate for m in MODALITIES}, {"text": rate, "audio": 1.0, "vision": 1.0}])
        by_rate.append({"rate": rate, **linked})
        text_only.append({"rate": rate, **words})
        print(f"evaluate: rate {rate} acc2_non0 {linked['acc2_non0']:.4f} mae {linked['mae']:.4f}, words alone {words['acc2_non0']:.4f} "
              f"({number}/{len(rates)}, {(time.monotonic() - started) / 60:.1f} min)", flush=True)
    for with_text in (True, False):
        names = [name for name, gone in ABSENT.items() if ("text" not in gone) == with_text]
        cases = [{m: 1.0 if m in ABSENT[name] else 0.0 for m in MODALITIES} for name in names]
        absent |= dict(zip(names, bench.measure(fusion, cases)))
    report = {
        "checkpoint": path.name,
        "protocol": f"composed corpus: transcripts and scores of {args.corpus} ({args.split}), voices and faces of the {args.split} split, "
                    f"means over {COMPOSITIONS} compositions and {DRAWS} mask draws a rate; words are taken away before the text encoder "
                    "reads them; the checkpoint was chosen on valid; accuracies and F1 are shares in [0, 1]"
                    + (f"; {fusion.meta['guidance']['source']} prompts, each written from the complete clip" if bench.prompts else
                       "; the teacher's attention without a prompt" if guided else ""),
        "seed": args.seed, "n": len(bench.truth), "rates": by_rate,
        "average": average([{k: v for k, v in row.items() if k != "rate"} for row in by_rate]),
        "absent": absent, "text_only": text_only,
    }
    if isinstance(fusion.model, PGLH):
        report["recovery"] = bench.recovery(fusion.model, fusion.statistics)
    return report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="a fusion checkpoint (checkpoints/pglh.safetensors), SPRO's, or `face` or `voice`")
    parser.add_argument("--data", type=Path, required=True, help="folder laid out as the README says; only the split's rows are needed")
    parser.add_argument("--split", default="valid", help="train, valid or test")
    parser.add_argument("--corpus", default="mosi", choices=("mosi", "mosei"))
    parser.add_argument("--rates", default="0:0.9:0.1", help="missing rates: from:to:step, or a list")
    parser.add_argument("--json", type=Path, required=True, help="where the figures are written")
    parser.add_argument("--seed", type=int, default=1111, help="fixes compositions and masks")
    parser.add_argument("--baseline", action="store_true", help="the mean-pool MLP beside the checkpoint, under the same masks")
    parser.add_argument("--prompts", type=Path, help="for a guided teacher: its corpus's prompts; offline ones are otherwise written on the way")
    parser.add_argument("--without-prompt", action="store_true", help="for a guided teacher: the attention of the same weights without a prompt")
    parser.add_argument("--text", type=Path, default=Path("checkpoints/text.safetensors"))
    parser.add_argument("--face", type=Path, default=Path("checkpoints/face.safetensors"))
    parser.add_argument("--cache", type=Path, default=CACHE)


def run(args: argparse.Namespace) -> None:
    network = {"face": args.face, "voice": beside(args.face)}.get(args.checkpoint)
    method = args.checkpoint if network else read_checkpoint(args.checkpoint).method if Path(args.checkpoint).is_file() else None
    if method == "face":
        from train.face import evaluate_face
        report = evaluate_face(network or args.checkpoint, args.data, args.split)
    elif method == "voice":
        from train.voice import evaluate_voice
        report = evaluate_voice(network or args.checkpoint, args.data, args.split)
    elif method == "spro":
        from train.evaluate_posts import evaluate_posts
        report = evaluate_posts(args.checkpoint, args.data, args.split, parse_rates(args.rates), args.seed, args.text)
    else:
        report = evaluate_fusion(args)
    write_atomically(args.json, json.dumps(report, indent=1).encode())
    print(f"wrote {args.json}")
