"""A set that somebody uploads: a zip with a table and its media, or a table alone. Nothing in it is trusted.

Names in a zip never become names on the disk, only media that the table asks for are unpacked, and bytes are counted as they come out.
"""

from __future__ import annotations

import hashlib
import os
import struct
import unicodedata
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Callable, Iterator

from msademo.errors import InputError
from msademo.study.sets import MAX_TABLE, LabelledSet, parse, part, with_absent

TABLES = ("labels.csv", "label.csv", "posts.csv")
END, END64 = b"PK\5\6", b"PK\6\7"
BLOCK = 1 << 20
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, UnicodeDecodeError)


@dataclass(frozen=True)
class Limits:
    """How much a zip may hold. members: files; directory: bytes of its list of files; member, total: bytes unpacked; ratio: how many
    times larger than packed a big member may be (video and pictures hardly shrink)."""

    members: int = 10_000
    directory: int = 4_000_000
    member: int = 300_000_000
    total: int = 2_000_000_000
    ratio: int = 200

    def __post_init__(self):
        for name, value in vars(self).items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"the limit {name} must be a whole number from 1 on, not {value!r}")


def check_directory(path: Path, limits: Limits) -> None:
    """Refuse a zip by the size of its list of files, before that list is read into memory."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - (1 << 16) - 42))
        tail = file.read()
    at = tail.rfind(END)
    if at < 0 or len(tail) < at + 22:
        raise InputError("The file is no zip, or is cut off; give a .zip with a table and its media, or a table (.csv) alone.")
    members, directory = struct.unpack("<HI", tail[at + 10:at + 16])
    # With a 64-bit record the numbers here need not be true; nothing that may be uploaded is large enough to need one.
    if tail[max(0, at - 20):at].startswith(END64) or members > limits.members or directory > limits.directory:
        raise InputError(f"The zip lists more than {limits.members} files, or very long names; split the set.")


class Archive:
    """An open zip. Use it in a `with`; every refusal is one sentence."""

    def __init__(self, path: str | Path, limits: Limits = Limits()):
        self.limits = limits
        check_directory(Path(path), limits)
        try:
            self._zip = zipfile.ZipFile(path)
        except (*DAMAGED, OSError, ValueError, NotImplementedError) as error:
            raise InputError("The zip is damaged; pack it again.") from error
        infos = [info for info in self._zip.infolist() if not info.is_dir() and not _clutter(info.filename)]
        if len(infos) > limits.members:
            self._zip.close()
            raise InputError(f"The zip holds more than {limits.members} files; split the set.")
        self._infos = {_plain(info.filename): info for info in reversed(infos)}
        self._left = limits.total

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_) -> None:
        self._zip.close()

    def table(self) -> tuple[str, bytes]:
        """Name and bytes of the one table in it."""
        tables = sorted((name for name in self._infos if name.lower().endswith(".csv")), key=lambda name: (name.count("/"), name))
        known = [name for name in tables if PurePosixPath(name).name.lower() in TABLES]
        if not tables:
            raise InputError("The zip has no table; put a labels.csv with the columns file, text and label into it.")
        if len(tables) > 1 and not known:
            raise InputError(f"The zip has {len(tables)} tables; call the one with the labels labels.csv.")
        name = (known or tables)[0]
        chunks: list[bytes] = []
        try:
            self._read(self._infos[name], chunks.append, MAX_TABLE)
        except DAMAGED as error:
            raise InputError("The table in the zip is damaged; pack it again.") from error
        return name, b"".join(chunks)

    def find(self, file: str, base: str) -> zipfile.ZipInfo | None:
        """The member that a table in the folder `base` calls `file`."""
        return self._infos.get(_plain(f"{base}/{file}" if base else file)) or self._infos.get(_plain(file))

    def extract(self, info: zipfile.ZipInfo, target: Path) -> bool:
        """Unpack one member to `target`; False when the member itself is damaged, which is no reason to refuse the others."""
        try:
            with open(target, "wb") as out:
                self._read(info, out.write, self.limits.member)
        except DAMAGED:
            target.unlink(missing_ok=True)
            return False
        except OSError as error:
            raise InputError("The server's disk is full or cannot be written; try a smaller set.") from error
        return True

    def _read(self, info: zipfile.ZipInfo, take: Callable[[bytes], object], most: int) -> None:
        if info.flag_bits & 1:
            raise InputError("The zip is protected by a password; pack it without one.")
        if info.file_size > 10_000_000 and info.file_size > self.limits.ratio * max(1, info.compress_size):
            raise InputError(f"A file in the zip unpacks to more than {self.limits.ratio} times its size, which no media file does; it was not unpacked.")
        too_much = InputError(f"The zip unpacks to more than the {most // 1_000_000} MB a file or {self.limits.total // 1_000_000} MB in all that are taken; split the set.")
        if info.file_size > min(most, self._left):
            raise too_much
        read = 0
        for block in self._blocks(info):
            read += len(block)
            self._left -= len(block)
            if read > most or self._left < 0:                # what the list of files said was not true
                raise too_much
            take(block)

    def _blocks(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        """A member's bytes. Whatever a damaged zip makes the reader do, one of DAMAGED comes of it."""
        try:
            with self._zip.open(info) as member:
                while block := member.read(BLOCK):
                    yield block
        except (NotImplementedError, RuntimeError) as error:
            raise InputError("The zip uses a kind of packing that is not known here; pack it again as an ordinary zip.") from error
        except (OSError, ValueError) as error:              # a place before the file's beginning, for one
            raise zipfile.BadZipFile("the zip cannot be read here") from error


