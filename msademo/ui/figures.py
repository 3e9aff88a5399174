"""Plotly figures as plain dicts, and the sentence under each.

Plain dicts because building and checking plotly's own objects costs more than a model does; tests check them with plotly.
Backgrounds are transparent and the theme colours the text, so one figure serves the light and the dark page.
"""

from __future__ import annotations

import json
from typing import Iterable

import numpy as np
from gradio.components.plot import PlotData

from msademo.results import Curve, PromptAttention, class_of
from msademo.ui.theme import BAND, CONSTANT, LINE, NEGATIVE

NAMES = {"text": "words", "audio": "voice", "vision": "face"}
TOP = 3                     # tokens named in a sentence
CLEAR = "rgba(0,0,0,0)"
_GRID = {"gridcolor": "rgba(128,136,150,0.3)", "zeroline": False, "automargin": True, "fixedrange": True}
# fixedrange and no drag: a finger on a figure scrolls the page.
LAYOUT = {"dragmode": False, "paper_bgcolor": CLEAR, "plot_bgcolor": CLEAR, "font": {"color": "#808896", "size": 12, "family": "system-ui, sans-serif"}}


def kind_name(kind: str) -> str:
    return kind.replace("_", " ").replace("asr", "ASR")


def signed(value: float) -> str:
    """Two decimals with a sign; never "-0.00"."""
    return f"{round(float(value), 2) + 0.0:+.2f}"


def plot(figure: dict) -> PlotData:
    """What gr.Plot takes, without a detour through plotly's Python objects."""
    return PlotData(type="plotly", plot=json.dumps({**figure, "config": {"displayModeBar": False, "scrollZoom": False}}))


def _rounded(values: np.ndarray, digits: int = 3) -> list:
    return np.round(np.asarray(values, np.float64), digits).tolist()


