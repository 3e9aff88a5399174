"""One implementation measures all: predictions -> msademo.metrics -> JSON and tables."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Mapping, Sequence

import numpy as np

from msademo.errors import InputError
from msademo.metrics import regression_metrics
from msademo.study.statistics import RESAMPLES, ends_of, samples
from train.evaluate import average

OWN = ("PGLH", "PGMF student")              # what the others are held against
SHOWN = (("acc2_non0", "Acc-2 Non0", 100), ("acc2_balanced", "balanced Acc-2", 100), ("mae", "MAE", 1), ("corr", "Corr", 1))


def read_predictions(path: Path, compositions: int, clips: int) -> np.ndarray:
    """(C, N) finite scores of one case. Never unpickled: a file of anything else than plain numbers is refused."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            scores = arrays["scores"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} holds no predictions; delete it and run the same command again.") from error
    if scores.shape != (compositions, clips) or scores.dtype.kind != "f" or not np.isfinite(scores).all():
        raise InputError(f"{path} should hold {compositions} x {clips} finite scores and holds {scores.shape} of type {scores.dtype}; delete it and run the same command again.")
    return scores


def measure(folder: Path, cases: Sequence[tuple[float, int, str]], truth: np.ndarray, compositions: int) -> list[dict[str, float]]:
    """A row a rate, each figure a mean over its draws and the compositions, as train.evaluate has them."""
    rows: dict[float, list] = {}
    for rate, _, name in cases:
        scores = read_predictions(folder / name, compositions, len(truth))
        rows.setdefault(rate, []).extend(regression_metrics(predicted, truth) for predicted in scores)
    return [{"rate": rate, **average(found)} for rate, found in rows.items()]


def by_transcript(folder: Path, cases: Sequence[tuple[float, int, str]], truth: np.ndarray, compositions: int) -> dict[str, np.ndarray]:
    """Per transcript, (N,) each, means over draws and compositions, then over rates: `error`, absolute, and `sign`, how often it is right."""
    rates: dict[float, list] = {}
    for rate, _, name in cases:
        scores = read_predictions(folder / name, compositions, len(truth)).astype(np.float64)
        rates.setdefault(rate, []).append((np.abs(scores - truth).mean(0), ((scores > 0) == (truth > 0)).mean(0)))
    error, sign = np.mean([np.mean(rows, axis=0) for rows in rates.values()], axis=0)
    return {"error": error, "sign": sign}


def means_of(part: Mapping[str, Sequence[float]], truth: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(B, 3) Acc-2 Non0, balanced Acc-2 and MAE, means over rates, of B samples that hold transcript i counts[:, i] times; NaN where a sign is not drawn."""
    error, sign = (np.asarray(part[name]) for name in ("error", "sign"))
    mean = lambda values, chosen: (counts * chosen) @ values / (counts * chosen).sum(1)
    with np.errstate(invalid="ignore"):
        return np.stack([mean(sign, truth != 0), (mean(sign, truth > 0) + mean(sign, truth < 0)) / 2, mean(error, np.ones(len(truth)))], axis=1)


def differences(part: Mapping, other: Mapping, truth: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """part's figures (means_of) minus other's, (3,), and the ends of their 95 % intervals, (2, 3): percentiles over resampled transcripts, the same for both."""
    truth = np.asarray(truth)
    counts = np.stack([np.ones(len(truth)), *(np.bincount(drawn, minlength=len(truth)) for drawn in samples(len(truth)))])
    apart = means_of(part, truth, counts) - means_of(other, truth, counts)
    return apart[0], ends_of(apart[1:])


def over_seeds(seeds: Mapping[str, list[dict[str, float]]]) -> tuple[list[dict], dict]:
    """rows by seed -> (mean and deviation of every figure at every rate, and of the average over rates). The deviation of one seed is None."""
    def spread(rows: list[dict[str, float]]) -> dict[str, dict]:
        return {name: {"mean": float(np.mean([row[name] for row in rows])), "deviation": float(np.std([row[name] for row in rows], ddof=1)) if len(rows) > 1 else None}
                for name in rows[0] if name != "rate"}
    rates = [row["rate"] for row in next(iter(seeds.values()))]
    by_rate = [{"rate": rate, **spread([rows[i] for rows in seeds.values()])} for i, rate in enumerate(rates)]
    return by_rate, spread([average([{k: v for k, v in row.items() if k != "rate"} for row in rows]) for rows in seeds.values()])


def written(value: Mapping, scale: float) -> str:
    digits = 1 if scale == 100 else 3
    text = f"{scale * value['mean']:.{digits}f}"
    return text if value["deviation"] is None else f"{text} ± {scale * value['deviation']:.{digits}f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def markdown(report: Mapping) -> str:
    """The report's tables: an overview, then every rate."""
    models = report["models"]
    milliseconds = lambda entry, part: f"{1000 * entry['timing'][part]:.0f}"
    overview = [[entry["model"], entry["training"], entry["settings"], str(len(entry["seeds"])), f"{entry['timing']['parameters']:,}", milliseconds(entry, "step"),
                 milliseconds(entry, "forward"), *(written(entry["average"][name], scale) for name, _, scale in SHOWN),
                 " / ".join(written(entry["rates"][0][name], scale) for name, _, scale in SHOWN)] for entry in models]
    first = models[0]["rates"][0]["rate"] if models else 0
    parts = [report["about"], table(["model", "trained on clips", "hyper-parameters", "seeds", "parameters", "ms a training step", "ms a forward pass",
                                     *(f"{title}, mean of the rates" for _, title, _ in SHOWN), f"r = {first:g}: " + " / ".join(title for _, title, _ in SHOWN)], overview)]
    for reference in (entry for entry in models if entry["model"] in OWN):
        rows = []
        for entry in (entry for entry in models if entry is not reference):
            value, ends = differences(entry["transcripts"], reference["transcripts"], report["truth"])
            rows.append([entry["model"], entry["training"], *(f"{scale * v:+.{digits}f} [{scale * low:+.{digits}f}, {scale * high:+.{digits}f}]"
                                                               for v, low, high, scale, digits in zip(value, *ends, (100, 100, 1), (1, 1, 3)))])
        if rows:
            parts.append(f"Minus {reference['model']}, means of the rates and seeds; in brackets the middle 95 % of {RESAMPLES} resamples of the transcripts, drawn alike for both:\n\n"
                         + table(["model", "trained on clips", "Acc-2 Non0", "balanced Acc-2", "MAE"], rows))
    if models:
        rates = [row["rate"] for row in models[0]["rates"]]
        for name, title, scale in SHOWN:
            parts.append(f"{title} by missing rate:\n\n" + table(["model", *(f"{rate:g}" for rate in rates)],
                                                                 [[f"{entry['model']}, {entry['training']}", *(written(row[name], scale) for row in entry["rates"])] for entry in models]))
    parts += [f"{failure['label']} gave nothing: {failure['reason']}" for failure in report["failed"]]
    return "\n\n".join(parts) + "\n"
