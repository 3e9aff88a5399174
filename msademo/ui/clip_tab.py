"""The Clip tab: a clip comes in at the left; at the right its sentiment, and what becomes of it when words, voice or face go.

`update` is everything that one slider move costs on the server; the events around it only carry values to and fro.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field, fields
from typing import Mapping
from uuid import uuid4

import gradio as gr
from gradio.components.plot import PlotData

from msademo.corruption import KINDS, MODALITIES, check_seed
from msademo.errors import InputError
from msademo.results import ClipResult, Curve
from msademo.transcript import read_text_file
from msademo.ui import figures, pictures
from msademo.ui.clip_layout import ALIKE, inputs, results, stage
from msademo.ui.guard import guarded, quiet

KEEP_SECONDS = 3600         # a clip taken apart is forgotten after an hour of rest
SHOW_RESULT = """() => {
  const shown = document.querySelector("#message .msa-alert") || document.querySelector("#msa-stage");
  if (innerWidth < 800) shown.scrollIntoView({ behavior: "smooth", block: "start" });
}"""
# A new file must not be read with the words of the old one. In the browser, so that no letter typed meanwhile is lost.
FRESH = "(shown, transcript) => [(transcript || '').trim() === shown ? '' : transcript, null, '']"


@dataclass(frozen=True)
class Controls:
    """What the sliders say. missing: a ratio a modality; kinds: a kind of corruption a modality."""

    missing: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(MODALITIES, 0.0))
    kinds: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(MODALITIES, "random"))
    seed: int = 0

    @classmethod
    def of(cls, text: float, audio: float, vision: float, kind: str, own_text: str, own_audio: str, own_vision: str, seed: float) -> "Controls":
        """From the page's widgets, in their order. InputError for an empty number field."""
        kinds = {m: kind if own == ALIKE else own for m, own in zip(MODALITIES, (own_text, own_audio, own_vision))}
        ratios = {m: 0.0 if value is None else float(value) for m, value in zip(MODALITIES, (text, audio, vision))}
        return cls(ratios, kinds, check_seed(seed))

    @property
    def shared(self) -> float | None:
        """The ratio all three have in common; None when they differ."""
        ratios = set(self.missing.values())
        return ratios.pop() if len(ratios) == 1 else None

    @property
    def curve_kind(self) -> str:
        """The curve takes tokens away; it bursts where all three do."""
        return "span" if set(self.kinds.values()) == {"span"} else "random"

    @property
    def on_curve(self) -> bool:
        return len(set(self.kinds.values())) == 1 and set(self.kinds.values()) <= set(KINDS)


@dataclass(frozen=True)
class Panels:
    """What the results column shows, in the order of its components."""

    score: str
    notes: str
    strip: str
    curve: PlotData | None
    curve_text: str
    maps: tuple[str, str, str]
    attention: tuple[PlotData | None, ...]
    attention_text: tuple[str, str, str]
    origin: str

    def values(self) -> list:
        flat: list = []
        for item in fields(self):
            value = getattr(self, item.name)
            flat += value if isinstance(value, tuple) else [value]
        return flat


PANELS = 6 + 3 * len(MODALITIES)


@dataclass(frozen=True)
class Opened:
    """What the page remembers of a clip: where it came from, what the transcript box held, the clip taken apart, and a name
    for this opening of it."""

    path: str | None
    shown: str
    clip: object
    token: str = field(default_factory=lambda: uuid4().hex)


def curve_key(opened: Opened, controls: Controls) -> tuple[str, str, int]:
    """What a robustness curve was drawn for."""
    return opened.token, controls.curve_kind, controls.seed


def still_true(drawn: tuple | None, opened: Opened | None, controls: Controls) -> Curve | None:
    """The curve last drawn, if it is of this clip, kind and seed: one asked for earlier may arrive after they changed."""
    return drawn[1] if drawn is not None and opened is not None and drawn[0] == curve_key(opened, controls) else None


def caption(text: str) -> str:
    return f'<p class="msa-say">{html.escape(text)}</p>'


def curve_panel(curve: Curve | None, controls: Controls, score: float) -> tuple[PlotData | None, str]:
    if curve is None:
        return None, quiet("The robustness curve is being drawn: fifty masks of growing size …")
    ratio = controls.shared if controls.on_curve else None
    return (figures.plot(figures.curve_figure(curve, ratio, score)),
            caption(figures.curve_sentence(curve, ratio, score, exact=set(controls.kinds.values()) <= set(KINDS))))


def update(analyzer, opened, controls: Controls, curve: Curve | None = None) -> tuple[Panels, ClipResult]:
    """All that a slider move asks of the server: analyse under the new mask, draw every panel. opened: an OpenedClip."""
    result = analyzer.analyze(opened, missing=controls.missing, kind=controls.kinds, seed=controls.seed)
    prediction = result.predictions["pglh"]
    plots, texts = [], []
    for m in MODALITIES:
        attention = result.attention.get(m)
        if attention is None or not len(attention.labels):
            plots.append(None)
            texts.append(caption(f"This clip has no {figures.NAMES[m]}, so no prompt looks at it."))
        else:
            plots.append(figures.plot(figures.attention_figure(attention, m)))
            texts.append(caption(figures.attention_sentence(attention, m, result.alpha[m])))
    panels = Panels(
        pictures.score_scale(prediction.score, prediction.complete, result.scale), pictures.notes_list(result.notes), pictures.strip(opened, result),
        *curve_panel(curve, controls, prediction.score),
        tuple(pictures.recovery_maps(result.recovery.get(m), m, result.beta.get(m)) for m in MODALITIES),
        tuple(plots), tuple(texts), pictures.origin(result))
    return panels, result


