"""The prompts of a corpus: which clips there are, how each is named, and the one file that holds what was written for them.

A clip's prompt is written once, from the complete clip. So that "the prompts of the training corpus" is a finite thing, training
clips with guidance come from a fixed number of compositions of every transcript, rather than being composed anew every epoch.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from collections import Counter
from pathlib import Path
from typing import Iterator, Sequence

import numpy as np

from msademo.checkpoint import write_atomically
from msademo.errors import InputError
from msademo.features.bundle import Features
from msademo.features.text import TextTokens
from msademo.guidance.offline import write_prompt
from msademo.guidance.prompt import SECTIONS, SOURCES, Prompt, pieces
from train.compose import Composer

FORMAT = 1
COMPOSITIONS = 3            # fixed compositions of every training transcript


def fixed_clip(composer: Composer, tokens: TextTokens, score: float, seed: int, composition: int, row: int) -> Features:
    """The training clip of one transcript (number `row` of the training transcripts) in one fixed composition.

    Voices come augmented as often as not, as they do where clips are composed anew every epoch: the models must hear phones and
    rooms, and the prompt is written from the very tokens they hear, as it will be on a real clip.
    """
    return composer.clip(tokens, score, np.random.default_rng([seed, composition, row]), augmented=True)


def clip_key(features: Features) -> str:
    """16 hexadecimal digits from a composed clip's words and the names of the recording and the faces it is made of, which are the same on every
    machine where the last digits of features are not. The score has no part in it."""
    if not features.audio.origin or not features.vision.origin:
        raise ValueError("only a composed clip has a key")
    digest = hashlib.blake2b(np.ascontiguousarray(features.tokens.ids, dtype="<i8").tobytes(), digest_size=8)
    digest.update(json.dumps([features.audio.origin, features.vision.origin]).encode())
    return digest.hexdigest()


class PromptBook:
    """Prompts by clip_key, all of one source. The file is the same byte for byte whenever the content is.

    Gzipped lines of JSON: a header, a table of the sentences (they repeat a lot), then a line a clip with its key and, for each
    section, the numbers of its sentences; a note follows where there is one.
    """

    def __init__(self, source: str, about: str = ""):
        if source not in SOURCES:
            raise InputError(f"There is no guidance called {source!r}; choose one of: {', '.join(SOURCES)}.")
        self.source, self.about = source, about
        self._sentences: list[str] = []
        self._number: dict[str, int] = {}
        self._clips: dict[str, tuple] = {}

    def __len__(self) -> int:
        return len(self._clips)

    def __contains__(self, key: str) -> bool:
        return key in self._clips

    def __iter__(self) -> Iterator[str]:
        """The keys of its clips."""
        return iter(self._clips)

    def add(self, key: str, prompt: Prompt) -> None:
        if prompt.source != self.source:
            raise InputError(f"A prompt of source {prompt.source} does not belong among prompts of source {self.source}; keep them in files of their own.")
        sections = []
        for name in SECTIONS:
            numbers = []
            for sentence in pieces(getattr(prompt, name)):
                if sentence not in self._number:
                    self._number[sentence] = len(self._sentences)
                    self._sentences.append(sentence)
                numbers.append(self._number[sentence])
            sections.append(numbers)
        self._clips[key] = (*sections, prompt.note) if prompt.note else tuple(sections)

    def lookup(self, key: str) -> Prompt | None:
        entry = self._clips.get(key)
        if entry is None:
            return None
        sections = ["".join(self._sentences[i] for i in numbers) for numbers in entry[:3]]
        return Prompt(*sections, self.source, entry[3] if len(entry) > 3 else "")

    def get(self, features: Features, words: Sequence[str]) -> Prompt:
        """The prompt of a complete clip. One that the book does not know is written now when the source is offline, and refused otherwise."""
        found = self.lookup(clip_key(features))
        if found is not None:
            return found
        if self.source == "offline":
            return write_prompt(words, features.audio, features.vision)
        raise InputError(f"The prompts of source {self.source} hold none for this clip; run `python -m train guidance --source {self.source}` "
                         "with the same data, checkpoints and seed first.")

    def write(self, path: str | Path) -> None:
        """Sentences are numbered by how often they occur, then by themselves: the same content, in whatever order it was added, is the same file."""
        uses = Counter(i for entry in self._clips.values() for numbers in entry[:3] for i in numbers)
        order = sorted(uses, key=lambda i: (-uses[i], self._sentences[i]))
        place = {old: new for new, old in enumerate(order)}
        lines = [{"format": FORMAT, "source": self.source, "about": self.about, "clips": len(self._clips), "sentences": len(order)},
                 *(self._sentences[i] for i in order),
                 *([key, *([place[i] for i in numbers] for numbers in self._clips[key][:3]), *self._clips[key][3:]] for key in sorted(self._clips))]
        buffer = io.BytesIO()
        with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=9, mtime=0) as file:
            for line in lines:
                file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        write_atomically(path, buffer.getvalue())

    @classmethod
    def read(cls, path: str | Path) -> "PromptBook":
        path = Path(path)
        if not path.is_file():
            raise InputError(f"There are no prompts at {path}; write them with `python -m train guidance --data DIR --source offline`.")
        try:
            lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
            header = lines[0]
            if header["format"] != FORMAT:
                raise InputError(f"{path.name} has prompt format {header['format']}, and this msademo reads format {FORMAT}; write the prompts again.")
            book = cls(header["source"], header["about"])
            book._sentences = lines[1:1 + header["sentences"]]
            book._number = {sentence: i for i, sentence in enumerate(book._sentences)}
            book._clips = {key: tuple(entry) for key, *entry in lines[1 + header["sentences"]:]}
            if len(book._clips) != header["clips"] or any(not 0 <= i < len(book._sentences) for e in book._clips.values() for part in e[:3] for i in part):
                raise ValueError("the file is not whole")
        except InputError:
            raise
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, IndexError) as error:
            raise InputError(f"{path.name} cannot be read as prompts (it may be cut off or of another kind); write them again with `python -m train guidance`.") from error
        return book
