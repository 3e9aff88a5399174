"""One item of a labelled set -> what the models say of it: as it is, without each of its parts, and under random masks.

The answer is plain JSON: {"answers": {name: {"now": v, "without": {part: v}, "masked": [v, ...]}}, "there": [parts], "words": [...],
"notes": [...]}. v is a score in [-3, 3] of a clip's model, or the probabilities of CLASSES of a post's path; None where nothing was left to go by.
"""

from __future__ import annotations

from pathlib import Path
from typing import Mapping

import cv2
import numpy as np

from msademo.errors import InputError
from msademo.study.plan import PARTS, Plan
from msademo.study.sets import CLASSES, CLIP, POST, Item

SIDE = 256              # longest side of the picture that is kept of an item, pixels
DIGITS = 4


def thumbnail(image: np.ndarray | None) -> bytes | None:
    """(H, W, 3) uint8 RGB -> a small JPEG."""
    if image is None:
        return None
    scale = SIDE / max(image.shape[:2])
    size = [max(1, round(side * min(scale, 1.0))) for side in image.shape[1::-1]]
    small = cv2.resize(np.ascontiguousarray(image[..., ::-1]), size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def measure(analyzer, item: Item, path: Path | None, kind: str, plan: Plan) -> tuple[dict, bytes | None]:
    """Answer and picture of one item. path: its media file, None for words alone. InputError, one sentence, for what cannot be used."""
    return _clip(analyzer, item, path, plan) if kind == CLIP else _post(analyzer, item, path, plan)


def _conditions(plan: Plan, kind: str, there: list[str]):
    """(name, which, ratios, seed) of every way an item is asked for."""
    yield "now", None, plan.ratios(kind), plan.seed
    for part in there if len(there) > 1 else ():        # the only part of an item cannot be taken away
        yield "without", part, plan.ratios(kind, **{part: 1.0}), plan.seed
    for k in range(plan.masks):
        # A mask of the run's own seed would only take away more of the same.
        yield "masked", k, {part: max(ratio, plan.mask_ratio) for part, ratio in plan.ratios(kind).items()}, plan.seed + 1 + k


def _collect(plan: Plan, kind: str, there: list[str], ask) -> dict:
    """ask(ratios, seed) -> value by name of who answers; InputError from it means that nothing was left, but for the first."""
    told: dict[str, dict] = {}
    for name, which, ratios, seed in _conditions(plan, kind, there):
        try:
            values = ask(ratios, seed)
        except InputError:
            if name == "now":
                raise
            values = dict.fromkeys(told)
        for who, value in values.items():
            entry = told.setdefault(who, {"now": None, "without": {}, "masked": []})
            if name == "now":
                entry["now"] = value
            elif name == "without":
                entry["without"][which] = value
            else:
                entry["masked"].append(value)
    return told


def _clip(analyzer, item: Item, path: Path | None, plan: Plan) -> tuple[dict, bytes | None]:
    opened = analyzer.open(None if path is None else str(path), transcript=item.text)
    first = analyzer.analyze(opened, missing=plan.ratios(CLIP), seed=plan.seed, models=plan.models or None)
    there = [m for m in PARTS[CLIP] if first.modalities[m].present]
    scores = lambda result: {name: round(float(p.score), DIGITS) for name, p in result.predictions.items()}
    ready = [first]                                     # the first condition was just asked for, to see what is there

    def ask(ratios: Mapping[str, float], seed: int) -> dict[str, float]:
        result = ready.pop() if ready else analyzer.analyze(opened, missing=ratios, seed=seed, models=plan.models or None)
        return scores(result)

    frames, found = opened.clip.frames, None if opened.faces is None else np.flatnonzero(opened.faces.found)
    picture = None
    if len(frames):                                     # a moment with a face tells more than the middle one
        picture = frames[found[len(found) // 2] if found is not None and len(found) else len(frames) // 2]
    answer = {"answers": _collect(plan, CLIP, there, ask), "there": there, "words": [word.text for word in opened.clip.words], "notes": list(first.notes)}
    return answer, thumbnail(picture)


def _post(analyzer, item: Item, path: Path | None, plan: Plan) -> tuple[dict, bytes | None]:
    opened = analyzer.posts.open(None if path is None else str(path), item.text or "")
    there = [part for part, here in (("text", bool(opened.post.words)), ("image", opened.post.picture is not None)) if here]
    notes: list[str] = []

    def ask(ratios: Mapping[str, float], seed: int) -> dict[str, list[float] | None]:
        result = analyzer.posts.analyze(opened, ratios, seed, overlays=False)
        if not notes:
            notes.extend(result.notes)
        order = [result.classes.index(name) for name in CLASSES]
        values = {name: result.paths[name].now for name in ("fusion", "image", "text")}
        return {name: None if v is None else [round(float(v[i]), DIGITS) for i in order] for name, v in values.items()}

    answer = {"answers": _collect(plan, POST, there, ask), "there": there, "words": list(opened.post.words), "notes": []}
    answer["notes"] = notes
    return answer, thumbnail(opened.post.picture)
