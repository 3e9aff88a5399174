"""python -m train pglh: train PGLH on the composed corpus."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from msademo.models.pglh import PGLH, PGLHConfig
from train.clips import add_clip_arguments, train_clips
from train.execution import execution_of
from train.loop import Schedule
from train.words import Masking


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_clip_arguments(parser, "pglh", epochs=11, lr=1e-3)


def run(args: argparse.Namespace) -> None:
    schedule = Schedule(epochs=args.epochs, lr=args.lr, weight_decay=0.05, ema=0.995, seed=args.seed, execution=execution_of(args))
    train_clips("pglh", lambda dims: PGLH(PGLHConfig(dims=dims)), lambda model: asdict(model.config), args, schedule, Masking())
