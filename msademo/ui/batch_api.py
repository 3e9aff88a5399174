"""Many files in one call. One that cannot be used never stops the others: its sentence stands in its place."""

from __future__ import annotations

from typing import Callable

import gradio as gr

from msademo.corruption import check_seed
from msademo.errors import InputError
from msademo.guidance.given import given_guidance
from msademo.options import kinds_of, models_of, ratios_of
from msademo.post_analyzer import HALVES, check_captions
from msademo.ui.api import CLIP_WISHES, clip_answer
from msademo.ui.guard import sentence, spend, told
from msademo.ui.post_api import POST_WISHES, post_answer
from msademo.ui.received import name_of
from msademo.ui.wording import worded

MOST = 20                       # items of one call, so that nobody waits long for whoever came before
ROWS = f"A list in the order of the files (at most {MOST}), of each file, result and error: result as of {{}}, or null and one sentence in error."


def in_step(what: str, given, beside: str, others) -> tuple[list, list]:
    """Two lists of one length, of which either may be left out. InputError for anything else, or for none or too many items."""
    for name, values in ((what, given), (beside, others)):
        if values is not None and not isinstance(values, (list, tuple)):
            raise InputError(f"{name} must be a list, an entry an item.")
    first, second = list(given or []), list(others or [])
    count = len(first) or len(second)
    if not 1 <= count <= MOST:
        raise InputError(f"{count} items were sent; send from 1 to {MOST} in one call.")
    if first and second and len(first) != len(second):
        raise InputError(f"There are {len(first)} {what} and {len(second)} {beside}; send as many of both, with null where one is lacking.")
    return first or [None] * count, second or [None] * count


def one_by_one(files: list, ask: Callable[[int], dict], unit: str) -> list[dict]:
    """A row an item; whoever called sees how far it is."""
    spend(len(files) - 1)               # every item is a request; the call itself was counted as the first
    progress, rows = gr.Progress(), []
    for number, file in enumerate(files):
        progress((number, len(files)), desc=f"{unit} {number + 1} of {len(files)}", unit=f"{unit}s")
        row = {"file": name_of(file), "result": None, "error": None}
        try:
            rows.append(row | {"result": ask(number)})
        except Exception as error:              # what is unexpected is logged, and stops nobody else's file either
            rows.append(row | {"error": sentence(error)})
    return rows


def add_batch_api(analyzer) -> None:
    """Adds /analyze_clips and /analyze_posts to the current Blocks. Wishes that hold for all items are refused before the first is read."""

    @worded(f"Sentiment of up to {MOST} video or sound files in one call, all under the same wishes; a file that cannot be used never stops the others.",
            ("videos", "transcripts", *CLIP_WISHES), ROWS.format("/analyze_clip"))
    def analyze_clips(videos: list[gr.FileData], transcripts: list[str | None] | None = None, text_ratio: float = 0.0, audio_ratio: float = 0.0,
                      vision_ratio: float = 0.0, kind: str = "random", seed: int = 0, models: str | list[str] | None = None, guidance: str | None = None,
                      maps: bool = False) -> list[dict]:
        files, words = in_step("videos", videos or [], "transcripts", transcripts if videos else None)
        missing = {"text": text_ratio, "audio": audio_ratio, "vision": vision_ratio}
        ratios_of(missing), kinds_of(kind), check_seed(seed), models_of(models or None), given_guidance(guidance)
        return one_by_one(files, lambda n: clip_answer(analyzer, files[n], words[n], missing, kind, seed, models, guidance, maps), "clip")

    @worded(f"Sentiment of up to {MOST} image-text posts in one call, all under the same wishes; a post that cannot be used never stops the others.",
            ("images", "texts", *POST_WISHES), ROWS.format("/analyze_post"))
    def analyze_posts(images: list[gr.FileData | None] | None = None, texts: list[str | None] | None = None, text_ratio: float = 0.0, image_ratio: float = 0.0,
                      seed: int = 0, captions: dict | str | None = None) -> list[dict]:
        files, words = in_step("images", images, "texts", texts)
        missing = {"text": text_ratio, "image": image_ratio}
        ratios_of(missing, HALVES), check_seed(seed), check_captions(captions or None)
        return one_by_one(files, lambda n: post_answer(analyzer, files[n], words[n], missing, seed, captions), "post")

    for endpoint in (analyze_clips, analyze_posts):
        gr.api(told(endpoint), api_name=endpoint.__name__, concurrency_limit=1, concurrency_id="batch")
