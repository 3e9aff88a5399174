"""What is right and wrong about an answer, alike for scores of clips and classes of posts.

A value is a score in [-3, 3], or probabilities in the order of CLASSES. Everything here is of one item and one who answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Sequence

import numpy as np

from msademo.errors import InputError
from msademo.study.plan import PART_NAMES, PARTS
from msademo.study.sets import CLASSES, CLIP
from msademo.study.store import Stored

SEVEN = tuple(f"{value:+d}" if value else "0" for value in range(-3, 4))     # Acc-7's classes
SIDES = dict(zip(CLASSES, (-1, 0, 1)))


def classes(kind: str) -> tuple[str, ...]:
    return SEVEN if kind == CLIP else CLASSES


def class_of(kind: str, value) -> str:
    """Of a label or an answer: the rounded score (half to even, as in Acc-7), or the likeliest class."""
    if isinstance(value, str):
        return value
    return SEVEN[int(np.clip(np.round(value), -3, 3)) + 3] if kind == CLIP else CLASSES[int(np.argmax(value))]


def side(kind: str, value) -> int:
    """-1, 0 or 1: negative, neutral or positive."""
    return int(np.sign(value)) if kind == CLIP else SIDES[class_of(kind, value)]


@dataclass(frozen=True)
class Judged:
    """One item under one who answers. error: |score - label|, or 1 - the probability of the true class; None without an answer.

    wrong_class, wrong_side (the opposite one; a neutral label has none). flips: parts without which the side (of a post: the class) is another.
    change: how far random masks move the answer on average - points of score, or total variation of the probabilities.
    disagree: do models (of a post: its paths) take different sides; spread: how far apart they are.
    """

    stored: Stored
    kind: str
    value: float | list[float] | None
    error: float | None = None
    wrong_class: bool = False
    wrong_side: bool = False
    flips: tuple[str, ...] = ()
    change: float | None = None
    disagree: bool = False
    spread: float | None = None

    @property
    def number(self) -> int:
        return self.stored.item.number

    @property
    def words(self) -> str:
        """The item's words, the recognised ones where none were given."""
        return self.stored.item.text or " ".join((self.stored.answer or {}).get("words", ()))


def _distance(kind: str, a, b) -> float:
    return abs(a - b) if kind == CLIP else 0.5 * float(np.abs(np.subtract(a, b)).sum())


def judge(kind: str, stored: Stored, who: str) -> Judged:
    """who: a model of clips or a path of posts."""
    answers = (stored.answer or {}).get("answers", {})
    own = answers.get(who)
    if own is None or own["now"] is None:
        return Judged(stored, kind, None)
    value, label = own["now"], stored.item.label
    error = abs(value - label) if kind == CLIP else 1.0 - value[CLASSES.index(label)]
    turned = (lambda v: side(kind, v)) if kind == CLIP else (lambda v: class_of(kind, v))
    flips = tuple(part for part in PARTS[kind] if own["without"].get(part) is not None and turned(own["without"][part]) != turned(value))
    moved = [_distance(kind, masked, value) for masked in own["masked"] if masked is not None]
    # The two halves of a post can disagree; their fusion lies between them and adds nothing.
    others = [entry["now"] for name, entry in answers.items() if entry["now"] is not None and (kind == CLIP or name != "fusion")]
    spread = max((_distance(kind, a, b) for a in others for b in others), default=0.0) if len(others) > 1 else None
    return Judged(stored, kind, value, float(error), class_of(kind, value) != class_of(kind, label),
                  side(kind, label) * side(kind, value) < 0, flips, float(np.mean(moved)) if moved else None,
                  len({turned(v) for v in others}) > 1, spread)


def _by(name: str) -> Callable[[Judged], float]:
    return lambda row: -np.inf if getattr(row, name) is None else getattr(row, name)


ORDERS: dict[str, Callable[[Judged], float]] = {"largest error": _by("error"), "most changed under masks": _by("change"),
                                               "models furthest apart": _by("spread"), "smallest error": lambda row: -np.inf if row.error is None else -row.error,
                                               "order of the set": lambda row: -row.number}


def shows(kind: str) -> dict[str, Callable[[Judged], bool]]:
    """The filters by what the page calls them."""
    found = {"all": lambda row: True, "wrong side": lambda row: row.wrong_side, "wrong class": lambda row: row.wrong_class,
             "models disagree" if kind == CLIP else "picture and words disagree": lambda row: row.disagree}
    for part in PARTS[kind]:
        found[f"flips without {PART_NAMES[part]}"] = lambda row, part=part: part in row.flips
    return found | {"with a note or tag": lambda row: bool(row.stored.note or row.stored.tags), "failed": lambda row: row.stored.error is not None}


def select(rows: Sequence[Judged], kind: str, show: str = "all", order: str = "largest error", cell: tuple[str, str] | None = None,
           search: str = "") -> list[Judged]:
    """Filtered and sorted; equal ones in the table's order. cell: (true, predicted) class of the confusion. search: in ids, words, notes and tags."""
    chosen, by = shows(kind).get(show), ORDERS.get(order)
    if chosen is None or by is None:
        raise InputError(f"There is no way to show {show!r} ordered by {order!r}; choose one of the lists.")
    found = [row for row in rows if chosen(row)]
    if cell is not None:
        found = [row for row in found if row.value is not None and (class_of(kind, row.stored.item.label), class_of(kind, row.value)) == cell]
    wanted = search.strip().casefold()
    if wanted:
        found = [row for row in found if wanted in "\n".join((row.stored.item.key, row.words, row.stored.note, *row.stored.tags)).casefold()]
    return sorted(found, key=lambda row: (-by(row), row.number))
