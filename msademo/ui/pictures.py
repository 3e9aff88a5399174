"""Pictures written as HTML, which bends to a phone and to the theme by itself: the strip, the feature maps.

Everything a person typed is escaped. Each picture carries its sentence, with the numbers, under it.
"""

from __future__ import annotations

import base64
import html
from typing import Iterable, Mapping, Sequence

import cv2
import numpy as np

from msademo.corruption import KINDS, MODALITIES
from msademo.degrade import DESCRIPTIONS
from msademo.results import ClipResult, Recovery
from msademo.transcript import Word
from msademo.ui.figures import NAMES, kind_name

THUMBNAILS, SIDE = 12, 72           # pictures in the strip; pixels
WAVE_BINS = 320
SECOND = 0.15                       # probability from which the second emotion is named too
FEELS = {"disgust": "disgusted", "fear": "afraid", "fearful": "afraid", "surprise": "surprised"}
ROWS = 36                           # feature dimensions drawn: those that vary most
WIDE, NARROW = 88, 40              # letters that fit beside each other in the strip, on a desk and on a phone
Spans = Sequence[tuple[float, float]]


def _figure(picture: str, sentence: str) -> str:
    return f'<figure class="msa">{picture}<figcaption>{html.escape(sentence)}</figcaption></figure>'


# ---- the strip ---------------------------------------------------------------------------------------------------------


def lanes(words: Sequence[Word], duration: float, letters: int) -> list[int]:
    """The line each word goes on so that none covers another: the first one that is free at its start. letters: how many
    fit beside each other in the whole width."""
    free: list[float] = []
    chosen = []
    for word in words:
        length = len(word.text) + 1.5
        start = min((word.start or 0.0) / duration * letters, letters - length)        # the last words lean back from the edge
        lane = next((i for i, end in enumerate(free) if end <= start), len(free))
        free[lane:lane + 1] = [start + length]
        chosen.append(lane)
    return chosen


def _words(words: Sequence[Word], gone: np.ndarray, duration: float) -> str:
    marked = [(word, bool(i < len(gone) and gone[i])) for i, word in enumerate(words)]
    if duration <= 0:
        return '<div class="msa-flow">' + "".join(f'<{t} class="{c}">{html.escape(w.text)}</{t}>' for w, g in marked
                                                  for t, c in [("s", "msa-gone") if g else ("span", "")]) + "</div>"
    wide, narrow = lanes(words, duration, WIDE), lanes(words, duration, NARROW)
    spans = []
    for (word, missing), w, n in zip(marked, wide, narrow):
        tag, extra = ("s", " msa-gone") if missing else ("span", "")
        x = 100 * min(1.0, (word.start or 0.0) / duration)
        spans.append(f'<{tag} class="msa-word{extra}" style="--x:{x:.2f}%;--l:{len(word.text)};--w:{w};--n:{n}" title="{word.start or 0:.2f} s">{html.escape(word.text)}</{tag}>')
    sizes = f"--wide:{max(wide, default=0) + 1};--narrow:{max(narrow, default=0) + 1}"
    return f'<div class="msa-words" tabindex="0" role="group" aria-label="words at their times"><div class="msa-lanes" style="{sizes}">{"".join(spans)}</div></div>'


def spans(times: np.ndarray, marked: np.ndarray) -> list[tuple[float, float]]:
    """(n, 2) seconds and (n,) bool -> the marked stretches, neighbours joined."""
    joined: list[tuple[float, float]] = []
    for (start, end), mark in zip(times.tolist(), marked.tolist()):
        if not mark:
            continue
        if joined and start <= joined[-1][1] + 1e-3:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _rects(stretches: Spans, duration: float, kind: str = "") -> str:
    return "".join(f'<rect class="{kind}" x="{1000 * a / duration:.1f}" y="0" width="{1000 * max(b - a, 0) / duration:.1f}" height="100"/>'
                   for a, b in stretches)


def _svg(name: str, inside: str) -> str:
    return f'<svg class="{name}" viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true">{inside}</svg>'


