"""Metrics, confusion, scatter and rows as HTML, for the page and for the report. Everything a person gave is escaped.

With `pick`, what can be clicked is a button that says in data-pick what was chosen.
"""

from __future__ import annotations

import base64
import html
from typing import Mapping, Sequence

import numpy as np

from msademo.study.judging import Judged, class_of, classes
from msademo.study.plan import PART_NAMES
from msademo.study.sets import CLASSES, CLIP
from msademo.study.statistics import FEWEST, METRICS, RESAMPLES, Compared, Measured, confusion

MOST_POINTS = 1500
SIZE, EDGE = 320, 44            # of the scatter and its margin, in its own units
RIGHT, WRONG = "#0072b2", "#d55e00"
e = html.escape


def number(name: str, value: float) -> str:
    if not np.isfinite(value):
        return "not defined"
    return f"{100 * value:.1f} %" if METRICS[name][1] else f"{value:.3f}"


def signed(name: str, value: float) -> str:
    if not np.isfinite(value):
        return "not defined"
    return f"{100 * value + 0.0:+.1f} points" if METRICS[name][1] else f"{value + 0.0:+.3f}"


def _interval(name: str, measured: Measured, show) -> str:
    return f"{show(name, measured.low)} to {show(name, measured.high)}" if np.isfinite([measured.low, measured.high]).all() else "too few items"


def metrics_table(found: Mapping[str, Mapping[str, Measured]], titles: Mapping[str, str], count: int, failed: int = 0) -> str:
    """found: by who answers, metrics by name."""
    if not found or not any(found.values()):
        return '<p class="msa-say">No item is answered yet.</p>'
    names = list(next(values for values in found.values() if values))
    head = "".join(f'<th scope="col">{e(titles[who])}</th>' for who in found)
    body = "".join(f'<tr><th scope="row">{e(METRICS[name][0])}</th>' + "".join(
        f"<td><b>{number(name, values[name].value)}</b><br><small>{_interval(name, values[name], number)}</small></td>" if values else "<td></td>"
        for values in found.values()) + "</tr>" for name in names)
    few = f" With fewer than {FEWEST} items no interval is given." if count < FEWEST else ""
    lost = f" {failed} items failed and are not counted." if failed else ""
    return (f'<div class="msa study-scroll" tabindex="0" role="group" aria-label="metrics"><table class="study-metrics"><thead><tr><td></td>{head}</tr></thead>'
            f'<tbody>{body}</tbody></table></div><p class="msa-say">Of {count} answered items; small: 95 % percentile bootstrap intervals over items, {RESAMPLES} resamples.'
            f"{few}{lost} Two wide intervals that overlap tell no model better than the other.</p>")


def _name(kind: str, name: str) -> str:
    return name.replace("-", "\u2212") if kind == CLIP else name


def confusion_table(kind: str, rows: Sequence[Judged], who: str, pick: bool, cell: tuple[str, str] | None = None) -> str:
    """Rows are true classes, columns predicted ones; the darker, the more of the row's items."""
    counts, names = confusion(kind, rows), classes(kind)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    lines = []
    for i, true in enumerate(names):
        cells = []
        for j, guess in enumerate(names):
            style = f"--s:{share[i, j]:.2f}"
            said = f"{counts[i, j]} items labelled {_name(kind, true)} and answered {_name(kind, guess)}"
            kinds = "study-right" if i == j else "study-wrong"
            inside = str(counts[i, j])
            if pick and counts[i, j]:
                pressed = str(cell == (true, guess)).lower()
                inside = f'<button data-pick="cell:{true}:{guess}" aria-label="{e(said)}: show them" aria-pressed="{pressed}">{inside}</button>'
            cells.append(f'<td class="{kinds}" style="{style}">{inside}</td>')
        lines.append(f'<tr><th scope="row">{_name(kind, true)}</th>{"".join(cells)}</tr>')
    head = "".join(f'<th scope="col">{_name(kind, name)}</th>' for name in names)
    hits, all_ = int(np.trace(counts)), int(counts.sum())
    what = "the label's class, rounded as in Acc-7" if kind == CLIP else "the label's class"
    more = " Press a number to see its items." if pick else ""
    return (f'<figure class="msa"><table class="study-confusion"><caption>{e(who)}: label down, answer across</caption><thead><tr><td></td>{head}</tr></thead>'
            f'<tbody>{"".join(lines)}</tbody></table><figcaption>{hits} of {all_} answers are {what}. The deeper the colour, the more of the row’s items: '
            f"blue on the diagonal are right, orange are wrong.{more}</figcaption></figure>")


