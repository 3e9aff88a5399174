"""What the Post tab draws: the answer of each path, what is missing, the overlays, the robustness curve - each with its sentence.

Everything a person typed is escaped. The picture is sent once a panel and laid under each tile by CSS; its overlay is a picture of its
own above it, so that its opacity can change in the browser.
"""

from __future__ import annotations

import base64
import html

import cv2
import numpy as np

from msademo.models.spro import STAGES
from msademo.picture import shrink
from msademo.post_results import Overlay, Path, PostCurve, PostResult
from msademo.ui.theme import BAND, CONSTANT, LINE, NEGATIVE

NAMES = {"image": "Picture", "text": "Words", "fusion": "Together"}
SHOWN_SIDE = 440            # pixels of the picture that is sent
HEAT_SIDE = 16              # pixels drawn a patch, for a smooth overlay
TOP = 3                     # words named in a sentence
LINES = {"image": ("#e69f00", "dash"), "text": ("#009e73", "dot")}
_CLEAR = "rgba(0,0,0,0)"


def shown(picture: str, sentence: str) -> str:
    return f'<figure class="msa">{picture}<figcaption>{html.escape(sentence)}</figcaption></figure>'


def points(value: float) -> str:
    """A difference of probabilities in points, with a sign; never "-0"."""
    return f"{round(100 * value) + 0:+d}"


# ---- the answer --------------------------------------------------------------------------------------------------------


def _bar(path: Path, values: np.ndarray, kind: str = "") -> str:
    told = lambda value: f"{value:.0%}" if value >= 0.09 and not kind else ""
    parts = "".join(f'<i class="post-{name}" style="--p:{value:.4f}">{told(value)}</i>' for name, value in zip(path.classes, values))
    return f'<div class="post-bar {kind}">{parts}</div>'


def _told(path: Path, values: np.ndarray | None) -> str:
    return "absent" if values is None else ", ".join(f"{name} {value:.0%}" for name, value in zip(path.classes, values))


def path_row(name: str, path: Path) -> str:
    """One path: its three probabilities now, and in the thin bar those of the complete post."""
    title = NAMES[name]
    if path.now is None:
        gone = "absent" if path.complete is None else "all taken away"
        return f'<div class="post-path"><span>{title}</span><div class="msa-small">{gone}</div><b></b></div>'
    label = f"{title}: {_told(path, path.now)}. Complete post: {_told(path, path.complete)}."
    bars = _bar(path, path.now) + _bar(path, path.complete, "post-before")
    return (f'<div class="post-path"><span>{title}</span><div role="img" aria-label="{html.escape(label)}">{bars}</div>'
            f"<b>{path.label} {path.now.max():.0%}</b></div>")


def answer(result: PostResult) -> str:
    key = "".join(f'<span class="post-key post-{name}"></span>{name}' for name in result.classes)
    rows = "".join(path_row(name, result.paths[name]) for name in ("fusion", "image", "text"))
    return (f'<section class="msa" aria-live="polite"><div class="msa-score"><b>{result.label}</b><span>{result.probability:.0%}</span>'
            f'<small class="msa-small">{key}; thin bar: the complete post</small></div>{rows}'
            f'<p class="msa-say">{html.escape(change_sentence(result))}</p></section>')


def change_sentence(result: PostResult) -> str:
    """What changed since the complete post, and whether both paths agree."""
    fusion, (image, text) = result.paths["fusion"], (result.paths[name] for name in ("image", "text"))
    before = f"Complete post: {fusion.complete_label} {fusion.complete.max():.0%}."
    moved = f"What is missing moved that by {points(result.change)} points" if round(100 * result.change) else "What is missing moved that by less than a point"
    if not (result.word_missing.any() or result.patch_missing.any()):
        said = "Nothing is taken away."
    elif fusion.label == fusion.complete_label:
        said = f"{before} {moved}; the answer is the same."
    else:
        said = f"{before} {moved} and turned the answer to {fusion.label}."
    if image.now is None or text.now is None:
        return said
    if image.label == text.label:
        return f"{said} Picture and words agree."
    weights = f"the picture counts {result.image_weight:.0%}, the words {1 - result.image_weight:.0%}"
    return f"{said} Picture and words disagree: {image.label} against {text.label}; {weights}."