def _plain(name: str) -> str:
    name = unicodedata.normalize("NFC", name.replace("\\", "/"))
    return str(PurePosixPath(name)).casefold()


def _clutter(name: str) -> bool:
    """What operating systems put into zips by themselves."""
    return name.startswith("__MACOSX/") or PurePosixPath(name).name.startswith("._")


def read_upload(path: str | Path, name: str, place: Callable[[LabelledSet], Path], split: str = "", most: int | None = None,
                limits: Limits = Limits(), say: Callable[[str, float], None] | None = None) -> LabelledSet:
    """A set from an uploaded .zip or .csv. place(set) -> the folder that its media go to, called once the table is known to be good.

    The items of the set that comes back name their files as they were stored. say(what, share done) reports progress.
    """
    say = say or (lambda what, share: None)
    path = Path(path)
    with open(path, "rb") as file:
        origin = hashlib.file_digest(file, "sha256").hexdigest()
    if path.suffix.lower() == ".csv":
        if path.stat().st_size > MAX_TABLE:
            raise InputError(f"The table is larger than {MAX_TABLE // 1_000_000} MB; split it into several sets.")
        found = part(replace(parse(path.read_bytes(), name, "upload"), origin=origin), split, most)
        return with_absent(found, lambda file: False)
    with Archive(path, limits) as archive:
        table, data = archive.table()
        base = str(PurePosixPath(table).parent).removeprefix(".")
        found = part(replace(parse(data, name, "upload"), origin=origin), split, most)
        members = {item.number: archive.find(item.file, base) for item in found.items if item.file}
        found = with_absent(found, lambda file: archive.find(file, base) is not None)
        folder = place(found)
        folder.mkdir(parents=True, exist_ok=True)
        stored, kept = {}, []
        for done, item in enumerate(found.items):
            info = members.get(item.number)
            if info is not None and info.filename not in stored:
                say("Unpacking", done / len(found.items))
                target = f"{len(stored):05d}{PurePosixPath(item.file).suffix.lower()}"
                stored[info.filename] = target if archive.extract(info, folder / target) else None
            kept.append(item if info is None else replace(item, file=stored[info.filename] or item.file))
        damaged = sum(name is None for name in stored.values())
        notes = (*found.notes, *([f"{damaged} files in the zip are damaged; those items are reported as failed."] if damaged else ()))
        return replace(found, items=tuple(kept), notes=notes)
