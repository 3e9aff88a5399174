"""One item of a run, opened in the Errors tab: the clip or post with everything that its own tab shows of it, and a place for notes."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from gradio import processing_utils

from msademo.corruption import MODALITIES
from msademo.errors import InputError
from msademo.study.desk import Desk
from msademo.study.sets import CLIP
from msademo.study.store import Run
from msademo.ui import clip_panels, post_figures, post_tab, study_view
from msademo.ui.alignment import Look
from msademo.ui.clip_panels import PANELS, Controls
from msademo.ui.room import Kept

SOUND = frozenset({".wav", ".mp3", ".m4a"})
POST_PANELS = ("answer", *post_tab.DETAILS, "curve", "curve_text")


def layout() -> dict:
    """The components by name, hidden until an item is opened. "clip" and "post": the panels of each kind, in order."""
    parts: dict = {}
    plot = lambda name, *classes: gr.Plot(show_label=False, container=False, elem_id=f"study-{name}", elem_classes=["msa-plot", *classes])
    title = lambda text: gr.HTML(f'<h4 class="msa-title">{text}</h4>')
    block = lambda name: gr.HTML(elem_id=f"study-{name}")
    with gr.Column(visible=False, elem_id="study-item") as parts["item"]:
        parts["heading"] = block("heading")
        parts["video"] = gr.Video(label="The clip", interactive=False, visible=False, height=300, elem_id="study-video")
        parts["sound"] = gr.Audio(label="The clip's sound", interactive=False, visible=False, elem_id="study-sound")
        with gr.Row():
            parts["note"] = gr.Textbox(label="Note", lines=2, max_lines=6, max_length=4000, min_width=200, scale=3, elem_id="study-note")
            parts["tags"] = gr.Textbox(label="Tags, with commas between", min_width=150, scale=2, elem_id="study-tags")
        parts["save"] = gr.Button("Keep note and tags", size="sm", elem_id="study-save")
        with gr.Column(visible=False) as parts["clip_column"]:
            parts["take_clip"] = gr.Button("Open it in the Clip tab, with sliders", size="sm", elem_id="study-take-clip")
            panels = [block("score"), block("clip-notes")]
            title("What is missing")
            panels.append(block("strip"))
            title("What the teacher is told, and what the words look at")
            panels += [block("told"), plot("map"), block("map-text"), block("map-numbers")]
            title("How well PGLH holds out")
            panels += [plot("curve"), block("curve-text")]
            with gr.Accordion("Inside PGLH: what it rebuilds, and where its prompts look", open=False):
                rebuilt = [block(f"maps-{m}") for m in MODALITIES]
                looked = [(plot(f"attention-{m}", "msa-attention"), block(f"attention-text-{m}")) for m in MODALITIES]
            parts["clip"] = [*panels, *rebuilt, *(figure for figure, _ in looked), *(text for _, text in looked), block("origin")]
        with gr.Column(visible=False) as parts["post_column"]:
            parts["take_post"] = gr.Button("Open it in the Post tab, with sliders", size="sm", elem_id="study-take-post")
            panels = {"answer": block("post-answer"), "notes": block("post-notes")}
            title("What is missing, and which words count")
            panels["left"] = block("post-left")
            title("Where in the picture each stage looks")
            panels |= {"overlays": block("post-overlays"), "told": block("post-told")}
            title("How well it holds out")
            panels |= {"curve": plot("post-curve"), "curve_text": block("post-curve-text"), "origin": block("post-origin")}
            parts["post"] = [panels[name] for name in POST_PANELS]
    return parts


OUTPUTS = ("item", "heading", "video", "sound", "note", "tags", "clip_column", "post_column")
COUNT = len(OUTPUTS) + PANELS + len(POST_PANELS)


def served(path: Path) -> str:
    """A copy of a media file where the page may read it, under a name nobody can guess; the folder of all sets stays closed."""
    return processing_utils.save_file_to_cache(path, cache_dir=gr.HTML().GRADIO_CACHE)


def path_of(desk: Desk, run: Run, file: str | None) -> Path | None:
    path = desk.media(run, file) if file else None
    if file and path is None:
        raise InputError("The file of this item is not there any more, so it cannot be opened; its answers are kept.")
    return path


def wish_of(run: Run) -> Controls | post_tab.Wish:
    """The run's own condition, as the tab's sliders would say it."""
    ratios = run.plan.ratios(run.kind)
    return Controls(ratios, dict.fromkeys(MODALITIES, "random"), run.plan.seed) if run.kind == CLIP else post_tab.Wish(ratios, run.plan.seed)


def show(desk: Desk, run: Run, number: int, say) -> tuple[list, object]:
    """Values of OUTPUTS and of both kinds' panels, and the item taken apart for its curve (None when it cannot be)."""
    rows, _, there = desk.judged(run)
    row = next((row for row in rows if row.number == number), None)
    if row is None:
        raise InputError("There is no such item in this run; choose one of the table.")
    stored, clip = row.stored, run.kind == CLIP
    skipped = [gr.skip()] * (PANELS + len(POST_PANELS))
    head = lambda opens, video=None, sound=None: [
        gr.Column(visible=True), study_view.item(run, row, there), gr.Video(value=video, visible=video is not None), gr.Audio(value=sound, visible=sound is not None),
        stored.note, ", ".join(stored.tags), gr.Column(visible=opens and clip), gr.Column(visible=opens and not clip)]
    if stored.error:                                    # its sentence is in the heading; there is nothing to draw
        return [*head(False), *skipped], None
    path = path_of(desk, run, stored.item.file)
    wish, analyzer = wish_of(run), desk.analyzer
    if clip:
        opened = analyzer.open(None if path is None else str(path), transcript=stored.item.text, say=say)
        panels, _ = clip_panels.update(analyzer, opened, wish, look=Look("vision" if len(opened.clip.frames) else "audio"))
        copy = None if path is None else served(path)
        is_sound = path is not None and path.suffix.lower() in SOUND
        return [*head(True, None if is_sound else copy, copy if is_sound else None), *panels.values(), *skipped[PANELS:]], Kept(opened)
    opened = post_tab.Opened(None, stored.item.text or "", analyzer.posts.open(None if path is None else str(path), stored.item.text or "", say=say))
    result = analyzer.posts.analyze(opened.post, wish.missing, wish.seed)
    curve = post_tab.curve_panel(None, wish, None)
    return [*head(True), *skipped[:PANELS], post_figures.answer(result), *post_tab.details(opened, result), *curve], (opened, post_tab.on_curve(result))


def curves(desk: Desk, run: Run, opened) -> list:
    """Figure and sentence of the clip's curve and of the post's; drawn after the item is shown, for it takes fifty masks."""
    wish = wish_of(run)
    if run.kind == CLIP:
        curve = desk.analyzer.curve(opened.clip, seed=wish.seed)
        score = desk.analyzer.analyze(opened.clip, missing=wish.missing, seed=wish.seed, models="pglh").score
        return [*clip_panels.curve_panel(curve, wish, score), gr.skip(), gr.skip()]
    post, probability = opened
    return [gr.skip(), gr.skip(), *post_tab.curve_panel(desk.analyzer.posts.curve(post.post, seed=wish.seed), wish, probability)]


def curve_places(parts: dict) -> list:
    return [*parts["clip"][7:9], *parts["post"][-2:]]
