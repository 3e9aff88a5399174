"""The Clip tab: a clip comes in at the left; at the right its sentiment, and what becomes of it when words, voice or face go.

What a move costs is in clip_panels.py; the events here only carry values to and fro.
"""

from __future__ import annotations

import gradio as gr

from msademo import limits
from msademo.corruption import MODALITIES
from msademo.errors import InputError
from msademo.guidance.prompt import SECTIONS
from msademo.transcript import read_text_file
from msademo.ui import alignment, pictures
from msademo.ui.alignment import Look
from msademo.ui.clip_layout import inputs, results, stage
from msademo.ui.clip_panels import PANELS, Controls, curve_key, curve_panel, first_boxes, map_panel, open_clip, still_true, update
from msademo.ui.clip_prompt import told_now
from msademo.ui.guard import guarded, quiet
from msademo.ui.keys import own_key

SHOW_RESULT = """() => {
  const shown = document.querySelector("#message .msa-alert") || document.querySelector("#msa-stage");
  if (innerWidth < 800) shown.scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth", block: "start" });
}"""
# A new file must not be read with the words of the old one. In the browser, so that no letter typed meanwhile is lost.
FRESH = "(shown, transcript) => [(transcript || '').trim() === shown ? '' : transcript, null, '']"
PUT_AWAY = "The clip was put away after a rest; press Analyse to open it again."


