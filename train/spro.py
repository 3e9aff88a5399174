"""python -m train spro: train SPRO on image-text posts.

The frozen stems' outputs are computed once and kept (train/stems.py); what is trained above them is a field of the config and is
told in the checkpoint. Epoch and fusion weight are chosen on valid.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Sequence

import numpy as np
import torch

from msademo.backbones.prompted import Tokens, encode
from msademo.checkpoint import file_hash, save_checkpoint
from msademo.corruption import missing
from msademo.errors import InputError
from msademo.features.posts import post_words
from msademo.metrics import class_metrics
from msademo.models.spro import CLASSES, SPRO, PostBatch, SPROConfig, stage_factors, stage_texts
from msademo.registry import build_spro
from train.loop import Schedule, best_device, device_of, fit
from train.posts import Post, read_captions, read_posts
from train.stems import CACHE, grids, text_stems, together, usable
from train.text import similar_lengths

CAPTION_TOKENS = 40          # longer captions are cut in training
WEIGHTS = tuple(round(0.05 * i, 2) for i in range(21))


@dataclass(frozen=True)
class SPROSettings:
    """How posts are shown in training. whole_texts: share of the texts left whole, the others lose r ~ U[0, highest] of their words.
    hidden_patches: the most of a picture's patches that are hidden, r ~ U[0, hidden_patches]. views: augmented views a picture, beside
    itself; half of what is shown is mirrored."""

    batch: int = 32
    whole_texts: float = 0.6
    highest: float = 0.8
    hidden_patches: float = 0.4
    views: int = 1

    def __post_init__(self):
        if self.batch < 2 or self.views < 0 or not all(0 <= share <= 1 for share in (self.whole_texts, self.highest, self.hidden_patches)):
            raise InputError(f"These settings cannot be trained: {asdict(self)}; shares must be in [0, 1], and a batch needs two posts.")


def mirrored(patches: torch.Tensor, gone: torch.Tensor, grid: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The grid (P, C) and its mask (P,) with left and right exchanged: near to what the mirrored picture would give, and free."""
    return patches.unflatten(0, grid).flip(1).flatten(0, 1), gone.unflatten(0, grid).flip(1).flatten()


