"""The components of the Post tab and where they stand; what they do is in post_tab.py."""

from __future__ import annotations

import gradio as gr

from msademo.guidance.posts import CAPTION_SOURCES
from msademo.models.spro import STAGES
from msademo.ui import post_figures
from msademo.ui.examples import examples
from msademo.ui.keys import key_field

TITLES = {"text": "Words", "image": "Picture"}
WRITERS = {"offline": "offline, from what is measured", "openai": "by a language model"}
WELCOME = ('<div class="msa"><p style="font-size:1.15rem;font-weight:600;margin:0">Click an example, or give a picture and its words and press Analyse.</p>'
           '<p class="msa-say">Whether the post is negative, neutral or positive appears here: by the picture, by the words, and by both. Then pull '
           "the slider and see what the answer hangs on.</p></div>")


def inputs() -> dict:
    """The left column's components by name."""
    parts = {}
    gr.HTML('<h2 class="msa-step">1 · Click an example, or bring a post: a picture and its words</h2>')
    listed = examples(index="posts.json")
    parts["examples"] = []
    if listed:
        with gr.Row(elem_classes="msa-examples"):
            parts["examples"] = [(gr.Button(item["title"], size="sm", min_width=90, elem_classes="msa-example"), item) for item in listed]
    parts["note"] = gr.HTML(elem_id="post-note")
    parts["image"] = gr.Image(label="Picture: a file, a paste or a photo", sources=["upload", "clipboard", "webcam"], type="filepath",
                              image_mode=None, height=300, elem_id="post-image", buttons=[])
    # The file itself, not gradio's idea of it: what is wrong with a picture is told by the one function that reads them all.
    parts["image"].preprocess = lambda payload: None if payload is None else payload.path
    parts["text"] = gr.Textbox(label="Words", lines=3, max_lines=8, placeholder="What the post says. Either half may be left empty.", elem_id="post-text")
    parts["go"] = gr.Button("Analyse the post", variant="primary", size="lg", elem_id="post-analyse")
    parts["message"] = gr.HTML(elem_id="post-message")
    return parts


def stage() -> dict:
    """Answer and sliders, which stay in sight; by name."""
    parts = {}
    ratio = lambda label, name: gr.Slider(0, 1, 0, step=0.05, label=label, elem_id=name, min_width=110)
    with gr.Column(elem_id="post-stage"):
        parts["answer"] = gr.HTML(WELCOME, elem_id="post-answer")
        parts["linked"] = ratio("2 · How much is missing", "post-linked")
        with gr.Row():
            for half, title in TITLES.items():
                parts[f"missing_{half}"] = ratio(f"{title} missing", f"post-missing-{half}")
    with gr.Accordion("Which words and patches go", open=False):
        with gr.Row():
            parts["seed"] = gr.Number(0, precision=0, minimum=0, label="Seed of the mask", elem_id="post-seed")
            parts["again"] = gr.Button("New mask", size="sm", elem_id="post-new-mask")
    return parts


def results() -> dict:
    """The column of results, hidden until there are any; by name."""
    title = lambda text: gr.HTML(f'<h3 class="msa-title">{text}</h3>')
    parts = {}
    with gr.Column(visible=False, elem_id="post-results") as parts["column"]:
        parts["notes"] = gr.HTML(elem_id="post-notes")
        title("What is missing, and which words count")
        parts["left"] = gr.HTML(elem_id="post-left")
        title("Where in the picture each stage looks")
        gr.HTML(post_figures.OPACITY, elem_id="post-opacity")
        parts["overlays"] = gr.HTML(elem_id="post-overlays")
        with gr.Accordion("The captions of the three stages: read, change, write again", open=False, elem_id="post-captions"):
            with gr.Row():
                for name in STAGES:
                    parts[name] = gr.Textbox(label=name.capitalize(), lines=3, max_lines=6, min_width=200, elem_id=f"post-{name}")
            parts["told"] = gr.HTML(elem_id="post-told")
            with gr.Row():
                parts["use"] = gr.Button("Use these captions", size="sm", elem_id="post-use")
                parts["writer"] = gr.Dropdown([(WRITERS[name], name) for name in CAPTION_SOURCES], value="offline", label="Written", min_width=260,
                                              elem_id="post-writer")
                parts["write"] = gr.Button("Write them again", size="sm", elem_id="post-write")
            parts["key"] = key_field("post-key", parts["writer"], "the picture")
        title("How well it holds out")
        parts["curve"] = gr.Plot(show_label=False, container=False, elem_id="post-curve", elem_classes="msa-plot")
        parts["curve_text"] = gr.HTML(elem_id="post-curve-text")
        parts["origin"] = gr.HTML(elem_id="post-origin")
    return parts
