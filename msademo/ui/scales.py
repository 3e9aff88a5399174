"""Each model's score on a line of its own, side by side under the same mask."""

from __future__ import annotations

import html

import numpy as np

from msademo.options import MODELS
from msademo.results import CLASSES, ClipResult, Prediction, class_of
from msademo.ui.figures import change_sentence, signed

ABOUT = {"pglh": "learnt by rebuilding what is missing", "pgmf-student": "learnt from the teacher, is told nothing",
         "pgmf-teacher": "is told about the clip in words"}
UNTOLD = "is told nothing now"


def scale(prediction: Prediction, bounds: tuple[float, float]) -> str:
    """A line from negative to positive: a dot for now, a ring for the complete clip; and in words how it moved."""
    low, high = bounds
    place = lambda value: round(100 * float(np.clip((value - low) / (high - low), 0, 1)), 2)
    score, complete = prediction.score, prediction.complete
    now, before = place(score), place(complete)
    ticks = "".join(f'<span class="msa-tick" style="left:{place(value)}%">{format(value, "+d") if value else 0}<i>{name.replace(" ", "<br>")}</i></span>'
                    for value, name in CLASSES.items())
    said = change_sentence(score, complete)
    label = f"{MODELS[prediction.model]}: score {signed(score)} on a scale from {low:g} to {high:g}, {class_of(score)}. {said}"
    return (f'<div class="msa-score"><b>{signed(score)}</b><span>{class_of(score)}</span></div>'
            f'<div class="msa-scale" role="img" aria-label="{html.escape(label)}"><div class="msa-bar"></div>'
            f'<div class="msa-moved" style="left:{min(now, before)}%;width:{abs(now - before):.2f}%"></div>'
            f'<div class="msa-ring" style="left:{before}%"></div><div class="msa-dot" style="left:{now}%"></div>{ticks}</div>'
            f'<p class="msa-say">{html.escape(said)}</p>')


def scales(result: ClipResult) -> str:
    """Every model's scale, each under its name and what it is."""
    told = result.guidance is not None and result.guidance.prompt is not None
    cards = []
    for name, prediction in result.predictions.items():
        about = UNTOLD if name == "pgmf-teacher" and not told else ABOUT[name]
        cards.append(f'<article class="msa-model" data-model="{name}"><h3>{MODELS[name]} <small>{about}</small></h3>{scale(prediction, result.scale)}</article>')
    return f'<section class="msa msa-models" aria-live="polite">{"".join(cards)}</section>'
