"""Folders of labelled clips: read, divided into splits, and taken apart once, in parallel, into a cache that can be resumed.

    label.csv + Raw/<video_id>/<clip_id>.mp4    MOSI, MOSEI, SIMS as published: columns video_id, clip_id, text, label, mode
    labels.csv + media beside it                one's own: columns file, text, label, and if you like split, and speaker or video_id

The table is read as the page's Errors tab reads it. Without a column of words the speech is recognised; with one it never is.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Sequence

import numpy as np

from msademo.backbones.voice import beside
from msademo.checkpoint import file_hash
from msademo.errors import InputError
from msademo.study.sets import CLIP, Item, inside, read_folder_set, rows_of
from train.data import SPLITS
from train.jobs import CACHE, Job, code_mark, make_all

TABLES = ("labels.csv", "label.csv")
SPLIT_NAMES = {**{name: name for name in SPLITS}, "val": "valid", "validation": "valid", "dev": "valid"}
HELD_OUT = {"test": 0.1, "valid": 0.1}              # shares of a folder without splits
SPLIT_SEED = 1111
GROUPS = ("speaker", "video_id")                    # who must not be in two splits


@dataclass(frozen=True)
class Folder:
    """A labelled folder. items and splits (of SPLITS) stand side by side; limit: scores lie in [-limit, limit]; division: how it was split."""

    root: Path
    items: tuple[Item, ...]
    splits: tuple[str, ...]
    limit: float
    division: str

    @property
    def name(self) -> str:
        return self.root.resolve().name

    def counts(self) -> str:
        return ", ".join(f"{name} {self.splits.count(name)}" for name in SPLITS if name in self.splits)


def table_of(root: Path) -> Path | None:
    """The table of a labelled folder; None where it has none."""
    return next((root / name for name in TABLES if (root / name).is_file()), None)


def read_folder(root: str | Path, limit: float | None = None) -> Folder:
    """The folder's rows with their splits. limit: told (3 or 1), or derived: 1 where no label is beyond it. InputError for what cannot be used."""
    root = Path(root)
    table = table_of(root)
    if table is None:
        raise InputError(f"{root} has neither label.csv (video_id, clip_id, text, label, mode, beside Raw/VIDEO/CLIP.mp4) nor labels.csv (file, text, label).")
    found = read_folder_set(root.name, table, root=root)
    if found.kind != CLIP:
        raise InputError(f"{table} labels posts by classes; its models are trained by `python -m train spro`, and clips have scores for labels.")
    highest = max(found.items, key=lambda item: abs(item.label))
    derived = 1.0 if abs(highest.label) <= 1 else 3.0
    if limit is not None and abs(highest.label) > limit:
        raise InputError(f"{table}: the label of {highest.key!r} is {highest.label:g}; expected scores in [-{limit:g}, {limit:g}] (does --config or --scale name another one?).")
    splits, division = splits_of(found.items, table)
    return Folder(root, found.items, splits, limit or derived, division)


def splits_of(items: Sequence[Item], table: Path) -> tuple[tuple[str, ...], str]:
    """A split for each of a table's items: what it names, or a division; and how to say so."""
    named = [SPLIT_NAMES.get(item.split) for item in items]
    wrong = [item for item, split in zip(items, named) if split is None and item.split]
    if wrong:
        raise InputError(f"{table}: {wrong[0].key!r} is in the split {wrong[0].split[:40]!r}; expected train, valid or test in the column split (or mode).")
    if not any(named):
        return divide([row for _, row in rows_of(table.read_bytes())], table)
    if not all(named):
        raise InputError(f"{table}: {named.count(None)} of {len(named)} rows name no split, {items[named.index(None)].key!r} for one; name one in every row, or in none.")
    return tuple(named), "as the table names them"


def divide(rows: Sequence[dict[str, str]], table: Path) -> tuple[tuple[str, ...], str]:
    """A split a row, 8:1:1 by a fixed seed, no speaker (else no video) in two of them; and how to say so."""
    column = next((name for name in GROUPS if any(row.get(name) for row in rows)), None)
    owners = [row.get(column) or f"row {i}" for i, row in enumerate(rows)] if column else [f"row {i}" for i in range(len(rows))]
    groups = sorted(set(owners))
    if len(groups) < len(SPLITS):
        raise InputError(f"{table} has {len(groups)} {column + 's' if column else 'rows'} and no column split; train, valid and test need one each at least.")
    waiting = [groups[i] for i in np.random.default_rng(SPLIT_SEED).permutation(len(groups))]
    split_of = dict.fromkeys(groups, "train")
    for place, (split, share) in enumerate(HELD_OUT.items(), start=1):
        taken = 0
        while taken == 0 or (taken < share * len(rows) and len(waiting) > len(SPLITS) - place):
            group = waiting.pop()
            split_of[group], taken = split, taken + owners.count(group)
    return tuple(split_of[owner] for owner in owners), f"8:1:1 by {column or 'rows'}, seed {SPLIT_SEED}, as the table names no splits"


