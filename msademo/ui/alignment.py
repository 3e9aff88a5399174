"""What the words look at in the face or the voice: one map or the difference of two, with the numbers beside it and a sentence.

All of it is drawn from arrays that were kept; choosing another head, layer or view asks no model.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import Mapping

import numpy as np

from msademo.explain import Alignment, Comparison
from msademo.ui.figures import LAYOUT, NAMES, shown_labels
from msademo.ui.pictures import frame_pictures

VIEWS = {"told": "teacher with − without prompt", "distilled": "teacher − student", "teacher": "teacher with prompt",
         "without": "teacher without prompt", "student": "student"}
CALLED = {"teacher": "teacher with prompt", "without": "teacher without", "student": "student"}
DIFFERENCES = {"told": ("teacher", "without"), "distilled": ("teacher", "student")}
DIRECTIONS = {"vision": "face → words", "audio": "voice → words"}
COLUMNS = 120               # drawn at most; more are added up in neighbouring groups
ROW, LOWEST, HIGHEST = 17, 190, 760      # pixels: a word, and the whole map
PICTURE, BELOW = 46, 64     # pixels of a frame above the map, and of times and colours below it
ORANGE_BLUE = [[0, "#d55e00"], [0.5, "rgba(128,136,150,0.06)"], [1, "#0072b2"]]      # told apart under every common colour blindness
MISSING = [[0, "rgba(128,136,150,0.35)"], [1, "rgba(128,136,150,0.35)"]]
ANECDOTE = "One picture is an anecdote: one clip, one mask; and where a model looks is not yet why it decides."


@dataclass(frozen=True)
class Look:
    """What of the alignments is shown. head, layer: from 1 on, None = the mean of all heads, the last layer."""

    source: str = "vision"
    view: str = "told"
    head: int | None = None
    layer: int | None = None

    @classmethod
    def of(cls, source: str, view: str, head, layer) -> "Look":
        """From the page's widgets, whose 0 stands for the mean and the last."""
        whole = lambda value: value if isinstance(value, int) and value > 0 else None
        return cls(str(source), str(view), whole(head), whole(layer))

    def within(self, alignment: Alignment) -> "Look":
        """The same look with head and layer as far as there are any."""
        keep = lambda value, most: value if value is not None and value <= most else None
        return Look(self.source, self.view, keep(self.head, alignment.heads), keep(self.layer, alignment.layers))


def choices(alignments: Mapping[str, Alignment]) -> tuple[list, list]:
    """Heads and layers to choose from."""
    heads, layers = (max((getattr(a, name) for a in alignments.values()), default=0) for name in ("heads", "layers"))
    return ([("mean of all", 0), *((f"head {i}", i) for i in range(1, heads + 1))], [("last", 0), *((f"layer {i}", i) for i in range(1, layers + 1))])


def pair(alignment: Alignment, view: str) -> tuple[str, str | None]:
    """The map a view is of and the one it is held against; a teacher that is told nothing stands in for one with a prompt."""
    told = "teacher" if "teacher" in alignment.maps else "without"
    first, second = {"told": ("teacher", "without"), "distilled": (told, "student"), "teacher": ("teacher", "without"),
                     "without": ("without", "teacher" if "teacher" in alignment.maps else "student"), "student": ("student", told)}[view]
    return first, second if second in alignment.maps else None


def cannot(alignment: Alignment | None, look: Look) -> str | None:
    """Why there is nothing to draw; None when there is."""
    name = NAMES[look.source]
    if alignment is None or not alignment.maps:
        return f"This clip has no {name} or no words, so no word looks at the {name}."
    first, second = pair(alignment, look.view)
    if first not in alignment.maps or (look.view in DIFFERENCES and second is None):
        if "without" in alignment.maps and look.view in ("told", "teacher"):
            return "The teacher is told nothing now, so there is no map with a prompt; write one or choose another view."
        return f"For this view a checkpoint is missing: there is a map of the {' and the '.join(CALLED[view] for view in alignment.maps)} only."
    if alignment.words_hidden.all():
        return "No word is left, so nothing looks."
    if alignment.moments_hidden.all():
        return f"Nothing of the {name} is left to look at."
    return None


