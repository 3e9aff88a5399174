"""The components of the Clip tab and where they stand; what they do is in clip_tab.py."""

from __future__ import annotations

import gradio as gr

from msademo.degrade import DESCRIPTIONS
from msademo.options import SIGNAL_KINDS
from msademo.ui import alignment, figures
from msademo.ui.clip_prompt import prompt_panel
from msademo.ui.examples import examples

ALIKE = "alike"             # a modality's own kind: the one chosen for all
TOKEN_LABELS = {"random": "one by one, at random", "span": "in bursts"}
TITLES = {"text": "Words", "audio": "Voice", "vision": "Face"}
WELCOME = ('<div class="msa"><p style="font-size:1.15rem;font-weight:600;margin:0">Click an example, or drop in a clip and press Analyse.</p>'
           '<p class="msa-say">The sentiment of words, voice and face together appears here. Then pull the slider: '
           "it takes more and more of the clip away, and you see when the model loses the thread.</p></div>")


def _kind_choices(modality: str) -> list[tuple[str, str]]:
    tokens = [(label, name) for name, label in TOKEN_LABELS.items()]
    return [("as chosen above", ALIKE), *tokens, *((figures.kind_name(name), name) for name in SIGNAL_KINDS[modality])]


def _descriptions() -> str:
    lines = [f"<li><b>{title}</b> — " + " ".join(f"<i>{figures.kind_name(name)}</i>: {DESCRIPTIONS[name]}" for name in SIGNAL_KINDS[m]) + "</li>"
             for m, title in TITLES.items()]
    return f'<div class="msa msa-small"><ul>{"".join(lines)}</ul></div>'


def inputs() -> dict:
    """The left column's components by name."""
    parts = {}
    gr.HTML('<h2 class="msa-step">1 · Click an example, or bring a clip of someone talking</h2>')
    parts["examples"] = [(gr.Button(item["title"], size="sm", min_width=90, elem_classes="msa-example"), item) for item in _row(examples())]
    parts["note"] = gr.HTML(elem_id="example-note")
    parts["video"] = gr.Video(label="Video: a file or a recording", sources=["upload", "webcam"], include_audio=True, elem_id="video")
    with gr.Accordion("Only sound? wav, mp3, m4a", open=False):
        parts["sound"] = gr.Audio(label="Sound", sources=["upload", "microphone"], type="filepath")
    parts["transcript"] = gr.Textbox(label="Transcript", lines=3, max_lines=8, placeholder="Leave empty and speech recognition will listen (English).",
                                     info="You may correct it and analyse again. Subtitle text with times works too.", elem_id="transcript")
    parts["subtitles"] = gr.UploadButton("Subtitles from a file (.srt, .vtt)", file_types=[".srt", ".vtt"], size="sm", variant="secondary")
    parts["shown"] = gr.Textbox(visible=False)                  # the transcript of the clip that is open
    parts["go"] = gr.Button("Analyse", variant="primary", size="lg", elem_id="analyse")
    parts["message"] = gr.HTML(elem_id="message")
    parts["words"] = gr.HTML(elem_id="word-times")
    return parts


def _row(items: list):
    """Yield the items inside one row, so that what is made for each lands in it."""
    if items:
        with gr.Row(elem_classes="msa-examples"):
            yield from items


def stage() -> dict:
    """Score and sliders, which stay in sight, and how things go missing; by name."""
    parts = {}
    ratio = lambda label, name, **more: gr.Slider(0, 1, 0, step=0.05, label=label, elem_id=name, min_width=110, **more)
    with gr.Column(elem_id="msa-stage"):
        parts["score"] = gr.HTML(WELCOME, elem_id="score")
        parts["linked"] = ratio("2 · How much is missing", "linked")
        with gr.Row():
            for m, title in TITLES.items():
                parts[m] = ratio(f"{title} missing", m)
    with gr.Accordion("How things go missing", open=False):
        with gr.Row():
            parts["kind"] = gr.Dropdown([(label, name) for name, label in TOKEN_LABELS.items()], value="random", label="Words and moments go", elem_id="kind")
            parts["seed"] = gr.Number(0, precision=0, minimum=0, label="Seed of the mask", elem_id="seed")
            parts["again"] = gr.Button("New mask", size="sm", elem_id="new-mask")
        with gr.Row():
            for m, title in TITLES.items():
                parts[f"own_{m}"] = gr.Dropdown(_kind_choices(m), value=ALIKE, label=f"{title}: a way of its own", elem_id=f"own-{m}")
        gr.HTML(_descriptions())
    return parts


def _title(text: str) -> gr.HTML:
    return gr.HTML(f'<h3 class="msa-title">{text}</h3>')


def _picture(name: str, *classes: str) -> gr.Plot:
    return gr.Plot(show_label=False, container=False, elem_id=name, elem_classes=["msa-plot", *classes])


def map_parts() -> dict:
    """What the words look at, and what to choose of it; hidden until one of PGMF's models answers."""
    parts = {}
    with gr.Column(visible=False, elem_id="msa-map") as parts["map_column"]:
        _title("What the words look at")
        with gr.Row():
            parts["source"] = gr.Radio([(label, name) for name, label in alignment.DIRECTIONS.items()], value="vision", label="Attention", elem_id="map-source",
                                       min_width=200)
            parts["view"] = gr.Dropdown([(label, name) for name, label in alignment.VIEWS.items()], value="told", label="Show", filterable=False,
                                        elem_id="map-view", min_width=260, scale=2)
            for name, label in (("head", "Head"), ("layer", "Layer")):
                first = {"head": "mean of all", "layer": "last"}[name]
                parts[name] = gr.Dropdown([(first, 0)], value=0, label=label, filterable=False, elem_id=f"map-{name}", min_width=110)
        with gr.Row():
            with gr.Column(scale=7, min_width=320):
                picture, text = _picture("map"), gr.HTML(elem_id="map-text")
            with gr.Column(scale=3, min_width=250):
                numbers = gr.HTML(elem_id="map-numbers")
        parts["map"] = [picture, text, numbers]
    return parts


def results() -> tuple[dict, list]:
    """The column of results, hidden until there are any: components by name, and the panels in the order of Panels (but for the score)."""
    with gr.Column(visible=False, elem_id="msa-results") as column:
        notes = gr.HTML(elem_id="notes")
        _title("What is missing")
        strip = gr.HTML(elem_id="strip")
        parts = {"column": column, **prompt_panel(), **map_parts()}
        _title("How well PGLH holds out")
        parts["curve"], parts["curve_text"] = _picture("curve"), gr.HTML(elem_id="curve-text")
        recovery, attention, attention_text = [], [], []
        _title("Inside PGLH")
        with gr.Tabs():
            for m, name in TITLES.items():
                with gr.Tab(name, id=m):
                    _title("What it rebuilds")
                    recovery.append(gr.HTML(elem_id=f"maps-{m}"))
                    _title("Where its prompts look")
                    attention.append(_picture(f"attention-{m}", "msa-attention"))
                    attention_text.append(gr.HTML(elem_id=f"attention-text-{m}"))
        origin = gr.HTML(elem_id="origin")
    return parts, [notes, strip, parts["told"], *parts["map"], parts["curve"], parts["curve_text"], *recovery, *attention, *attention_text, origin]
