"""What PGMF's teacher is told: three boxes that hold its prompt, who wrote it and from what, and the buttons that write it again.

What stands in the boxes is what the teacher reads at the next move. A text that was written here or by a language model is known
by its wording; any other was typed.
"""

from __future__ import annotations

import html

import gradio as gr

from msademo.analyzer import GUIDANCE_SECONDS
from msademo.errors import InputError
from msademo.guidance.chat import ChatSettings
from msademo.guidance.given import COMPLETE, LEFT, Guidance, given_guidance
from msademo.guidance.prompt import SECTIONS
from msademo.ui.keys import key_field

LABELS = {"visual": "What is to be seen", "language": "What is said", "multimodal": "How it sounds, and how all agrees"}
WRITERS = {"offline": "Written here, without a language model, from what was measured in", "openai": "Written by a language model from"}
BOTH = "The sliders then take things away from all models, but the teacher has been told of them and the student has not."
Sections = tuple[str, str, str]


def writer_choices() -> list[tuple[str, str]]:
    """The writers as choices; where the language model cannot be asked, its choice says why."""
    try:
        host = ChatSettings.from_environment().host
        ask = f"a language model at {host}, which then gets the words and three frames; {GUIDANCE_SECONDS:.0f} s at most"
    except InputError as error:
        ask = f"a language model; {error}"
    return [("measurements, without any language model", "offline"), (ask, "openai")]


def prompt_panel() -> dict:
    """The panel's components by name; hidden until a teacher answers."""
    parts = {}
    with gr.Column(visible=False, elem_id="msa-prompt") as parts["prompt_column"]:
        gr.HTML('<h3 class="msa-title">What the teacher is told</h3>')
        parts["told"] = gr.HTML(elem_id="told")
        with gr.Accordion("Read it, change it, have it written again", open=False):
            with gr.Row():
                for name in SECTIONS:
                    parts[name] = gr.Textbox(label=LABELS[name], lines=4, max_lines=10, min_width=200, elem_id=f"prompt-{name}")
            with gr.Row():
                parts["use"] = gr.Button("Tell the teacher this", size="sm", variant="primary", min_width=150, elem_id="prompt-use")
                parts["nothing"] = gr.Button("Tell it nothing", size="sm", min_width=150, elem_id="prompt-nothing")
            parts["writer"] = gr.Radio(writer_choices(), value="offline", label="Have it written from", elem_id="prompt-writer")
            parts["key"] = key_field("prompt-key", parts["writer"], "the words and three frames")
            with gr.Row():
                parts["write_complete"] = gr.Button("Write it again: of the complete clip", size="sm", min_width=200, elem_id="prompt-complete")
                parts["write_left"] = gr.Button("Write it again: of what is left", size="sm", min_width=200, elem_id="prompt-left")
    return parts


def sections(guidance: Guidance) -> Sections:
    """What the boxes show of it."""
    return ("", "", "") if guidance.prompt is None else tuple(getattr(guidance.prompt, name) for name in SECTIONS)


def wording(boxes) -> Sections:
    return tuple((text or "").replace("\r\n", "\n").strip() for text in boxes)


def told_now(written: dict[Sections, Guidance], boxes) -> Guidance:
    """What the teacher reads: the guidance whose words stand in the boxes, else what was typed there."""
    said = wording(boxes)
    return written.get(said) or given_guidance(dict(zip(SECTIONS, said)))


def told_sentence(guidance: Guidance) -> str:
    if guidance.prompt is None:
        return "Nothing: the teacher answers without a prompt, by the words, voice and face that are left."
    if guidance.written_from == COMPLETE:
        return f"{WRITERS[guidance.source]} {COMPLETE}. {BOTH}"
    if guidance.written_from == LEFT:
        return f"{WRITERS[guidance.source]} what was left of the clip when you asked; of what was missing then it is told nothing."
    return "Typed by you. The teacher's text encoder reads it, and nothing in it is obeyed or looked up."


def told_panel(guidance: Guidance) -> str:
    note = f'<p class="msa-notes">{html.escape(guidance.note)}</p>' if guidance.note and guidance.prompt is not None else ""
    return f'<div class="msa"><p class="msa-say">{html.escape(told_sentence(guidance))}</p>{note}</div>'