def pooled(attention: np.ndarray, edges: np.ndarray, columns: int = COLUMNS) -> tuple[np.ndarray, np.ndarray, int]:
    """(W, M) with NaN and (M + 1,) edges -> the same in at most `columns` columns, neighbours' shares added up, and how many make one.
    A column is missing when all of its moments are."""
    step = -(-attention.shape[1] // columns)
    if step <= 1:
        return attention, edges, 1
    starts = np.arange(0, attention.shape[1], step)
    lost = np.logical_and.reduceat(np.isnan(attention), starts, axis=1)
    return np.where(lost, np.nan, np.add.reduceat(np.nan_to_num(attention), starts, axis=1)), np.append(edges[starts], edges[-1]), step


def _cells(values: np.ndarray, digits: int = 4) -> list:
    """For JSON: None where there is nothing."""
    return [[None if v != v else v for v in row] for row in np.round(np.asarray(values, np.float64), digits).tolist()]


def signed_ticks(top: float) -> dict:
    """Five round marks of a colour bar from -top to top, clear of its ends, with a sign wherever there is one."""
    step = 10.0 ** math.floor(math.log10(top * 0.45))
    step = max(times * step for times in (1, 2, 4) if times * step <= top * 0.45)
    places = [times * step for times in (-2, -1, 0, 1, 2)]
    return {"tickvals": places, "ticktext": [f"{100 * place:+.3g}%" if place else "0" for place in places]}


def map_figure(alignment: Alignment, look: Look, opened=None) -> dict:
    """The map as a plotly figure: words down, time across with the frames of `opened` above it; blank nothing, grey what is missing."""
    first, second = pair(alignment, look.view)
    edges = np.append(alignment.times[:, 0], alignment.times[-1, 1])
    a, at, _ = pooled(alignment.map(first, look.layer, look.head), edges)
    b = pooled(alignment.map(second, look.layer, look.head), edges)[0] if second else None
    difference = look.view in DIFFERENCES
    shown = a - b if difference else a
    top = max(float(np.nanmax(np.abs(shown))), 1e-6)
    labels = shown_labels(f"({word})" if gone else word for word, gone in zip(alignment.words, alignment.words_hidden))
    hover = f"“%{{y}}” at %{{x:.1f}} s<br>{CALLED[first]}: %{{customdata[0]:.2%}}" + (f"<br>{CALLED[second]}: %{{customdata[1]:.2%}}" if second else "")
    hover += "<br>difference: %{z:+.2%}" if difference else ""
    values = np.round(np.nan_to_num(np.stack([a, b] if second else [a], -1)), 4).tolist()
    colours = {"colorscale": ORANGE_BLUE, "zmin": -top, "zmax": top} if difference else {"colorscale": "Cividis", "zmin": 0, "zmax": top}
    where = {"type": "heatmap", "x": np.round(at, 3).tolist(), "y": labels}
    data = [{**where, "z": _cells(np.where(np.isnan(shown), 1.0, np.nan)), "colorscale": MISSING, "showscale": False, "zmin": 0, "zmax": 1,
             "hovertemplate": "“%{y}” at %{x:.1f} s: missing<extra></extra>"},
            {**where, "z": _cells(shown), **colours, "customdata": values, "hovertemplate": hover + "<extra></extra>",
             "colorbar": {"orientation": "h", "thickness": 8, "y": 0, "yanchor": "top", "ypad": 26, **(signed_ticks(top) if difference else {"nticks": 5, "tickformat": ".2~%"})}}]
    height = int(np.clip(ROW * len(labels), LOWEST, HIGHEST))
    pictures = frame_pictures(opened) if look.source == "vision" and opened is not None else []
    above = PICTURE if pictures else 0
    axis = {"automargin": True, "fixedrange": True, "showgrid": False, "zeroline": False}
    layout = {**LAYOUT, "height": height + above + BELOW + 8, "margin": {"l": 4, "r": 8, "t": above + 8, "b": BELOW},
              "xaxis": {**axis, "range": [float(at[0]), float(at[-1])], "ticksuffix": " s", "nticks": 9},
              "yaxis": {**axis, "type": "category", "autorange": "reversed", "ticks": "", "nticks": max(2, height // 15)},
              "images": [{"source": source, "xref": "x", "yref": "paper", "x": start, "y": 1.0, "sizex": end - start, "sizey": PICTURE / height,
                          "xanchor": "left", "yanchor": "bottom", "sizing": "contain", "layer": "above"} for source, _, start, end in pictures]}
    return {"data": data, "layout": layout}


def _moment(alignment: Alignment, t: int) -> str:
    return f"{alignment.times[t, 0]:.1f}–{alignment.times[t, 1]:.1f} s"


def numbers(alignment: Alignment, look: Look) -> str:
    """The numbers of the maps shown, as a table that says what each means."""
    first, second = pair(alignment, look.view)
    rows = [(f"Entropy, {CALLED[view]}", f"{alignment.entropy(view, look.layer, look.head):.2f}", "") for view in (first, second) if view]
    rows[-1] = (*rows[-1][:2], f"bits a word; an even look has {alignment.even:.2f}, one moment alone 0")
    found = alignment.compare(first, second, look.layer, look.head) if second else None
    if found:
        rows += [("Jensen-Shannon divergence", f"{found.js:.4f}", "bits; 0 the same, 1 nothing in common"),
                 ("L1 distance", f"{found.l1:.2f}", "of at most 2; half of it is the share that moved"),
                 ("Top-5 overlap", f"{found.overlap:.0%}", "of the five moments a word looks at most")]
    inside = "".join(f"<tr><th scope='row'>{name}</th><td>{value}</td></tr>" + (f"<tr class='msa-means'><td colspan='2'>{means}</td></tr>" if means else "")
                     for name, value, means in rows)
    return f'<table class="msa-numbers">{inside}</table>'


def gained_sentence(alignment: Alignment, first: str, second: str, found: Comparison) -> str:
    """The moments and the words that gained most in the first map."""
    if not found.moments:
        return f"Both maps are the same: {CALLED[first]} looks where {CALLED[second]} does."
    moments = ", ".join(f"{_moment(alignment, t)} (+{100 * gain:.2f} points)" for t, gain in found.moments)
    words = ", ".join(f"“{alignment.words[w]}” ({share:.1%} of its look, most of it to {_moment(alignment, t)})" for w, share, t in found.words)
    return (f"Against {CALLED[second]}, {CALLED[first]} gains most at {moments}, a mean over words; the words that turn most are {words}. "
            "A word always shares out 100 %, so words turn and moments gain.")


def layers_sentence(alignment: Alignment, look: Look, views: list[str]) -> str:
    """Which layers and heads are shown; models of unequal depth meet at the same relative depth."""
    heads = f"the mean of {alignment.heads} heads" if look.head is None else f"head {look.head} of {alignment.heads}"
    depths = {view: (alignment.layer_of(view, look.layer), len(alignment.maps[view])) for view in views}
    if len(set(depths.values())) == 1:
        layer, depth = depths[views[0]]
        return f"Shown is layer {layer} of {depth}, {heads}."
    where = ", ".join(f"layer {layer} of {depth} of the {CALLED[view]}" for view, (layer, depth) in depths.items())
    return f"Shown is {where} (the same relative depth; the last meets the last), {heads}."


def map_text(alignment: Alignment, look: Look) -> tuple[str, str]:
    """The sentences under the map and the table beside it, as HTML."""
    first, second = pair(alignment, look.view)
    found = alignment.compare(first, second, look.layer, look.head) if second else None
    colour = f"Blue: {CALLED[first]} looks more there, orange: less." if look.view in DIFFERENCES else "Yellow: much, dark blue: little."
    said = [colour, *([gained_sentence(alignment, first, second, found)] if found else [])]
    how = [layers_sentence(alignment, look, [view for view in (first, second) if view])]
    group = -(-alignment.moments_hidden.size // COLUMNS)
    if group > 1:
        how.append(f"To keep it light, {group} neighbouring moments are drawn as one column, their shares added up; the numbers count each moment.")
    gone = int(alignment.words_hidden.sum()), int(alignment.moments_hidden.sum())
    if any(gone):
        how.append(f"Grey: missing ({gone[0]} of {len(alignment.words)} words, in brackets, and {gone[1]} of {len(alignment.moments_hidden)} moments).")
    lines = f'<p class="msa-say">{html.escape(" ".join(said))}</p><p class="msa-small">{html.escape(" ".join([*how, ANECDOTE]))}</p>'
    return lines, numbers(alignment, look)
