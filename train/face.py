"""`python -m train face`: train the expression network on FER2013's crops, and measure it on any split of them."""

from __future__ import annotations

import csv
import hashlib
import math
import shlex
import sys
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from msademo.backbones.expression import CROP, EXPRESSIONS, ExpressionConfig, ExpressionNet, load_expression, save_expression
from msademo.checkpoint import file_hash, read_checkpoint
from msademo.errors import InputError
from train.execution import add_execution_arguments, execution_of
from train.loop import Schedule, best_device, fit, swap_in, trained_weights

TERMS = "FER2013 (Goodfellow et al. 2013), duplicates across splits removed; research use"
PROTOCOL = "FER2013 faces of the given split, one 48x48 crop a face, mean over four windows of it, 7 classes"


@dataclass(frozen=True)
class Faces:
    """images (N, 48, 48) uint8 grey; labels (N,) int64, positions in EXPRESSIONS; files: the names in fer2013.csv."""

    images: np.ndarray
    labels: np.ndarray
    files: tuple[str, ...]


def read_faces(data_dir: str | Path, split: str, cache: str | Path = ".cache") -> Faces:
    """The faces of one split of DIR/faces (fer2013.csv and fer2013.zip); decoded once, then read from `cache`.

    Raises InputError when a file is absent, a row names no member of the zip, or an expression is unknown.
    """
    folder = Path(data_dir) / "faces"
    table, archive = folder / "fer2013.csv", folder / "fer2013.zip"
    for file in (table, archive):
        if not file.is_file():
            raise InputError(f"There is no {file.name} in {folder}; give a --data folder that holds faces/{file.name}.")
    with open(table, newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row.get("mode") == split]
    if not rows:
        raise InputError(f"{table} has no rows of mode {split}; choose a split it has.")
    unknown = sorted({row.get("expression") for row in rows} - set(EXPRESSIONS), key=str)
    if unknown:
        raise InputError(f"{table} names the expression {unknown[0]}; it must be one of {', '.join(EXPRESSIONS)}.")
    files = tuple(row["file"] for row in rows)
    labels = np.array([EXPRESSIONS.index(row["expression"]) for row in rows])
    stamp = archive.stat()
    key = hashlib.sha256("\n".join((f"{stamp.st_size} {stamp.st_mtime_ns}", *files)).encode()).hexdigest()[:16]
    cached = Path(cache) / f"faces-{split}-{key}.npy"
    if cached.is_file():
        return Faces(np.load(cached, allow_pickle=False), labels, files)
    images = decode(archive, files)
    cached.parent.mkdir(parents=True, exist_ok=True)
    np.save(cached, images)
    return Faces(images, labels, files)


