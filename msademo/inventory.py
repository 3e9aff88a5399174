"""What checkpoints there are, what each says of itself, and which are in use. Only headers are read; nothing is loaded or unpickled."""

from __future__ import annotations

import json
import math
import statistics
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping

from safetensors import SafetensorError, safe_open

from msademo.checkpoint import FORMAT_VERSION, KEY, STEP, file_hash
from msademo.corruption import MODALITIES
from msademo.errors import InputError
from msademo.options import MODELS

SPRO = "spro"
SLOTS = {"text": "Text encoder of all clip models", "face": "Expression network", "voice": "Voice network", **{name: f"{title}, clips" for name, title in MODELS.items()}, SPRO: "SPRO, posts"}
CHOICES = (*MODELS, SPRO)           # the slots for which another file may be chosen; encoders belong to the models trained on them
LONGEST_CARD = 20_000               # characters
_hashes: dict[tuple, str] = {}


@dataclass(frozen=True)
class Found:
    """A checkpoint file. method: "" when it cannot be read, and problem says why; problem also says why a sound one cannot be used here.

    parameters: how many numbers it holds; size: bytes; meta: what its header says; card: the text beside it, "" without; used_as: its slot.
    """

    file: str
    method: str
    parameters: int
    size: int
    meta: Mapping
    card: str
    problem: str
    used_as: str | None


def hash_of(path: Path) -> str:
    """SHA-256 of a file, remembered until the file changes."""
    about = path.stat()
    key = (str(path), about.st_mtime_ns, about.st_size)
    if key not in _hashes:
        _hashes[key] = file_hash(path)
    return _hashes[key]


def in_use(analyzer) -> dict[str, str]:
    """File name by slot, of those that are there."""
    files = {"text": "text.safetensors", "face": "face.safetensors", "voice": "voice.safetensors", **analyzer.shelf.files, SPRO: analyzer.posts.file}
    return {slot: file for slot, file in files.items() if (analyzer.folder / file).is_file()}


def identity(analyzer, slots: tuple[str, ...] = tuple(SLOTS)) -> dict[str, dict[str, str]]:
    """{"file", "sha256"} by slot of what is in use: what a run was made with."""
    found = {}
    for slot, file in in_use(analyzer).items():
        if slot in slots:
            with suppress(FileNotFoundError):           # taken away meanwhile
                found[slot] = {"file": file, "sha256": hash_of(analyzer.folder / file)}
    return found


def _header(path: Path) -> tuple[dict, int]:
    """Metadata and number of parameters. InputError for what is no checkpoint of ours."""
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {})[KEY])
            count = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys() if not name.endswith(STEP))
        if not isinstance(meta["config"], dict) or not isinstance(meta["method"], str):
            raise TypeError("the header is of another form")
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError("It cannot be read as a checkpoint of msademo (cut off, or of another format).") from error
    return meta, count


def _card(path: Path) -> str:
    try:
        return path.with_suffix(".md").read_text("utf-8")[:LONGEST_CARD]
    except (OSError, UnicodeDecodeError):
        return ""


def _problem(folder: Path, meta: dict) -> str:
    if meta.get("format") != FORMAT_VERSION:
        return "It is of another format version; train it again."
    needs = meta.get("start") if meta.get("method") == SPRO else meta.get("extractor")       # SPRO's stem is of a text encoder
    for part in ("text", "face", "voice") if isinstance(needs, Mapping) else ():
        wanted, encoder = needs.get(f"{part}_sha256"), folder / f"{part}.safetensors"
        if wanted is None:
            continue
        if not encoder.is_file():
            return f"It needs {encoder.name}, which is not here."
        if hash_of(encoder) != wanted:
            return f"It was trained with another {encoder.name} than the one here."
    return ""


def found_in(analyzer) -> list[Found]:
    """Every checkpoint of the analyzer's folder: those in use first, in the order of SLOTS, then the others by name."""
    slots = {file: slot for slot, file in in_use(analyzer).items()}
    found = []
    for path in sorted(analyzer.folder.glob("*.safetensors")):
        slot = slots.get(path.name)
        try:
            size = path.stat().st_size
            meta, count = _header(path)
            found.append(Found(path.name, meta["method"], count, size, meta, _card(path), _problem(analyzer.folder, meta), slot))
        except FileNotFoundError:                       # taken away since it was listed
            continue
        except InputError as error:
            found.append(Found(path.name, "", 0, size, {}, _card(path), str(error), slot))
    order = list(SLOTS)
    return sorted(found, key=lambda f: (order.index(f.used_as) if f.used_as else len(order), f.file))


def choices(found: list[Found], slot: str) -> list[str]:
    """Files that can take a slot."""
    return [f.file for f in found if f.method == slot and not f.problem]


def choose(analyzer, slot: str, file: str) -> None:
    """Use another checkpoint from now on, for everybody. InputError, one sentence, when there is none such or it cannot be used."""
    if slot not in CHOICES or file not in choices(found_in(analyzer), slot):
        raise InputError("There is no such checkpoint for this model; choose one of the list.")
    analyzer.posts.choose(file) if slot == SPRO else analyzer.shelf.choose(slot, file)


def speed(analyzer, clip: Path, words: str, picture: Path, post_words: str, runs: int = 5, say=lambda what, share: None) -> dict[str, float]:
    """Median milliseconds by slot from an opened clip or post to its answer, measured here and now; the text encoder's part is in each."""
    def median(ask) -> float:
        ask()
        taken = []
        for _ in range(runs):
            started = time.perf_counter()
            ask()
            taken.append(1000 * (time.perf_counter() - started))
        return round(statistics.median(taken), 1)

    say("Opening an example clip", 0.1)
    opened, found, used = analyzer.open(clip, words), {}, in_use(analyzer)
    there = [name for name in MODELS if name in used and name not in analyzer.warm().absent]
    for done, name in enumerate(there):
        say(f"Timing {MODELS[name]}", 0.3 + 0.5 * done / len(there))
        found[name] = median(lambda: analyzer.analyze(opened, missing=dict.fromkeys(MODALITIES, 0.3), models=name))
    if SPRO in used:
        say("Timing SPRO", 0.85)
        post = analyzer.posts.open(picture, post_words)
        found[SPRO] = median(lambda: analyzer.posts.analyze(post, 0.3, overlays=False))
    return found
