"""Metrics of a run with bootstrap confidence intervals, the confusion, and two runs held against each other.

Intervals are percentile intervals over resampled items; two runs are resampled together (paired), item by item.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np

from msademo.errors import InputError
from msademo.metrics import class_metrics, regression_metrics
from msademo.study.judging import Judged, class_of, classes
from msademo.study.sets import CLASSES, CLIP

RESAMPLES, LEVEL, SEED = 1000, 0.95, 0
FEWEST = 5                  # items, below which an interval says nothing and is not given
# name: (what people call it, is it a share, is more better)
METRICS = {"acc2_non0": ("Acc-2, zeros left out", True, True), "f1_non0": ("F1, zeros left out", True, True), "acc2_has0": ("Acc-2, zeros count as positive", True, True),
           "acc7": ("Acc-7", True, True), "mae": ("MAE", False, False), "corr": ("Pearson's r", False, True),
           "accuracy": ("Accuracy", True, True), "weighted_f1": ("Weighted F1", True, True), "macro_f1": ("Macro F1", True, True)}
OF = {True: ("acc2_non0", "f1_non0", "acc2_has0", "acc7", "mae", "corr"), False: ("accuracy", "weighted_f1", "macro_f1")}


@dataclass(frozen=True)
class Measured:
    """value with the ends of its interval; NaN ends where there are too few items."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict:
        return {name: None if not np.isfinite(v) else round(float(v), 4) for name, v in vars(self).items()}


def names_of(kind: str) -> tuple[str, ...]:
    return OF[kind == CLIP]


def _arrays(kind: str, rows: Sequence[Judged]) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels (N,): scores, or numbers of classes."""
    if kind == CLIP:
        return np.array([row.value for row in rows], float), np.array([row.stored.item.label for row in rows], float)
    return np.array([int(np.argmax(row.value)) for row in rows]), np.array([CLASSES.index(row.stored.item.label) for row in rows])


def _metrics(kind: str, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    found = regression_metrics(predicted, truth) if kind == CLIP else class_metrics(predicted, truth, CLASSES)
    return np.array([found[name] for name in names_of(kind)])


def samples(count: int) -> np.ndarray:
    """(RESAMPLES, count) places of resampled items, always the same, so that what is resampled by them is paired."""
    return np.random.default_rng(SEED).integers(0, count, (RESAMPLES, count))


def ends_of(values: np.ndarray) -> np.ndarray:
    """(B, K) -> (2, K); resamples in which a metric is not defined are left out."""
    tail = 50 * (1 - LEVEL)
    ends = np.full((2, values.shape[1]), np.nan)
    for k, column in enumerate(values.T):
        defined = column[np.isfinite(column)]
        if len(defined) > len(column) // 2:
            ends[:, k] = np.percentile(defined, [tail, 100 - tail])
    return ends


def answered(rows: Sequence[Judged]) -> list[Judged]:
    return [row for row in rows if row.value is not None]


def metrics(kind: str, rows: Sequence[Judged]) -> dict[str, Measured]:
    """By name, of the items that were answered; empty without any."""
    rows = answered(rows)
    if not rows:
        return {}
    predicted, truth = _arrays(kind, rows)
    value, ends = _metrics(kind, predicted, truth), np.full((2, len(names_of(kind))), np.nan)
    if len(rows) >= FEWEST:
        ends = ends_of(np.array([_metrics(kind, predicted[i], truth[i]) for i in samples(len(rows))]))
    return {name: Measured(float(v), float(low), float(high)) for name, v, low, high in zip(names_of(kind), value, *ends)}


def confusion(kind: str, rows: Sequence[Judged]) -> np.ndarray:
    """(K, K) counts, a row a true class, a column a predicted one, in the order of classes(kind)."""
    names = classes(kind)
    counts = np.zeros((len(names), len(names)), int)
    for row in answered(rows):
        counts[names.index(class_of(kind, row.stored.item.label)), names.index(class_of(kind, row.value))] += 1
    return counts


@dataclass(frozen=True)
class Compared:
    """Two runs over the same items. difference: second minus first; better, worse: pairs of rows whose class became right or wrong;
    moved: all pairs, those whose error changed most first."""

    count: int
    first: dict[str, float]
    second: dict[str, float]
    difference: dict[str, Measured]
    better: tuple[tuple[Judged, Judged], ...]
    worse: tuple[tuple[Judged, Judged], ...]
    moved: tuple[tuple[Judged, Judged], ...]


def compare(kind: str, first: Sequence[Judged], second: Sequence[Judged]) -> Compared:
    """Items are matched by their ids, and must have the same label. InputError when no answered item is in both."""
    there = {row.stored.item.key: row for row in answered(second)}
    pairs = [(row, there[row.stored.item.key]) for row in answered(first)
             if row.stored.item.key in there and there[row.stored.item.key].stored.item.label == row.stored.item.label]
    if not pairs:
        raise InputError("The two runs have no answered item in common; choose two runs over the same set.")
    (a, truth), (b, _) = _arrays(kind, [x for x, _ in pairs]), _arrays(kind, [y for _, y in pairs])
    one, two = _metrics(kind, a, truth), _metrics(kind, b, truth)
    ends = np.full((2, len(one)), np.nan)
    if len(pairs) >= FEWEST:
        ends = ends_of(np.array([_metrics(kind, b[i], truth[i]) - _metrics(kind, a[i], truth[i]) for i in samples(len(pairs))]))
    names = names_of(kind)
    by_error = sorted(pairs, key=lambda pair: (-abs(pair[1].error - pair[0].error), pair[0].number))
    return Compared(len(pairs), dict(zip(names, one.tolist())), dict(zip(names, two.tolist())),
                    {name: Measured(float(v), float(low), float(high)) for name, v, low, high in zip(names, two - one, *ends)},
                    tuple(pair for pair in pairs if pair[0].wrong_class and not pair[1].wrong_class),
                    tuple(pair for pair in pairs if not pair[0].wrong_class and pair[1].wrong_class), tuple(by_error))