def decode(archive: Path, files: tuple[str, ...]) -> np.ndarray:
    images = np.empty((len(files), CROP, CROP), np.uint8)
    try:
        with zipfile.ZipFile(archive) as members:
            for index, file in enumerate(files):
                image = cv2.imdecode(np.frombuffer(members.read(file), np.uint8), cv2.IMREAD_GRAYSCALE)
                if image is None or image.shape != (CROP, CROP):
                    raise InputError(f"{file} in {archive.name} is no {CROP} x {CROP} picture; restore the archive.")
                images[index] = image
    except (KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{archive} lacks a picture that its table names, or is damaged; restore the archive.") from error
    return images


@dataclass(frozen=True)
class Augmentation:
    """How far training crops are moved from the originals. Shares are of samples; it is drawn per sample.

    A real clip brings what studio-like FER crops lack: faces that were small or blurred, dark or flat pictures, the
    blocks of a codec, and an alignment that is a little off.
    """

    side: int = 40               # pixels of the random window trained on; whole crops are used at inference
    rotation: float = 12.0       # degrees either way
    zoom: float = 0.16           # log of the scale, either way
    stretch: float = 0.08        # log of width to height, either way
    shift: float = 2.0           # pixels beyond where the window already moves inside the crop
    low_resolution: float = 0.15 # share shrunk to 14...30 pixels and enlarged again
    light: float = 0.4           # share with another gamma, contrast and brightness
    noise: float = 0.15          # share with sensor noise
    codec: float = 0.12          # share compressed as a poor JPEG
    erase: float = 0.3           # share with a grey rectangle over it

    def scaled(self, strength: float) -> "Augmentation":
        """The same window, everything else `strength` times as strong."""
        return Augmentation(self.side, **{name: value * strength for name, value in asdict(self).items() if name != "side"})


def uniform(generator: torch.Generator, count: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator, device=generator.device)


def augment(images: Tensor, generator: torch.Generator, how: Augmentation) -> Tensor:
    """images (B, 48, 48) uint8 -> (B, 1, side, side) float in [0, 1], each with its own random changes; on the generator's device."""
    x = images[:, None].float() / 255
    x = move(x, generator, how)
    count = len(x)

    def chosen(share: float) -> Tensor:
        return (uniform(generator, count, 0, 1) < share)[:, None, None, None]

    small = int(uniform(generator, 1, 14, 31))
    coarse = F.interpolate(F.interpolate(x, size=small, mode="area"), size=how.side, mode="bilinear")
    x = torch.where(chosen(how.low_resolution), coarse, x)
    gamma, contrast, brightness = (uniform(generator, count, *span)[:, None, None, None].exp()
                                   for span in ((-0.6, 0.6), (-0.6, 0.3), (-0.6, 0.3)))
    lit = (((x.clamp(1e-4, 1) ** gamma) * brightness - 0.5) * contrast + 0.5).clamp(0, 1)
    x = torch.where(chosen(how.light), lit, x)
    noise = torch.randn(x.shape, generator=generator, device=x.device) * uniform(generator, count, 0, 0.08)[:, None, None, None]
    x = torch.where(chosen(how.noise), (x + noise).clamp(0, 1), x)
    x = torch.where(chosen(how.codec), compress(x, uniform(generator, count, 8, 46)), x)
    return erase(x, chosen(how.erase), generator)


def move(x: Tensor, generator: torch.Generator, how: Augmentation) -> Tensor:
    """A random window of each crop, turned, scaled, stretched, shifted and perhaps mirrored. (B,1,48,48) -> (B,1,side,side)"""
    count = len(x)
    angle = uniform(generator, count, -how.rotation, how.rotation) * math.pi / 180
    scale = uniform(generator, count, -how.zoom, how.zoom).exp() * how.side / CROP
    stretch = uniform(generator, count, -how.stretch, how.stretch).exp()
    mirror = torch.where(uniform(generator, count, 0, 1) < 0.5, -1.0, 1.0)
    # affine_grid counts in half sides: the window may slide as far as the crop leaves room, and `shift` pixels more.
    room = (CROP - how.side) / CROP + 2 * how.shift / CROP
    sideways, upright = (uniform(generator, count, -room, room) for _ in range(2))
    cos, sin = angle.cos() * scale, angle.sin() * scale
    theta = torch.stack([torch.stack([cos * stretch * mirror, -sin, sideways], -1),
                         torch.stack([sin * mirror, cos / stretch, upright], -1)], 1)
    grid = F.affine_grid(theta, [count, 1, how.side, how.side], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


# How coarsely JPEG rounds the 8 x 8 frequencies of brightness at quality 50 (ITU-T T.81, Annex K).
JPEG_STEPS = torch.tensor([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92], [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99.]])


def compress(x: Tensor, quality: Tensor) -> Tensor:
    """What a JPEG of the given quality (B,), 1 to 50, leaves of grey pictures x (B, 1, S, S), S a multiple of 8."""
    count, side = len(x), x.shape[-1]
    place = torch.arange(8, device=x.device)
    cosine = torch.cos(math.pi / 8 * (place[None, :] + 0.5) * place[:, None]) / 2
    cosine[0] /= math.sqrt(2)                                               # the orthonormal DCT-II of 8 places
    blocks = (x * 255 - 128).reshape(count, side // 8, 8, side // 8, 8).transpose(2, 3)
    steps = (JPEG_STEPS.to(x.device) * (50 / quality)[:, None, None]).clamp(1, 255).round()[:, None, None]
    left = cosine.T @ ((cosine @ blocks @ cosine.T / steps).round() * steps) @ cosine
    return ((left.transpose(2, 3).reshape(x.shape) + 128) / 255).clamp(0, 1)


def erase(x: Tensor, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """A rectangle of 4 to 15 pixels a side goes grey: a hand, a microphone, a subtitle (Zhong et al. 2017)."""
    count, side = len(x), x.shape[-1]
    covered = []
    for _ in range(2):
        length = uniform(generator, count, 4, 15)
        start = uniform(generator, count, 0, 1) * (side - length)
        places = torch.arange(side, device=x.device)[None, :]
        covered.append((places >= start[:, None]) & (places < (start + length)[:, None]))
    rectangle = (covered[0][:, :, None] & covered[1][:, None, :])[:, None]
    grey = uniform(generator, count, 0, 1)[:, None, None, None]
    return torch.where(rectangle & chosen, grey, x)


def class_weights(labels: np.ndarray, power: float) -> Tensor:
    """(7,) weights proportional to frequency ** -power, with mean 1 over the samples; 0 for a class that never occurs."""
    counts = np.bincount(labels, minlength=len(EXPRESSIONS)).astype(np.float64)
    weights = np.where(counts > 0, np.maximum(counts, 1) ** -power, 0)
    return torch.tensor(weights * counts.sum() / (weights * counts).sum(), dtype=torch.float32)


def expression_metrics(labels: np.ndarray, predicted: np.ndarray) -> dict:
    """accuracy; macro_recall over the classes that occur; per_class recall, precision (0 when never predicted) and n."""
    per_class = {}
    for index, name in enumerate(EXPRESSIONS):
        true, said = labels == index, predicted == index
        hits = float((true & said).sum())
        per_class[name] = {"recall": hits / max(1, true.sum()), "precision": hits / max(1, said.sum()), "n": int(true.sum())}
    recalls = [value["recall"] for value in per_class.values() if value["n"]]
    return {"accuracy": float((labels == predicted).mean()), "macro_recall": float(np.mean(recalls)), "per_class": per_class}


def classify(net: ExpressionNet, images: np.ndarray) -> np.ndarray:
    """images (N, 48, 48) uint8 -> probabilities (N, 7), as the demo computes them."""
    device = next(net.parameters()).device
    size = 32 if device.type == "cpu" else 1024           # what stays in a processor's cache, and what fills a GPU
    parts = [net.predict(torch.from_numpy(images[start:start + size, None]).to(device).float() / 255)[1]
             for start in range(0, len(images), size)]
    return torch.cat(parts).cpu().numpy()


def evaluate_face(checkpoint: str | Path, data_dir: str | Path, split: str = "test") -> dict:
    """-> {"accuracy", "macro_recall", "per_class": {name: {"recall", "precision", "n"}}, "n", "protocol"}"""
    net = load_expression(checkpoint).to(best_device())
    faces = read_faces(data_dir, split)
    metrics = expression_metrics(faces.labels, classify(net, faces.images).argmax(1))
    return {**metrics, "n": len(faces.labels), "split": split, "protocol": PROTOCOL}


@dataclass(frozen=True)
class Fold:
    """One of `parts` equal parts of the training faces, the one that a teacher does not see."""

    part: int
    parts: int

    def __post_init__(self):
        if self.parts < 2 or not 0 <= self.part < self.parts:
            raise InputError(f"Part {self.part} of {self.parts} cannot be kept apart; there are 2 or more, counted from 0: --fold 0/4 to 3/4.")

    @classmethod
    def read(cls, text: str) -> Fold:
        part, _, parts = text.partition("/")
        if not (part.isdecimal() and parts.isdecimal()):
            raise InputError(f"--fold {text} names no part; write it as 0/4.")
        return cls(int(part), int(parts))

    def of(self, count: int) -> np.ndarray:
        """(count,) bool: which faces are in it."""
        return np.arange(count) % self.parts == self.part


@dataclass
class FaceTask:
    """What train.loop.fit needs: random windows of the training faces, a weighted cross-entropy, accuracy on valid.

    teachers: networks of which number k has not seen the faces of fold k; `trust` of each target is what the one that has not seen the
    face says of the very same window (Hinton et al. 2015), the rest the label. So a doubtful label is softened by who could not have
    learnt it by heart, and the network becomes about as sure of training faces as of others.
    """

    train: Faces
    valid: Faces
    model: ExpressionNet
    size: int = 64
    seed: int = 1111
    balance: float = 0.5
    smoothing: float = 0.1
    how: Augmentation = field(default_factory=Augmentation)
    teachers: Sequence[ExpressionNet] = ()
    trust: float = 0.5
    name: str = "face"

    def __post_init__(self):
        self.steps_per_epoch = max(1, len(self.train.labels) // self.size)
        self.device = next(self.model.parameters()).device
        self.weights = class_weights(self.train.labels, self.balance).to(self.device)
        self.images, self.labels = torch.from_numpy(self.train.images).to(self.device), torch.from_numpy(self.train.labels).to(self.device)
        folds = [Fold(k, len(self.teachers)) for k in range(len(self.teachers))]
        self.unseen = [torch.from_numpy(fold.of(len(self.train.labels))).to(self.device) for fold in folds]

    def batches(self, epoch: int):
        generator = torch.Generator(self.device).manual_seed(self.seed * 100_003 + epoch)
        order = torch.randperm(len(self.labels), generator=generator, device=self.device)
        for step in range(self.steps_per_epoch):
            rows = order[step * self.size:(step + 1) * self.size]
            yield augment(self.images[rows], generator, self.how), rows

    @torch.no_grad()
    def targets(self, crops: Tensor, rows: Tensor) -> Tensor:
        """(B, 7) what the network is to say of the crops (B, 1, S, S) of these training faces (B,)."""
        labels = F.one_hot(self.labels[rows], len(EXPRESSIONS)).float()
        given = labels * (1 - self.smoothing) + self.smoothing / len(EXPRESSIONS)
        if not self.teachers:
            return given
        said = torch.zeros_like(given)
        for unseen, teacher in zip(self.unseen, self.teachers):
            part = unseen[rows].nonzero()[:, 0]
            if len(part):                               # a small batch may hold no face of a fold
                said[part] = teacher(crops[part])[1].float().softmax(-1)
        return self.trust * said + (1 - self.trust) * labels

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        crops, rows = batch
        return F.cross_entropy(self.model(crops)[1].float(), self.targets(crops, rows), self.weights)

    def validate(self) -> dict[str, float]:
        metrics = expression_metrics(self.valid.labels, classify(self.model, self.valid.images).argmax(1))
        score = (metrics["accuracy"] + metrics["macro_recall"]) / 2
        return {"score": score, "accuracy": metrics["accuracy"], "macro_recall": metrics["macro_recall"]}


def add_arguments(parser) -> None:
    parser.add_argument("--data", default="../shared/data", help="folder that holds faces/fer2013.csv and faces/fer2013.zip")
    parser.add_argument("--out", default="checkpoints/face.safetensors", help="checkpoint to write")
    parser.add_argument("--work", default="runs/face", help="folder of the resumable state")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--batch", type=int, default=64, help="faces a step")
    parser.add_argument("--balance", type=float, default=0.5, help="classes weigh frequency ** -BALANCE in the loss")
    parser.add_argument("--augment", type=float, default=1.0, help="strength of the augmentation, 0 to 1")
    parser.add_argument("--widths", type=int, nargs="+", default=None, help=f"channels of the stages (default: {ExpressionConfig.widths})")
    parser.add_argument("--blocks", type=int, nargs="+", default=None, help=f"residual blocks of the stages (default: {ExpressionConfig.blocks})")
    parser.add_argument("--stride", type=int, choices=(1, 2), default=None, help=f"pixels that the first convolution moves at a time (default: {ExpressionConfig.stride})")
    parser.add_argument("--fold", default=None, metavar="K/N", help="train a teacher that does not see part K of N of the training faces")
    parser.add_argument("--teachers", type=Path, nargs="+", default=(), metavar="FILE", help="learn from these too: the teachers of all folds, in their order")
    parser.add_argument("--trust", type=float, default=None, help=f"weight of what a teacher says against the label, 0 to 1 (default: {FaceTask.trust})")
    parser.add_argument("--start", default=None, help="checkpoint to go on from instead of random weights")
    parser.add_argument("--average", action="store_true", help="keep the mean of the trained weights and --start's where valid says it is better")
    parser.add_argument("--seed", type=int, default=1111)
    add_execution_arguments(parser)


def averaged(task: FaceTask, start: str) -> bool:
    """Put the mean of the model's weights and the start's into the model where valid says it is better (Wortsman et al. 2022): both lie in
    one valley, and the mean lies lower. True if it did."""
    before = load_expression(start).state_dict()
    own, score = trained_weights(task.model), task.validate()["score"]
    swap_in(task.model, {name: ((value.double() + before[name].to(value.device).double()) / 2).to(value.dtype) for name, value in own.items()})
    if task.validate()["score"] > score:
        return True
    swap_in(task.model, own)
    return False


def without(faces: Faces, fold: Fold | None) -> Faces:
    if fold is None:
        return faces
    seen = ~fold.of(len(faces.labels))
    return Faces(faces.images[seen], faces.labels[seen], tuple(file for file, kept in zip(faces.files, seen) if kept))


def load_teachers(paths: Sequence[Path], faces: int, device: torch.device) -> list[ExpressionNet]:
    """Frozen networks, number k of which has not seen fold k of the training faces. InputError where these are other folds, or of other faces."""
    for k, path in enumerate(paths):
        told = read_checkpoint(path).meta.get("settings", {})
        if told.get("fold") != [k, len(paths)] or told.get("faces") != faces:
            raise InputError(f"{path.name} is not the teacher of part {k} of {len(paths)} of these {faces} faces; train it by --fold {k}/{len(paths)}.")
    return [load_expression(path).requires_grad_(False).to(device) for path in paths]


def run(args) -> None:
    if args.average and not args.start:
        raise InputError("--average takes the mean with the weights of --start; give that too.")
    if args.fold and args.teachers:
        raise InputError("--fold trains a teacher and --teachers its pupil, who sees all faces; give one of them.")
    if args.trust is not None and not args.teachers:
        raise InputError("--trust says how much teachers count; give --teachers too.")
    trust = FaceTask.trust if args.trust is None else args.trust
    layout = {name: getattr(args, name) for name in ("widths", "blocks", "stride") if getattr(args, name) is not None}
    if args.start and layout:
        raise InputError(f"The network of --start has its layout already; leave out --{' and --'.join(layout)}.")
    if args.batch < 2 or args.balance < 0 or not 0 <= args.augment <= 1 or not 0 <= trust <= 1:
        raise InputError(f"Batch {args.batch}, balance {args.balance}, augmentation {args.augment} and trust {trust} cannot be trained; give "
                         "--batch 2 or more, --balance 0 or more, --augment and --trust from 0 to 1.")
    schedule = Schedule(epochs=args.epochs, lr=args.lr, weight_decay=0.05, warmup=0.08, clip=2.0, ema=0.998, seed=args.seed,
                        execution=execution_of(args))
    torch.manual_seed(args.seed)
    net = load_expression(args.start) if args.start else ExpressionNet(ExpressionConfig(**layout))
    fold = Fold.read(args.fold) if args.fold else None
    device, faces = best_device(), read_faces(args.data, "train")
    teachers = load_teachers(args.teachers, len(faces.labels), device)
    task = FaceTask(without(faces, fold), read_faces(args.data, "valid"), net.to(device),
                    size=args.batch, seed=args.seed, balance=args.balance, how=Augmentation().scaled(args.augment), teachers=teachers, trust=trust)
    settings = {"batch": args.batch, "balance": args.balance, "smoothing": task.smoothing, "augmentation": asdict(task.how), "faces": len(faces.labels)}
    if fold:
        settings["fold"] = [fold.part, fold.parts]
    if teachers:
        settings |= {"teachers": [file_hash(path) for path in args.teachers], "trust": trust}
    if args.start:
        before = read_checkpoint(args.start).meta
        settings["start"] = {"sha256": file_hash(args.start), **{key: before.get(key) for key in ("command", "schedule", "settings", "epoch")}}
    fitted = fit(task, schedule, args.work, settings)
    mean = args.average and averaged(task, args.start)
    metrics = expression_metrics(task.valid.labels, classify(task.model, task.valid.images).argmax(1))
    save_expression(args.out, task.model, metrics={**metrics, "n": len(task.valid.labels), "split": "valid", "protocol": PROTOCOL},
                    data=TERMS, command=shlex.join(["python", "-m", "train", *sys.argv[1:]]), seed=args.seed,
                    schedule=asdict(schedule), settings=settings, epoch=fitted.epoch, averaged_with_start=mean)
    print(f"{args.out}: accuracy {metrics['accuracy']:.4f}, macro recall {metrics['macro_recall']:.4f} on valid, epoch {fitted.epoch}")
