"""A labelled set: a table of labels beside media files, read and checked before any of it is analysed."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Callable, Sequence

import numpy as np

from msademo.errors import InputError

CLIP, POST = "clip", "post"
CLASSES = ("negative", "neutral", "positive")
LOWEST, HIGHEST = -3.0, 3.0
CLIP_FILES = frozenset({".mp4", ".webm", ".mov", ".avi", ".mkv", ".wav", ".mp3", ".m4a"})
POST_FILES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})
MAX_ITEMS = 5000
MAX_TABLE = 20_000_000      # bytes of a table
MAX_WORDS = 20_000          # characters of one item's words; beyond it, it is no utterance and no post
COLUMNS = {"id": ("id", "key"), "file": ("file", "filename", "path", "video", "image", "audio"), "text": ("text", "transcript", "words"),
           "label": ("label", "score", "sentiment"), "split": ("split", "mode")}
ILLUSTRATIVE = ("The labels of the bundled sets were given by the author of this repository, alone, to show kinds of errors; twelve items prove nothing about a "
                "model. Most clips say other words than their synthetic voice speaks.")
NEEDED = "a table needs the columns file, text and label (id and split if you like)"


@dataclass(frozen=True)
class Item:
    """One labelled clip or post.

    number: its place in the table, from 0. file: relative, as the table names it; None for words alone. text: None = the speech is to be
    recognised. label: a score in [-3, 3] of a clip, the name of a class of a post. split: what the table says, "" without.
    """

    number: int
    key: str
    file: str | None
    text: str | None
    label: float | str
    split: str = ""


@dataclass(frozen=True)
class LabelledSet:
    """Items of one kind. source: "bundled", "folder" or "upload". notes: sentences on what is absent or left out.

    origin: a hash of the file it was uploaded as, "" for sets that lie on the server.
    """

    name: str
    kind: str
    source: str
    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()
    origin: str = ""

    @property
    def digest(self) -> str:
        """The same for the same items, so that a set brought twice is one set. An upload's files are told by its hash: they get new names."""
        items = [asdict(item) | ({"file": None} if self.origin else {}) for item in self.items]
        content = json.dumps([self.name, self.kind, self.source, self.origin, items], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:24]


