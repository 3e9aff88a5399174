"""python -m train prepare: extract the features of a data folder once, in parallel, and keep them on disk. With --raw DIR those of a folder of
labelled clips (train/raw.py).

Each voice and each block of faces is a file of its own in the cache (train/jobs.py), and a changed extractor or a changed network
writes elsewhere.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import zipfile
from pathlib import Path
from typing import Iterator

import numpy as np

from msademo.backbones.voice import beside
from msademo.checkpoint import file_hash
from msademo.errors import InputError
from train.cluster import Cluster, add_ray_argument
from train.compose import Pool
from train.data import SPLITS, Face, Voice, read_faces, read_voices
from train.jobs import CACHE, Job, code_mark, make_all
from train.raw import prepare

VOICE_VARIANTS = 4            # the clean recording and three augmented ones
FACE_VARIANTS = 3             # the clean crop and two jittered ones
FACE_BLOCK = 1000


def variants_of(path: Path, count: int = VOICE_VARIANTS) -> Iterator[np.ndarray]:
    """The sound of a recording and of its augmented variants, `count` in all, (S,) each at SAMPLE_RATE."""
    from msademo.media import load_clip
    from train.augment import augment_voice
    wave = load_clip(str(path), transcript="").audio
    if wave is None:
        raise InputError(f"{path.name} holds no sound.")
    seed = int(hashlib.sha256(path.name.encode()).hexdigest()[:8], 16)
    for variant in range(count):
        yield wave if variant == 0 else augment_voice(wave, np.random.default_rng([seed, variant]))


def voice_arrays(path: Path, network: Path, speaker: str) -> dict[str, np.ndarray]:
    """Tokens and times of the recording and of its augmented variants, as the voice network hears a speaker it has not been trained on."""
    from msademo.backbones.voice import opened
    from msademo.features.voice import voice_tokens
    voice, arrays = opened(network), {}
    for variant, sound in enumerate(variants_of(path)):
        tokens = voice_tokens(sound, voice, voice.unheard.get(speaker))
        if not len(tokens.values):
            raise InputError(f"{path.name} is too short or silent.")
        arrays |= {f"values{variant}": tokens.values.astype(np.float32), f"times{variant}": tokens.times}
    return arrays


def jitter(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same face seen again: shifted, turned, scaled, mirrored and lit a little differently. (48, 48) uint8."""
    import cv2
    turn = cv2.getRotationMatrix2D((23.5, 23.5), rng.uniform(-8, 8), rng.uniform(0.92, 1.1))
    turn[:, 2] += rng.uniform(-2.5, 2.5, 2)
    seen = cv2.warpAffine(crop, turn, (48, 48), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if rng.random() < 0.5:
        seen = seen[:, ::-1]
    return np.clip((seen.astype(np.float32) - 128) * rng.uniform(0.8, 1.2) + 128 + rng.uniform(-15, 15), 0, 255).astype(np.uint8)


def face_variant(crop: np.ndarray, name: str, variant: int) -> np.ndarray:
    """The crop of the archive's face `name` as its variant was seen; 0 is the crop itself."""
    seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
    return crop if variant == 0 else jitter(crop, np.random.default_rng([seed, variant]))


def face_arrays(archive: Path, names: tuple[str, ...], network: Path) -> dict[str, np.ndarray]:
    """Vision tokens (n, FACE_VARIANTS, D) in half precision of a block of faces, clean and jittered; ok (n,) bool."""
    import cv2
    from msademo.backbones.expression import load_expression
    from msademo.features.vision import crop_tokens
    crops, ok = [], []
    with zipfile.ZipFile(archive) as faces:
        for name in names:
            try:
                crop = cv2.imdecode(np.frombuffer(faces.read(name), np.uint8), cv2.IMREAD_GRAYSCALE)
            except (KeyError, zipfile.BadZipFile, cv2.error):
                crop = None
            ok.append(crop is not None and crop.shape == (48, 48))
            crop = crop if ok[-1] else np.zeros((48, 48), np.uint8)
            crops += [face_variant(crop, name, v) for v in range(FACE_VARIANTS)]
    tokens = crop_tokens(np.stack(crops), load_expression(network))
    return {"values": tokens.reshape(len(names), FACE_VARIANTS, -1).astype(np.float16), "ok": np.array(ok)}


def voice_target(voice: Voice, network: Path, cache: Path) -> Path:
    from msademo import mel
    from msademo.backbones import voice as network_code
    from msademo.features import audio
    from msademo.features import voice as features
    from train import augment
    mark = hashlib.sha256(f"{file_hash(network)}{code_mark(mel, audio, features, network_code, augment)}".encode()).hexdigest()[:12]
    return cache / f"voices-{mark}" / f"{voice.path.parent.name}-{voice.path.stem}-{file_hash(voice.path)[:16]}.npz"


def face_blocks(data: Path, faces: list[Face], network: Path, cache: Path) -> list[Job]:
    from msademo.backbones import expression
    from msademo.features import vision
    archive = Path(data) / "faces" / "fer2013.zip"
    if not archive.is_file():
        raise InputError(f"There is no {archive}; give --data a folder laid out as the README says.")
    mark = hashlib.sha256(f"{file_hash(archive)}{file_hash(network)}{code_mark(expression, vision)}".encode()).hexdigest()[:12]
    jobs = []
    for start in range(0, len(faces), FACE_BLOCK):
        names = tuple(face.file for face in faces[start:start + FACE_BLOCK])
        block = hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]
        jobs.append(Job(cache / f"faces-{mark}" / f"{block}.npz", face_arrays, (archive, names, network), f"faces {names[0]}..."))
    return jobs


