"""python -m train pgmf-student: distil PGMF's student from a trained teacher. --alpha 0 or --beta 0 leaves a loss out."""

from __future__ import annotations

import argparse

from train.pgmf import add_shared_arguments, add_student_arguments, train_students


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_shared_arguments(parser, "pgmf_student", epochs=3, lr=1e-3)
    add_student_arguments(parser)


def run(args: argparse.Namespace) -> None:
    train_students(args, "pgmf-student", {"student": (args.seed, {"alpha": args.alpha, "beta": args.beta})}, [args.out])
