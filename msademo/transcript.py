"""Text -> words with times: plain transcripts in any script, .srt and .vtt subtitles, and the files they come in."""

from __future__ import annotations

import codecs
import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msademo.errors import InputError

MAX_FILE_BYTES = 1_000_000
MAX_WORD_CHARS = 48         # longer runs (links, scripts without spaces) are cut: an encoder must never meet a 1 MB "word"


@dataclass(frozen=True)
class Word:
    """One word of the transcript. start/end in seconds; None where no time is known."""

    text: str
    start: float | None = None
    end: float | None = None


# Han and kana are written without spaces, so each character is a word; Hangul has spaces.
_CJK = "\u3005\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_CJK_PUNCTUATION = "\u3001-\u3004\u3008-\u3020\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
_OPENING = "\u3008\u300a\u300c\u300e\u3010\u3014\u3016\u3018\u301a\uff08\uff3b\uff5b\uff5f\uff62" + "([{\"'\u201c\u2018\u00ab\u00bf\u00a1"
_PICTURE = "\u2600-\u27bf\u2b00-\u2bff\U0001f300-\U0001faff"
_JOINED = "[\ufe0f\u20e3\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]*"
_EMOJI = f"[\U0001f1e6-\U0001f1ff]{{2}}|[{_PICTURE}]{_JOINED}(?:\u200d[{_PICTURE}]{_JOINED})*"
_UNIT = re.compile(f"({_EMOJI})|([{_CJK}])|([{_CJK_PUNCTUATION}])|((?:(?!{_EMOJI})[^{_CJK}{_CJK_PUNCTUATION}])+)")


def _clean(text: str) -> str:
    """Without control characters, lone surrogates and byte-order marks; line breaks and tabs stay white space."""
    keep = (c if c.isspace() or (unicodedata.category(c) not in ("Cc", "Cs") and c != "\ufeff") else "" for c in text)
    return "".join(keep)


def _is_punctuation(text: str) -> bool:
    return all(unicodedata.category(c)[0] == "P" for c in text)


def _split_chunk(chunk: str) -> list[str]:
    """The words of a run without white space; punctuation goes to the word before it, opening marks to the one after."""
    words: list[str] = []
    lead = ""
    for match in _UNIT.finditer(chunk):
        unit = match.group()
        if _is_punctuation(unit):
            if words and not lead and unit[0] not in _OPENING:
                words[-1] += unit
            else:
                lead += unit
        else:
            words.append(lead + unit)
            lead = ""
    return words + [lead] if lead else words


def split_words(text: str) -> list[str]:
    """The words of `text` in order: split at white space, and each Han or kana character and each emoji is a word.

    Punctuation stays with its word. Control characters go; a word longer than MAX_WORD_CHARS is cut into pieces.
    """
    words = []
    for chunk in _clean(text).split():
        for word in _split_chunk(chunk):
            if any(unicodedata.category(c) not in ("Cf", "Mn") for c in word):      # something one can see
                words += [word[i:i + MAX_WORD_CHARS] for i in range(0, len(word), MAX_WORD_CHARS)]
    return words


def assign_times(words: Sequence[str], end: float, start: float = 0.0) -> tuple[Word, ...]:
    """Spread `words` over [start, end] seconds in proportion to their length; without times when the span is empty."""
    if end <= start:
        return tuple(Word(text) for text in words)
    total = sum(len(text) for text in words)
    timed, read = [], 0
    for text in words:
        begin, read = read, read + len(text)
        timed.append(Word(text, start + (end - start) * begin / total, start + (end - start) * read / total))
    return tuple(timed)


_STAMP = r"(?:(\d{1,3}):)?([0-5]?\d):([0-5]?\d)(?:[.,](\d{1,3}))?"
_TIMING = re.compile(rf"^[ \t]*{_STAMP}[ \t]*-->[ \t]*{_STAMP}(?:[ \t].*)?$", re.MULTILINE)
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<[\d:.]+>|\{\\[^{}]*\}")     # <i>, <v Name>, <00:01.000>, {\an8}


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction or 0}")


def looks_like_subtitles(text: str) -> bool:
    """Whether `text` is the content of an .srt or .vtt file rather than a plain transcript."""
    return text.lstrip("\ufeff \t\r\n").startswith("WEBVTT") or "-->" in text and _TIMING.search(_lines(text)) is not None


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _plain(lines: list[str]) -> str:
    return " ".join(html.unescape(_TAG.sub("", " ".join(lines))).split())


def parse_subtitles(text: str) -> list[tuple[float, float, str]]:
    """Cues of an .srt or .vtt file as (start, end, text), seconds, in order of start.

    A cue without text, or one that ends before it starts, is skipped. InputError when no cue is left.
    """
    cues: list[tuple[float, float, list[str]]] = []
    reading = False
    lines = _lines(text).split("\n")
    for i, line in enumerate(lines):
        timing = _TIMING.match(line)
        if timing:
            part = timing.groups()
            cues.append((_seconds(*part[:4]), _seconds(*part[4:]), []))
            reading = True
        elif not line.strip() or "-->" in line:             # a blank line, or a timing line beyond reading, ends the cue
            reading = False
        elif reading and not (line.strip().isdigit() and i + 1 < len(lines) and "-->" in lines[i + 1]):
            cues[-1][2].append(line)                        # everything outside a cue (numbers, NOTE, STYLE) is left out
    good = [(start, end, _plain(spoken)) for start, end, spoken in cues if end > start]
    good = sorted((cue for cue in good if cue[2]), key=lambda cue: cue[0])
    if not good:
        raise InputError("No subtitle could be read: each needs a line such as 00:00:01,000 --> 00:00:02,500 "
                         "with its words below; save the file as .srt or .vtt again.")
    return good


def subtitle_words(text: str) -> tuple[Word, ...]:
    """The words of all cues, in order, each cue's words spread over its own seconds."""
    return tuple(word for start, end, spoken in parse_subtitles(text)
                 for word in assign_times(split_words(spoken), end, start))


_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read_text_file(path: str | None, what: str = "subtitle file", choose: str = "an .srt or .vtt file") -> str:
    """The text of a small file, by its byte-order mark, else UTF-8, else GB 18030, else Windows Latin. InputError otherwise, about the
    file called `what`."""
    file = Path(path or "")
    if not file.is_file():
        raise InputError(f"The {what} does not exist; choose {choose}.")
    if file.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"The {what} is larger than 1 MB; choose {choose}.")
    data = file.read_bytes()
    encodings = [name for mark, name in _MARKS if data.startswith(mark)]
    if not encodings and b"\0" in data:
        raise InputError(f"The {what} is not a text file; choose {choose}.")
    for encoding in encodings or ("utf-8", "gb18030"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("cp1252", errors="replace")
