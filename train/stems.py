"""What the frozen stems of SPRO's towers make of posts, computed once and kept on disk, in half precision either way.

Grids of pictures lie in blocks of BLOCK posts, so that an interrupted run goes on where it stopped. Besides the picture as it is
there may be augmented views of it: cut, mirrored, lit otherwise, and half of them with patches blanked as the demo blanks them.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Callable, Sequence

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save

from msademo.checkpoint import write_atomically
from msademo.corruption import missing
from msademo.errors import InputError
from msademo.features.posts import post_words
from msademo.picture import read_picture
from train.posts import Post

BLOCK = 256
BATCH = 16
MASKED_VIEWS = 0.5           # share of augmented views with blanked patches, at r ~ U[0, HIGHEST]
HIGHEST = 0.9
CACHE = Path(".cache/posts")


def digest(*parts) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def stamps(posts: Sequence[Post]) -> list[tuple]:
    """What tells that the pictures are still the same files."""
    return [(post.key, post.image.stat().st_size, post.image.stat().st_mtime_ns) for post in posts]


def usable(posts: Sequence[Post], say: Callable[[str], None] = print, folder: Path | None = None) -> list[Post]:
    """The posts whose picture can be decoded; the others are counted and the first is named. With a cache folder, each set of files
    is looked at once."""
    path = Path(folder) / f"unreadable-{digest(stamps(posts))}.json" if folder else None
    if path is None or not path.is_file():
        bad = {}
        for post in posts:
            try:
                read_picture(post.image)
            except InputError as error:
                bad[post.key] = str(error)
        if path:
            write_atomically(path, json.dumps(bad).encode())
    else:
        bad = json.loads(path.read_text())
    if bad:
        say(f"posts: {len(bad)} of {len(posts)} left out: {next(iter(bad))}: {next(iter(bad.values()))}")
    good = [post for post in posts if post.key not in bad]
    if not good:
        raise InputError(f"None of the {len(posts)} pictures can be read; check the images.")
    return good


def augmented(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another view of a picture: a part of at least 60 % of either side, perhaps mirrored, a little lighter or darker."""
    height, width = rgb.shape[:2]
    part = rng.uniform(0.6, 1.0)
    rows, columns = max(1, round(height * part)), max(1, round(width * part))
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    view = rgb[top:top + rows, left:left + columns]
    if rng.random() < 0.5:
        view = view[:, ::-1]
    return cv2.convertScaleAbs(np.ascontiguousarray(view), alpha=rng.uniform(0.85, 1.15), beta=rng.uniform(-12, 12))


def grids(tower, posts: Sequence[Post], view: int, seed: int, folder: Path, name: str, say: Callable[[str], None] = print):
    """Patches (N, P, C) float16 and missing (N, P) bool of one view of every post; view 0 is the picture as it is. `name` is the
    image tower's, with all that changes its stem."""
    count = tower.grid[0] * tower.grid[1]
    patches, gone, started = [], [], time.monotonic()
    for start in range(0, len(posts), BLOCK):
        block = posts[start:start + BLOCK]
        path = Path(folder) / f"grids-{view}-{digest(name, stamps(block), view, seed if view else None)}.safetensors"
        if not path.is_file():
            pixels, masks = [], []
            for row, post in enumerate(block, start=start):
                rng, rgb = np.random.default_rng([seed, view, row]), read_picture(post.image).rgb
                rate = rng.random() * HIGHEST if view and rng.random() < MASKED_VIEWS else 0.0
                pixels.append(tower.prepare(augmented(rgb, rng) if view else rgb))
                masks.append(missing(count, rate, "vision", int(rng.integers(2**31))))
            hidden = torch.from_numpy(np.stack(masks))
            found = torch.cat([tower.patches(torch.stack(pixels[i:i + BATCH]), hidden[i:i + BATCH]).half() for i in range(0, len(block), BATCH)])
            write_atomically(path, save({"patches": found, "missing": hidden}))
            say(f"spro: pictures, view {view}: {start + len(block)} of {len(posts)} ({(time.monotonic() - started) / 60:.1f} min)")
        tensors = load_file(path)
        patches.append(tensors["patches"])
        gone.append(tensors["missing"])
    return torch.cat(patches), torch.cat(gone)


def text_stems(tower, texts: Sequence[str], folder: Path, name: str) -> list[torch.Tensor]:
    """What the text stem makes of each whole text, (T_i, C) float16; equal texts share one tensor. `name` is the text tower's."""
    distinct = sorted(set(texts))
    tokens = [tower.tokenize(post_words(text)) for text in distinct]
    path = Path(folder) / f"text-{digest(name, [t.ids.tolist() for t in tokens])}.safetensors"
    if not path.is_file():
        order = np.argsort([len(t) for t in tokens], kind="stable")
        found: list[torch.Tensor] = [torch.empty(0)] * len(tokens)
        for start in range(0, len(order), 64):
            rows = order[start:start + 64]
            values, there = tower.stem([tokens[i] for i in rows])
            for i, value, kept in zip(rows, values, there):
                found[i] = value[kept].half().cpu()
        write_atomically(path, save({"values": torch.cat(found), "lengths": torch.tensor([len(value) for value in found])}))
    tensors = load_file(path)
    by_text = dict(zip(distinct, tensors["values"].split(tensors["lengths"].tolist())))
    return [by_text[text] for text in texts]


def together(stems: Sequence[torch.Tensor], device) -> tuple[torch.Tensor, torch.Tensor]:
    """Stems of several texts, padded: values (B, T, C) float32 and which places are tokens (B, T) bool."""
    values = torch.nn.utils.rnn.pad_sequence(list(stems), batch_first=True).to(device).float()
    there = torch.arange(values.shape[1])[None] < torch.tensor([len(stem) for stem in stems])[:, None]
    return values, there.to(device)
