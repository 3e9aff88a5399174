"""What the Errors tab shows of a run, as HTML: how far it is, metrics, confusion, scatter, a page of its items, and one item's answers."""

from __future__ import annotations

import html
from dataclasses import dataclass, replace
from typing import Mapping

from msademo.errors import InputError
from msademo.study import drawing, statistics
from msademo.study.desk import Desk
from msademo.study.judging import Judged, judge, select
from msademo.study.plan import CANCELLED, DONE, FAILED, INTERRUPTED, PART_NAMES, PARTS, QUEUED, RUNNING
from msademo.study.sets import ILLUSTRATIVE
from msademo.study.store import Run, when

PAGE = 20                   # items shown at once
LISTED = 12                 # items named under a comparison
WORDS = {QUEUED: "waiting for another run", RUNNING: "going on", DONE: "done", CANCELLED: "cancelled", INTERRUPTED: "interrupted: the server stopped", FAILED: "stopped by trouble"}
e = html.escape


@dataclass(frozen=True)
class Marks:
    """What was clicked: a cell of the confusion, a page of the table, an item."""

    cell: tuple[str, str] | None = None
    page: int = 0
    item: int | None = None


def picked(marks: Marks, order: str, said) -> tuple[Marks, str]:
    """The marks and the order after a click that says what it is of. InputError for what the page cannot have said."""
    what, _, which = said.partition(":") if isinstance(said, str) else ("", "", "")
    if what == "cell" and which.count(":") == 1:
        cell = tuple(which.split(":"))
        return replace(marks, cell=None if cell == marks.cell else cell, page=0), order
    if what == "all":
        return replace(marks, cell=None, page=0), order
    if what == "order":
        return replace(marks, page=0), which
    if what in ("page", "item") and which.isdecimal() and len(which) < 10:
        return replace(marks, **{what: int(which)}), order
    raise InputError("This cannot be clicked; reload the page.")


def label(run: Run) -> str:
    """A run's line in the list. How far it is stands below, where it is kept up to date."""
    stopped = f" · {WORDS[run.state]}" if run.state in (CANCELLED, INTERRUPTED, FAILED) else ""
    return f"{run.name} · {when(run.created)} · {run.total} items{stopped}"


def status(run: Run) -> str:
    """How far a run is; announced as it changes."""
    done = run.done + run.failed
    share = done / max(run.total, 1)
    left = ""
    if run.state == RUNNING and run.seconds and done:
        seconds = run.seconds * (run.total - done)
        left = f", about {seconds:.0f} s left" if seconds < 90 else f", about {seconds / 60:.0f} min left"
    notes = [*run.notes, *([ILLUSTRATIVE] if run.source == "bundled" else ()), *([run.error] if run.error else ())]
    told = "".join(f"<li>{e(note)}</li>" for note in notes)
    return (f'<div class="msa"><p class="msa-say" role="status"><b>{e(run.name)}</b>: {WORDS[run.state]}, {done} of {run.total} items{left}'
            f"{f', {run.failed} failed' if run.failed else ''}. Set: {e(run.set_name)}; {e(run.plan.told(run.kind))}.</p>"
            f'<div class="study-bar" role="progressbar" aria-label="share of items done" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{100 * share:.0f}">'
            f'<i style="width:{100 * share:.1f}%"></i></div>' + (f'<ul class="msa-notes study-notes">{told}</ul>' if told else "") + "</div>")


@dataclass(frozen=True)
class Shown:
    """A run's results as the page shows them. there: who answered, by name; who: whose numbers these are."""

    metrics: str
    confusion: str
    scatter: str
    table: str
    who: str
    there: Mapping[str, str]


def found_metrics(desk: Desk, run: Run, there: Mapping[str, str]) -> dict:
    """Metrics by who answered. The bootstrap takes a while, so they are remembered until more items are done."""
    key = (run.id, run.done, run.failed)
    if key not in desk.remembered:
        rows = desk.store.rows(run)
        desk.remember(key, {who: statistics.metrics(run.kind, [judge(run.kind, row, who) for row in rows]) for who in there})
    return desk.remembered[key]


def results(desk: Desk, run: Run, who: str | None, show: str, order: str, search: str, marks: Marks) -> Shown:
    rows, who, there = desk.judged(run, who)
    title, answered = there.get(who, who), statistics.answered(rows)
    return Shown(drawing.metrics_table(found_metrics(desk, run, there), there, len(answered), run.failed),
                 drawing.confusion_table(run.kind, rows, title, True, marks.cell), drawing.scatter(run.kind, rows, title, True),
                 table(desk, run, rows, show, order, search, marks), who, there)


