"""A tiny data folder laid out like the real one: sentences whose words tell the score, tones for voices, drawn faces; untrained checkpoints."""

from __future__ import annotations

import csv
import io
import wave
import zipfile
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch

from msademo.backbones.voice import EMOTIONS
from msademo.checkpoint import file_hash, save_checkpoint
from msademo.features.voice import VOICE_NAMES
from msademo.registry import METHODS

VOICES = {"happy": 400, "neutral": 220, "sad": 120}          # pitch in Hz
FACES = {"happy": 1, "neutral": 0, "sad": -1}                # bend of the mouth


def write_csv(path: Path, columns: tuple[str, ...], rows: list[tuple]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def tone(path: Path, pitch: float, rng: np.random.Generator) -> None:
    t = np.arange(22_050) / 22_050
    sound = 0.3 * np.sin(2 * np.pi * pitch * rng.uniform(0.95, 1.05) * t) * (1 + 0.3 * np.sin(2 * np.pi * 4 * t)) + 0.01 * rng.standard_normal(len(t))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(22_050)
        file.writeframes((sound * 20_000).astype("<i2").tobytes())


def drawn_face(bend: int, rng: np.random.Generator) -> bytes:
    face = np.full((48, 48), 90, np.uint8)
    cv2.circle(face, (24, 24), 20, 180, -1)
    for x in (17, 31):
        cv2.circle(face, (x, 19), 2, 20, -1)
    curve = [(x, int(34 - bend * 3 * (1 - ((x - 24) / 8) ** 2) * -1)) for x in range(16, 33)]
    cv2.polylines(face, [np.array(curve, np.int32)], False, 20, 2)
    face = np.clip(face + rng.normal(0, 4, face.shape), 0, 255).astype(np.uint8)
    return cv2.imencode(".webp", face)[1].tobytes()


def make_data(folder: Path, splits: tuple[str, ...] = ("train", "valid", "test"), transcripts: int = 12) -> Path:
    """Write the folder; `transcripts` sentences a corpus and split, 4 voices and 4 faces an emotion and split."""
    rng = np.random.default_rng(0)
    words = {1: ("great", "lovely", "fun"), -1: ("awful", "boring", "bad")}
    for corpus in ("mosi", "mosei"):
        rows = []
        for split in splits:
            for i in range(transcripts):
                sign = 1 if i % 2 else -1
                rows.append((f"v{split}{i}", i, f"this film was {rng.choice(words[sign])} i think", round(sign * rng.uniform(0.5, 3), 2), split))
        write_csv(folder / corpus / "label.csv", ("video_id", "clip_id", "text", "label", "mode"), rows)
    (folder / "voices" / "set").mkdir(parents=True, exist_ok=True)
    rows = []
    for split in splits:
        for emotion, pitch in VOICES.items():
            for i in range(4):
                name = f"set/{split}-{emotion}-{i}.wav"
                tone(folder / "voices" / name, pitch, rng)
                rows.append((name, "set", f"s-{split}", emotion, "strong" if i % 2 else "normal", "en", "", split))
    write_csv(folder / "voices" / "voices.csv", ("file", "corpus", "speaker", "emotion", "intensity", "language", "text", "mode"), rows)
    (folder / "faces").mkdir(parents=True, exist_ok=True)
    rows, archive = [], io.BytesIO()
    with zipfile.ZipFile(archive, "w") as faces:
        for split in splits:
            for expression, bend in FACES.items():
                for i in range(4):
                    name = f"{split}-{expression}-{i}.webp"
                    faces.writestr(name, drawn_face(bend, rng))
                    rows.append((name, expression, split))
    (folder / "faces" / "fer2013.zip").write_bytes(archive.getvalue())
    write_csv(folder / "faces" / "fer2013.csv", ("file", "expression", "mode"), rows)
    return folder


def untrained(path: Path, method: str, config) -> None:
    """A fusion checkpoint with random weights and statistics, beside the encoders of its folder."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    statistics = {m: {"mean": rng.normal(0, 0.1, d).tolist(), "deviation": rng.uniform(0.5, 2, d).tolist()} for m, d in config.dims.items()}
    statistics["emotions"] = len(EMOTIONS) if config.dims["audio"] == len(VOICE_NAMES) else 0
    save_checkpoint(path, method, asdict(config), METHODS[method][0](config).state_dict(), statistics=statistics, scale=[-3.0, 3.0],
                    median=0.2, data="none: untrained, for tests",
                    extractor={f"{name}_sha256": file_hash(path.parent / f"{name}.safetensors") for name in ("text", "face", "voice")})