class SPROTask:
    """Posts for train.loop.fit. captions: by post id, or None where the config wants none."""

    name = "spro"

    def __init__(self, model: SPRO, train: list[Post], valid: list[Post], captions: dict[str, tuple[str, ...]] | None,
                 settings: SPROSettings, seed: int, cache: Path, stem_names: tuple[str, str], say=print):
        self.model, self.settings, self.seed, self.posts = model, settings, seed, train
        text_name, image_name = stem_names
        self.views = [grids(model.image, train, view, seed, cache, image_name, say) for view in range(settings.views + 1)]
        self.tokens = [model.text.tokenize(post_words(post.text)) for post in train]
        self.texts = text_stems(model.text, [post.text for post in train], cache, text_name)
        self.labels = torch.tensor([CLASSES.index(post.label) for post in train])
        self.frozen_captions: list[torch.Tensor] = []                          # read once where the text tower does not change
        self.stages: list[tuple[np.ndarray, list[torch.Tensor]]] = []          # per stage: whose caption is which, and their stems
        if captions is not None:
            absent = [post.key for post in train if post.key not in captions]
            if absent:
                raise InputError(f"{len(absent)} training posts have no captions, the first is {absent[0]}; go on with `python -m train captions`.")
            for texts in zip(*(stage_texts(model.config, captions[post.key]) for post in train)):
                distinct = sorted(set(texts))
                number = {text: i for i, text in enumerate(distinct)}
                stems = [stem[:CAPTION_TOKENS] for stem in text_stems(model.text, distinct, cache, text_name)]
                self.stages.append((np.array([number[text] for text in texts]), stems))
        self.steps_per_epoch = len(train) // settings.batch
        self.valid_patches, self.valid_gone = grids(model.image, valid, 0, seed, cache, image_name, say)
        self.valid_texts = text_stems(model.text, [post.text for post in valid], cache, text_name)
        self.truth = np.array([CLASSES.index(post.label) for post in valid])

    def text_tokens(self, rows: Sequence[int], rng: np.random.Generator) -> Tokens:
        """Whole texts come from the cache; those that lose words are read anew, for the words are gone before the encoder."""
        gone_tokens, masked, stems = [], [], [self.texts[i] for i in rows]
        for place, i in enumerate(rows):
            rate = 0.0 if rng.random() < self.settings.whole_texts else rng.random() * self.settings.highest
            gone = self.tokens[i].missing(missing(self.tokens[i].words, rate, "text", int(rng.integers(2**31))))
            if gone.any() and not gone.all():          # a text without any word would teach nothing
                masked.append(place), gone_tokens.append(gone)
        if masked:
            values, there = self.model.text.stem([self.tokens[rows[place]] for place in masked], gone_tokens)
            for place, value, kept in zip(masked, values.half().cpu(), there.cpu()):
                stems[place] = value[kept]
        return self.model.text.tokens(*together(stems, device_of(self.model)))

    def pictures(self, rows: Sequence[int], rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        patches, masks = [], []
        for i in rows:
            values, gone = (part[i] for part in self.views[rng.integers(len(self.views))])
            if rng.random() < 0.5:
                values, gone = mirrored(values, gone, self.model.image.grid)
            hidden = torch.from_numpy(missing(len(gone), rng.random() * self.settings.hidden_patches, "vision", int(rng.integers(2**31))))
            patches.append(values)
            masks.append(gone | hidden)
        device = device_of(self.model)
        return torch.stack(patches).to(device).float(), torch.stack(masks).to(device)

    @torch.no_grad()
    def read_captions(self, epoch: int) -> list[torch.Tensor]:
        """Pooled embeddings (N_k, d) of each stage's distinct captions, by the text tower as it is when the epoch starts; nothing
        for a stage that is not active. Where the tower does not change they are read once; elsewhere reading them anew at every step would cost more than the rest of the step."""
        if self.frozen_captions:
            return self.frozen_captions
        self.model.eval()
        pooled = []
        for beta, (_, stems) in zip(stage_factors(self.model.config, epoch), self.stages):
            found = torch.zeros(len(stems), self.model.text.dim, device=device_of(self.model))
            order = np.argsort([len(stem) for stem in stems], kind="stable") if beta or not self.model.config.tuned_layers else ()
            for start in range(0, len(order), 64):
                rows = order[start:start + 64]
                found[rows] = encode(self.model.text, self.model.text.tokens(*together([stems[i] for i in rows], found.device)))
            pooled.append(found)
        if not self.model.config.tuned_layers:
            self.frozen_captions = pooled
        self.model.train()
        return pooled

    def batches(self, epoch: int):
        rng = np.random.default_rng([self.seed, epoch])
        read = self.read_captions(epoch)
        device = device_of(self.model)
        for rows in similar_lengths([len(text) for text in self.texts], self.settings.batch, rng)[:self.steps_per_epoch]:
            captions = []
            for pooled, (whose, _) in zip(read, self.stages):
                distinct, own = np.unique(whose[rows], return_inverse=True)
                captions.append((pooled[distinct], torch.from_numpy(own).to(device)))
            yield PostBatch(self.text_tokens(rows, rng), *self.pictures(rows, rng), self.labels[rows].to(device), captions, epoch)

    def loss(self, batch: PostBatch) -> torch.Tensor:
        return self.model.loss(batch)["total"]

    @torch.no_grad()
    def valid_logits(self) -> tuple[np.ndarray, np.ndarray]:
        """Logits (N, 3) of the image and of the text path over valid, nothing missing."""
        model, device, image, text = self.model, device_of(self.model), [], []
        prototypes = model.prototypes()
        for start in range(0, len(self.truth), 64):
            part = slice(start, start + 64)
            image.append(model.logits(model.encode_image(self.valid_patches[part].to(device).float(), self.valid_gone[part].to(device)), prototypes))
            text.append(model.logits(model.forward_text(model.text.tokens(*together(self.valid_texts[part], device))), prototypes))
        return torch.cat(image).float().cpu().numpy(), torch.cat(text).float().cpu().numpy()

    def validate(self) -> dict[str, float]:
        """score: the mean of accuracy and weighted F1 of the fusion, at the weight that is best here."""
        image, text = self.valid_logits()
        weight, fused = choose_weight(image, text, self.truth)
        report = {"score": (fused["accuracy"] + fused["weighted_f1"]) / 2, "image_weight": weight}
        for name, logits in (("fusion", weight * image + (1 - weight) * text), ("image", image), ("text", text)):
            metrics = class_metrics(logits.argmax(-1), self.truth, CLASSES)
            report |= {f"{name}_{key}": metrics[key] for key in ("accuracy", "weighted_f1")}
        return report


def choose_weight(image: np.ndarray, text: np.ndarray, truth: np.ndarray) -> tuple[float, dict]:
    """The image path's share of the fused logits with the best mean of accuracy and weighted F1. Scores are averaged over
    neighbouring weights first: with a few hundred posts a single peak is luck."""
    found = [class_metrics((w * image + (1 - w) * text).argmax(-1), truth, CLASSES) for w in WEIGHTS]
    scores = np.array([(row["accuracy"] + row["weighted_f1"]) / 2 for row in found])
    smooth = np.convolve(np.pad(scores, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    best = int(np.argmax(smooth))
    return WEIGHTS[best], found[best]


def what_is_tuned(config: SPROConfig) -> str:
    if config.backbone == "bundled":
        frozen = "e5's embeddings and layers below, EfficientNet-Lite0"
        return f"prompts, F, projections, the blocks over the patches and the top {config.tuned_layers} layers of e5; frozen: {frozen}"
    return f"prompts, F, projections and the last {config.tuned_layers} blocks of both towers; frozen: the rest of {config.backbone}"


def train_spro(args: argparse.Namespace, config: SPROConfig, settings: SPROSettings, schedule: Schedule, work: Path, say=print):
    """Train one configuration; returns the task, its model holding the best epoch's weights, and what `fit` found."""
    torch.manual_seed(schedule.seed)
    start = args.text if config.backbone == "bundled" and str(args.text) != "none" else None
    model = build_spro(config, start).to(best_device())
    train, valid = (usable(read_posts(args.data, split, say), say, args.cache) for split in ("train", "valid"))
    captions = None if config.captions == "none" else read_captions(args.captions)
    text_name = f"{config.backbone} {config.text_layers - config.text_blocks} {file_hash(start) if start else ''}"
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
    parser.add_argument("--text", type=Path, default=Path("checkpoints/text.safetensors"), help="tuned text encoder the bundled pair starts from; none: the backbone as it came")
    parser.add_argument("--out", type=Path, default=Path("checkpoints/spro.safetensors"))
    parser.add_argument("--work", type=Path, default=Path("runs/spro"), help="where the resumable state is kept")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the frozen stems' outputs are kept")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--lr", type=float, default=3e-5)
    parser.add_argument("--batch", type=int, default=SPROSettings.batch)
    parser.add_argument("--views", type=int, default=SPROSettings.views, help="augmented views a picture")
    parser.add_argument("--seed", type=int, default=1111)


def config_of(args: argparse.Namespace) -> SPROConfig:
    if args.backbone == "bundled":
        return SPROConfig(captions=args.stages, **({} if args.tuned is None else {"tuned_layers": args.tuned}))
    # open_clip's towers end in a common space already, and with all of them frozen there is time for the paper's ramp.
    return SPROConfig(backbone=args.backbone, captions=args.stages, joint=0, prompt_depth=9, tuned_layers=args.tuned or 0)


def settings_of(args: argparse.Namespace) -> SPROSettings:
    return SPROSettings(batch=args.batch, views=args.views)


def schedule_of(args: argparse.Namespace) -> Schedule:
    return Schedule(epochs=args.epochs, lr=args.lr, weight_decay=0.05, ema=0.98, seed=args.seed)


def run(args: argparse.Namespace) -> None:
    schedule = schedule_of(args)
    task, best, mark = train_spro(args, config_of(args), settings_of(args), schedule, args.work)
    model = task.model
    config = replace(model.config, image_weight=best.metrics["image_weight"])
    image, text = task.valid_logits()
    fused = config.image_weight * image + (1 - config.image_weight) * text
    metrics = {name: class_metrics(logits.argmax(-1), task.truth, CLASSES) for name, logits in (("image", image), ("text", text), ("fusion", fused))}
    tensors = {name: value.half() if name.startswith(("text.", "image.")) and value.ndim >= 2 else value for name, value in model.state_dict().items()}
    save_checkpoint(
        args.out, "spro", asdict(config), tensors, classes=list(CLASSES), frequent=CLASSES[int(task.labels.bincount().argmax())], tuned=what_is_tuned(config), extractor={"text_sha256": mark["text"]},
        captions={"file": args.captions.name, "sha256": mark["captions"]} if mark["captions"] else None,
        settings=mark["settings"], schedule=asdict(schedule), epoch=best.epoch, seed=args.seed, history=best.history,
        metrics={"split": "valid", "protocol": f"{len(task.truth)} posts, nothing missing; epoch and fusion weight chosen here", **metrics},
        data="MVSA (Niu et al. 2016), train split; research use", command=shlex.join(["python", "-m", "train", *sys.argv[1:]]))
    print(f"wrote {args.out}: epoch {best.epoch}, fusion weight {config.image_weight}, valid accuracy {metrics['fusion']['accuracy']:.4f}")