def _points(kind: str, rows: Sequence[Judged]) -> list[tuple[Judged, float, float, bool]]:
    """(row, x, y, right) of the items that have both coordinates."""
    if kind == CLIP:
        return [(row, float(row.stored.item.label), float(row.value), not row.wrong_side) for row in rows if row.value is not None]
    found = []
    for row in rows:
        paths = (row.stored.answer or {}).get("answers", {})
        words, picture = (paths.get(name, {}).get("now") for name in ("text", "image"))
        if words is not None and picture is not None and row.value is not None:
            true = CLASSES.index(row.stored.item.label)
            found.append((row, words[true], picture[true], not row.wrong_class))
    return found


def scatter(kind: str, rows: Sequence[Judged], who: str, pick: bool) -> str:
    """Of clips the answer over the label; of posts how far each path alone believes in the true class."""
    points = _points(kind, rows)
    left = len(points) - MOST_POINTS
    if left > 0:
        points = [points[i] for i in sorted(np.random.default_rng(0).permutation(len(points))[:MOST_POINTS])]
    low, high = (-3.0, 3.0) if kind == CLIP else (0.0, 1.0)
    place = lambda v: EDGE + (np.clip(v, low, high) - low) / (high - low) * (SIZE - 2 * EDGE)
    ticks = range(-3, 4) if kind == CLIP else (0, 0.25, 0.5, 0.75, 1)
    tell = (lambda v: _name(CLIP, f"{v:+d}") if v else "0") if kind == CLIP else (lambda v: f"{v:.0%}")
    grid = "".join(f'<path d="M{place(v):.1f} {EDGE}V{SIZE - EDGE}M{EDGE} {SIZE - place(v):.1f}H{SIZE - EDGE}"/>' for v in ticks)
    text = "".join(f'<text x="{place(v):.1f}" y="{SIZE - EDGE + 14}" text-anchor="middle">{tell(v)}</text>'
                   f'<text x="{EDGE - 5}" y="{SIZE - place(v) + 4:.1f}" text-anchor="end">{tell(v)}</text>' for v in ticks)
    across, up = ("label", f"answer of {who}") if kind == CLIP else ("true class by the words alone", "true class by the picture alone")
    text += (f'<text x="{SIZE / 2}" y="{SIZE - 4}" text-anchor="middle">{e(across)}</text>'
             f'<text x="10" y="{SIZE / 2}" text-anchor="middle" transform="rotate(-90 10 {SIZE / 2})">{e(up)}</text>')
    marks = []
    for place_in_order, (row, x, y, right) in enumerate(sorted(points, key=lambda point: (point[1], point[2]))):
        cx, cy = place(x), SIZE - place(y)
        shape = f'M{cx - 5:.1f} {cy:.1f}a5 5 0 1 0 10 0a5 5 0 1 0 -10 0Z' if right else f'M{cx:.1f} {cy - 6.5:.1f}l6.5 6.5l-6.5 6.5l-6.5 -6.5Z'
        said = e(f"{row.stored.item.key[:60]}: {answer_words(row)}, label {label_words(row)}")
        extra = f' role="button" tabindex="{-1 if place_in_order else 0}" data-pick="item:{row.number}" aria-label="{said}"' if pick else ""
        marks.append(f'<path d="{shape}" fill="{RIGHT if right else WRONG}"{extra}><title>{said}</title></path>')
    wrong = sum(not right for *_, right in points)
    what = ("Each mark is a clip: its label across, the answer up; on the diagonal the answer is the label. Orange diamonds are on the wrong side of zero" if kind == CLIP else
            "Each mark is a post with a picture and words: how probable its true class is by the words alone (across) and by the picture alone (up). "
            "Orange diamonds got the wrong class from both together")
    more = " Press a mark to open it; with the keyboard, arrows go from mark to mark." if pick and points else ""
    cut = f" {MOST_POINTS} of {MOST_POINTS + left} are drawn, chosen at random." if left > 0 else ""
    return (f'<figure class="msa"><svg class="study-scatter" viewBox="0 0 {SIZE} {SIZE}" role="group" aria-label="{e(what)}">'
            f'<g class="study-grid">{grid}<path class="study-even" d="M{EDGE} {SIZE - EDGE}L{SIZE - EDGE} {EDGE}"/></g><g aria-hidden="true">{text}</g>{"".join(marks)}</svg>'
            f"<figcaption>{what}: {wrong} of {len(points)}.{cut}{more}</figcaption></figure>")


# ---- items ----------------------------------------------------------------------------------------------------------------


def value_words(kind: str, value) -> str:
    if value is None:
        return "no answer"
    if kind == CLIP:
        return _name(CLIP, f"{value + 0.0:+.2f}")
    return f"{class_of(kind, value)} {max(value):.0%}"


def answer_words(row: Judged) -> str:
    return value_words(row.kind, row.value)


