"""What the trainers of PGMF's teacher, student and ablation share.

Training clips come from fixed compositions, so that each has its prompt, written from the complete clip before anything is taken
away. Students of an ablation are trained side by side: the same batches and one pass of the frozen teacher serve them all.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Sequence

import numpy as np
import torch
from torch import nn

from msademo.checkpoint import file_hash, read_checkpoint
from msademo.errors import InputError
from msademo.explain import js_divergence
from msademo.features.bundle import collate
from msademo.features.text import TextTokens
from msademo.models.pgmf import PGMF, SOURCES, STUDENT_LAYERS, PGMFConfig, distillation
from msademo.registry import FusionModel, load_fusion
from train.clips import VALID_RATES, ClipTask, add_clip_arguments, clip_settings, close_from, save_clip_model
from train.compose import Composition
from train.execution import execution_of
from train.loop import Schedule, best_device, fit
from train.processes import main_first
from train.prompts import COMPOSITIONS, PromptBook
from train.words import Masking

BATCH = 64
SHARED = ("dims", "width", "heads", "head_width")                   # what maps and fusion tokens of two models must share to be compared


class GuidedTask(ClipTask):
    """Clips of the fixed compositions with their prompts; texts of a batch are alike in how many words are left of them, since
    PGMF carries only what is visible."""

    def __init__(self, name: str, build, args, masking: Masking, book: PromptBook | None, say=print):
        super().__init__(name, build, args.data, args.text, args.face, args.cache, masking, Composition(), args.seed, BATCH, say=say,
                         compositions=COMPOSITIONS, book=book, close_from=close_from(args))

    def size(self, tokens: TextTokens, gone: np.ndarray) -> int:
        return len(tokens) - int(tokens.missing(gone).sum())


class Students(nn.Module):
    """Models trained side by side, by name."""

    def __init__(self, members: dict[str, PGMF]):
        super().__init__()
        self.names, self.members = tuple(members), nn.ModuleList(members.values())


class StudentTask(GuidedTask):
    """Students of one frozen teacher, standardised by its statistics. build(dims) -> Students."""

    def __init__(self, name: str, build, args, masking: Masking, book: PromptBook | None, teacher: FusionModel, say=print):
        self.teacher, self.known = teacher.model.to(best_device()), teacher.statistics
        super().__init__(name, build, args, masking, book, say)

    def measure(self):
        return self.known

    def loss(self, batch, counts: torch.Tensor | None = None) -> torch.Tensor:
        """The sum of the students' losses (13); each is optimised on its own."""
        assert not self.teacher.training and not any(p.requires_grad for p in self.teacher.parameters()), "the teacher is frozen and in eval mode"
        students = self.model.members
        attended = any(member.config.alpha for member in students)
        guide = None
        if attended or any(member.config.beta for member in students):
            with torch.no_grad():
                guide = self.teacher.align(batch, "last" if attended else "none")
        found = (distillation(member.align(batch, "last" if member.config.alpha else "none"), guide, batch.score, member.config.alpha, member.config.beta)
                 for member in students)
        return sum(self.weighted(losses, batch, counts)["total"] for losses in found)

    def validate(self) -> dict[str, float]:
        """Means over the students; those of each by "name:" where there are several."""
        found = {name: self.measure_valid(member, guided=False) for name, member in zip(self.model.names, self.model.members)}
        report = {key: float(np.mean([row[key] for row in found.values()])) for key in next(iter(found.values()))}
        if len(found) > 1:
            report |= {f"{name}:{key}": value for name, row in found.items() for key, value in row.items()}
        return report

    @torch.inference_mode()
    def divergence(self) -> dict[str, dict[str, float]]:
        """Per student the Jensen-Shannon divergence (bits) of its last layer's maps from the teacher's W_con, a mean over visible words,
        heads and clips of valid: of each source with everything there, and of both over VALID_RATES."""
        sums = {name: {} for name in self.model.names}
        for rate, clips, masks, words, prompts in self.valid:
            if rate not in VALID_RATES:
                continue
            for start in range(0, len(clips), BATCH):
                part = slice(start, start + BATCH)
                text = nn.utils.rnn.pad_sequence(list(words[part]), batch_first=True)
                batch = collate(clips[part], masks[part], text, self.statistics, prompts=None if prompts is None else prompts[part])
                guide = self.teacher.align(batch, "last")
                for name, member in zip(self.model.names, self.model.members):
                    own = member.align(batch, "last")
                    for m in SOURCES:
                        apart = js_divergence(own.maps[m][-1].cpu().numpy(), guide.maps[m][-1].cpu().numpy()).mean(1)      # (B, Q)
                        real = (~own.rows).cpu().numpy()
                        sums[name].setdefault((rate, m), []).extend((apart * real).sum(1) / real.sum(1))
        mean = lambda values, keep: float(np.mean([v for key, part in values.items() if keep(*key) for v in part]))
        return {name: {**{f"js_{m}": mean(values, lambda rate, source, m=m: rate == 0.0 and source == m) for m in SOURCES},
                       "js": mean(values, lambda rate, source: rate == 0.0), "js_rates": mean(values, lambda rate, source: True)}
                for name, values in sums.items()}