def curve_figure(curve: Curve, ratio: float | None, score: float | None) -> dict:
    """Mean score over the missing ratio with the band of all masks, what a constant predictor says, and where the page is.

    ratio: the ratio all three modalities share, None when they differ; score: the score shown on the page.
    """
    rates = _rounded(curve.rates, 2)
    mean, low, high = (_rounded(v) for v in (curve.scores.mean(0), curve.scores.min(0), curve.scores.max(0)))
    data = [
        {"type": "scatter", "x": rates + rates[::-1], "y": high + low[::-1], "fill": "toself", "fillcolor": BAND, "mode": "lines",
         "line": {"width": 0}, "name": f"range of {len(curve.scores)} masks", "hoverinfo": "skip"},
        {"type": "scatter", "x": rates, "y": mean, "mode": "lines+markers", "line": {"color": LINE, "width": 3}, "name": "mean",
         "hovertemplate": "%{x:.0%} missing: %{y:+.2f}<extra></extra>"},
        {"type": "scatter", "x": [0, 1], "y": [round(curve.constant, 3)] * 2, "mode": "lines", "name": "always the same",
         "line": {"color": CONSTANT, "width": 2, "dash": "dash"}, "hoverinfo": "skip"},
    ]
    if ratio is not None and score is not None:
        data.append({"type": "scatter", "x": [round(ratio, 3)], "y": [round(score, 3)], "mode": "markers", "name": "now",
                     "marker": {"color": NEGATIVE, "size": 15, "symbol": "diamond", "line": {"color": "white", "width": 2}},
                     "hovertemplate": "now, %{x:.0%} missing: %{y:+.2f}<extra></extra>"})
    axis = {**_GRID, "title": {"text": "share of words, voice and face missing", "standoff": 8}, "range": [-0.03, 1.03], "tickformat": ".0%"}
    layout = {**LAYOUT, "height": 300, "margin": {"l": 48, "r": 12, "t": 8, "b": 8}, "xaxis": axis,
              "yaxis": {**_GRID, "title": {"text": "score"}, "range": [-3.1, 3.1], "dtick": 1},
              "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "bgcolor": CLEAR, "font": {"size": 11}}}
    return {"data": data, "layout": layout}


def curve_sentence(curve: Curve, ratio: float | None, score: float | None, exact: bool = True) -> str:
    """exact: the curve is of the very kind of corruption the page shows."""
    mean, spread = curve.scores.mean(0), curve.scores.max(0) - curve.scores.min(0)
    how = "bursts" if curve.kind == "span" else "single words and moments"
    text = (f"Mean of {len(curve.scores)} masks, {how} taken away: {signed(mean[0])} with everything there, {signed(mean[len(mean) // 2])} at "
            f"{curve.rates[len(mean) // 2]:.0%} missing, {signed(mean[-1])} at {curve.rates[-1]:.0%}; masks differ by up to {spread.max():.2f}. "
            f"The dashed line is a predictor that always answers {signed(curve.constant)}.")
    if ratio is not None and score is not None:
        text += f" The diamond is where you are: {ratio:.0%} missing, {signed(score)}."
    elif exact:
        text += " Words, voice and face miss different shares, or in different ways, so you are not on this curve."
    else:
        text += " It only takes things away; damaged signals, as now, are not on it."
    return text


def shown_labels(labels: Iterable[str]) -> list[str]:
    """Labels as plotly takes them: no word becomes a tag (it reads HTML), and equal ones, which it would merge, are made different
    by invisible characters."""
    seen: dict[str, int] = {}
    out = []
    for label in labels:
        seen[label] = seen.get(label, -1) + 1
        out.append(label.replace("&", "&amp;").replace("<", "&lt;") + "\u200b" * seen[label])
    return out


def attention_figure(attention: PromptAttention, modality: str) -> dict:
    """Prompts x tokens of both stages of UBPF, one above the other, on one colour scale."""
    own, language = np.asarray(attention.own), np.asarray(attention.language)
    labels = shown_labels(attention.labels)
    top = float(max(own.max(initial=0), language.max(initial=0), 1e-6))
    prompts = list(range(1, len(own) + 1))
    hover = "prompt %{y} gives %{z:.1%} to “%{x}”<extra></extra>"

    def heat(weights: np.ndarray, place: str) -> dict:
        return {"type": "heatmap", "z": _rounded(weights, 4), "x": labels[:weights.shape[1]], "y": prompts, "xaxis": "x" + place, "yaxis": "y" + place,
                "coloraxis": "coloraxis", "hovertemplate": hover}

    x = {"automargin": True, "fixedrange": True, "showgrid": False, "type": "category", "tickangle": -45, "ticks": ""}
    y = {"automargin": True, "fixedrange": True, "showgrid": False, "dtick": 2, "autorange": "reversed", "zeroline": False}
    both = "words" if modality == "text" else f"{NAMES[modality]}, then words"
    layout = {**LAYOUT, "height": 380, "margin": {"l": 40, "r": 8, "t": 22, "b": 8},
              "xaxis": {**x, "anchor": "y", "nticks": 40}, "yaxis": {**y, "domain": [0.64, 1], "title": {"text": "prompt"}},
              "xaxis2": {**x, "anchor": "y2", "nticks": 44}, "yaxis2": {**y, "domain": [0, 0.36], "title": {"text": "prompt"}},
              "coloraxis": {"colorscale": "Cividis", "cmin": 0, "cmax": round(top, 4),
                            "colorbar": {"thickness": 10, "nticks": 5, "tickformat": ".1~%", "title": {"text": ""}}},
              "annotations": [_heading(f"first stage: {NAMES[modality]}", 1.0), _heading(f"second stage: {both}", 0.36)]}
    return {"data": [heat(own, ""), heat(language, "2")], "layout": layout}


def _heading(text: str, y: float) -> dict:
    return {"text": text, "x": 0, "y": y, "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom", "showarrow": False}


def most_attended(weights: np.ndarray, labels: tuple[str, ...]) -> str:
    """The tokens the prompts look at most, averaged over prompts, with their shares."""
    mean = np.asarray(weights).mean(0)
    best = [i for i in np.argsort(-mean, kind="stable")[:TOP] if mean[i] > 0]
    return ", ".join(f"“{labels[i]}” ({mean[i]:.1%})" for i in best) or "nothing: no token is left"


def attention_sentence(attention: PromptAttention, modality: str, alpha: float) -> str:
    own, language, name = np.asarray(attention.own), np.asarray(attention.language), NAMES[modality]
    text = (f"Attention of {len(own)} prompts. Looking at the {name} alone they dwell most on {most_attended(own, attention.labels)}; "
            f"in the second stage on {most_attended(language, attention.labels)}.")
    if modality != "text" and language.sum() > 0:
        text += f" There {language[:, own.shape[1]:].sum() / language.sum():.0%} of it goes to the words."
    return text + f" Alpha is {alpha:.2f}: the second stage makes up {alpha:.0%} of what goes into the score."


def change_sentence(score: float, complete: float) -> str:
    """How the score moved from that of the complete clip."""
    score, complete = round(float(score), 2), round(float(complete), 2)        # so that the numbers shown add up
    if score == complete:
        return f"The complete clip scores the same: {signed(complete)}."
    crossed = score * complete < 0
    return (f"Complete clip: {signed(complete)} ({class_of(complete)}); moved by {signed(score - complete)}"
            + (" and turned its sign." if crossed else "."))
