"""The Errors tab: a labelled set is analysed in the background; then its errors are looked at one by one.

What is shown is made in study_view.py and study_item.py; the events here only carry values to and fro. Every event brings the visitor's
key, which lives in the browser, and shows nothing but that visitor's runs.
"""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import gradio as gr
from gradio import processing_utils

from msademo import limits
from msademo.errors import InputError
from msademo.options import MODELS
from msademo.study import export
from msademo.study.desk import Desk
from msademo.study.judging import ORDERS, select, shows
from msademo.study.plan import AT_WORK, CANCELLED, FAILED, INTERRUPTED, PART_NAMES, Plan
from msademo.study.sets import CLIP
from msademo.study.store import Run
from msademo.ui import study_item, study_view
from msademo.ui.guard import guarded, told
from msademo.ui.study_layout import chooser, last, results, runs
from msademo.ui.study_view import Marks

POLL = 2.0                  # seconds between two looks at a run that goes on
# The key is made and kept in the browser; where it may keep nothing, for as long as the page is open.
READ_KEY = """() => {
  const fresh = () => [...crypto.getRandomValues(new Uint8Array(18))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  try {
    if (!localStorage.getItem("msademo-key")) localStorage.setItem("msademo-key", fresh());
    return localStorage.getItem("msademo-key");
  } catch { return (window.msademoKey ||= fresh()); }
}"""
KEEP_KEY = """(key) => { try { localStorage.setItem("msademo-key", key); } catch { window.msademoKey = key; } return key; }"""
SHOW_ITEM = """() => { const at = document.querySelector("#study-message .msa-alert") || document.querySelector("#study-item");
  if (at) at.scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth", block: "start" }); }"""


def plan_of(models, seed, *missing) -> Plan:
    """From the page's widgets. InputError for an empty seed or for no model."""
    if not models:
        raise InputError("No model of clips is chosen; choose at least one.")
    ratios = {part: float(value or 0.0) for part, value in zip(PART_NAMES, missing)}
    # All of them stands for all there are: a checkpoint that is not here is no reason to refuse the others.
    return Plan({part: ratio for part, ratio in ratios.items() if ratio > 0}, tuple(models) if len(models) < len(MODELS) else (), seed=seed)


def exported(desk: Desk, run: Run, who: str, say) -> list[str]:
    """The three files, under names nobody can guess, with a name of their own inside."""
    rows, who, there = desk.judged(run, who)
    if not there:
        raise InputError("Nothing is answered yet, so there is nothing to write; wait a little.")
    say("Metrics", 0.2)
    found = study_view.found_metrics(desk, run, there)
    stored = [row.stored for row in rows]
    worst = select(rows, run.kind)
    say("Pictures", 0.6)
    pictures = desk.store.pictures(run.id, [row.number for row in worst[:export.MOST_PICTURED]])
    name = "msademo-" + "-".join("".join(c if c.isalnum() else " " for c in run.set_name).split()).lower()[:40]
    files = {f"{name}.csv": export.table(run, rows, there), f"{name}.json": export.document(run, stored, there),
             f"{name}.html": export.report(run, worst, who, found, there, pictures)}
    cache = gr.HTML().GRADIO_CACHE
    return [processing_utils.save_bytes_to_cache(text.encode(), file, cache) for file, text in files.items()]