@lru_cache(maxsize=1)
def expression_of(network: Path):
    from msademo.backbones.expression import load_expression
    return load_expression(network)


@lru_cache(maxsize=1)
def own_threads(process: int) -> None:
    """A forked process has not its parent's threads, so it must not wait for the faces they would have found."""
    from msademo.features import vision
    vision.workers.cache_clear()


def nothing() -> dict[str, np.ndarray]:
    """What a cache file of a clip holds, of a clip without voice, face and words."""
    from msademo.features.vision import VISION_NAMES
    from msademo.features.voice import VOICE_NAMES
    return {"audio": np.zeros((0, len(VOICE_NAMES)), np.float32), "audio_times": np.zeros((0, 2)), "vision": np.zeros((0, len(VISION_NAMES)), np.float32),
            "vision_times": np.zeros((0, 2)), "vision_missing": np.zeros(0, bool), "words": np.zeros(0, str)}


def clip_arrays(path: Path, recognise: bool, network: Path) -> dict[str, np.ndarray]:
    """Voice, face and, where it is wanted, the recognised words of one file, as the demo takes a clip apart."""
    from msademo.backbones.voice import opened
    from msademo.features.vision import face_track, vision_tokens
    from msademo.features.voice import voice_tokens
    from msademo.media import load_clip
    own_threads(os.getpid())
    clip = load_clip(str(path), None if recognise else "", asr=recognise)
    arrays = nothing() | {"words": np.array([word.text for word in clip.words], dtype=str)}
    if clip.audio is not None:
        heard = voice_tokens(clip.audio, opened(beside(network)))
        arrays |= {"audio": heard.values.astype(np.float32), "audio_times": heard.times}
    if len(clip.frames):
        seen = vision_tokens(face_track(clip.frames, clip.frame_times), expression_of(network), clip.frame_times)
        arrays |= {"vision": seen.values.astype(np.float32), "vision_times": seen.times, "vision_missing": seen.missing}
    return arrays


def jobs_of(folder: Folder, network: Path, cache: Path) -> list[Job | None]:
    """What is to be made for each item: a job, or None for words alone and for a file that is not there. A file is told by path, size and time of
    change, since hashing a corpus of videos takes longer than reading it."""
    from msademo import decoding, media, mel
    from msademo.backbones import expression
    from msademo.backbones import voice as voice_network
    from msademo.features import audio, vision, voice
    mark = hashlib.sha256(f"{file_hash(network)}{file_hash(beside(network))}{code_mark(mel, audio, voice, voice_network, vision, expression, decoding, media)}".encode()).hexdigest()[:12]
    jobs: list[Job | None] = []
    for item in folder.items:
        path = inside(folder.root, item.file) if item.file else None
        if path is None:
            jobs.append(None)
            continue
        about, recognise = path.stat(), item.text is None
        name = hashlib.sha256(f"{path}\n{about.st_size}\n{about.st_mtime_ns}\n{recognise}".encode()).hexdigest()[:20]
        jobs.append(Job(cache / f"clips-{mark}" / name[:2] / f"{name}.npz", clip_arrays, (path, recognise, network), item.key))
    return jobs


def make_features(folder: Folder, network: Path, cache: Path = CACHE, workers: int | None = None, say=print) -> tuple[list[Job | None], list[str]]:
    """Every item's job, done now where the cache lacks it, and the reasons of what is left out."""
    jobs = jobs_of(folder, network, cache)
    failures = [f"{item.key}: the file {item.file} is not there" for item, job in zip(folder.items, jobs) if item.file and job is None]
    return jobs, failures + make_all([job for job in jobs if job], workers or os.cpu_count() or 1, say)


def prepare(root: Path, network: Path, cache: Path, workers: int | None, say=print) -> None:
    """python -m train prepare --raw DIR."""
    folder = read_folder(root)
    say(f"prepare: {folder.name}: {folder.counts()} ({folder.division}); scores in [-{folder.limit:g}, {folder.limit:g}]")
    jobs, failures = make_features(folder, network, cache, workers, say)
    for reason in failures:
        say(f"prepare: left out - {reason}")
    ready = sum(job.target.is_file() for job in jobs if job)
    say(f"prepare: {ready} clips ready, {sum(not item.file for item in folder.items)} rows of words alone, {len(failures)} left out")
