"""The components of the Errors tab and where they stand; what they do is in study_tab.py."""

from __future__ import annotations

import html

import gradio as gr

from msademo.options import MODELS
from msademo.study.desk import Desk
from msademo.study.judging import ORDERS
from msademo.study.plan import PART_NAMES

# A click on anything that says what it is goes to the server as that; in a scatter arrows move from mark to mark and Enter clicks.
PICK = """
const said = (target) => target.closest && target.closest('[data-pick]');
element.addEventListener('click', (event) => { const at = said(event.target); if (at && !at.disabled) trigger('click', { value: at.dataset.pick }); });
element.addEventListener('keydown', (event) => {
  const at = event.target.closest && event.target.closest('svg [data-pick]');
  if (!at) return;
  if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); trigger('click', { value: at.dataset.pick }); return; }
  const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const all = [...at.parentNode.querySelectorAll('[data-pick]')], next = all[all.indexOf(at) + step];
  if (next) { at.setAttribute('tabindex', '-1'); next.setAttribute('tabindex', '0'); next.focus(); }
});
"""
HOW = """<div class="msa msa-small"><p>A <b>.zip</b> with a table <code>labels.csv</code> and the media it names, or a table alone where there are only words.</p>
<ul><li><b>Clips</b>: columns <code>file</code> (mp4, webm, mov, avi, wav, mp3, m4a), <code>text</code> (leave the column out and the speech is recognised), <code>label</code>
from -3 to 3.</li><li><b>Posts</b>: <code>file</code> (a picture), <code>text</code>, <code>label</code> negative, neutral or positive.</li>
<li><code>id</code> and <code>split</code> may be added. The layouts of MOSI, MOSEI and SIMS (<code>video_id</code>, <code>clip_id</code>, media in <code>Raw/</code>) and of MVSA
(<code>id</code>, pictures in <code>images/</code>) are known.</li></ul></div>"""


def _title(text: str) -> gr.HTML:
    return gr.HTML(f'<h3 class="msa-title">{text}</h3>')


def _picks(name: str) -> gr.HTML:
    return gr.HTML(elem_id=name, js_on_load=PICK)


def chooser(desk: Desk) -> dict:
    """The left column's components by name."""
    parts, sets = {}, desk.sets()
    gr.HTML('<h2 class="msa-step">1 · Choose a labelled set, or bring one</h2>')
    parts["set"] = gr.Radio(list(sets.items()), value=next(iter(sets.values()), None), label="Set", elem_id="study-set")
    parts["upload"] = gr.File(label="Your own: .zip or .csv", file_types=[".zip", ".csv"], type="filepath", height=150, elem_id="study-upload")
    with gr.Accordion("How a set of your own looks", open=False):
        gr.HTML(HOW)
    with gr.Accordion("What to ask", open=False):
        parts["name"] = gr.Textbox(label="Name of the run", placeholder="Left empty: the set's name and what is missing", max_length=80, elem_id="study-name")
        with gr.Row():
            parts["split"] = gr.Textbox(label="Split", placeholder="all", min_width=90, elem_id="study-split")
            parts["most"] = gr.Number(None, precision=0, minimum=1, label="Items at most, drawn at random", min_width=90, elem_id="study-most")
        parts["models"] = gr.CheckboxGroup([(title, name) for name, title in MODELS.items()], value=list(MODELS), label="Models of clips", elem_id="study-models")
        gr.HTML('<p class="msa-say">Missing in the whole run (every run also tries without each part, and under random masks):</p>')
        with gr.Row():
            parts["missing"] = [gr.Slider(0, 0.9, 0, step=0.05, label=f"{name.capitalize()} missing", min_width=130, elem_id=f"study-missing-{part}")
                                for part, name in PART_NAMES.items()]
        parts["seed"] = gr.Number(0, precision=0, minimum=0, label="Seed of the masks", elem_id="study-seed")
    parts["go"] = gr.Button("Analyse the set", variant="primary", size="lg", elem_id="study-go")
    parts["message"] = gr.HTML(elem_id="study-message")
    gr.HTML(f'<p class="msa-quiet">{html.escape(desk.kept_where())}</p>', elem_id="study-kept")
    with gr.Accordion("Your runs in another browser", open=False):
        parts["key"] = gr.Textbox(label="Key to your runs", info="Copy it into this field in the other browser and press Enter. Whoever has it sees your runs.",
                                  max_length=200, buttons=["copy"], elem_id="study-key")
    return parts


def runs() -> dict:
    """The list of runs and what can be done to one; by name."""
    parts = {}
    gr.HTML('<h2 class="msa-step">2 · Look into a run</h2>')
    parts["run"] = gr.Dropdown([], value=None, label="Run", info="Runs go on when this page is closed.", filterable=False, elem_id="study-run")
    parts["status"] = gr.HTML('<p class="msa-say">No run yet: choose a set and press Analyse the set. Its worst errors can then be opened here one by one.</p>', elem_id="study-status")
    small = lambda text, name, **how: gr.Button(text, size="sm", min_width=110, elem_id=name, visible=False, **how)
    with gr.Row():
        parts["cancel"] = small("Cancel", "study-cancel")
        parts["resume"] = small("Resume", "study-resume", variant="primary")
        parts["again"] = small("Show what is done so far", "study-again")
        parts["delete"] = small("Delete this run", "study-delete")
    with gr.Row(visible=False) as parts["sure_row"]:
        parts["sure"] = gr.Button("Yes, delete it with its notes and media", size="sm", variant="stop", elem_id="study-sure")
        parts["keep"] = gr.Button("Keep it", size="sm", elem_id="study-keep")
    return parts


def results() -> dict:
    """What is known of a run, hidden until something is; by name."""
    parts = {}
    with gr.Column(visible=False, elem_id="study-results") as parts["column"]:
        _title("How well")
        parts["metrics"] = gr.HTML(elem_id="study-metrics")
        _title("Right and wrong")
        parts["who"] = gr.Dropdown([], value=None, label="Answers of", filterable=False, elem_id="study-who")
        with gr.Row():
            with gr.Column(min_width=300):
                parts["confusion"] = _picks("study-confusion")
            with gr.Column(min_width=300):
                parts["scatter"] = _picks("study-scatter")
        _title("Items: press one to open it")
        with gr.Row():
            parts["show"] = gr.Dropdown(["all"], value="all", label="Show", filterable=False, min_width=150, elem_id="study-show")
            parts["order"] = gr.Dropdown(list(ORDERS), value="largest error", label="Sorted by", filterable=False, min_width=150, elem_id="study-order")
            parts["search"] = gr.Textbox(label="With these words", placeholder="in ids, words, notes, tags", min_width=150, elem_id="study-search")
        parts["table"] = _picks("study-table")
    return parts


def last() -> dict:
    """Comparison and export, under the opened item; by name."""
    parts = {}
    with gr.Column(visible=False, elem_id="study-last") as parts["last"]:
        _title("Compare and take along")
        parts["other"] = gr.Dropdown([], value=None, label="Compare with the run", filterable=False, elem_id="study-other")
        parts["compared"] = _picks("study-compared")
        parts["export"] = gr.Button("Write CSV, JSON and a report with pictures", size="sm", elem_id="study-export")
        parts["files"] = gr.File(label="CSV, JSON and HTML report", file_count="multiple", interactive=False, visible=False, elem_id="study-files")
    return parts