def load_pool(data: Path, split: str, network: Path, cache: Path = CACHE, workers: int | Cluster | None = None, say=print) -> Pool:
    """The voices and faces of one split as features, extracted now if the cache lacks them. network: the expression network; the voice network lies beside it."""
    data, hearing = Path(data), beside(network)
    voices, faces = read_voices(data, split), read_faces(data, split)
    if not voices or not faces:
        raise InputError(f"{data} has no {split} rows in {'voices' if not voices else 'faces'}; choose another --split.")
    blocks = face_blocks(data, faces, network, cache)
    targets = [voice_target(voice, hearing, cache) if voice.path.is_file() else None for voice in voices]
    jobs = [Job(target, voice_arrays, (voice.path, hearing, voice.speaker), voice.path.name) for voice, target in zip(voices, targets) if target]
    failures = make_all(jobs + blocks, workers or os.cpu_count() or 1, say)
    failures += [f"{voice.path.name}: the file is not there" for voice, target in zip(voices, targets) if not target]
    for reason in failures:
        say(f"prepare: left out - {reason}")
    usable = [(voice, np.load(target)) for voice, target in zip(voices, targets) if target and target.is_file()]
    variants = range(VOICE_VARIANTS)
    kept, values = [], []
    for job, start in zip(blocks, range(0, len(faces), FACE_BLOCK)):
        if job.target.is_file():
            block = np.load(job.target)
            values.append(block["values"][block["ok"]])
            kept += [face for face, ok in zip(faces[start:start + FACE_BLOCK], block["ok"]) if ok]
    if not usable or not kept:
        raise InputError(f"None of the {'voices' if not usable else 'faces'} of {data} could be read; see the reasons above.")
    return Pool(voices=[[arrays[f"values{v}"] for v in variants] for _, arrays in usable],
                voice_times=[[arrays[f"times{v}"] for v in variants] for _, arrays in usable],
                voice_emotion=np.array([voice.emotion for voice, _ in usable]),
                voice_strong=np.array([voice.strong for voice, _ in usable]),
                faces=np.concatenate(values), face_emotion=np.array([face.expression for face in kept]), voice_file=[f"{voice.path.parent.name}/{voice.path.name}" for voice, _ in usable], face_file=[face.file for face in kept])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder with voices/ and faces/")
    source.add_argument("--raw", type=Path, help="folder of labelled clips: label.csv and Raw/ as MOSI, MOSEI and SIMS are published, or labels.csv and media")
    parser.add_argument("--face", type=Path, default=Path("checkpoints/face.safetensors"), help="the expression network; the voice network is the voice.safetensors beside it")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    add_ray_argument(parser)


def run(args: argparse.Namespace) -> None:
    if args.workers is not None and args.workers < 1:
        raise InputError("--workers must be at least 1.")
    workers = Cluster(args.ray) if args.ray else args.workers
    if args.raw:
        prepare(args.raw, args.face, args.cache, workers)
        return
    for split in SPLITS:
        if any(row for row in read_voices(args.data, split)):
            pool = load_pool(args.data, split, args.face, args.cache, workers)
            print(f"prepare: {split} has {len(pool.voices)} voices and {len(pool.faces)} faces ready")
