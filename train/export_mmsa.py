"""python -m train export-mmsa: the composed corpus as an MMSA pickle, for any MMSA-style repository, complete or with tokens missing.

Train holds fixed compositions of the training transcripts, the ones PGMF is trained on: every transcript as often, or (`--signs balanced`) those of
an epoch of our trainers, with as many positive as negative scores. Valid and test hold the first composition that `evaluate`
measures on, under the masks of the draw that is asked for. Text features are the text encoder's, read after words were taken away; missing steps
are zeros, and *_missing (N, L) says which. The last nine numbers of a voice's steps are what the steps left amount to (features/bundle.py), so masks
belong here (`--rate`): who masks a complete pickle later leaves a trace of what was hidden in them. There is no text_bert: the encoder's ids are no BERT's. With the rate "random" every clip has one of its
own, uniform from 0 to what our trainers mask at most.
"""

from __future__ import annotations

import argparse
import pickle
import time
from itertools import count, product
from pathlib import Path
from typing import Mapping, Sequence

import numpy as np

from msademo.backbones.voice import EMOTIONS
from msademo.checkpoint import file_hash, written_atomically
from msademo.corruption import MODALITIES, check_ratio, missing
from msademo.errors import InputError
from msademo.features.bundle import Features, heard_together, token_masks
from msademo.features.text import TextEncoder, load_text_encoder
from msademo.guidance.offline import write_prompt
from train.compose import BROAD, CLOSE, Composer, epoch_rows
from train.data import SPLITS, Transcript, read_transcripts, training_transcripts
from train.jobs import CACHE
from train.loop import best_device
from train.prepare import load_pool
from train.prompts import fixed_clip
from train.words import Masking

AT_ONCE = 256               # clips whose texts are read together
SIGNS = ("all", "balanced", "close")
CLASSES = ("Negative", "Neutral", "Positive")


def training_rows(transcripts: Sequence[Transcript], signs: str, seed: int, compositions: int) -> list[tuple[int, int]]:
    """(composition, number of the transcript) of each training clip: `compositions` times every transcript, or as many epochs of our
    trainers (epoch_rows), of the first ones or of the last (close). A transcript's clips are its compositions 0, 1, ... in turn."""
    if signs == "all":
        return list(product(range(compositions), range(len(transcripts))))
    mixture = CLOSE if signs == "close" else BROAD
    rows = [int(row) for epoch in range(compositions) for row in epoch_rows(transcripts, seed, epoch, mixture)]
    turns = {row: count() for row in set(rows)}
    return [(next(turns[row]), row) for row in rows]


def clips_of(split: str, transcripts: Sequence[Transcript], composer: Composer, encoder: TextEncoder, seed: int, compositions: int,
             signs: str = "all") -> list[tuple[Transcript, Features]]:
    """The clips of one split with their transcripts."""
    tokens = [encoder.tokenize(row.words) for row in transcripts]
    if split == "train":
        return [(transcripts[i], fixed_clip(composer, tokens[i], transcripts[i].score, seed, number, i)) for number, i in training_rows(transcripts, signs, seed, compositions)]
    rng = np.random.default_rng([seed, 0])
    return [(row, composer.clip(t, row.score, rng)) for row, t in zip(transcripts, tokens)]


def ratios_of(count: int, rate: float | None, absent: Sequence[str] = (), seed: int = 0) -> list[dict[str, float]]:
    """What each of `count` clips lacks of every modality: `rate` of it, or with None a share of the clip's own; all of those that are absent."""
    rng = np.random.default_rng([seed, 11])
    rates = [rng.random() * Masking.highest if rate is None else rate for _ in range(count)]
    return [{m: 1.0 if m in absent else r for m in MODALITIES} for r in rates]


def masked_arrays(name: str, clips: Sequence[Features], encoder: TextEncoder, ratios: Sequence[Mapping[str, float]], seed: int, draw: int, steps: Mapping[str, int],
                  say=print) -> dict[str, np.ndarray]:
    """What is left of clips, ratios a clip: per modality its features (N, steps, D), *_lengths (N,) and *_missing (N, steps); padded with zeros
    to `steps`, and cut to them. Masks are those that evaluate draws."""
    count, widths = len(clips), {"text": encoder.dim, **{m: clips[0].track(m).values.shape[1] for m in ("audio", "vision")}}
    values = {m: np.zeros((count, steps[m], widths[m]), np.float32) for m in MODALITIES}
    gone = {m: np.zeros((count, steps[m]), bool) for m in MODALITIES}
    lengths = {m: np.zeros(count, np.int64) for m in MODALITIES}
    said = time.monotonic()
    for start in range(0, count, AT_ONCE):
        part = range(start, min(start + AT_ONCE, count))
        masks = [token_masks(clips[i], {m: missing(clips[i].units(m), ratios[i][m], m, seed + 100_000 * draw + i) for m in MODALITIES}) for i in part]
        texts = encoder.encode([clips[i].tokens for i in part], [mask["text"] for mask in masks])
        for i, mask, text in zip(part, masks, texts):
            text = text.cpu().numpy()
            if len(text) > steps["text"]:
                keep = np.r_[:steps["text"] - 1, len(text) - 1]                 # SEP stays
                text, mask["text"] = text[keep], mask["text"][keep]
            for m in MODALITIES:
                found = text if m == "text" else heard_together(clips[i].track(m).values, mask[m], len(EMOTIONS) if m == "audio" else 0)[:steps[m]]
                length = lengths[m][i] = len(found)
                gone[m][i, :length] = mask[m][:length]
                values[m][i, :length] = np.where(mask[m][:length, None], 0, found)
        if time.monotonic() - said > 15:
            said = time.monotonic()
            say(f"export-mmsa: {name}: {part[-1] + 1} of {count} clips")
    return {**values, **{f"{m}_lengths": lengths[m] for m in MODALITIES}, **{f"{m}_missing": gone[m] for m in MODALITIES}}


