"""The Models tab: every checkpoint there is, what each says of itself, which are in use, and what none of them is for."""

from __future__ import annotations

import html
import os
import re
import threading
from typing import Mapping

import gradio as gr

from msademo import inventory
from msademo.errors import InputError
from msademo.inventory import CHOICES, SLOTS, Found
from msademo.ui import heaps
from msademo.ui.examples import examples
from msademo.ui.guard import alert, guarded, quiet

FOLDERS = re.compile(r"(?<!\S)\S*/(?=\S)")          # of whoever trained it, in the command that did; nobody's business
METRIC_NAMES = {"acc2": "Acc-2", "acc7": "Acc-7", "f1": "F1", "mae": "MAE", "corr": "Pearson's r", "accuracy": "Accuracy", "macro_f1": "Macro F1", "weighted_f1": "Weighted F1",
                "macro_recall": "Macro recall", "n": "Items"}
MOST_METRICS = 60           # of a file that may come from anywhere
e = html.escape
PURPOSE = """<section class="msa msa-notes"><h2 class="msa-step">What these models are not for</h2>
<p><b>Not for decisions about people.</b> Not for hiring, grading or watching at work or school, not for credit, insurance, care, police or borders, and not to tell whether
somebody speaks the truth. They guess at the sentiment that words, voice and face show; what a person feels, they do not know. Inferring emotions of people at work or in
education is forbidden in the European Union (AI Act, Article 5).</p>
<h2 class="msa-step">Where they are weak</h2><ul>
<li>The models of clips never saw a real clip: they were trained on transcripts joined to voices and faces of other people (the composed corpus). On your clips they may be worse
than any figure here.</li>
<li>Acted voices and posed, mostly young and Western faces, English words: other ages, languages, accents, skin tones, illness and disability are little or not at all in the data, and nobody has
measured how the errors differ between groups.</li>
<li>Irony, grief with kind words, mixed feelings and plain statements are hard for them; without words they miss the sign of about three in ten composed clips.</li>
<li>SPRO takes many neutral posts for positive ones. A confident number is no proof: the scores are not calibrated.</li></ul>
<p>See for yourself in the Errors tab.</p></section>"""
ON_A_SPACE = "Which checkpoints are used is chosen for everybody at once, so on a public Space the page does not offer it."


def _flat(metrics: Mapping, depth: int = 0) -> list[tuple[str, str]]:
    """What a header says of its metrics, as (name, value); tables within are left to the card."""
    found = []
    for name, value in metrics.items():
        if isinstance(value, bool) or name in ("epoch", "loss", "score"):
            continue
        if isinstance(value, float):
            found.append((name, f"{value:.3f}"))
        elif isinstance(value, int) or name in ("split", "protocol"):
            found.append((name, str(value)))
        elif isinstance(value, Mapping) and depth == 0 and name in ("fusion", "image", "text"):
            found += [(f"{name} {inner}", shown) for inner, shown in _flat(value, 1)]
    return found


def _metric_name(name: str) -> str:
    """"mosi_acc2" -> "MOSI Acc-2"; a name we do not know stays as it is."""
    first, _, rest = name.partition("_")
    where, name = (first.upper() + " ", rest) if first in ("mosi", "mosei") else ("", name)
    return where + METRIC_NAMES.get(name, name)


def _place(name: str) -> tuple[str, str]:
    """Row and column of a metric: "acc2@0.3" stands for what is missing, "image accuracy" for who answers."""
    if "@" in name:
        metric, _, rate = name.partition("@")
        try:
            return _metric_name(metric), f"{float(rate):.0%} missing" if float(rate) else "complete"
        except ValueError:
            return _metric_name(metric), rate
    who, _, metric = name.partition(" ")
    return (_metric_name(metric), {"fusion": "together", "image": "picture", "text": "words"}.get(who, who)) if metric else (_metric_name(name), "")


def _table(metrics: Mapping[str, str]) -> str:
    """Metrics down, conditions across."""
    placed = {_place(name): value for name, value in list(metrics.items())[:MOST_METRICS]}
    rows, columns = (list(dict.fromkeys(place[i] for place in placed)) for i in (0, 1))
    head = "".join(f'<th scope="col">{e(column)}</th>' for column in columns)
    body = "".join(f'<tr><th scope="row">{e(row)}</th>{"".join(f"<td>{e(placed.get((row, column), chr(8211)))}</td>" for column in columns)}</tr>' for row in rows)
    heads = f"<thead><tr><td></td>{head}</tr></thead>" if any(columns) else ""
    return f'<div class="study-scroll" tabindex="0" role="group" aria-label="metrics"><table class="study-metrics">{heads}<tbody>{body}</tbody></table></div>'


def _measured(meta: Mapping) -> tuple[str, str]:
    """Protocol and metrics as the header has them, as HTML."""
    metrics = meta.get("metrics") if isinstance(meta.get("metrics"), Mapping) else {}
    flat = dict(_flat(metrics))
    protocol = " · ".join(part for part in (flat.pop("split", ""), flat.pop("protocol", ""), str(meta.get("protocol", "") or "")) if part)
    return e(protocol) or "see the card", _table(flat) if flat else "see the card"