def build_clip_tab(analyzer) -> dict:
    """Lay out the tab inside the current Blocks and wire it to `analyzer`. Gives its components by name, and "analyse", which makes an event
    analyse what is in them."""
    rest = limits.current().rest_seconds
    opened = gr.State(None, time_to_live=rest)                  # Opened
    curve = gr.State(None, time_to_live=rest)                   # Curve
    score = gr.State(None, time_to_live=rest)                   # PGLH's score on the page
    drawn = gr.State(None, time_to_live=rest)                   # the alignments on the page
    linked_at = gr.State(0.0)                                   # where the linked slider was left
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            left = inputs()
        with gr.Column(scale=9, min_width=320):
            right = stage()
            more, panels = results()
    page = {**left, **right, **more}
    panels = [page["score"], *panels]
    controls = [page[name] for name in (*MODALITIES, "kind", *(f"own_{m}" for m in MODALITIES), "seed")]
    boxes, look = [page[name] for name in SECTIONS], [page[name] for name in ("source", "view", "head", "layer")]
    sliders = [page[m] for m in MODALITIES]
    columns = [page["column"], page["prompt_column"], page["map_column"]]

    def split(values) -> tuple[Controls, tuple, Look]:
        """What the widgets say: controls, the prompt's boxes, the look at the maps."""
        at = len(controls)
        return Controls.of(*values[:at]), tuple(values[at:at + 3]), Look.of(*values[at + 3:])

    def checkpoint() -> str:
        """Where PGLH comes from now, which the curve is of."""
        return analyzer.shelf.files["pglh"]

    def open_and_show(before, video, sound, transcript, *values, progress=gr.Progress()):
        chosen, typed, seen = split(values)
        now = open_clip(analyzer, before, video, sound, transcript, lambda what, share: progress(share, desc=what))
        told = first_boxes(before, now, typed)
        shown, result = update(analyzer, now.clip, chosen, guidance=told_now(now.written, told), look=seen)
        heads, layers = alignment.choices(result.alignments)
        guided, aligned = result.guidance is not None, any(name.startswith("pgmf") for name in result.predictions)
        return ("", now, now.shown, now.shown, pictures.word_times(now.clip.clip.words), None, result.predictions["pglh"].score, result.alignments,
                *told, gr.Dropdown(choices=heads), gr.Dropdown(choices=layers), gr.Column(visible=True), gr.Column(visible=guided),
                gr.Column(visible=aligned), *shown.values())

    def move(opened, curve, shown_words, *values):
        if opened is None:
            if shown_words:
                raise InputError(PUT_AWAY)
            return [gr.skip()] * (3 + PANELS)
        chosen, typed, seen = split(values)
        shown, result = update(analyzer, opened.clip, chosen, still_true(curve, opened, chosen, checkpoint()), told_now(opened.written, typed), seen)
        return ("", result.predictions["pglh"].score, result.alignments, *shown.values())

    def look_elsewhere(opened, drawn, *values):
        if opened is None or drawn is None:
            return [gr.skip()] * 4
        return ("", *map_panel(drawn, Look.of(*values), opened.clip))

    def write(opened, writer, key, left: bool, *values):
        if opened is None:
            raise InputError(PUT_AWAY)
        chosen, own = Controls.of(*values), own_key(page["key"], writer, key)
        guidance = analyzer.write_guidance(opened.clip, writer, chosen.missing if left else None, chosen.kinds, chosen.seed, **own)
        return ("", *opened.keep(guidance))

    def draw_curve(opened, curve, *values):
        chosen = Controls.of(*values)
        if opened is None or still_true(curve, opened, chosen, checkpoint()) is not None:
            return gr.skip(), gr.skip()
        return gr.skip(), (curve_key(opened, chosen, checkpoint()), analyzer.curve(opened.clip, kind=chosen.curve_kind, seed=chosen.seed))

    def place_curve(opened, drawn, score, *values):
        chosen = Controls.of(*values)
        curve = still_true(drawn, opened, chosen, checkpoint())
        return gr.skip(), *([gr.skip()] * 2 if curve is None or score is None else curve_panel(curve, chosen, score))

    def link(linked, before):
        value = 0.0 if linked is None else float(linked)
        return (value, *[gr.skip() if value == before else value] * 3)

    def average(text, audio, vision):
        value = round(sum(v or 0.0 for v in (text, audio, vision)) / 3, 2)
        return value, value

    quietly = {"api_visibility": "private", "show_progress": "hidden"}
    latest = {**quietly, "trigger_mode": "always_last"}

    def to_result(event):
        """On a phone the result is far below the button."""
        return event.then(None, None, None, js=SHOW_RESULT, api_visibility="private")

    def then_curve(event):
        event = event.then(guarded(2)(draw_curve), [opened, curve, *controls], [page["message"], curve], concurrency_limit=1, **quietly)
        return event.then(guarded(3, cost=0)(place_curve), [opened, curve, score, *controls], [page["message"], page["curve"], page["curve_text"]], **quietly)

    def analysing(trigger):
        outputs = [page["message"], opened, page["transcript"], page["shown"], page["words"], curve, score, drawn, *boxes, page["head"], page["layer"],
                   *columns, *panels]
        return then_curve(to_result(trigger(
            guarded(len(outputs))(open_and_show), [opened, page["video"], page["sound"], page["transcript"], *controls, *boxes, *look], outputs,
            api_visibility="private", show_progress="full", show_progress_on=page["score"], concurrency_limit=2)))

    def moving(trigger, **how):
        return trigger(guarded(3 + PANELS)(move), [opened, curve, page["shown"], *controls, *boxes, *look], [page["message"], score, drawn, *panels],
                       concurrency_limit=2, concurrency_id="move", **how)

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

    for widget in look:
        widget.input(guarded(4)(look_elsewhere), [opened, drawn, *look], [page["message"], *page["map"]], **latest)

    moving(page["use"].click, **latest)
    moving(page["nothing"].click(lambda: ("", "", ""), None, boxes, queue=False, **quietly).then, **quietly)
    for name, left in (("write_complete", False), ("write_left", True)):
        written = page[name].click(guarded(4)(lambda opened, writer, key, *values, left=left: write(opened, writer, key, left, *values)),
                                   [opened, page["writer"], page["key"], *controls], [page["message"], *boxes], api_visibility="private", show_progress="full",
                                   show_progress_on=page["told"], concurrency_limit=2)
        moving(written.then, **quietly)

    for mine, other in (("video", "sound"), ("sound", "video")):
        for trigger in (page[mine].upload, page[mine].stop_recording):
            trigger(None, [page["shown"], page["transcript"]], [page["transcript"], page[other], page["note"]], js=FRESH, **quietly)
    page["subtitles"].upload(guarded(2)(lambda path: ("", read_text_file(path))), page["subtitles"], [page["message"], page["transcript"]], **quietly)
    return {**page, "analyse": analysing}