# ---- what is missing ---------------------------------------------------------------------------------------------------


def _uri(image: np.ndarray, kind: str, quality: list[int]) -> str:
    return f"data:image/{kind[1:].replace('jpg', 'jpeg')};base64," + base64.b64encode(cv2.imencode(kind, image, quality)[1]).decode()


def _laid_under(picture: np.ndarray, result: PostResult) -> str:
    """CSS variables of a panel: the picture, its shape, and where on it the grid lies."""
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = result.box
    percent = lambda part, whole: f"{100 * part / whole:.3f}%"
    small = _uri(np.ascontiguousarray(shrink(picture, SHOWN_SIDE)[..., ::-1]), ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 82])
    return (f"--pic:url('{small}');--shape:{width / height:.4f};--x:{percent(x1, width)};--y:{percent(y1, height)};"
            f"--w:{percent(x2 - x1, width)};--h:{percent(y2 - y1, height)}")


def _hidden(result: PostResult) -> str:
    """The hidden patches, greyed and crossed; a layer over the picture."""
    rows, columns = result.grid
    cells = [divmod(int(i), columns) for i in np.flatnonzero(result.patch_missing)]
    marks = "".join(f'<rect x="{c}" y="{r}" width="1.02" height="1.02"/><path d="M{c} {r}l1 1M{c + 1} {r}l-1 1"/>' for r, c in cells)
    return f'<svg viewBox="0 0 {columns} {rows}" preserveAspectRatio="none" aria-hidden="true">{marks}</svg>' if marks else ""


def words_flow(result: PostResult) -> str:
    """The post's words: struck out where taken away, the deeper blue the more they speak for the answer."""
    if not result.words:
        return '<p class="msa-quiet">The post has no words.</p>'
    top = 0.0 if result.word_relevance is None else float(result.word_relevance.max())
    out = []
    for i, (word, gone) in enumerate(zip(result.words, result.word_missing)):
        if gone:
            out.append(f'<s class="msa-gone">{html.escape(word)}</s>')
        else:
            share = 0.0 if result.word_relevance is None else float(result.word_relevance[i])
            out.append(f'<span style="--r:{share / top if top > 0 else 0:.2f}" title="{share:.0%}">{html.escape(word)}</span>')
    return f'<div class="post-words" dir="auto" tabindex="0" role="group" aria-label="the words">{" ".join(out)}</div>'


def left(picture: np.ndarray | None, result: PostResult) -> str:
    """Picture and words with what is taken away marked in them."""
    tile = ""
    if picture is not None:
        label = f"the picture, {int(result.patch_missing.sum())} of {len(result.patch_missing)} patches greyed out"
        tile = f'<div class="post-pic" role="img" aria-label="{label}" style="{_laid_under(picture, result)}">{_hidden(result)}</div>'
    inside = f'<div class="post-left">{tile}<div>{words_flow(result)}</div></div>' if tile else words_flow(result)
    return shown(inside, left_sentence(result))


def left_sentence(result: PostResult) -> str:
    parts = []
    if result.words:
        parts.append(f"{int(result.word_missing.sum())} of {len(result.words)} words struck out")
    if len(result.patch_missing):
        parts.append(f"{int(result.patch_missing.sum())} of {len(result.patch_missing)} patches of the picture greyed out")
    text = f"Missing now: {'; '.join(parts)}."
    if result.word_relevance is not None and result.word_relevance.max() > 0:
        best = np.argsort(-result.word_relevance, kind="stable")[:TOP]
        named = ", ".join(f"“{result.words[i]}” ({result.word_relevance[i]:.0%})" for i in best if result.word_relevance[i] > 0)
        text += f" The deeper the blue, the more a word speaks for “{result.label}”: most of all {named}."
    return text