def card(found: Found, speed: float | None) -> str:
    """One checkpoint. Everything in a file is escaped: it may come from anywhere."""
    meta = found.meta
    protocol, metrics = _measured(meta)
    used = f' <span class="model-used">in use: {e(SLOTS[found.used_as])}</span>' if found.used_as else ""
    data, _, terms = str(meta.get("data", "not said")).partition("; ")
    rows = [("Method", e(found.method or "unknown")), ("Data", e(data)), ("Terms", e(terms or "not said")), ("Protocol", protocol), ("Metrics", metrics),
            ("Parameters", f"{found.parameters:,} in the file"), ("Size", f"{found.size / 1e6:.1f} MB"),
            ("Speed", f"{speed:.0f} ms from an opened example to its answer, measured on this server" if speed is not None else
             "not measured yet" if found.used_as in CHOICES else "part of the models' time" if found.used_as else "measured once it is in use"),
            ("Training", e(FOLDERS.sub("", str(meta.get("command", "not said")))))]
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows) if found.method else ""
    trouble = alert(found.problem) if found.problem else ""
    text = f'<details><summary>The card</summary><pre tabindex="0">{e(found.card)}</pre></details>' if found.card else '<p class="msa-quiet">There is no card beside this file.</p>'
    return f'<article class="msa model-card" data-file="{e(found.file)}"><h3>{e(found.file)}{used}</h3>{trouble}<dl>{listed}</dl>{text}</article>'


def cards(found: list[Found], speeds: Mapping[str, float]) -> str:
    if not found:
        return alert("There is no checkpoint at all; train one, or restore the folder checkpoints from the repository.")
    return "".join(card(one, speeds.get(one.used_as)) for one in found)


def may_choose() -> bool:
    """A choice holds for every visitor; on a public Space it is nobody's."""
    return not os.environ.get("SPACE_ID")


def build_models_tab(analyzer, tab: gr.Tab, busy=lambda: False) -> None:
    """Lay out the tab inside the current Blocks. busy(): is a run going on, under which no model may change?"""
    speeds: dict[str, float] = {}
    alone = threading.Lock()

    def offered(slot) -> dict:
        return {"choices": inventory.choices(inventory.found_in(analyzer), slot), "value": inventory.in_use(analyzer).get(slot)}

    def refresh():
        return "", cards(inventory.found_in(analyzer), speeds)

    def use(slot, file):
        if not may_choose():
            raise InputError(ON_A_SPACE)
        if not file:
            raise InputError("No checkpoint is chosen; choose one of the list.")
        if busy():
            raise InputError("A run is going on in the Errors tab, and its models must stay the same; cancel it or wait for its end.")
        with alone:
            inventory.choose(analyzer, slot, file)
            heaps.settle()                      # the models before are gone
            speeds.pop(slot, None)
        return quiet(f"{file} is in use now, for everybody. Reload the page to open clips and posts afresh."), cards(inventory.found_in(analyzer), speeds)

    def measure(progress=gr.Progress()):
        clips, posts = examples(), examples(index="posts.json")
        if not clips or not posts:
            raise InputError("There are no examples to measure with; make them with the scripts in the folder examples.")
        with alone:
            speeds.update(inventory.speed(analyzer, clips[0]["file"], clips[0]["transcript"], posts[0]["file"], posts[0]["text"], say=lambda what, share: progress(share, desc=what)))
        return refresh()

    gr.HTML(PURPOSE, elem_id="models-purpose")
    slots = [(SLOTS[slot], slot) for slot in CHOICES]
    if may_choose():
        with gr.Row():
            slot = gr.Dropdown(slots, value=slots[0][1], label="Model", filterable=False, min_width=160, elem_id="models-slot")
            file = gr.Dropdown(**offered(slots[0][1]), label="Checkpoint", filterable=False, min_width=200, elem_id="models-file")
            go = gr.Button("Use this checkpoint", size="sm", min_width=150, elem_id="models-use")
    else:
        gr.HTML(f'<p class="msa-say">{ON_A_SPACE}</p>')
    timed = gr.Button("Measure the speed on this server", size="sm", elem_id="models-measure")
    message = gr.HTML(elem_id="models-message")
    listing = gr.HTML(refresh()[1], elem_id="models-cards")
    tab.select(guarded(2)(refresh), None, [message, listing], api_visibility="private", show_progress="hidden")     # files may have come or gone
    if may_choose():
        slot.input(lambda slot: gr.Dropdown(**offered(slot)), slot, file, api_visibility="private", show_progress="hidden")
        go.click(guarded(2)(use), [slot, file], [message, listing], api_visibility="private", show_progress="full", show_progress_on=message, concurrency_limit=1)
    timed.click(guarded(2)(measure), None, [message, listing], api_visibility="private", show_progress="full", show_progress_on=message, concurrency_limit=1)