def waveform(audio: np.ndarray, stretches: Spans, duration: float) -> str:
    """The envelope of a waveform, greyed over the missing stretches."""
    step = max(1, -(-len(audio) // WAVE_BINS))
    padded = np.pad(np.abs(audio), (0, -len(audio) % step))
    peaks = padded.reshape(-1, step).max(1)
    height = 48 * peaks / max(float(peaks.max()), 1e-6) + 0.8
    x = np.linspace(0, 1000, len(height))
    points = [f"{a:.0f} {50 - h:.1f}" for a, h in zip(x, height)] + [f"{a:.0f} {50 + h:.1f}" for a, h in zip(x[::-1], height[::-1])]
    return _svg("msa-wave", f'<path d="M{"L".join(points)}Z"/>{_rects(stretches, duration)}')


def _jpeg(frame: np.ndarray, box: np.ndarray | None) -> str:
    """A square cut around the face, or the middle, as a data URI."""
    height, width = frame.shape[:2]
    side = min(height, width)
    centre = (width / 2, height / 2) if box is None else ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    x = int(np.clip(centre[0] - side / 2, 0, width - side))
    y = int(np.clip(centre[1] - side / 2, 0, height - side))
    # Skipping pixels first: an exact average of a large frame is not worth its time in a thumbnail.
    skip = max(1, side // (2 * SIDE))
    small = cv2.resize(np.ascontiguousarray(frame[y:y + side:skip, x:x + side:skip, ::-1]), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return "data:image/jpeg;base64," + base64.b64encode(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 70])[1]).decode()


def _state_at(time: float, times: np.ndarray, flags: np.ndarray) -> bool:
    """What `flags` (n,) says of the unit that has begun last at `time`; times (n, 2)."""
    return bool(len(flags)) and bool(flags[max(0, int(np.searchsorted(times[:, 0], time + 1e-6, "right")) - 1)])


def frame_pictures(opened) -> list[tuple[str, int, float, float]]:
    """Evenly spaced frames of a clip, cut around the face: (data URI, number of the frame, start and end of its slot in seconds)."""
    clip, faces = opened.clip, opened.faces
    count = min(THUMBNAILS, len(clip.frames))
    pictures = []
    for slot in range(count):
        start, end = slot * clip.duration / count, (slot + 1) * clip.duration / count
        i = max(0, int(np.searchsorted(clip.frame_times, (start + end) / 2, "right")) - 1)       # the frame that stands at that time
        pictures.append((_jpeg(clip.frames[i], faces.boxes[i] if faces is not None and faces.found[i] else None), i, start, end))
    return pictures


def thumbnails(opened, gone: np.ndarray, faceless: np.ndarray, times: np.ndarray) -> str:
    """Frames, pale where the face was taken away or none was found. gone, faceless (n,), times (n, 2)."""
    shown = []
    for source, i, _, _ in frame_pictures(opened):
        time = opened.clip.frame_times[i]
        none = opened.faces is None or not opened.faces.found[i] or _state_at(time, times, faceless)
        state = "msa-none" if none else "msa-gone" if _state_at(time, times, gone) else ""
        shown.append(f'<span class="{state}"><img alt="" src="{source}"></span>')
    return f'<div class="msa-frames">{"".join(shown)}</div>'


def taken(opened, result: ClipResult, modality: str) -> tuple[np.ndarray, np.ndarray]:
    """(n,) bool each: what we took away, and what the clip itself never had (no face in the frame)."""
    missing = result.modalities[modality].missing
    lacking = np.zeros(len(missing), bool) if modality == "text" else opened.features.track(modality).missing
    return missing & ~lacking, lacking


def strip(opened, result: ClipResult) -> str:
    """What is missing, on one time axis: words struck out, voice and face greyed."""
    duration, rows = opened.clip.duration, []
    (no_words, _), (no_voice, _), (no_face, faceless) = (taken(opened, result, m) for m in MODALITIES)
    if result.words:
        rows.append(("Words", _words(result.words, no_words, duration)))
    if opened.clip.audio is not None and duration > 0:
        rows.append(("Voice", waveform(opened.clip.audio, spans(result.modalities["audio"].times, no_voice), duration)))
    if len(opened.clip.frames) and duration > 0:
        times = result.modalities["vision"].times
        cover = _rects(spans(times, no_face), duration, "gone") + _rects(spans(times, faceless), duration, "none")
        rows.append(("Face", thumbnails(opened, no_face, faceless, times) + _svg("msa-cover", cover)))
    if duration > 0:
        rows.append(("", f'<div class="msa-axis">{"".join(f"<span>{duration * k / 4:.1f} s</span>" for k in range(5))}</div>'))
    return _figure("".join(f'<div class="msa-row"><span>{name}</span><div>{row}</div></div>' for name, row in rows), strip_sentence(opened, result))


def strip_sentence(opened, result: ClipResult) -> str:
    parts = []
    for m in MODALITIES:
        view, (gone, lacking) = result.modalities[m], taken(opened, result, m)
        if not view.present:
            parts.append(f"this clip has no {NAMES[m]}")
        elif view.kind in KINDS:
            if m == "text":
                parts.append(f"{int(gone.sum())} of {len(gone)} words struck out")
            else:
                parts.append(f"{gone.sum() / max((~lacking).sum(), 1):.0%} of the {NAMES[m]} greyed out")
        else:
            name = f"{NAMES[m]}: {kind_name(view.kind)} at {view.ratio:.0%}"
            parts.append(name + (f", {int(gone.sum())} of {len(gone)} lost" if gone.any() else "") + f" ({DESCRIPTIONS[view.kind].rstrip('.')})")
    faceless = taken(opened, result, "vision")[1]
    text = "Missing now: " + "; ".join(parts) + "."
    if faceless.any() and result.modalities["vision"].present:
        text += f" In {faceless.mean():.0%} of the frames no face was found (orange below the pictures)."
    told = [f"the {who} {likeliest(shows)}" for m, who in (("audio", "voice network hears"), ("vision", "expression network sees")) if (shows := result.modalities[m].shows)]
    return text + (f" By what is left, {' and '.join(told)}." if told else "")


def likeliest(shows: Mapping[str, float]) -> str:
    """"happy (62 %)", and a second emotion where it is not far behind."""
    order = sorted(shows, key=lambda name: -shows[name])[:2]
    return " or ".join(f"{FEELS.get(name, name)} ({shows[name]:.0%})" for name in order if name == order[0] or shows[name] >= SECOND)


# ---- feature maps ------------------------------------------------------------------------------------------------------


def varying(features: np.ndarray, rows: int = ROWS) -> np.ndarray:
    """The indices of the dimensions that vary most over time, in order. features (T, D), NaN where there is nothing."""
    known = features[~np.isnan(features).any(1)]
    spread = known.std(0) if len(known) else np.zeros(features.shape[1])
    return np.sort(np.argsort(-spread, kind="stable")[:rows])


def heat_png(values: np.ndarray, limit: float) -> str:
    """(T, R) in [-limit, limit] -> a PNG data URI, time to the right; NaN is see-through."""
    hole = np.isnan(values).T
    grey = np.clip((np.where(hole, 0, values.T) / limit + 1) * 127.5, 0, 255).astype(np.uint8)
    colours = cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS)
    image = np.dstack([colours, np.where(hole, 0, 255).astype(np.uint8)])
    return "data:image/png;base64," + base64.b64encode(cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]).decode()


