"""python -m train evaluate CHECKPOINT --pickle FILE: measure a model of an MMSA pickle under missing data, by draws or by LNLN's masks."""

from __future__ import annotations

import argparse
from pathlib import Path

from msademo.errors import InputError
from train.data import check_split
from train.evaluate import DRAWS, parse_rates
from train.featured import featured, with_prompts
from train.pickled import load_featured, measure
from train.pickles import read_mmsa
from train.protocol import PROTOCOLS
from train.readers import load_encoder
from train.recipes import LIMITS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="a checkpoint that `--config NAME --pickle FILE` made")
    parser.add_argument("--pickle", type=Path, required=True, help="the MMSA pickle to measure on")
    parser.add_argument("--split", default="test", help="train, valid or test")
    parser.add_argument("--protocol", choices=sorted(PROTOCOLS), default="draws", help="how tokens go missing")
    parser.add_argument("--rates", default="0:0.9:0.1", help="missing rates: from:to:step, or a list")
    parser.add_argument("--draws", type=int, default=DRAWS, help="mask draws a rate (lnln has one)")
    parser.add_argument("--mask-seed", type=int, default=1111, help="fixes the masks; LNLN's missing_seed")
    parser.add_argument("--text-encoder", help="where the text encoder is now, if not where it was in training")
    parser.add_argument("--without-prompt", action="store_true", help="for a guided teacher: the attention of the same weights without a prompt")
    parser.add_argument("--json", type=Path, required=True, help="where the figures are written")


def run(args: argparse.Namespace) -> None:
    fusion, rates, split = load_featured(args.checkpoint), parse_rates(args.rates), check_split(args.split)
    if args.draws < 1 or args.mask_seed < 0:
        raise InputError("--draws must be positive and --mask-seed not negative.")
    told = fusion.meta["pickle"]
    encoder, text = load_encoder(args.text_encoder or told["text"]["encoder"])
    if text["sha256"] != told["text"]["sha256"]:
        raise InputError(f"{args.checkpoint.name} was trained with another text encoder than {text['encoder']}; give --text-encoder the one it was trained with.")
    data = featured(read_mmsa(args.pickle, LIMITS[told["dataset"]], (split,), say=print)[split], encoder, told["lengths"])
    for m, width in fusion.model.config.dims.items():
        here = data.samples[0].track(m).values.shape[1] if m != "text" else encoder.dim if encoder is not None else data.texts.values[0].shape[1]
        if here != width:
            raise InputError(f"{args.pickle.name} has {here} {m} features where {args.checkpoint.name} expects {width}; give the pickle of its data set.")
    guided = getattr(fusion.model.config, "guided", False)
    if args.without_prompt and not guided:
        raise InputError(f"{args.checkpoint.name} reads no prompts; leave --without-prompt to a guided teacher.")
    if guided and not args.without_prompt:
        data, _ = with_prompts(data, encoder)
    measure(args.checkpoint, data, args.protocol, rates, args.draws, args.mask_seed, args.json)