def students_of(members: dict[str, tuple[int, dict]]):
    """build(dims) for StudentTask: per name the seed of its weights and what its config changes."""
    def build(dims) -> Students:
        made = {}
        for name, (seed, changes) in members.items():
            torch.manual_seed(seed)
            made[name] = PGMF(PGMFConfig(guided=False, dims=dims, **{**STUDENT_LAYERS, **changes}))
        return Students(made)
    return build


def check_same_shape(student: PGMFConfig, teacher: PGMFConfig, name: str) -> None:
    """InputError naming both when their attention maps or fusion tokens cannot be held against each other."""
    for part in SHARED:
        own, other = (dict(value) if part == "dims" else value for value in (getattr(student, part), getattr(teacher, part)))
        if own != other:
            raise InputError(f"A student with {part} {own} cannot learn from the teacher {name} with {part} {other}; give a teacher of the student's shape.")


def load_teacher(args) -> tuple[FusionModel, PromptBook | None, dict]:
    """The teacher, the prompts it needs (None for one trained without), and how a student's checkpoint names them.
    InputError when its extractors are others than the student's."""
    kind = read_checkpoint(args.teacher).method
    if kind != "pgmf-teacher":
        raise InputError(f"The student pgmf-student cannot learn from {Path(args.teacher).name}, which holds a {kind} model; give a pgmf-teacher checkpoint.")
    teacher = load_fusion(args.teacher, args.text, args.face, kind)
    book = PromptBook.read(args.prompts) if teacher.model.config.guided else None
    return teacher, book, {"teacher": {"file": Path(args.teacher).name, "sha256": file_hash(args.teacher)}, "guidance": guidance_of(book, args.prompts)}


def guidance_of(book: PromptBook | None, path: Path) -> dict | None:
    """What a checkpoint tells of the prompts it was trained with."""
    return None if book is None else {"source": book.source, "file": Path(path).name, "sha256": file_hash(path), "prompts": len(book),
                                      "protocol": "each prompt was written from the complete clip"}


def schedule_of(args) -> Schedule:
    return Schedule(epochs=args.epochs, lr=args.lr, weight_decay=0.05, ema=0.995, seed=args.seed, execution=execution_of(args))


def masking_of(args) -> Masking:
    return replace(Masking(), highest=args.highest)


def add_shared_arguments(parser: argparse.ArgumentParser, name: str, epochs: int, lr: float) -> None:
    add_clip_arguments(parser, name, epochs=epochs, lr=lr)
    parser.add_argument("--prompts", type=Path, default=Path("checkpoints/prompts.jsonl.gz"), help="the corpus's prompts, as `guidance` writes them")
    parser.add_argument("--highest", type=float, default=Masking.highest, help="highest missing rate in training; the paper's is 0.5 (MOSI, MOSEI) or 0.7 (SIMS)")


def train_students(args: argparse.Namespace, name: str, members: dict[str, tuple[int, dict]], paths: Sequence[Path]) -> StudentTask:
    """Train students side by side and write each one's checkpoint. All are kept at the epoch that is best on average."""
    masking, schedule = masking_of(args), schedule_of(args)
    teacher, book, origin = load_teacher(args)
    for _, changes in members.values():
        check_same_shape(PGMFConfig(guided=False, dims=teacher.model.config.dims, **{**STUDENT_LAYERS, **changes}), teacher.model.config, Path(args.teacher).name)
    with main_first():
        task = StudentTask(name, students_of(members), args, masking, book, teacher)
    settings = clip_settings(args, masking, BATCH, members={key: [seed, changes] for key, (seed, changes) in members.items()},
                             config=asdict(task.model.members[0].config), compositions=COMPOSITIONS, **origin)
    best = fit(task, schedule, args.work, settings)
    for key, member, path in zip(members, task.model.members, paths):
        metrics = best.metrics if len(members) == 1 else {part.removeprefix(f"{key}:"): value for part, value in best.metrics.items() if part.startswith(f"{key}:")}
        config = asdict(member.config)
        save_clip_model(path, task, "pgmf-student", config, member, best, metrics, args, schedule, settings,
                        f" --highest {args.highest} --teacher {Path(args.teacher).name} --alpha {config['alpha']} --beta {config['beta']}", **origin)
    return task


def add_student_arguments(parser: argparse.ArgumentParser) -> None:
    """Beside add_shared_arguments, what distillation needs."""
    parser.add_argument("--teacher", type=Path, default=Path("checkpoints/pgmf_teacher.safetensors"), help="the trained teacher")
    parser.add_argument("--alpha", type=float, default=PGMFConfig.alpha, help="weight of the attention transfer (10); the paper's is 100, for SIMS 60")
    parser.add_argument("--beta", type=float, default=PGMFConfig.beta, help="weight of the fused token's matching (11); the paper's is 4, for SIMS 8")