def export_split(name: str, clips: Sequence[tuple[Transcript, Features]], encoder: TextEncoder, ratios: Sequence[Mapping[str, float]], seed: int, draw: int,
                 steps: Mapping[str, int], say=print) -> dict:
    """One split under MMSA's keys; see masked_arrays."""
    arrays = masked_arrays(name, [clip for _, clip in clips], encoder, ratios, seed, draw, steps, say)
    scores = np.array([row.score for row, _ in clips], np.float32)
    classes = np.sign(scores).astype(int) + 1
    return {"raw_text": [" ".join(row.words) for row, _ in clips], "id": [f"{row.key.replace('$', '$_$')}-{i}" for i, (row, _) in enumerate(clips)],
            **arrays, **{f"{m}_lengths": arrays[f"{m}_lengths"].tolist() for m in MODALITIES},
            "regression_labels": scores, "classification_labels": classes, "annotations": [CLASSES[c] for c in classes],
            "prompt": [write_prompt(row.words, clip.audio, clip.vision).text() for row, clip in clips]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder with mosi/, mosei/, voices/ and faces/")
    parser.add_argument("--out", type=Path, required=True, help="the pickle to write")
    parser.add_argument("--corpora", nargs="+", choices=("mosi", "mosei"), default=["mosi", "mosei"], help="whose training transcripts; valid and test are MOSI's")
    parser.add_argument("--compositions", type=int, default=1, help="training clips a transcript, or epochs with balanced signs")
    parser.add_argument("--signs", choices=SIGNS, default="all",
                        help="training clips: all transcripts alike; balanced: as many positive as negative ones, MOSI's twice, as our trainers' epochs begin; close: MOSI's "
                             "six times and a quarter of MOSEI's, as they end")
    parser.add_argument("--rate", default="0", help="share of the tokens that is missing in every split and modality; random: of each clip one of its own")
    parser.add_argument("--absent", nargs="+", choices=MODALITIES, default=[], help="modalities that are missing altogether")
    parser.add_argument("--draw", type=int, default=0, help="number of the mask draw, as evaluate counts them")
    parser.add_argument("--steps", type=int, default=50, help="tokens a text is padded or cut to; voices and faces keep their own lengths")
    parser.add_argument("--text", type=Path, default=Path("checkpoints/text.safetensors"), help="the tuned text encoder")
    parser.add_argument("--face", type=Path, default=Path("checkpoints/face.safetensors"), help="the expression network")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--seed", type=int, default=1111)


def run(args: argparse.Namespace) -> None:
    if args.compositions < 1 or args.draw < 0 or args.steps < 3:
        raise InputError("--compositions must be positive, --draw not negative and --steps 3 at least.")
    rate = None if args.rate == "random" else check_ratio(args.rate, "--rate")
    encoder = load_text_encoder(args.text).to(best_device())
    clips = {}
    for split in SPLITS:
        transcripts = training_transcripts(args.data, args.corpora) if split == "train" else [row for row in read_transcripts(args.data, "mosi", split) if row.words]
        if not transcripts:
            raise InputError(f"{args.data} has no {split} rows in mosi/label.csv, and an MMSA pickle needs all three splits.")
        clips[split] = clips_of(split, transcripts, Composer(load_pool(args.data, split, args.face, args.cache)), encoder, args.seed, args.compositions, args.signs)
    every = [clip for part in clips.values() for _, clip in part]
    steps = {"text": min(args.steps, max(len(clip.tokens) for clip in every)), **{m: max(len(clip.track(m).values) for clip in every) for m in ("audio", "vision")}}
    content = {split: export_split(split, part, encoder, ratios_of(len(part), rate, args.absent, args.seed), args.seed, args.draw, steps)
               for split, part in clips.items()}
    content["about"] = {"corpus": "composed corpus: CMU-MOSI and CMU-MOSEI transcripts and scores, RAVDESS and Emo-DB voices, FER2013 faces; research use, RAVDESS CC BY-NC-SA 4.0",
                        "seed": args.seed, "signs": args.signs, "draw": args.draw, "missing": {m: 1.0 if m in args.absent else args.rate if rate is None else rate for m in MODALITIES}, "text_sha256": file_hash(args.text), "face_sha256": file_hash(args.face)}
    with written_atomically(args.out) as file:              # no second copy of gigabytes in memory
        pickle.dump(content, file, protocol=4)
    print(f"wrote {args.out}: " + ", ".join(f"{split} {len(part)}" for split, part in clips.items()) + "; text "
          f"{steps['text']} x {encoder.dim}, audio {steps['audio']}, vision {steps['vision']} steps")
