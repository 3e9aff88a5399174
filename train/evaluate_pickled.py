"""python -m train evaluate CHECKPOINT --pickle FILE: measure a model of an MMSA pickle under missing data, by draws or by LNLN's masks.
With --data DIR one for labelled folders: of such a folder, or of the composed corpus."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Mapping

from msademo.backbones.voice import beside
from msademo.checkpoint import file_hash
from msademo.errors import InputError
from train.data import check_split
from train.evaluate import DRAWS, parse_rates
from train.featured import Featured, featured, with_prompts
from train.labelled import read_labelled
from train.pickled import add_source_arguments, load_featured, measure
from train.pickles import read_mmsa
from train.protocol import PROTOCOLS
from train.raw import read_folder
from train.readers import Encoder, load_encoder
from train.recipes import LIMITS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="a checkpoint that `--config NAME --pickle FILE` or, for a folder, `--data DIR` made")
    add_source_arguments(parser)
    parser.add_argument("--split", default="test", help="train, valid or test")
    parser.add_argument("--protocol", choices=sorted(PROTOCOLS), default="draws", help="how tokens go missing")
    parser.add_argument("--rates", default="0:0.9:0.1", help="missing rates: from:to:step, or a list")
    parser.add_argument("--draws", type=int, default=DRAWS, help="mask draws a rate (lnln has one)")
    parser.add_argument("--mask-seed", type=int, default=1111, help="fixes the masks; LNLN's missing_seed")
    parser.add_argument("--text-encoder", help="where the text encoder is now, if not where it was in training")
    parser.add_argument("--without-prompt", action="store_true", help="for a guided teacher: the attention of the same weights without a prompt")
    parser.add_argument("--json", type=Path, required=True, help="where the figures are written")


def read_source(args: argparse.Namespace, told: Mapping, encoder: Encoder | None, split: str) -> Featured:
    """The split of the pickle or of the folder, as the checkpoint's model takes it."""
    limit = LIMITS[told["dataset"]]
    if args.pickle:
        return featured(read_mmsa(args.pickle, limit, (split,), say=print)[split], encoder, told["lengths"])
    folder = read_folder(args.data, args.scale or (None if told["dataset"].startswith("folder") else limit))
    if folder.limit != limit:
        raise InputError(f"{args.checkpoint.name} answers in [-{limit:g}, {limit:g}] and the labels of {folder.name} lie in [-{folder.limit:g}, {folder.limit:g}]; give a checkpoint of that scale, or --scale {limit:g} if they are meant so.")
    found = read_labelled(folder, encoder, told["lengths"], args.face, args.cache, args.workers, (split,))
    if split not in found:
        raise InputError(f"{folder.name} has no {split} rows that can be used ({folder.counts()}); choose another --split.")
    return found[split]


def run(args: argparse.Namespace) -> None:
    fusion, rates, split = load_featured(args.checkpoint, folder=not args.pickle), parse_rates(args.rates), check_split(args.split)
    if args.draws < 1 or args.mask_seed < 0:
        raise InputError("--draws must be positive and --mask-seed not negative.")
    told = fusion.meta["told"]
    encoder, text = load_encoder(args.text_encoder or told["text"]["encoder"])
    if text["sha256"] != told["text"]["sha256"]:
        raise InputError(f"{args.checkpoint.name} was trained with another text encoder than {text['encoder']}; give --text-encoder the one it was trained with.")
    if not args.pickle and file_hash(args.face) != fusion.meta["extractor"]["face_sha256"]:
        raise InputError(f"{args.checkpoint.name} was trained with another expression network than {args.face}; give --face the one it was trained with.")
    if not args.pickle and file_hash(beside(args.face)) != fusion.meta["extractor"].get("voice_sha256"):
        raise InputError(f"{args.checkpoint.name} was trained with another voice network than {beside(args.face)}; give --face an expression network with that one beside it.")
    data = read_source(args, told, encoder, split)
    for m, width in fusion.model.config.dims.items():
        here = data.samples[0].track(m).values.shape[1] if m != "text" else encoder.dim if encoder is not None else data.texts.values[0].shape[1]
        if here != width:
            raise InputError(f"{(args.pickle or args.data).name} has {here} {m} features where {args.checkpoint.name} expects {width}; give the pickle of its data set.")
    guided = getattr(fusion.model.config, "guided", False)
    if args.without_prompt and not guided:
        raise InputError(f"{args.checkpoint.name} reads no prompts; leave --without-prompt to a guided teacher.")
    if guided and not args.without_prompt:
        data, _ = with_prompts(data, encoder)
    measure(args.checkpoint, data, args.protocol, rates, args.draws, args.mask_seed, args.json)
