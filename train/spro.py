"""python -m train spro: train SPRO on image-text posts.

The frozen stems' outputs are computed once and kept (train/stems.py); what is trained above them is a field of the config and is
told in the checkpoint. Epoch and fusion weight are chosen on valid.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch

from msademo.checkpoint import file_hash, in_eight_bits, save_checkpoint
from msademo.models.spro import CLASSES, SPROConfig
from msademo.registry import build_spro
from train.execution import add_execution_arguments, execution_of
from train.loop import Schedule, best_device, fit
from train.posts import read_captions, read_posts
from train.processes import is_main, main_first
from train.spro_task import SPROSettings, SPROTask
from train.stems import CACHE, usable


def what_is_tuned(config: SPROConfig) -> str:
    if config.backbone == "bundled":
        frozen = "e5's embeddings and layers below, EfficientNet-Lite0"
        return f"prompts, F, projections, the blocks over the patches, e5's top {config.tuned_layers} layers; frozen: {frozen}"
    return f"prompts, F and the last {config.tuned_layers} blocks of both towers; frozen: the rest of {config.backbone}"


def train_spro(args: argparse.Namespace, config: SPROConfig, settings: SPROSettings, schedule: Schedule, work: Path, say=print):
    """Train one configuration; returns the task, its model holding the best epoch's weights, and what `fit` found."""
    torch.manual_seed(schedule.seed)
    start = args.text if config.backbone == "bundled" and str(args.text) != "none" else None
    model = build_spro(config, start).to(best_device())
    with main_first():
        train, valid = (usable(read_posts(args.data, split, say), say, args.cache) for split in ("train", "valid"))
    captions = None if config.captions == "none" else read_captions(args.captions)
    text_name = f"{config.backbone} {config.text_blocks} {file_hash(start) if start else ''}"
    with main_first():
        task = SPROTask(model, train, valid, captions, settings, schedule.seed, args.cache, (text_name, config.backbone), say)
    mark = {"settings": asdict(settings), "config": asdict(config), "text": file_hash(start) if start else None,
            "captions": file_hash(args.captions) if captions else None}
    return task, fit(task, schedule, work, mark, say), mark


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="folder of posts in any of the layouts of the README")
    parser.add_argument("--backbone", default="bundled", help="bundled, or open_clip:MODEL:TAG_OR_FILE")
    parser.add_argument("--captions", type=Path, default=Path("checkpoints/captions.jsonl.gz"), help="stage captions (python -m train captions)")
    parser.add_argument("--stages", default="three", choices=("three", "single", "none"), help="how captions supervise")
    parser.add_argument("--tuned", type=int, default=None, help="how many of a tower's last layers are trained; 0 trains prompts alone")
    parser.add_argument("--text", type=Path, default=Path("checkpoints/text.safetensors"),
                        help="tuned text encoder the bundled pair starts from; none: the backbone as it came")
    parser.add_argument("--out", type=Path, default=Path("checkpoints/spro.safetensors"))
    parser.add_argument("--work", type=Path, default=Path("runs/spro"), help="where the resumable state is kept")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the frozen stems' outputs are kept")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", type=float, default=8e-5)
    parser.add_argument("--batch", type=int, default=SPROSettings.batch)
    parser.add_argument("--views", type=int, default=SPROSettings.views, help="augmented views a picture")
    parser.add_argument("--seed", type=int, default=1111)
    add_execution_arguments(parser)


def config_of(args: argparse.Namespace) -> SPROConfig:
    if args.backbone == "bundled":
        return SPROConfig(captions=args.stages, **({} if args.tuned is None else {"tuned_layers": args.tuned}))
    # open_clip's towers end in a common space already; with all else frozen there are epochs enough for the paper's ramp and losses.
    return SPROConfig(backbone=args.backbone, captions=args.stages, joint=0, prompt_depth=9, tuned_layers=args.tuned or 0,
                      stage_starts=(0, 5, 10), ramp=15, lambda_fusion=0.0, label_smoothing=0.0)


def settings_of(args: argparse.Namespace) -> SPROSettings:
    return SPROSettings(batch=args.batch, views=args.views)


def schedule_of(args: argparse.Namespace) -> Schedule:
    return Schedule(epochs=args.epochs, lr=args.lr, weight_decay=0.05, ema=0.98, seed=args.seed, execution=execution_of(args))


def run(args: argparse.Namespace) -> None:
    train_and_save(args, config_of(args), settings_of(args), schedule_of(args))


def train_and_save(args: argparse.Namespace, config: SPROConfig, settings: SPROSettings, schedule: Schedule) -> None:
    """One run and its checkpoint args.out."""
    task, best, mark = train_spro(args, config, settings, schedule, args.work)
    if not is_main():
        return
    model = task.model
    config = replace(model.config, image_weight=best.metrics["image_weight"])
    metrics, shares = task.metrics(config.image_weight), task.labels.bincount(minlength=len(CLASSES)) / len(task.labels)
    tensors = model.state_dict()
    tensors |= in_eight_bits({name: value for name, value in tensors.items() if name.startswith(("text.", "image.")) and value.ndim >= 2})
    save_checkpoint(
        args.out, "spro", asdict(config), tensors, classes=list(CLASSES), class_shares=dict(zip(CLASSES, shares.tolist())),
        tuned=what_is_tuned(config), start={"text_sha256": mark["text"]},
        captions={"file": args.captions.name, "sha256": mark["captions"]} if mark["captions"] else None,
        settings=mark["settings"], schedule=asdict(schedule), epoch=best.epoch, seed=schedule.seed, history=best.history,
        metrics={"split": "valid", "protocol": f"{len(task.truth)} posts, nothing missing; epoch and fusion weight chosen here", **metrics},
        data="MVSA (Niu et al. 2016), train split; research use", command=shlex.join(["python", "-m", "train", *sys.argv[1:]]))
    print(f"wrote {args.out}: epoch {best.epoch}, fusion weight {config.image_weight}, valid accuracy {metrics['fusion']['accuracy']:.4f}")
