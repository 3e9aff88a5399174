"""MMSA pickles of MOSI, MOSEI, SIMS and SIMS v2 as they are found: checked, cleaned, and cut to what is no padding.

The quirks are many: -inf in the voice, lists for arrays, lengths that are absent (aligned files) or longer than what they count,
ids stored as floats, labels and texts that may be there or not, further keys. Lengths are taken from the arrays, never from a config.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Sequence

import numpy as np

from msademo.errors import InputError
from train.data import SPLITS
from train.unpickle import read_pickle

NUMBERS = {"text": "N x length x width", "audio": "N x length x width", "vision": "N x length x width", "text_bert": "N x 3 x length"}


@dataclass(frozen=True)
class Split:
    """One split; N samples, everything padded at its end.

    text (N, Lt, Dt) or None, audio (N, La, Da), vision (N, Lv, Dv): float32, finite. bert (N, 3, Lt) int64 or None: ids, attention mask,
    segments. lengths: per modality (N,) how much of a sequence is no padding; of the text None where there are neither features nor ids.
    scores (N,) float64; ids, raw, prompts: N texts, the last two None where the file has none. notes: what was mended.
    """

    name: str
    ids: tuple[str, ...]
    audio: np.ndarray
    vision: np.ndarray
    text: np.ndarray | None
    bert: np.ndarray | None
    lengths: Mapping[str, np.ndarray | None]
    scores: np.ndarray
    raw: tuple[str, ...] | None
    prompts: tuple[str, ...] | None
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.scores)


class Section:
    """One split of the file while it is read: every refusal names file, split and key, and says what was expected."""

    def __init__(self, file: str, name: str, content):
        self.file, self.name, self.content, self.notes = file, name, content, []
        if not isinstance(content, Mapping):
            raise InputError(f"{file}: the split {name!r} is a {type(content).__name__}; an MMSA pickle has a dict of arrays there.")

    def wrong(self, key: str, found: str, expected: str) -> InputError:
        return InputError(f"{self.file}: {self.name}/{key} {found}; expected {expected}.")

    def has(self, key: str) -> bool:
        return self.content.get(key) is not None

    def get(self, key: str, expected: str):
        if not self.has(key):
            raise InputError(f"{self.file}: the split {self.name!r} has no key {key!r}; expected {expected} there (it has: {', '.join(map(str, self.content)) or 'nothing'}).")
        return self.content[key]

    def array(self, key: str, count: int | None, dimensions: int, expected: str) -> np.ndarray:
        """The numbers under `key`, of so many dimensions and for so many samples."""
        value = self.get(key, expected)
        try:
            values = np.asarray(value)
            values = values if values.dtype.kind in "biuf" else values.astype(np.float64)
        except (ValueError, TypeError) as error:
            raise self.wrong(key, "holds no numbers, or rows of unequal length", expected) from error
        if values.ndim == dimensions + 1 and values.shape[-1] == 1 and dimensions == 1:
            values = values[..., 0]                                     # labels as a column
        if values.ndim != dimensions or (count is not None and len(values) != count):
            raise self.wrong(key, f"has shape {values.shape}", expected if count is None else f"{expected} with N = {count}")
        return values

    def sequences(self, key: str, count: int | None) -> tuple[np.ndarray, np.ndarray | None]:
        """(N, L, D) float32 without infinities and NaN; and the lengths (N,) where the file has a list of unequally long ones."""
        expected, lengths = f"{NUMBERS[key]} numbers", None
        value = self.get(key, expected)
        if isinstance(value, (list, tuple)) or getattr(value, "dtype", None) == object:
            try:
                parts = [np.asarray(part, dtype=np.float32) for part in value]
            except (ValueError, TypeError) as error:
                raise self.wrong(key, "holds no numbers, or rows of unequal length", expected) from error
            if len({part.shape[1:] for part in parts}) != 1 or parts[0].ndim != 2:
                raise self.wrong(key, f"is a list of shapes {', '.join(map(str, [part.shape for part in parts[:3]]))} ...", expected)
            lengths = np.array([len(part) for part in parts])
            value = np.zeros((len(parts), max(1, lengths.max()), parts[0].shape[1]), np.float32)
            for row, part in zip(value, parts):
                row[:len(part)] = part
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf" or value.ndim != 3 or 0 in value.shape or count not in (None, len(value)):
            found = f"has shape {value.shape} of {value.dtype}" if isinstance(value, np.ndarray) else f"is a {type(value).__name__}"
            raise self.wrong(key, found, expected + ("" if count is None else f" with N = {count}"))
        value = value.astype(np.float32, copy=False)
        spoilt = ~np.isfinite(value)
        if spoilt.any():
            self.notes.append(f"{int(spoilt.sum())} infinite or undefined numbers of {key} became 0")
            value = np.where(spoilt, np.float32(0), value)
        return value, None if lengths is None or len(set(lengths)) == 1 else lengths

    def length(self, key: str, values: np.ndarray, own: np.ndarray | None, aligned: np.ndarray | None = None) -> np.ndarray:
        """(N,) how much of `key` is real: the file's own lengths, cut to the padded length; in an aligned file the text's; else up to
        the last row that is not all zeros, since nothing else tells."""
        padded = values.shape[1]
        if own is not None:
            return own
        if self.has(f"{key}_lengths"):
            given = self.array(f"{key}_lengths", len(values), 1, "N whole numbers")
            if not np.isfinite(given).all() or (given < 0).any():
                raise self.wrong(f"{key}_lengths", "holds numbers that are no lengths", "N whole numbers from 0 on")
            if (given > padded).any():
                self.notes.append(f"{int((given > padded).sum())} lengths of {key} were cut to the {padded} steps there are")
            return np.minimum(given.astype(np.int64), padded)
        if aligned is not None:
            return aligned
        real = (values != 0).any(-1)
        self.notes.append(f"lengths of {key} are not given; zeros at the end count as padding")
        return np.where(real.any(1), padded - real[:, ::-1].argmax(1), 0)

    def bert(self, count: int) -> np.ndarray | None:
        if not self.has("text_bert"):
            return None
        values = self.array("text_bert", count, 3, "N x 3 x length token ids, attention mask and segments")
        if values.shape[1] != 3:
            raise self.wrong("text_bert", f"has shape {values.shape}", "N x 3 x length token ids, attention mask and segments")
        whole = np.rint(values) if values.dtype.kind == "f" else values
        if not np.array_equal(whole, values) or (whole < 0).any() or not np.isin(whole[:, 1], (0, 1)).all():
            raise self.wrong("text_bert", "holds numbers that are no ids or no mask", "whole ids from 0 on in its first row and zeros and ones in its second")
        whole = whole.astype(np.int64)
        if (np.diff(whole[:, 1], axis=1) > 0).any():
            raise self.wrong("text_bert", "has padding before or between tokens", "padding at the end alone")
        return whole

    def strings(self, key: str, count: int) -> tuple[str, ...] | None:
        if not self.has(key):
            return None
        found = self.content[key]
        values = found.ravel().tolist() if isinstance(found, np.ndarray) else found
        if not isinstance(values, (list, tuple)) or len(values) != count:
            raise self.wrong(key, f"has {len(values) if isinstance(values, (list, tuple)) else 'no'} entries", f"{count} texts")
        return tuple(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value[0] if isinstance(value, (list, tuple)) and value else value)
                     for value in values)

    def read(self, limit: float) -> Split:
        """limit: scores lie in [-limit, limit]."""
        scores = self.array("regression_labels", None, 1, "N scores").astype(np.float64)
        count = len(scores)
        if not count:
            raise self.wrong("regression_labels", "is empty", "a score a sample")
        if not np.isfinite(scores).all() or np.abs(scores).max() > limit + 1e-3:
            raise self.wrong("regression_labels", f"reaches {scores[np.argmax(np.abs(scores))]:g}", f"scores in [-{limit:g}, {limit:g}] (does --config name this data set?)")
        bert = self.bert(count)
        text, own = self.sequences("text", count) if self.has("text") else (None, None)
        if text is None and bert is None and not self.has("raw_text"):
            self.get("text", f"{NUMBERS['text']} numbers, or token ids under 'text_bert', or texts under 'raw_text',")
        lengths: dict[str, np.ndarray | None] = {"text": None}
        if bert is not None:
            lengths["text"] = bert[:, 1].sum(1)
            if text is not None and text.shape[1] != bert.shape[2]:
                raise self.wrong("text_bert", f"has {bert.shape[2]} steps and text {text.shape[1]}", "as many token ids as rows of text features")
        elif text is not None:
            lengths["text"] = self.length("text", text, own)
        audio, own_audio = self.sequences("audio", count)
        vision, own_vision = self.sequences("vision", count)
        steps = bert.shape[2] if bert is not None else text.shape[1] if text is not None else None
        aligned = lengths["text"] if audio.shape[1] == vision.shape[1] == steps else None
        lengths |= {"audio": self.length("audio", audio, own_audio, aligned), "vision": self.length("vision", vision, own_vision, aligned)}
        ids = self.strings("id", count) or tuple(f"{self.name}-{i}" for i in range(count))
        return Split(self.name, ids, audio, vision, text, bert, lengths, scores, self.strings("raw_text", count),
                     self.strings("prompt", count), tuple(self.notes))


def read_mmsa(path: str | Path, limit: float, splits: Sequence[str] = SPLITS, say=lambda line: None) -> dict[str, Split]:
    """The wanted splits of an MMSA pickle, whose modalities are as wide in one as in the other. `say` gets what was mended.

    limit: 3 for MOSI and MOSEI, 1 for SIMS. Raises InputError with one sentence: which key, which shape, what was expected.
    """
    path = Path(path)
    content = read_pickle(path)
    if not isinstance(content, Mapping) or not any(name in content for name in SPLITS):
        found = f"a dict of {', '.join(map(str, list(content)[:8]))}" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise InputError(f"{path.name} holds {found}; an MMSA pickle is a dict of train, valid and test.")
    for name in splits:
        if name not in content:
            raise InputError(f"{path.name} has no split {name!r}; an MMSA pickle is a dict of train, valid and test (it has: {', '.join(map(str, content))}).")
    found = {name: Section(path.name, name, content[name]).read(limit) for name in splits}
    first = found[splits[0]]
    for split in found.values():
        for key in ("text", "audio", "vision"):
            one, other = (getattr(part, key) for part in (first, split))
            if (one is None) != (other is None) or one is not None and one.shape[2] != other.shape[2]:
                raise InputError(f"{path.name}: {split.name}/{key} has width {'none' if other is None else other.shape[2]} and {first.name}/{key} "
                                 f"{'none' if one is None else one.shape[2]}; expected the same in every split.")
        for note in split.notes:
            say(f"{path.name}: {split.name}: {note}")
    return found
