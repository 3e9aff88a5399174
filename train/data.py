"""The corpora on disk: transcripts with scores, rated sentences, voices and faces, each row with its split. Nothing is decoded here."""

from __future__ import annotations

import csv
import html
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

from msademo.errors import InputError
from msademo.transcript import split_words

SPLITS = ("train", "valid", "test")
RATED = {"movie": "movieReviewSnippets", "amazon": "amazonReviewSnippets", "tweets": "tweets", "nyt": "nytEditorialSnippets"}      # corpus -> its file's name
LEXICON = "lexicon"                                 # the corpus of rated words
ENTRY = re.compile(r"[a-z][a-z' -]{2,}")            # an entry of the lexicon that is a word, no emoticon or abbreviation of two letters
FILLER = re.compile(r"\((?:uhh?|umm?|hmm?|stutter)\)\s*", re.IGNORECASE)      # MOSEI writes hesitations in brackets


@dataclass(frozen=True)
class Transcript:
    """One clip's words with the human score in [-3, 3]; corpus "mosi" or "mosei", or of a rated sentence that nobody speaks one of RATED, of a rated word LEXICON."""

    key: str
    corpus: str
    words: tuple[str, ...]
    score: float


@dataclass(frozen=True)
class Voice:
    """One recording; emotion and speaker as its corpus names them; strong where it was acted with strong intensity."""

    path: Path
    emotion: str
    speaker: str
    strong: bool


@dataclass(frozen=True)
class Face:
    """One 48x48 crop inside faces/fer2013.zip; `file` is the member's name."""

    file: str
    expression: str


def read_rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows of a CSV file as text (ids such as 0001 stay what they are); InputError when it or a column is absent."""
    if not path.is_file():
        raise InputError(f"There is no {path}; give --data a folder laid out as the README says.")
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    absent = [name for name in columns if rows and name not in rows[0]]
    if absent or not rows:
        raise InputError(f"{path} has no {'column ' + absent[0] if absent else 'rows'}; the columns needed are {', '.join(columns)}.")
    return rows


def check_split(split: str) -> str:
    if split not in SPLITS:
        raise InputError(f"There is no split called {split!r}; choose one of: {', '.join(SPLITS)}.")
    return split


def read_transcripts(data: Path, corpus: str, split: str) -> list[Transcript]:
    """The rows of data/<corpus>/label.csv that belong to `split`."""
    rows = read_rows(Path(data) / corpus / "label.csv", ("video_id", "clip_id", "text", "label", "mode"))
    return [Transcript(f"{row['video_id']}${row['clip_id']}", corpus, tuple(split_words(FILLER.sub("", row["text"]))), float(row["label"]))
            for row in rows if row["mode"] == check_split(split)]


def training_transcripts(data: Path, corpora: Sequence[str] = ("mosi", "mosei")) -> list[Transcript]:
    """All training rows with words, corpus after corpus: the numbering that compositions and masks are seeded by."""
    return [row for corpus in corpora for row in read_transcripts(data, corpus, "train") if row.words]


def read_rated(folder: Path) -> list[Transcript]:
    """The sentences of Hutto and Gilbert (2014) with the mean of twenty people's ratings, brought from [-4, 4] to [-3, 3]. folder: where the four
    *_GroundTruth.txt lie, lines of id, rating and sentence with tabs between; InputError where one is absent or a line is something else."""
    found = []
    for corpus, name in RATED.items():
        path = Path(folder) / f"{name}_GroundTruth.txt"
        if not path.is_file():
            raise InputError(f"There is no {path}; give --rated the folder hutto_ICWSM_2014, as the README says.")
        for number, line in enumerate(path.read_text(encoding="latin-1").splitlines(), start=1):
            try:
                key, rating, sentence = line.split("\t", 2)
                words, score = tuple(split_words(html.unescape(sentence))), float(rating) * 0.75
            except ValueError:
                raise InputError(f"{path}, line {number}, is not an id, a rating and a sentence with tabs between.") from None
            found += [Transcript(f"{corpus}${key}", corpus, words, score)] if words else []
    return found


def read_lexicon(folder: Path) -> list[Transcript]:
    """The words of VADER's lexicon, each as a sentence of its own, with the mean of ten people's ratings, brought from [-4, 4] to [-3, 3]. folder: where
    vader_sentiment_lexicon.txt lies, lines of word, rating and more with tabs between; InputError where it is absent or a line is something else."""
    path = Path(folder) / "vader_sentiment_lexicon.txt"
    if not path.is_file():
        raise InputError(f"There is no {path}; give --rated the folder hutto_ICWSM_2014, as the README says.")
    found = []
    for number, line in enumerate(path.read_text(encoding="latin-1").splitlines(), start=1):
        try:
            entry, rating, *_ = line.split("\t")
            word, score = entry.replace("_", " ").strip(), float(rating) * 0.75
        except ValueError:
            raise InputError(f"{path}, line {number}, is not a word and a rating with a tab between.") from None
        found += [Transcript(f"{LEXICON}${word}", LEXICON, tuple(word.split()), score)] if ENTRY.fullmatch(word) else []
    return found


def read_voices(data: Path, split: str) -> list[Voice]:
    folder = Path(data) / "voices"
    rows = read_rows(folder / "voices.csv", ("file", "speaker", "emotion", "intensity", "mode"))
    return [Voice(folder / row["file"], row["emotion"], row["speaker"], row["intensity"] == "strong") for row in rows if row["mode"] == check_split(split)]


def read_faces(data: Path, split: str) -> list[Face]:
    rows = read_rows(Path(data) / "faces" / "fer2013.csv", ("file", "expression", "mode"))
    return [Face(row["file"], row["expression"]) for row in rows if row["mode"] == check_split(split)]
