"""Pictures of figures: a metric against the missing rate, and learning curves. Drawn without pyplot, which keeps every figure alive."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Sequence

from msademo.checkpoint import write_atomically
from train.papers import TITLES, printed_by_rate

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")        # Okabe and Ito: told apart by the colour-blind


def new_figure(width: float = 7.0, height: float = 4.2):
    from matplotlib.figure import Figure        # a second that a training run waits for at its end alone
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(path: Path, figure) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})          # the same picture for the same figures
    write_atomically(path, buffer.getvalue())


def draw_rates(path: Path, groups: Sequence, dataset: str, metric: str) -> None:
    """Means over seeds with a band of one deviation, PGLH as printed, and what a constant reaches. groups: train.table.Group."""
    figure = new_figure()
    axes = figure.subplots()
    theirs = printed_by_rate(dataset)
    if theirs:
        axes.plot([float(row.name) for row in theirs], [row.figures[metric] for row in theirs], "--", color="0.45", marker="x", label="PGLH, as printed")
    for colour, group in zip(COLOURS * len(groups), groups):
        rates = [row["rate"] for row in group.first["rates"]]
        pairs = [group.figures(lambda r, i=i: r["rates"][i])[metric] for i in range(len(rates))]
        means = [mean for mean, _ in pairs]
        axes.plot(rates, means, marker="o", color=colour, label=group.name)
        if pairs[0][1] is not None:
            axes.fill_between(rates, [m - d for m, d in pairs], [m + d for m, d in pairs], color=colour, alpha=0.2, linewidth=0)
    floor = groups[0].first["floor"][metric] * (1 if metric == "mae" else 100)
    axes.axhline(floor, color="0.3", linestyle=":", label="a constant, at best")
    axes.set(xlabel="missing rate r, all modalities", ylabel=TITLES[metric] + ("" if metric == "mae" else " (%)"), title=groups[0].title)
    axes.legend(fontsize=7)
    save_figure(path, figure)


def write_curves(folder: Path, name: str, history: Sequence[dict[str, float]]) -> None:
    """folder/curves.csv, a row an epoch, and folder/curves.png: the loss and its parts beside what was measured on valid."""
    columns = list(dict.fromkeys(key for row in history for key in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomically(Path(folder) / "curves.csv", out.getvalue().encode())
    figure = new_figure(9.0, 3.8)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for axes, keys, title in ((left, [c for c in columns if c.startswith("loss")], "training loss"), (right, [c for c in columns if c == "score" or c.startswith("mae")], "valid")):
        for colour, key in zip(COLOURS * 3, keys):
            axes.plot(epochs, [row.get(key, float("nan")) for row in history], marker=".", color=colour, label=key)
        axes.set(xlabel="epoch", title=f"{name}: {title}")
        axes.legend(fontsize=7)
    save_figure(Path(folder) / "curves.png", figure)