def open_clip(analyzer, before: Opened | None, video: str | None, sound: str | None, transcript: str, say) -> Opened:
    """Take a clip apart, or only read the new words if it is the one already open."""
    path, given = video or sound, (transcript or "").strip()
    if path is None and not given:
        raise InputError("There is nothing to analyse yet; click an example, upload or record a clip, or type some words.")
    if before is not None and before.path == path and path is not None and given:
        if given == before.shown:
            return before
        return Opened(path, given, analyzer.with_transcript(before.clip, given))
    clip = analyzer.open(path, transcript=given or None, say=say)
    return Opened(path, given or " ".join(word.text for word in clip.clip.words), clip)


def build_clip_tab(analyzer) -> None:
    """Lay out the tab inside the current Blocks and wire it to `analyzer`."""
    opened = gr.State(None, time_to_live=KEEP_SECONDS)          # Opened
    curve = gr.State(None, time_to_live=KEEP_SECONDS)           # Curve
    score = gr.State(None, time_to_live=KEEP_SECONDS)           # the score on the page
    linked_at = gr.State(0.0)                                   # where the linked slider was left
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            left = inputs()
        with gr.Column(scale=9, min_width=320):
            right = stage()
            column, panels = results()
    page = {**left, **right}
    panels = [page["score"], *panels]
    controls = [page[name] for name in (*MODALITIES, "kind", *(f"own_{m}" for m in MODALITIES), "seed")]
    sliders = [page[m] for m in MODALITIES]

    def open_and_show(before, video, sound, transcript, *values, progress=gr.Progress()):
        now = open_clip(analyzer, before, video, sound, transcript, lambda what, share: progress(share, desc=what))
        shown, result = update(analyzer, now.clip, Controls.of(*values))
        return ("", now, now.shown, now.shown, pictures.word_times(now.clip.clip.words), None, result.score, gr.Column(visible=True), *shown.values())

    def move(opened, drawn, shown_words, *values):
        if opened is None:
            if shown_words:
                raise InputError("The clip was put away after an hour of rest; press Analyse to open it again.")
            return [gr.skip()] * (2 + PANELS)
        chosen = Controls.of(*values)
        shown, result = update(analyzer, opened.clip, chosen, still_true(drawn, opened, chosen))
        return ("", result.score, *shown.values())

    def draw_curve(opened, drawn, *values):
        chosen = Controls.of(*values)
        if opened is None or still_true(drawn, opened, chosen) is not None:
            return gr.skip(), gr.skip()
        return gr.skip(), (curve_key(opened, chosen), analyzer.curve(opened.clip, kind=chosen.curve_kind, seed=chosen.seed))

    def place_curve(opened, drawn, score, *values):
        chosen = Controls.of(*values)
        curve = still_true(drawn, opened, chosen)
        return gr.skip(), *([gr.skip()] * 2 if curve is None or score is None else curve_panel(curve, chosen, score))

    def link(linked, before):
        value = 0.0 if linked is None else float(linked)
        return (value, *[gr.skip() if value == before else value] * 3)

    def average(text, audio, vision):
        value = round(sum(v or 0.0 for v in (text, audio, vision)) / 3, 2)
        return value, value

    quietly = {"api_visibility": "private", "show_progress": "hidden"}
    latest = {**quietly, "trigger_mode": "always_last"}
    curve_at = panels[3:5]

    def to_result(event):
        """On a phone the result is far below the button."""
        return event.then(None, None, None, js=SHOW_RESULT, api_visibility="private")

    def then_curve(event):
        event = event.then(guarded(2)(draw_curve), [opened, curve, *controls], [page["message"], curve], concurrency_limit=1, **quietly)
        return event.then(guarded(3)(place_curve), [opened, curve, score, *controls], [page["message"], *curve_at], **quietly)

    def analysing(trigger):
        outputs = [page["message"], opened, page["transcript"], page["shown"], page["words"], curve, score, column, *panels]
        return then_curve(to_result(trigger(guarded(len(outputs))(open_and_show), [opened, page["video"], page["sound"], page["transcript"], *controls], outputs,
                                  api_visibility="private", show_progress="full", show_progress_on=page["score"], concurrency_limit=2)))

    def moving(trigger, **how):
        return trigger(guarded(2 + PANELS)(move), [opened, curve, page["shown"], *controls], [page["message"], score, *panels], concurrency_limit=2,
                       concurrency_id="move", **how)

    analysing(page["go"].click)
    for button, item in page["examples"]:
        fill = lambda item=item: (item["file"], None, item["transcript"], quiet(item["note"]), "")
        analysing(button.click(fill, None, [page["video"], page["sound"], page["transcript"], page["note"], page["message"]], **quietly).then)

    moving(page["linked"].release(link, [page["linked"], linked_at], [linked_at, *sliders], queue=False, **latest).then, **latest)
    for slider in sliders:
        slider.release(average, sliders, [page["linked"], linked_at], queue=False, **latest)
        moving(slider.release, **latest)

    page["again"].click(lambda seed: (seed or 0) + 1, page["seed"], page["seed"], queue=False, **quietly)
    for widget in (page["kind"], page["seed"], *(page[f"own_{m}"] for m in MODALITIES)):
        then_curve(moving(widget.change, **latest))

    for mine, other in (("video", "sound"), ("sound", "video")):
        for trigger in (page[mine].upload, page[mine].stop_recording):
            trigger(None, [page["shown"], page["transcript"]], [page["transcript"], page[other], page["note"]], js=FRESH, **quietly)
    page["subtitles"].upload(guarded(2)(lambda path: ("", read_text_file(path))), page["subtitles"], [page["message"], page["transcript"]], **quietly)