def recovery_maps(recovery: Recovery | None, modality: str, beta: float | None) -> str:
    """Original, corrupted and recovered features side by side on one colour scale. beta: the words' share in the recovery."""
    if recovery is None or not len(recovery.original):
        return _figure("", f"This clip has no {NAMES[modality]}, so there are no features to show.")
    rows = varying(recovery.original)
    known = np.abs(recovery.original[:, rows])
    limit = float(np.clip(np.nanpercentile(known, 98) if not np.isnan(known).all() else 1.0, 1.0, 4.0))
    maps = [("original", recovery.original), ("corrupted", recovery.corrupted), ("recovered", recovery.recovered)]
    start, end = float(recovery.times[0, 0]), float(recovery.times[-1, 1])
    axis = f'<div class="msa-axis"><span>{start:.1f} s</span><span>{end:.1f} s</span></div>' if end > start else ""
    cells = "".join(f'<div><h4>{name}</h4><img alt="{name} features of the {NAMES[modality]}" src="{heat_png(values[:, rows], limit)}">{axis}</div>'
                    for name, values in maps)
    key = f'<p class="msa-small">&minus;{limit:.1f} <span class="msa-key"></span> +{limit:.1f} standard deviations from the mean; striped: missing.</p>'
    return _figure(f'<div class="msa-maps">{cells}</div>{key}', recovery_sentence(recovery, modality, beta, len(rows)))


def recovery_sentence(recovery: Recovery, modality: str, beta: float | None, rows: int) -> str:
    total, dims = recovery.original.shape
    text = f"{total} tokens from left to right, " + (f"the {rows} of {dims} dimensions that vary most" if rows < dims else f"{dims} dimensions") + " from top to bottom. "
    if recovery.error is None:
        text += "No token with an original is missing, so there is no error to measure."
    else:
        gain = 1 - recovery.error / recovery.mean_error if recovery.mean_error else 0.0
        judged = int((recovery.missing & ~np.isnan(recovery.original).any(1)).sum())
        better = f"{gain:.0%} better" if gain >= 0.005 else f"{-gain:.0%} worse" if gain <= -0.005 else "no better"
        text += (f"On the {judged} missing tokens alone the recovery's squared error is {recovery.error:.2f}, filling with the mean makes "
                 f"{recovery.mean_error:.2f}: the recovery is {better}.")
    return text + (f" Beta is {beta:.2f}: the share of the words' guidance in it." if beta is not None else "")


# ---- words, notes, origin ----------------------------------------------------------------------------------------------


def word_times(words: Iterable[Word]) -> str:
    words = tuple(words)
    if not words:
        return '<p class="msa-quiet">No words.</p>'
    stamp = lambda word: "" if word.start is None else f"<small>{word.start:.2f}–{word.end:.2f}</small> "
    inside = "".join(f"<span>{stamp(word)}{html.escape(word.text)}</span>" for word in words)
    many = f"{len(words)} words and their times (s)" if words[0].start is not None else f"{len(words)} words"
    return f'<div class="msa"><details><summary>{many}</summary><div class="msa-times" tabindex="0">{inside}</div></details></div>'


def notes_list(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    return f'<div class="msa msa-notes"><ul>{"".join(f"<li>{html.escape(note)}</li>" for note in notes)}</ul></div>'


def origin(result: ClipResult) -> str:
    """The footnote: where the model's answers come from."""
    said = "; ".join(f"{key}: {value}" for key, value in result.provenance.items())
    return f'<p class="msa-small">Model — {html.escape(said)}. A machine\'s guess at the sentiment shown, not at what a person feels.</p>' if said else ""
