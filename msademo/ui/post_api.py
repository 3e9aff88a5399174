"""What programs can ask of a running demo about posts: one endpoint, JSON back."""

from __future__ import annotations

import gradio as gr

from msademo.ui.guard import told


def add_post_api(analyzer) -> None:
    """Adds /analyze_post to the current Blocks: the answer is PostResult.to_dict()."""

    def analyze_post(image: gr.FileData | None = None, text: str | None = None, text_ratio: float = 0.0, image_ratio: float = 0.0, seed: int = 0,
                     captions: dict | str | None = None) -> dict:
        """Sentiment of a picture with its text, with parts of both taken away. captions: "offline", "openai", or texts by stage."""
        missing = {"text": text_ratio, "image": image_ratio}
        return analyzer.post(None if image is None else image["path"], text, missing, seed, captions or None).to_dict()

    gr.api(told(analyze_post), api_name="analyze_post", concurrency_limit=1)