# ---- overlays ----------------------------------------------------------------------------------------------------------


def heat(overlay: Overlay, grid: tuple[int, int]) -> str:
    """Relevance as a smooth picture, black for none to light yellow for the most."""
    rows, columns = grid
    values = overlay.relevance.reshape(rows, columns) / max(float(overlay.relevance.max()), 1e-12)
    smooth = cv2.resize(values.astype(np.float32), (columns * HEAT_SIDE, rows * HEAT_SIDE), interpolation=cv2.INTER_LINEAR)
    return _uri(cv2.applyColorMap((255 * smooth).astype(np.uint8), cv2.COLORMAP_INFERNO), ".png", [cv2.IMWRITE_PNG_COMPRESSION, 3])


def overlay_sentence(overlay: Overlay, patches: int) -> str:
    if not overlay.relevance.any():
        return "Nothing in the picture raises it."
    parts = [] if overlay.similarity is None else [f"Similarity of picture and caption {overlay.similarity:+.2f}"]
    parts.append(f"half of the relevance lies on {overlay.half} of {patches} patches (concentration {overlay.concentration:.2f})")
    parts.append("there is no face" if overlay.on_faces is None else
                 f"{overlay.on_faces:.0%} lies on faces, which cover {overlay.face_area:.0%} of the picture")
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "."


def overlays(picture: np.ndarray | None, result: PostResult) -> str:
    """A tile a stage and the final one: the picture, where in it the relevance lies, the caption, the numbers."""
    if picture is None:
        return shown("", "Without a picture there are no captions and nothing to lay over it.")
    if not result.overlays:
        return shown("", "No patch of the picture is left to look at.")
    patches, tiles = int((~result.patch_missing).sum()), []
    for name in (*STAGES, "final"):
        overlay = result.overlays[name]
        quote = f"All stages and the class “{result.label}” together" if name == "final" else getattr(result.captions, name)
        sentence = overlay_sentence(overlay, patches)
        label = html.escape(f"{name.capitalize()}: where in the picture it comes from. {sentence}")
        tiles.append(f'<figure><h4>{name.capitalize()}</h4>'
                     f'<div class="post-pic" role="img" aria-label="{label}"><img alt="" src="{heat(overlay, result.grid)}">{_hidden(result)}</div>'
                     f'<p class="post-quote" dir="auto">{html.escape(quote)}</p><figcaption>{html.escape(sentence)}</figcaption></figure>')
    return f'<div class="msa post-tiles" style="{_laid_under(picture, result)}">{"".join(tiles)}</div>'


# In the browser alone: the variable is read by every overlay, the ones still to come as well.
OPACITY = ('<label class="post-opacity">Opacity of the overlays <input type="range" min="0" max="100" value="60" aria-label="Opacity of the overlays" oninput="'
           "document.documentElement.style.setProperty('--msa-overlay', this.value / 100); this.nextElementSibling.value = this.value + ' %'"
           '"><output>60 %</output><span>no relevance <span class="post-scale"></span> most</span></label>')


def captions_told(result: PostResult) -> str:
    """Where the captions come from."""
    if result.captions is None:
        return '<p class="msa-quiet">There is no picture to write about.</p>'
    source = {"offline": "Written offline, from what was measured in the complete picture (colour and light, ImageNet names, faces)",
              "openai": "Written by the language model, which saw the complete picture", "typed": "Typed by you"}[result.captions.source]
    return f'<p class="msa-small">{source}. They explain; the answer itself does not read them.</p>'


# ---- robustness --------------------------------------------------------------------------------------------------------


