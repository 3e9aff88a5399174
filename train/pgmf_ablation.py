"""python -m train pgmf-ablation: what each part of the student's loss is worth, over several seeds, in one pass over the data."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from msademo.checkpoint import file_hash, write_atomically
from msademo.errors import InputError
from train.pgmf import add_shared_arguments, add_student_arguments, train_students

VARIANTS = {"both": {}, "without L_attn": {"alpha": 0.0}, "without L_fusion": {"beta": 0.0}, "without either": {"alpha": 0.0, "beta": 0.0}}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_shared_arguments(parser, "pgmf_ablation", epochs=3, lr=1e-3)
    parser.set_defaults(out=Path("runs/pgmf_ablation.json"))
    add_student_arguments(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1111, 1112, 1113], help="seeds of the students' weights; --seed fixes the data")
    parser.add_argument("--students", type=Path, default=Path("runs/pgmf_students"), help="folder for every student's checkpoint")


def run(args: argparse.Namespace) -> None:
    """Every variant with every seed of its weights; the same batches for all."""
    if len(set(args.seeds)) < len(args.seeds):
        raise InputError(f"--seeds names a seed twice: {' '.join(map(str, args.seeds))}.")
    full = {"alpha": args.alpha, "beta": args.beta}
    members = {f"{variant}/{seed}": (seed, {**full, **changes}) for variant, changes in VARIANTS.items() for seed in args.seeds}
    paths = [args.students / f"{key.replace(' ', '_').replace('/', '-')}.safetensors" for key in members]
    task = train_students(args, "pgmf-ablation", members, paths)
    apart = task.divergence()
    figures = {key: {**task.measure_valid(member, guided=False), **apart[key]} for key, member in zip(task.model.names, task.model.members)}
    report = {"protocol": "composed corpus, MOSI valid, 3 compositions; means and sample deviations over students that differ in the seed of their "
                          "weights and saw the same batches; the epoch is the best on valid of all students' mean; divergence in bits, last layer, "
                          "from the teacher with prompts written from the complete clip",
              "seeds": list(args.seeds), "alpha": args.alpha, "beta": args.beta, "teacher": {"file": Path(args.teacher).name, "sha256": file_hash(args.teacher)},
              "teacher_figures": {"with prompt": task.measure_valid(task.teacher), "without prompt": task.measure_valid(task.teacher, guided=False)},
              "variants": {variant: summary([figures[f"{variant}/{seed}"] for seed in args.seeds]) for variant in VARIANTS}, "students": figures}
    write_atomically(args.out, json.dumps(report, indent=1).encode())
    write_atomically(args.out.with_suffix(".md"), table(report).encode())
    print(table(report) + f"\nwrote {args.out} and {args.out.with_suffix('.md').name}")


def summary(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and sample deviation of each figure; the deviation of a single row is 0."""
    return {key: {"mean": float(np.mean([row[key] for row in rows])), "deviation": float(np.std([row[key] for row in rows], ddof=1)) if len(rows) > 1 else 0.0}
            for key in rows[0]}


def table(report: dict) -> str:
    """The report as a markdown table."""
    columns = {"MAE": ("mae@0.0", 1), "Acc-2 Non0": ("acc2@0.0", 100), "Corr": ("corr@0.0", 1), "MAE over rates and without text": ("score", -1),
               "JS V→L": ("js_vision", 1), "JS A→L": ("js_audio", 1), "JS": ("js", 1), "JS over rates": ("js_rates", 1)}
    lines = ["| student | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    cell = lambda part, scale: f"{scale * part['mean']:.{1 if scale == 100 else 3}f} ± {abs(scale) * part['deviation']:.{1 if scale == 100 else 3}f}"
    lines += [f"| {variant} | " + " | ".join(cell(row[key], scale) for key, scale in columns.values()) + " |" for variant, row in report["variants"].items()]
    return "\n".join(lines) + "\n"
