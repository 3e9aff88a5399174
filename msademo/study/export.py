"""A run to take along: a table for spreadsheets, JSON for programs, and one HTML file with the pictures in it."""

from __future__ import annotations

import csv
import html
import io
import json
from typing import Mapping, Sequence

from msademo.study import drawing
from msademo.study.judging import Judged, class_of, judge
from msademo.study.plan import PART_NAMES, PARTS
from msademo.study.sets import CLASSES, CLIP, ILLUSTRATIVE
from msademo.study.statistics import answered, confusion, metrics
from msademo.study.store import Run, Stored, when

MOST_PICTURED = 500         # items in a report, the worst first; the table and the JSON hold all
PURPOSE = ("A machine’s guess at the sentiment that is shown, not at what a person feels. It must not decide about people: not on work, school, credit, care, police or "
           "borders, and not on whether somebody tells the truth.")
_STYLE = """:root{color-scheme:light dark}body{font:16px/1.45 system-ui,sans-serif;max-width:70rem;margin:1.5rem auto;padding:0 1rem;background:#fff;color:#16181d}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse}th,td{padding:.3rem .5rem;text-align:left;vertical-align:top}
td,th{border-bottom:1px solid #c9ccd1}small,figcaption,.msa-say{color:#4a4f58;font-size:.9rem}figure{margin:0}.study-confusion td{text-align:center;min-width:2.4rem}
.study-right{background:rgba(0,114,178,calc(var(--s)*.55))}.study-wrong{background:rgba(213,94,0,calc(var(--s)*.55))}.study-scatter{width:100%;max-width:28rem}
.study-scatter text{font-size:10px;fill:currentColor}.study-grid path{stroke:#8a8f9866;fill:none}.study-scatter .study-even{stroke-dasharray:4 3}.study-pic img{max-width:9rem;border-radius:4px}
.study-items{width:100%}.study-badges i{display:inline-block;font-style:normal;font-size:.8rem;border:1px solid #8a8f98;border-radius:3px;padding:0 .3rem;margin:.1rem}
.study-note{border-left:3px solid #e69f00;padding-left:.5rem}.study-two{display:flex;flex-wrap:wrap;gap:2rem}.study-scroll{overflow-x:auto}p{margin:.3rem 0;overflow-wrap:anywhere}
@media(prefers-color-scheme:dark){body{background:#14161a;color:#e8eaee}small,figcaption,.msa-say{color:#b4b9c2}td,th{border-color:#3d434d}}"""


def _safe(cell) -> str:
    """A spreadsheet must not take a person's words for a formula; what begins like one gets an apostrophe."""
    text = str(cell)
    return "'" + text if text[:1] in tuple("=+-@\t\r") else text


def _row(kind: str, row: Judged, there: Mapping[str, str]) -> dict:
    """One item flat, numbers as numbers."""
    item, answers = row.stored.item, (row.stored.answer or {}).get("answers", {})
    flat = {"id": _safe(item.key), "text": _safe(row.words), "label": item.label,
            "predicted": None if row.value is None else row.value if kind == CLIP else class_of(kind, row.value), "error": row.error,
            "wrong_class": int(row.wrong_class), "wrong_side": int(row.wrong_side), "disagree": int(row.disagree), "spread": row.spread, "change_under_masks": row.change}
    for part in PARTS[kind]:
        flat[f"flips_without_{PART_NAMES[part]}"] = int(part in row.flips)
    for who in there:
        own = answers.get(who, {"now": None, "without": {}})
        flat |= _values(kind, who, own["now"])
        for part in PARTS[kind]:
            flat |= _values(kind, f"{who}_without_{PART_NAMES[part]}", own["without"].get(part))
    return flat | {"failed": row.stored.error or "", "note": _safe(row.stored.note), "tags": _safe("; ".join(row.stored.tags))}


def _values(kind: str, name: str, value) -> dict:
    if kind == CLIP:
        return {name: value}
    return {f"{name}_{label}": None if value is None else value[i] for i, label in enumerate(CLASSES)}


def table(run: Run, rows: Sequence[Judged], there: Mapping[str, str]) -> str:
    """CSV, a line an item in the set's order."""
    out = io.StringIO()
    lines = [_row(run.kind, row, there) for row in rows]
    writer = csv.DictWriter(out, list(lines[0]))
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in line.items()} for line in lines)
    return "\ufeff" + out.getvalue()            # spreadsheets take a file without the mark for another encoding


def _about(run: Run) -> dict:
    return {"name": run.name, "set": run.set_name, "kind": run.kind, "created": when(run.created), "state": run.state, "items": run.total, "answered": run.done,
            "failed": run.failed, "condition": run.plan.told(run.kind), "plan": json.loads(run.plan.dumps()), "checkpoints": run.checkpoints, "notes": list(run.notes)}


def document(run: Run, stored: Sequence[Stored], there: Mapping[str, str]) -> str:
    """JSON: the run, metrics with intervals and confusion by who answers, and every item with all answers."""
    told, items = {}, []
    for who in there:
        rows = [judge(run.kind, row, who) for row in stored]
        told[who] = {"metrics": {name: found.to_dict() for name, found in metrics(run.kind, rows).items()}, "confusion": confusion(run.kind, rows).tolist()}
    for row in stored:
        items.append({"id": row.item.key, "label": row.item.label, "text": row.item.text, "failed": row.error, "seconds": row.seconds, "note": row.note, "tags": list(row.tags),
                      **(row.answer or {})})
    return json.dumps({"run": _about(run), "interval": "95 % percentile bootstrap over items", "results": told, "items": items}, indent=1, ensure_ascii=False)


def report(run: Run, rows: Sequence[Judged], who: str, found: Mapping, there: Mapping[str, str], pictures: Mapping[int, bytes]) -> str:
    """One HTML file without scripts and without anything from elsewhere. found: metrics by who answers; rows: as they are to be listed."""
    e, listed = html.escape, rows[:MOST_PICTURED]
    made = "".join(f"<li>{e(slot)}: {e(entry['file'])}, SHA-256 {e(entry['sha256'][:16])}…</li>" for slot, entry in run.checkpoints.items())
    notes = "".join(f"<li>{e(note)}</li>" for note in (*run.notes, *([ILLUSTRATIVE] if run.source == "bundled" else ())))
    cut = f" The {MOST_PICTURED} first of {len(rows)} are listed; the CSV and JSON hold all." if len(rows) > MOST_PICTURED else ""
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; style-src \'unsafe-inline\'">'
            f"<title>{e(run.name)}</title><style>{_STYLE}</style></head><body><h1>{e(run.name)}</h1>"
            f"<p>Set: {e(run.set_name)}. {run.done} of {run.total} items answered, {run.failed} failed; {e(run.plan.told(run.kind))}. Begun {when(run.created)}.</p>"
            f"<p><b>{PURPOSE}</b></p><ul>{notes}</ul><h2>Metrics</h2>{drawing.metrics_table(found, there, len(answered(rows)), run.failed)}"
            f'<h2>Right and wrong: {e(there.get(who, who))}</h2><div class="study-two">{drawing.confusion_table(run.kind, rows, there.get(who, who), False)}'
            f"{drawing.scatter(run.kind, rows, there.get(who, who), False)}</div>"
            f"<h2>Items</h2><p>The largest error first.{cut}</p>{drawing.items_table(listed, pictures, False)}"
            f"<h2>How it was made</h2><p>Every item was answered as it is, again without each of its parts, and under {run.plan.masks} random masks of "
            f"{run.plan.mask_ratio:.0%} of all parts (seed {run.plan.seed}).</p><ul>{made}</ul></body></html>")