def label_words(row: Judged) -> str:
    label = row.stored.item.label
    return label if isinstance(label, str) else _name(CLIP, f"{label + 0.0:+.2f}")


def error_words(row: Judged) -> str:
    if row.error is None:
        return ""
    return f"{row.error:.2f}" if row.kind == CLIP else f"{row.error:.0%}"


def change_words(row: Judged) -> str:
    if row.change is None:
        return ""
    return f"{row.change:.2f}" if row.kind == CLIP else f"{row.change:.0%}"


def marks(row: Judged) -> list[str]:
    """What is remarkable about an item, in a few words each."""
    found = ["wrong side"] if row.wrong_side else ["wrong class"] if row.wrong_class else []
    if row.disagree:
        found.append("models disagree" if row.kind == CLIP else "picture and words disagree")
    return found + [f"flips without {PART_NAMES[part]}" for part in row.flips]


def data_uri(picture: bytes | None) -> str:
    return "" if picture is None else "data:image/jpeg;base64," + base64.b64encode(picture).decode()


def shown(text: str, most: int = 140) -> str:
    return text if len(text) <= most else text[:most - 1].rstrip() + "…"


def item_row(row: Judged, picture: bytes | None, pick: bool, chosen: bool = False) -> str:
    """A row of the table: picture, words, label, answer, error, change, marks."""
    item = row.stored.item
    what = "A moment of" if row.kind == CLIP else "The picture of"
    image = f'<img src="{data_uri(picture)}" alt="{what} {e(item.key)}">' if picture else ""
    title = f'<button data-pick="item:{row.number}" aria-pressed="{str(chosen).lower()}">{e(item.key)}</button>' if pick else f"<b>{e(item.key)}</b>"
    badges = "".join(f"<i>{e(mark)}</i>" for mark in marks(row)) + "".join(f'<i class="study-tag">{e(tag)}</i>' for tag in row.stored.tags)
    note = f'<p class="study-note">{e(shown(row.stored.note, 300))}</p>' if row.stored.note else ""
    trouble = f'<p class="study-trouble">{e(row.stored.error)}</p>' if row.stored.error else ""
    waiting = '<p class="study-trouble">Not analysed yet.</p>' if row.stored.answer is None and not row.stored.error else ""
    extra = f' data-pick="item:{row.number}"' if pick else ""
    return (f'<tr{extra}><td class="study-pic">{image}</td><td>{title}<p dir="auto">{e(shown(row.words, 160 if pick else 1000))}</p>{note}{trouble}{waiting}</td>'
            f'<td data-name="label">{label_words(row)}</td><td data-name="answer">{answer_words(row)}</td><td data-name="error">{error_words(row)}</td>'
            f'<td data-name="changes by">{change_words(row)}</td><td class="study-badges">{badges}</td></tr>')


HEADS = (("label", ""), ("answer", ""), ("error", "largest error"), ("change under masks", "most changed under masks"))


def _heading(name: str, by: str, pick: bool, order: str) -> str:
    """A column's heading; a button where the rows can be sorted by it."""
    inside = f'<button data-pick="order:{by}" aria-pressed="{str(by == order).lower()}">{name}</button>' if pick and by else name
    return f'<th scope="col">{inside}</th>'


def items_table(rows: Sequence[Judged], pictures: Mapping[int, bytes], pick: bool, chosen: int | None = None, order: str = "") -> str:
    head = "".join(_heading(name, by, pick, order) for name, by in HEADS)
    body = "".join(item_row(row, pictures.get(row.number), pick, row.number == chosen) for row in rows)
    return (f'<table class="study-items"><thead><tr><td></td><th scope="col">item</th>{head}<th scope="col">remarkable</th></tr></thead>'
            f"<tbody>{body}</tbody></table>")


def compared_table(compared: Compared, first: str, second: str) -> str:
    body = "".join(f'<tr><th scope="row">{e(METRICS[name][0])}</th><td>{number(name, compared.first[name])}</td><td>{number(name, compared.second[name])}</td>'
                   f"<td><b>{signed(name, found.value)}</b><br><small>{_interval(name, found, signed)}</small></td></tr>" for name, found in compared.difference.items())
    return (f'<div class="msa study-scroll" tabindex="0" role="group" aria-label="two runs compared"><table class="study-metrics"><thead><tr><td></td>'
            f'<th scope="col">{e(first)}</th><th scope="col">{e(second)}</th><th scope="col">difference</th></tr></thead><tbody>{body}</tbody></table></div>'
            f'<p class="msa-say">Of {compared.count} items answered in both runs; the difference is the second minus the first, small: its 95 % paired bootstrap interval. '
            f"{len(compared.better)} items got the right class only in the second run, {len(compared.worse)} only in the first. An interval that holds zero shows no difference.</p>")
