"""python -m train spro-ablation: the table of what SPRO's parts bring, on valid, each row over several seeds.

Every run is resumable and its result is kept, so the command goes on where it stopped and, at the end, only writes the table.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from msademo.checkpoint import write_atomically
from msademo.models.spro import SPROConfig
from train import spro
from train.loop import Schedule

ROWS = {
    "three stages (as shipped)": {},
    "single stage": {"captions": "single"},
    "no captions": {"captions": "none"},
    "no visual prompts": {"visual_prompts": False},
    "no text prompts": {"text_prompts": False},
    "prompt length 4": {"prompts": 4},
    "prompt length 32": {"prompts": 32},
    "T_ramp 1": {"ramp": 1},
    "T_ramp 4": {"ramp": 4},
}
SHOWN = ("fusion_accuracy", "fusion_weighted_f1", "image_accuracy", "text_accuracy")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    spro.add_arguments(parser)
    parser.set_defaults(work=Path("runs/spro-ablation"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1111, 1112, 1113])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="ROW", help=f"of: {', '.join(ROWS)}")
    parser.add_argument("--json", type=Path, default=Path("runs/spro-ablation.json"))
    parser.add_argument("--markdown", type=Path, default=Path("runs/spro-ablation.md"))


def one(args: argparse.Namespace, config: SPROConfig, name: str, seed: int) -> dict[str, float]:
    """Valid metrics of one run's best epoch, from its folder or trained now."""
    work = args.work / f"{name.replace(' ', '-').replace('(', '').replace(')', '')}-{seed}"
    result = work / "result.json"
    if not result.is_file():
        schedule = replace(spro.schedule_of(args), seed=seed)
        _, best, _ = spro.train_spro(args, config, spro.settings_of(args), schedule, work)
        write_atomically(result, json.dumps({"epoch": best.epoch, **best.metrics}).encode())
        (work / "state.pt").unlink(missing_ok=True)          # weights of a table's row are of no use once it is measured
    return json.loads(result.read_text())


def table(rows: dict[str, list[dict[str, float]]], schedule: Schedule) -> str:
    """Means and deviations over seeds, in per cent, as markdown."""
    lines = ["| | seeds | " + " | ".join(name.replace("_", " ") for name in SHOWN) + " |", "|---|---|" + "---|" * len(SHOWN)]
    for name, runs in rows.items():
        cells = [100 * np.array([run[key] for run in runs]) for key in SHOWN]
        told = [f"{cell.mean():.1f} ± {cell.std(ddof=1):.1f}" if len(cell) > 1 else f"{cell.mean():.1f}" for cell in cells]
        lines.append(f"| {name} | {len(runs)} | " + " | ".join(told) + " |")
    note = f"Valid; {schedule.epochs} epochs, epoch and fusion weight chosen on the same split; mean ± deviation over seeds, per cent."
    return "\n".join([*lines, "", note])


def run(args: argparse.Namespace) -> None:
    config, rows = spro.config_of(args), {}
    for seed in args.seeds:                        # seed by seed: an unfinished table has every row once before any twice
        for name in args.rows:
            rows.setdefault(name, []).append(one(args, replace(config, **ROWS[name]), name, seed))
            write_atomically(args.json, json.dumps({"seeds": args.seeds, "epochs": args.epochs, "rows": rows}, indent=1).encode())
            write_atomically(args.markdown, table(rows, spro.schedule_of(args)).encode())
    print(args.markdown.read_text())