def curve_figure(curve: PostCurve, ratio: float | None, probability: float | None) -> dict:
    """Probability of the complete post's class over the share missing: mean and band of the fusion, means of the paths.

    ratio: what words and picture miss in common, None when they differ; probability: that of the class on the page.
    """
    rates = [round(float(r), 2) for r in curve.rates]
    digits = lambda values: [None if np.isnan(v) else round(float(v), 4) for v in values]
    masks, (mean, low, high) = len(curve.paths["fusion"]), (digits(values) for values in curve.spread("fusion"))
    there = [i for i, value in enumerate(mean) if value is not None]          # of a post of one word, some masks leave nothing
    around = [*there, *reversed(there)]
    data = [{"type": "scatter", "x": [rates[i] for i in around], "y": [*(high[i] for i in there), *(low[i] for i in reversed(there))],
             "fill": "toself", "fillcolor": BAND, "mode": "lines", "line": {"width": 0}, "name": f"range of {masks} masks", "hoverinfo": "skip"},
            {"type": "scatter", "x": rates, "y": mean, "mode": "lines+markers", "line": {"color": LINE, "width": 3}, "name": "together",
             "hovertemplate": "%{x:.0%} missing: %{y:.0%}<extra></extra>"}]
    for name, (colour, dash) in LINES.items():
        if not np.isnan(curve.paths[name]).all():
            data.append({"type": "scatter", "x": rates, "y": digits(curve.spread(name)[0]), "mode": "lines", "name": f"{NAMES[name].lower()} alone",
                         "line": {"color": colour, "width": 2, "dash": dash}, "hovertemplate": "%{x:.0%} missing: %{y:.0%}<extra></extra>"})
    if curve.share is not None:
        data.append({"type": "scatter", "x": [0, 1], "y": [round(curve.share, 4)] * 2, "mode": "lines", "name": "always the same",
                     "line": {"color": CONSTANT, "width": 2, "dash": "longdash"}, "hoverinfo": "skip"})
    if ratio is not None and probability is not None:
        data.append({"type": "scatter", "x": [round(ratio, 3)], "y": [round(probability, 4)], "mode": "markers", "name": "now",
                     "marker": {"color": NEGATIVE, "size": 15, "symbol": "diamond", "line": {"color": "white", "width": 2}},
                     "hovertemplate": "now, %{x:.0%} missing: %{y:.0%}<extra></extra>"})
    axis = {"gridcolor": "rgba(128,136,150,0.3)", "zeroline": False, "automargin": True, "fixedrange": True}
    layout = {"dragmode": False, "paper_bgcolor": _CLEAR, "plot_bgcolor": _CLEAR, "font": {"color": "#808896", "size": 12, "family": "system-ui, sans-serif"},
              "height": 330, "margin": {"l": 48, "r": 12, "t": 8, "b": 8},
              "xaxis": {**axis, "title": {"text": "share of words and picture missing", "standoff": 8}, "range": [-0.03, 1.03], "tickformat": ".0%"},
              "yaxis": {**axis, "title": {"text": f"probability of {curve.label}"}, "range": [0, 1.03], "tickformat": ".0%"},
              "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "bgcolor": _CLEAR, "font": {"size": 11}}}
    return {"data": data, "layout": layout}


def curve_sentence(curve: PostCurve, ratio: float | None, probability: float | None) -> str:
    mean, low, high = curve.spread("fusion")
    there, middle = np.flatnonzero(~np.isnan(mean)), len(mean) // 2
    points_at = [i for i in dict.fromkeys((middle, int(there[-1]))) if 0 < i <= there[-1]]
    later = "".join(f", {mean[i]:.0%} at {curve.rates[i]:.0%} missing" for i in points_at)
    text = (f"Probability of “{curve.label}”, mean of {len(curve.paths['fusion'])} masks of words and patches: {mean[0]:.0%} with everything there{later}; "
            f"masks differ by up to {round(100 * float((high - low)[there].max()))} points.")
    if curve.share is not None:
        text += f" {curve.share:.0%} of the training posts are {curve.label} (dashed)."
    if ratio is not None and probability is not None:
        return f"{text} The diamond is where you are: {ratio:.0%} missing, {probability:.0%}."
    return text + " Words and picture miss different shares, so you are not on this curve."