def decode(data: bytes) -> str:
    """A table's text, by its byte-order mark, else UTF-8, else GB 18030."""
    if len(data) > MAX_TABLE:
        raise InputError(f"The table is larger than {MAX_TABLE // 1_000_000} MB; split it into several sets.")
    marked = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    if not marked and b"\0" in data:
        raise InputError("The table is no text file; save it as CSV.")
    for encoding in ("utf-16",) if marked else ("utf-8-sig", "gb18030"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise InputError("The letters of the table cannot be read; save it as CSV in UTF-8.")


def rows_of(data: bytes) -> list[tuple[int, dict[str, str]]]:
    """(line number, row) of a CSV file's rows, blank ones left out. Separated by commas, semicolons or tabs, whichever its first line has most of."""
    text = decode(data)
    first = text.lstrip("\r\n").split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        names = [(name or "").strip().lower() for name in reader.fieldnames or ()]
        if len(set(names)) < len(names):
            raise InputError("Two columns of the table have the same name; rename one.")
        reader.fieldnames = names
        found = []
        for row in reader:
            if None in row:
                raise InputError(f"Line {reader.line_num} of the table has more cells than the first line; put words with a separator in them in quotes.")
            if any((value or "").strip() for value in row.values()):
                found.append((reader.line_num, {name: (value or "").strip() for name, value in row.items()}))
    except csv.Error as error:
        raise InputError(f"The table cannot be read as CSV near line {reader.line_num}; check the quotes there.") from error
    if not found:
        raise InputError(f"The table has no rows; {NEEDED}.")
    return found


def _column(row: dict, name: str) -> str | None:
    """The value of a column under any of its names; None where the table has none of them."""
    return next((row[alias] for alias in COLUMNS[name] if alias in row), None)


def _file(row: dict) -> str | None:
    """The file a row names, with forward slashes; by the field's layouts where there is no such column: Raw/VIDEO/CLIP.mp4
    (MOSI, MOSEI, SIMS) and images/ID.jpg (MVSA)."""
    named = _column(row, "file")
    if named is None and row.get("video_id") and row.get("clip_id"):
        named = f"Raw/{row['video_id']}/{row['clip_id']}.mp4"
    if named is None and row.get("id") and (_column(row, "label") or "").lower() in CLASSES:
        named = f"images/{row['id']}.jpg"
    named = (named or "").replace("\\", "/")
    while named.startswith("./"):
        named = named[2:]
    return named or None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _kind(rows: list[tuple[int, dict]]) -> str:
    """Numbers are scores of clips, names are classes of posts; a table has one or the other."""
    if "label" not in {name for _, row in rows for name in COLUMNS if _column(row, name) is not None}:
        raise InputError(f"The table has no column called label; {NEEDED}.")
    first = _column(rows[0][1], "label")
    if _number(first) is not None:
        return CLIP
    if first.lower() in CLASSES:
        return POST
    raise InputError(f"The label in line {rows[0][0]} is {first[:40]!r}; clips need a score from -3 to 3, posts one of {', '.join(CLASSES)}.")


def _label(kind: str, line: int, given: str) -> float | str:
    value = _number(given)
    if kind == CLIP:
        if value is None or not LOWEST <= value <= HIGHEST:
            raise InputError(f"The label in line {line} is {given[:40]!r}; the others are scores of clips, from -3 to 3, so this must be one as well.")
        return value
    if given.lower() not in CLASSES:
        raise InputError(f"The label in line {line} is {given[:40]!r}; the others are classes of posts, so this must be one of {', '.join(CLASSES)}.")
    return given.lower()


def parse(data: bytes, name: str, source: str) -> LabelledSet:
    """A set from the bytes of its table. InputError, one sentence with the line, for what cannot be used."""
    rows = rows_of(data)
    kind = _kind(rows)
    suffixes, other = (CLIP_FILES, POST_FILES) if kind == CLIP else (POST_FILES, CLIP_FILES)
    items = []
    for line, row in rows:
        file, text = _file(row), _column(row, "text")
        label = _label(kind, line, _column(row, "label") or "")
        if file is not None:
            place = PurePosixPath(file)
            if place.is_absolute() or ".." in place.parts or "\0" in file or ":" in file.split("/")[0]:
                raise InputError(f"The file in line {line} is not inside the set; name files relative to the table.")
            if place.suffix.lower() in other:
                meant = "a score, so a clip is meant" if kind == CLIP else "a class, so a post is meant"
                raise InputError(f"The file in line {line} is a {place.suffix} file, but its label is {meant}; clips have scores and posts have classes.")
            if place.suffix.lower() not in suffixes:
                raise InputError(f"The file in line {line} ends in {place.suffix or 'nothing'}; {kind}s may be {', '.join(sorted(suffixes))}.")
        elif not text:
            raise InputError(f"Line {line} names neither a file nor words; give at least one of them.")
        if len(text or "") > MAX_WORDS:
            raise InputError(f"The words in line {line} have more than {MAX_WORDS} characters; give only those of one {kind}.")
        # Without a column of words a clip's speech is recognised; an empty cell of one says that there are no words.
        items.append(Item(len(items), _key(row, file, line), file, text, label, (_column(row, "split") or "").lower()))
    again = [key for key, count in Counter(item.key for item in items).items() if count > 1]
    if again:
        if any("id" in row or "key" in row for _, row in rows):
            raise InputError(f"The id {again[0][:60]!r} stands in the table twice; give every row its own.")
        items = [replace(item, key=f"{item.key} · line {line}") if item.key in again else item for item, (line, _) in zip(items, rows)]
    return LabelledSet(name, kind, source, tuple(items))


def _key(row: dict, file: str | None, line: int) -> str:
    if row.get("video_id") and row.get("clip_id"):
        return f"{row['video_id']}/{row['clip_id']}"
    return _column(row, "id") or (file or f"line {line}")


def part(found: LabelledSet, split: str = "", most: int | None = None, seed: int = 0) -> LabelledSet:
    """Only the items of a split, and at most so many of them, drawn by a seed; the table's order and numbers stay."""
    items: Sequence[Item] = found.items
    if split:
        items = [item for item in items if item.split == split]
        if not items:
            there = ", ".join(sorted({item.split for item in found.items} - {""})) or "none"
            raise InputError(f"No row of the table is in the split {split!r}; the splits there are: {there}.")
    if most is not None and len(items) > most:
        drawn = np.random.default_rng(seed).permutation(len(items))[:most]
        items = [items[i] for i in sorted(drawn)]
    if len(items) > MAX_ITEMS:
        raise InputError(f"The set has {len(items)} items and {MAX_ITEMS} are analysed at most; choose a split or a smaller number.")
    return replace(found, items=tuple(items))


def with_absent(found: LabelledSet, there: Callable[[str], bool]) -> LabelledSet:
    """The set with a note on files that the table names and nobody brought; InputError when none of them is there."""
    named = [item for item in found.items if item.file]
    absent = [item.file for item in named if not there(item.file)]
    if not absent:
        return found
    if len(absent) == len(found.items):
        raise InputError(f"None of the files that the table names is there, {absent[0][:80]!r} for one; put them beside the table.")
    note = f"{len(absent)} of {len(named)} files that the table names are not there, {absent[0][:80]!r} for one; those items are reported as failed."
    return replace(found, notes=(*found.notes, note))


def folder_sets(folder: Path | None) -> dict[str, Path]:
    """Name -> table of the sets in a folder of the server: every sub-folder with a table in it, and the folder itself."""
    if folder is None or not folder.is_dir():
        return {}
    found = {}
    for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        tables = [place / name for name in ("labels.csv", "label.csv", "posts.csv") if (place / name).is_file()] or sorted(place.glob("*.csv"))[:1]
        if tables:
            found[place.name] = tables[0]
    return found


def inside(root: Path, file: str | Path) -> Path | None:
    """The file in a folder, by its real path; None when it is not there, or lies outside, be it by a link."""
    path = (root / file).resolve()
    return path if path.is_relative_to(root.resolve()) and path.is_file() else None


def read_folder_set(name: str, table: Path, source: str = "folder", root: Path | None = None) -> LabelledSet:
    """A set whose table and media lie on the server's own disk. root: what the table's files are relative to, None = the table's folder."""
    try:
        data = table.read_bytes() if table.stat().st_size <= MAX_TABLE else b"\0" * (MAX_TABLE + 1)
    except OSError as error:
        raise InputError(f"The table of the set {name!r} cannot be read; choose another set.") from error
    return with_absent(parse(data, name, source), lambda file: inside(root or table.parent, file) is not None)
