"""The field's metrics, exactly as MMSA, LNLN and ALMT compute them (MMSA utils/metricsTop.py), with the guards they lack."""

from __future__ import annotations

from typing import Sequence

import numpy as np

REGRESSION = ("acc2_has0", "acc2_non0", "f1_has0", "f1_non0", "acc5", "acc7", "mae", "corr")


def weighted_f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    """F1 a class, weighted by how often the class is true (scikit-learn's average="weighted", truth first)."""
    total, score = len(truth), 0.0
    for label in np.unique(np.concatenate([truth, predicted])):
        hits = np.sum((truth == label) & (predicted == label))
        both = np.sum(truth == label) + np.sum(predicted == label)
        score += np.sum(truth == label) / total * (2 * hits / both if both else 0.0)
    return float(score)


def class_metrics(predicted: np.ndarray, truth: np.ndarray, classes: Sequence[str]) -> dict:
    """Accuracy, weighted and macro F1, per_class {precision, recall, f1, count} and confusion[true][predicted] of class numbers (N,)
    into `classes`; shares in [0, 1], a share of nothing is 0. Raises ValueError for empty, unequal or unknown numbers."""
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    if predicted.shape != truth.shape or truth.ndim != 1 or not len(truth):
        raise ValueError(f"metrics need as many predictions as labels and at least one, not {predicted.shape} and {truth.shape}")
    if not (np.isin(predicted, range(len(classes))).all() and np.isin(truth, range(len(classes))).all()):
        raise ValueError(f"labels must be numbers from 0 to {len(classes) - 1}")
    confusion = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(confusion, (truth, predicted), 1)
    hits, true, found = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    share = lambda part, whole: np.divide(part, whole, out=np.zeros(len(classes)), where=whole > 0)
    f1 = share(2 * hits, true + found)
    return {
        "accuracy": float(hits.sum() / len(truth)),
        "weighted_f1": float((f1 * true).sum() / len(truth)),
        "macro_f1": float(f1.mean()),
        "per_class": {name: {"precision": float(p), "recall": float(r), "f1": float(f), "count": int(n)}
                      for name, p, r, f, n in zip(classes, share(hits, found), share(hits, true), f1, true)},
        "confusion": {name: dict(zip(classes, row.tolist())) for name, row in zip(classes, confusion)},
    }


def correlation(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Pearson's r; 0 when either side is constant, where it is not defined."""
    if len(truth) < 2 or np.ptp(predicted) == 0 or np.ptp(truth) == 0:
        return 0.0
    return float(np.corrcoef(predicted, truth)[0, 1])


def balanced_signs(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Mean recall of the two signs, zeros dropped; 0.5 for any constant predictor. NaN when a sign does not occur."""
    recalls = [np.mean((predicted[side] > 0) == positive) for positive, side in ((True, truth > 0), (False, truth < 0)) if side.any()]
    return float(np.mean(recalls)) if len(recalls) == 2 else float("nan")


def regression_metrics(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Metrics of scores in [-3, 3] (MOSI, MOSEI); both (N,) float.

    has0: non-negative against negative over all; non0: positive against negative without the zeros. acc7 and acc5 round to
    whole numbers (half to even, as numpy does) after clipping to +-3 and +-2. The mean absolute error is not clipped.
    Accuracies and F1 are shares in [0, 1]. acc2_balanced is the mean recall of the two signs, zeros dropped.
    Raises ValueError for empty, unequal or non-finite input.
    """
    predicted, truth = np.asarray(predicted, dtype=np.float64).ravel(), np.asarray(truth, dtype=np.float64).ravel()
    if len(predicted) != len(truth) or not len(truth):
        raise ValueError(f"metrics need as many predictions as scores and at least one, not {len(predicted)} and {len(truth)}")
    if not (np.isfinite(predicted).all() and np.isfinite(truth).all()):
        raise ValueError("metrics need finite predictions and scores")
    signed = truth != 0

    def rounded(limit):
        return np.mean(np.round(np.clip(predicted, -limit, limit)) == np.round(np.clip(truth, -limit, limit)))

    return {
        "acc2_has0": float(np.mean((predicted >= 0) == (truth >= 0))),
        "acc2_non0": float(np.mean((predicted[signed] > 0) == (truth[signed] > 0))) if signed.any() else float("nan"),
        "f1_has0": weighted_f1(truth >= 0, predicted >= 0),
        "f1_non0": weighted_f1(truth[signed] > 0, predicted[signed] > 0) if signed.any() else float("nan"),
        "acc5": float(rounded(2)),
        "acc7": float(rounded(3)),
        "mae": float(np.mean(np.abs(predicted - truth))),
        "corr": correlation(predicted, truth),
        "acc2_balanced": balanced_signs(predicted, truth),
    }


def in_bins(values: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """Class numbers between right-closed edges, compared in the values' own precision, as MMSA does: a float32 0.1 is not above 0.1."""
    return np.digitize(values, np.asarray(edges, dtype=values.dtype), right=True)


def sims_metrics(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Metrics of scores in [-1, 1] (SIMS, SIMS v2), as MMSA's __eval_sims_regression; both (N,) float.

    Both sides are clipped to +-1 first, for MAE and Corr too. Bins are right-closed: acc2 parts at 0, so that 0 is negative here;
    acc3 at -0.1, 0.1; acc5 at -0.7, -0.1, 0.1, 0.7. f1 is weighted, over acc2's bins. Raises ValueError as regression_metrics does.
    """
    predicted, truth = (values if values.dtype == np.float32 else values.astype(np.float64) for values in (np.ravel(predicted), np.ravel(truth)))
    if len(predicted) != len(truth) or not len(truth):
        raise ValueError(f"metrics need as many predictions as scores and at least one, not {len(predicted)} and {len(truth)}")
    if not (np.isfinite(predicted).all() and np.isfinite(truth).all()):
        raise ValueError("metrics need finite predictions and scores")
    predicted, truth = np.clip(predicted, -1, 1), np.clip(truth, -1, 1)
    same = lambda edges: float(np.mean(in_bins(predicted, edges) == in_bins(truth, edges)))
    return {
        "acc2": same([0.0]),
        "f1": weighted_f1(in_bins(truth, [0.0]), in_bins(predicted, [0.0])),
        "acc3": same([-0.1, 0.1]),
        "acc5": same([-0.7, -0.1, 0.1, 0.7]),
        "mae": float(np.mean(np.abs(predicted.astype(np.float64) - truth))),
        "corr": correlation(predicted.astype(np.float64), truth.astype(np.float64)),
    }
