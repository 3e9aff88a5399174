"""Posts on disk - a picture, a text and a class - in the layouts that people have, and the captions beside them.

    posts.csv + images/              columns id, split, label, text; images/<id>.jpg
    CLMLF's json + dataset_image/    train.json, valid.json (or dev.json), test.json: [{"id", "text", "emotion_label"}]
    MVSA as published                labelResultAll.txt + data/<id>.jpg, data/<id>.txt
    labels.csv + pictures            one's own: columns file, text, label, and if you like id, split, speaker (train/raw.py)

Classes are known by name. A post that cannot be used is left out and counted; it never stops the others.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Mapping

import numpy as np

from msademo.errors import InputError
from msademo.models.spro import CLASSES, STAGES
from train.data import check_split, read_rows

CLMLF_CLASSES = ("positive", "neutral", "negative")       # CLMLF counts from positive, MMSA from negative: never trust the number
CLMLF_FILES = {"train": ("train.json",), "valid": ("valid.json", "dev.json", "val.json"), "test": ("test.json",)}
SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}        # of the published MVSA, which has no split of its own
SPLIT_SEED = 1111
PICTURES = ("images", "dataset_image", "data")
ENDINGS = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Post:
    """One post; label is one of CLASSES."""

    key: str
    text: str
    image: Path
    label: str


def decode_text(data: bytes) -> str:
    """A text of unknown encoding: UTF-8, else GB 18030, else Latin-1, which reads anything."""
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def merge_labels(pairs: list[tuple[str, str]]) -> str | None:
    """One class out of (text, image) judgements, by MultiSentiNet's rule; None where the post is dropped.

    Several judges: per modality the class that most of three share, dropped where there is none. Then equal classes stand, a
    neutral one gives way to the other, and positive against negative is dropped.
    """
    merged = []
    for judged in zip(*pairs):
        winner = max(set(judged), key=judged.count)
        if judged.count(winner) * 2 <= len(judged):
            return None
        merged.append(winner)
    text, image = merged
    if text == image or image == "neutral":
        return text
    return image if text == "neutral" else None


def picture_of(folder: Path, key: str) -> Path | None:
    return next((path for ending in ENDINGS if (path := folder / f"{key}{ending}").is_file()), None)


def picture_folder(data: Path) -> Path:
    found = next((data / name for name in PICTURES if (data / name).is_dir()), None)
    if found is None:
        raise InputError(f"{data} has no folder of pictures; it must be called {', '.join(PICTURES[:-1])} or {PICTURES[-1]}.")
    return found


def _from_csv(data: Path, split: str) -> list[tuple[str, str, str | None]]:
    rows = read_rows(data / "posts.csv", ("id", "split", "label", "text"))
    return [(row["id"], row["text"] or "", row["label"]) for row in rows if row["split"] == split]


def _from_clmlf(data: Path, split: str) -> list[tuple[str, str, str | None]]:
    path = next((data / name for name in CLMLF_FILES[split] if (data / name).is_file()), None)
    if path is None:
        raise InputError(f"{data} has no {CLMLF_FILES[split][0]}; choose another --split or add the file.")
    try:
        rows = json.loads(decode_text(path.read_bytes()))
        return [(str(row["id"]), str(row["text"]), dict(enumerate(CLMLF_CLASSES)).get(row["emotion_label"])) for row in rows]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f'{path.name} is not a list of {{"id", "text", "emotion_label"}}; restore the file.') from error


def _from_mvsa(data: Path, split: str) -> list[tuple[str, str | None, str | None]]:
    """The posts that the label rule keeps, in the file's order, shuffled by SPLIT_SEED and cut 8:1:1."""
    kept = []
    for line in decode_text((data / "labelResultAll.txt").read_bytes()).splitlines()[1:]:
        key, *judged = line.replace(",", " ").split()
        pairs = list(zip(judged[::2], judged[1::2]))
        if len(judged) % 2 or not pairs or not set(judged) <= set(CLASSES):
            continue
        if label := merge_labels(pairs):
            kept.append((key, None, label))
    order = np.random.default_rng(SPLIT_SEED).permutation(len(kept))
    first, second = int(len(kept) * SHARES["train"]), int(len(kept) * (1 - SHARES["test"]))
    part = {"train": order[:first], "valid": order[first:second], "test": order[second:]}[split]
    return [kept[i] for i in sorted(part)]


def _from_table(data: Path, split: str) -> tuple[list[tuple[str, str, str]], dict[str, Path | None]]:
    """Rows of a table that is read as the page's Errors tab reads it, and their pictures."""
    from msademo.study.sets import POST, inside, read_folder_set
    from train.raw import splits_of
    table = data / "labels.csv"
    found = read_folder_set(data.name, table)
    if found.kind != POST:
        raise InputError(f"{table} labels clips by scores; their models are trained by `python -m train pglh`, and posts have classes for labels.")
    rows = [item for item, name in zip(found.items, splits_of(found.items, table)[0]) if name == split]
    return [(item.key, item.text or "", item.label) for item in rows], {item.key: inside(data, item.file) if item.file else None for item in rows}


def read_posts(data: str | Path, split: str, say: Callable[[str], None] = lambda line: None) -> list[Post]:
    """The posts of a split, whatever the layout. `say` is told how many were left out, and why the first of them was."""
    data = Path(data)
    check_split(split)
    images = None
    if (data / "posts.csv").is_file():
        rows = _from_csv(data, split)
    elif (data / "labelResultAll.txt").is_file():
        rows = _from_mvsa(data, split)
    elif any((data / name).is_file() for names in CLMLF_FILES.values() for name in names):
        rows = _from_clmlf(data, split)
    elif (data / "labels.csv").is_file():
        rows, images = _from_table(data, split)
    else:
        raise InputError(f"{data} holds no posts that can be read; give a folder with posts.csv, labels.csv, CLMLF's train.json or MVSA's labelResultAll.txt.")
    folder, posts, left_out = picture_folder(data) if images is None else data, [], []
    for key, text, label in rows:
        image = picture_of(folder, key) if images is None else images[key]
        if text is None and (file := folder / f"{key}.txt").is_file():
            text = decode_text(file.read_bytes()).strip()
        if image is None or text is None or label not in CLASSES:
            left_out.append(f"{key} ({'no picture' if image is None else 'no text' if text is None else f'class {label!r}'})")
        else:
            posts.append(Post(key, text, image, label))
    if left_out:
        say(f"posts: {len(left_out)} of {len(rows)} {split} posts left out, the first is {left_out[0]}")
    if not posts:
        raise InputError(f"{data} has no {split} posts that can be used; choose another --split or check the files.")
    return posts


def read_captions(path: str | Path) -> dict[str, tuple[str, str, str]]:
    """Stage captions by post id out of a .jsonl or .jsonl.gz, in the order of STAGES."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There are no captions at {path}; write them with `python -m train captions` or choose --captions none.")
    captions = {}
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                row: Mapping[str, str] = json.loads(line)
                texts = tuple(row[stage] for stage in STAGES)
                if not all(isinstance(text, str) and text.strip() for text in texts):
                    raise ValueError
                captions[str(row["id"])] = texts
    except (json.JSONDecodeError, KeyError, TypeError, ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name}, line {number}, lacks a caption for {', '.join(STAGES)}; "
                         "write the file again with `python -m train captions`.") from error
    except (OSError, EOFError) as error:
        raise InputError(f"{path.name} cannot be read; write it again with `python -m train captions`.") from error
    return captions