def build_study_tab(desk: Desk, tab: gr.Tab, tabs: gr.Tabs, clip: dict, post: dict | None) -> None:
    """Lay out the tab inside the current Blocks and wire it. clip, post: what the other tabs gave back (post: None without a checkpoint)."""
    marks = gr.State(Marks())
    opened = gr.State(None, time_to_live=limits.current().rest_seconds)     # the item taken apart, for its curve
    chosen = gr.State(None)                                     # (run, number) of the item that is open
    timer = gr.Timer(POLL, active=False)
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            page = chooser(desk)
        with gr.Column(scale=9, min_width=320):
            page |= runs() | results()
            page |= study_item.layout()
            page |= last()
    message, key, run_box = page["message"], page["key"], page["run"]
    view = [page[name] for name in ("who", "show", "order", "search")]
    shown = [page[name] for name in ("metrics", "confusion", "scatter", "table")]
    states = [page[name] for name in ("status", "cancel", "resume", "again", "delete", "sure_row")]
    quietly = {"api_visibility": "private", "show_progress": "hidden"}
    working = {"api_visibility": "private", "show_progress": "full"}

    def states_of(run: Run | None, sure=gr.skip()) -> list:
        """Values of `states`, and whether to go on looking. sure: of the row that asks before deleting; a tick leaves it open."""
        if run is None:
            return ["", *[gr.Button(visible=False)] * 4, gr.Row(visible=False), gr.Timer(active=False)]
        going = run.state in AT_WORK
        return [study_view.status(run), gr.Button(visible=going), gr.Button(visible=run.state in (CANCELLED, INTERRUPTED, FAILED)),
                gr.Button(visible=going), gr.Button(visible=True), sure, gr.Timer(active=going)]

    def listed(key, wanted=None):
        """The list of runs, and which of them is chosen: the wanted one, else the newest."""
        found = desk.runs(key)
        value = wanted if wanted in {run.id for run in found} else found[0].id if found else None
        return gr.Dropdown(choices=[(study_view.label(run), run.id) for run in found], value=value), value

    def refresh(key, wanted):
        return "", listed(key, wanted)[0]

    def start(key, asked, upload, name, split, most, models, seed, *missing, progress=gr.Progress()):
        title = Path(upload).stem if upload else ""
        run_id = desk.start(key, asked, plan_of(models, seed, *missing), upload, title, split or "", None if most is None else int(most), name or "",
                            lambda what, share: progress(share, desc=what))
        return "", listed(key, run_id)[0], None

    def look(key, run_id, who, show, order, search, *, marks=Marks()):
        """All of a run anew."""
        if not run_id:
            return ["", *states_of(None), gr.Column(visible=False), gr.Column(visible=False), gr.Column(visible=False), marks, *[gr.skip()] * 8]
        run = desk.run(key, run_id)
        ways = list(shows(run.kind))
        show, order = show if show in ways else "all", order if order in ORDERS else "largest error"
        drawn = study_view.results(desk, run, who, show, order, search, marks)
        others = [(study_view.label(other), other.id) for other in desk.runs(key) if other.id != run_id and other.kind == run.kind]
        some = run.done + run.failed > 0
        return ["", *states_of(run, gr.Row(visible=False)), gr.Column(visible=some), gr.Column(visible=False), gr.Column(visible=some), marks,
                gr.Dropdown(choices=[(title, name) for name, title in drawn.there.items()], value=drawn.who if drawn.there else None), gr.Dropdown(choices=ways, value=show),
                gr.Dropdown(choices=others, value=None), drawn.metrics, drawn.confusion, drawn.scatter, drawn.table, ""]

    looked = [message, *states, timer, page["column"], page["item"], page["last"], marks, page["who"], page["show"], page["other"], *shown, page["compared"]]

    def tick(key, run_id):
        if not run_id:
            return ["", *states_of(None), gr.skip()]
        run = desk.run(key, run_id)
        return ["", *states_of(run), gr.skip() if run.state in AT_WORK else listed(key, run_id)[0]]

    def finish(key, run_id, *values):
        """Show a run that has come to an end; the last tick stopped the clock."""
        if not run_id or desk.run(key, run_id).state in AT_WORK:
            return [gr.skip()] * len(looked)
        return look(key, run_id, *values)

    def filtered(key, run_id, who, show, order, search, marks):
        if not run_id:
            return [gr.skip()] * 4
        run = desk.run(key, run_id)
        drawn = study_view.results(desk, run, who, show, order, search, marks)
        return "", drawn.confusion, drawn.scatter, drawn.table

    def pick(event: gr.EventData, key, run_id, who, show, order, search, marks):
        try:
            said = event.value
        except (AttributeError, TypeError):     # a click that says nothing of itself, which no page makes
            said = None
        now, order = study_view.picked(marks, order, said)
        # An item that is pressed again is opened again, so what was pressed gets a name of its own.
        item = (run_id, now.item, uuid4().hex) if str(said).startswith("item:") else gr.skip()
        return *filtered(key, run_id, who, show, order, search, now), now, order, item

    def open_item(key, chosen, progress=gr.Progress()):
        if not chosen:
            return [gr.skip()] * (2 + study_item.COUNT)
        run = desk.run(key, chosen[0])
        values, taken = study_item.show(desk, run, chosen[1], lambda what, share: progress(share, desc=what))
        return ["", taken, *values]

    def draw_curve(key, chosen, opened):
        if not chosen or opened is None:
            return [gr.skip()] * 5
        return [gr.skip(), *study_item.curves(desk, desk.run(key, chosen[0]), opened)]

    def item_of(key, chosen):
        if not chosen:
            raise InputError("No item is open; press one of the table first.")
        run = desk.run(key, chosen[0])
        return run, next(row.item for row in desk.store.rows(run) if row.item.number == chosen[1])

    def save(key, chosen, note, tags, *values):
        run, item = item_of(key, chosen)
        desk.remark(key, run.id, item.number, note, tags)
        gr.Info("Kept.", duration=3)
        return filtered(key, run.id, *values)

    def take(key, chosen):
        """Tab, media and words of the open item, for its own tab."""
        run, item = item_of(key, chosen)
        path = study_item.path_of(desk, run, item.file)
        copy = None if path is None else study_item.served(path)
        if run.kind != CLIP:
            return gr.Tabs(selected="post"), copy, item.text or "", ""
        sound = copy is not None and Path(copy).suffix.lower() in study_item.SOUND
        return gr.Tabs(selected="clip"), None if sound else copy, copy if sound else None, item.text or "", ""

    def act(what):
        def event(key, run_id):
            if not run_id:
                raise InputError("No run is chosen; choose one of the list.")
            what(key, run_id)
            return ["", *states_of(desk.run(key, run_id)), listed(key, run_id)[0]]
        return event

    def erase(key, run_id):
        desk.delete(key, run_id)
        return "", gr.Row(visible=False), listed(key)[0]

    def compare(key, run_id, other, who):
        return "", study_view.comparison(desk, desk.run(key, run_id), desk.run(key, other), who) if run_id and other else ""

    def write(key, run_id, who, progress=gr.Progress()):
        if not run_id:
            raise InputError("No run is chosen; choose one of the list.")
        return "", gr.File(value=exported(desk, desk.run(key, run_id), who, lambda what, share: progress(share, desc=what)), visible=True)

    def looking(trigger, **how):
        return trigger(guarded(len(looked))(look), [key, run_box, *view], looked, **{**quietly, **how})

    tab.select(None, None, key, js=READ_KEY, api_visibility="private").then(guarded(2)(refresh), [key, run_box], [message, run_box], **quietly)
    key.submit(None, key, key, js=KEEP_KEY, api_visibility="private").then(guarded(2)(refresh), [key, run_box], [message, run_box], **quietly)
    page["go"].click(guarded(3)(start), [key, page["set"], page["upload"], page["name"], page["split"], page["most"], page["models"], page["seed"], *page["missing"]],
                     [message, run_box, page["upload"]], show_progress_on=page["message"], concurrency_limit=2, **working)
    looking(run_box.change, show_progress="minimal")
    looking(page["again"].click, show_progress="minimal")
    ticked = [message, *states, timer, run_box]
    timer.tick(guarded(len(ticked), cost=0)(tick), [key, run_box], ticked, **quietly).then(guarded(len(looked), cost=0)(finish), [key, run_box, *view], looked, **quietly)
    for name, what in (("cancel", desk.cancel), ("resume", desk.resume)):
        page[name].click(guarded(len(ticked))(act(what)), [key, run_box], ticked, **quietly)
    page["delete"].click(lambda: gr.Row(visible=True), None, page["sure_row"], queue=False, **quietly)
    page["keep"].click(lambda: gr.Row(visible=False), None, page["sure_row"], queue=False, **quietly)
    page["sure"].click(guarded(3)(erase), [key, run_box], [message, page["sure_row"], run_box], **quietly)

    filters = [message, page["confusion"], page["scatter"], page["table"]]
    for widget in (page["who"], page["show"], page["order"]):
        widget.input(guarded(4)(filtered), [key, run_box, *view, marks], filters, trigger_mode="always_last", **quietly)
    page["search"].change(guarded(4)(filtered), [key, run_box, *view, marks], filters, trigger_mode="always_last", **quietly)
    for place in (page["confusion"], page["scatter"], page["table"], page["compared"]):
        place.click(guarded(7)(pick), [key, run_box, *view, marks], [*filters, marks, page["order"], chosen], **quietly)
    outputs = [message, opened, *(page[name] for name in study_item.OUTPUTS), *page["clip"], *page["post"]]
    event = chosen.change(guarded(len(outputs))(open_item), [key, chosen], outputs, show_progress_on=page["table"], concurrency_limit=2, **working)
    event = event.then(None, None, None, js=SHOW_ITEM, api_visibility="private")
    event.then(guarded(5)(draw_curve), [key, chosen, opened], [message, *study_item.curve_places(page)], concurrency_limit=1, **quietly)
    page["save"].click(guarded(4)(save), [key, chosen, page["note"], page["tags"], *view, marks], filters, **quietly)
    for kind, other, names in (("clip", clip, ("video", "sound", "transcript", "note")), ("post", post, ("image", "text", "note"))):
        if other is not None:
            taken = page[f"take_{kind}"].click(told(take), [key, chosen], [tabs, *(other[name] for name in names)], **quietly)
            other["analyse"](taken.success)
    page["other"].input(guarded(2)(compare), [key, run_box, page["other"], page["who"]], [message, page["compared"]], show_progress_on=page["compared"], **working)
    page["export"].click(guarded(2)(write), [key, run_box, page["who"]], [message, page["files"]], show_progress_on=page["compared"], concurrency_limit=1, **working)

