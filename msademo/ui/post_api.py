"""What programs can ask of a running demo about posts: one endpoint, JSON back."""

from __future__ import annotations

import gradio as gr

from msademo.ui.guard import told
from msademo.ui.received import received
from msademo.ui.wording import worded

POST_WISHES = ("text_ratio", "image_ratio", "seed", "captions")


def post_answer(analyzer, image, text, missing, seed, captions) -> dict:
    """PostResult.to_dict() of a sent picture with its text. InputError where they cannot be used."""
    with received(image) as path:
        return analyzer.post(path, text, missing, seed, captions or None).to_dict()


def add_post_api(analyzer) -> None:
    """Adds /analyze_post to the current Blocks: the answer is PostResult.to_dict()."""

    @worded("Sentiment of an image-text post (negative, neutral or positive), by picture, by words and by both, with parts of them taken away.",
            ("image", "text", *POST_WISHES),
            "label and probability, the same of picture, words and both with and without what was taken away, stage captions and where in the picture they come from, and notes.")
    def analyze_post(image: gr.FileData | None = None, text: str | None = None, text_ratio: float = 0.0, image_ratio: float = 0.0, seed: int = 0,
                     captions: dict | str | None = None) -> dict:
        return post_answer(analyzer, image, text, {"text": text_ratio, "image": image_ratio}, seed, captions)

    gr.api(told(analyze_post), api_name="analyze_post", concurrency_limit=1)
