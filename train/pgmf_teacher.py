"""python -m train pgmf-teacher: train PGMF's teacher, guided by the corpus's prompts or, to compare, without any."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from msademo.models.pgmf import PGMF, PGMFConfig
from train.clips import clip_settings, save_clip_model
from train.loop import fit
from train.pgmf import BATCH, GuidedTask, add_shared_arguments, guidance_of, masking_of, schedule_of
from train.processes import main_first
from train.prompts import COMPOSITIONS, PromptBook


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_shared_arguments(parser, "pgmf_teacher", epochs=3, lr=3e-4)
    parser.add_argument("--without-prompt", action="store_true", help="the same depth with plain attention; give another --out and --work")


def run(args: argparse.Namespace) -> None:
    masking, schedule = masking_of(args), schedule_of(args)
    book = None if args.without_prompt else PromptBook.read(args.prompts)
    with main_first():
        task = GuidedTask("pgmf-teacher", lambda dims: PGMF(PGMFConfig(guided=book is not None, dims=dims)), args, masking, book)
    guidance = guidance_of(book, args.prompts)
    settings = clip_settings(args, masking, BATCH, config=asdict(task.model.config), guidance=guidance, compositions=COMPOSITIONS)
    best = fit(task, schedule, args.work, settings)
    save_clip_model(args.out, task, "pgmf-teacher", asdict(task.model.config), task.model, best, best.metrics, args, schedule, settings,
                    f" --highest {args.highest}" + (" --without-prompt" if args.without_prompt else ""), guidance=guidance)