def table(desk: Desk, run: Run, rows: list[Judged], show: str, order: str, search: str, marks: Marks) -> str:
    """A page of the items that are wanted, and the way to the other pages."""
    found = select(rows, run.kind, show, order, marks.cell, search or "")
    pages = max(1, -(-len(found) // PAGE))
    page = min(marks.page, pages - 1)
    here = found[page * PAGE:(page + 1) * PAGE]
    chosen = ""
    if marks.cell is not None:
        chosen = f' labelled {e(marks.cell[0])} and answered {e(marks.cell[1])} <button data-pick="all:">show all classes</button>'
    turn = "".join(f'<button data-pick="page:{to}"{"" if 0 <= to < pages else " disabled"}>{name}</button>' for name, to in (("Earlier", page - 1), ("Next", page + 1)))
    head = f'<p class="msa-say" role="status">{len(found)} of {len(rows)} items{chosen}, page {page + 1} of {pages}.</p>'
    body = drawing.items_table(here, desk.store.pictures(run.id, [row.number for row in here]), True, marks.item, order) if here else ""
    return f'<div class="msa study-list">{head}{body}<p class="study-turn">{turn if pages > 1 else ""}</p></div>'


def item(run: Run, row: Judged, there: Mapping[str, str]) -> str:
    """One item's answers under every condition of the run."""
    answers = (row.stored.answer or {}).get("answers", {})
    tell = lambda value: drawing.value_words(run.kind, value)
    lines = [("as it is", [tell(answers[who]["now"]) for who in there if who in answers])]
    for part in PARTS[run.kind]:
        if any(part in answers[who]["without"] for who in there if who in answers):
            lines.append((f"without {PART_NAMES[part]}", [tell(answers[who]["without"].get(part)) for who in there if who in answers]))
    for k in range(run.plan.masks):
        values = [answers[who]["masked"][k] if k < len(answers[who]["masked"]) else None for who in there if who in answers]
        lines.append((f"{run.plan.mask_ratio:.0%} of all masked, draw {k + 1}", [tell(value) for value in values]))
    head = "".join(f'<th scope="col">{e(title)}</th>' for who, title in there.items() if who in answers)
    body = "".join(f'<tr><th scope="row">{name}</th>{"".join(f"<td>{value}</td>" for value in values)}</tr>' for name, values in lines)
    found = drawing.marks(row)
    trouble = f'<p class="msa-alert" role="alert">{e(row.stored.error)}</p>' if row.stored.error else ""
    shown = (f'<div class="study-scroll" tabindex="0" role="group" aria-label="answers of this item"><table class="study-metrics"><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div>'
             if answers else "")
    return (f'<div class="msa"><h3 class="study-title">{e(row.stored.item.key)}: label {drawing.label_words(row)}</h3><p dir="auto" class="msa-say">{e(row.words)}</p>{trouble}'
            f'{shown}<p class="msa-say">{e("Remarkable: " + ", ".join(found) + "." if found else "Nothing remarkable.")}</p></div>')


def comparison(desk: Desk, run: Run, other: Run, who: str | None) -> str:
    """Two runs under the same who, the other run first."""
    if run.kind != other.kind:
        raise InputError("A run over clips and one over posts have nothing to compare; choose another run.")
    rows, who, there = desk.judged(run, who)
    before, same, others = desk.judged(other, who)
    if same != who:
        raise InputError(f"{there.get(who, who)} did not answer in the other run; choose another model or another run.")
    found = statistics.compare(run.kind, before, rows)
    lists = []
    for title, pairs in (("Right only in this run", found.better), ("Right only in the other run", found.worse), ("Moved most", found.moved)):
        if pairs:
            lines = "".join(f'<li><button data-pick="item:{now.number}">{e(now.stored.item.key)}</button> label {drawing.label_words(now)}: '
                            f"{drawing.answer_words(then)} → {drawing.answer_words(now)}</li>" for then, now in pairs[:LISTED])
            more = f"<li>… and {len(pairs) - LISTED} more</li>" if len(pairs) > LISTED and title != "Moved most" else ""
            lists.append(f"<div><h4>{title}</h4><ul>{lines}{more}</ul></div>")
    return f'{drawing.compared_table(found, other.name, run.name)}<div class="msa study-moved">{"".join(lists)}</div>'
