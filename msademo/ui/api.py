"""What programs can ask of a running demo: one endpoint a task, JSON back."""

from __future__ import annotations

import gradio as gr

from msademo.errors import InputError
from msademo.ui.guard import told
from msademo.ui.received import received
from msademo.ui.wording import worded

NO_FILE = "No file was sent; pass the clip as video=handle_file(\"talk.mp4\")."
CLIP_WISHES = ("text_ratio", "audio_ratio", "vision_ratio", "kind", "seed", "models", "guidance", "maps")


def clip_answer(analyzer, video, transcript, missing, kind, seed, models, guidance, maps) -> dict:
    """ClipResult.to_dict() of a sent file. InputError where it was not sent or cannot be used."""
    with received(video) as path:
        if path is None:
            raise InputError(NO_FILE)
        return analyzer.clip(path, transcript or None, missing, kind, seed, models=models or None, guidance=guidance).to_dict(maps=maps is True)


def add_clip_api(analyzer) -> None:
    """Adds /analyze_clip to the current Blocks: the answer is ClipResult.to_dict()."""

    @worded("Sentiment of a video or sound file with somebody speaking, by words, voice and face, with parts of them taken away.",
            ("video", "transcript", *CLIP_WISHES),
            "score in [-3, 3] and label of the first model asked, the same of every model with and without what was taken away, what was heard and seen, and notes.")
    def analyze_clip(video: gr.FileData, transcript: str | None = None, text_ratio: float = 0.0, audio_ratio: float = 0.0, vision_ratio: float = 0.0,
                     kind: str = "random", seed: int = 0, models: str | list[str] | None = None, guidance: str | None = None, maps: bool = False) -> dict:
        missing = {"text": text_ratio, "audio": audio_ratio, "vision": vision_ratio}
        return clip_answer(analyzer, video, transcript, missing, kind, seed, models, guidance, maps)

    gr.api(told(analyze_clip), api_name="analyze_clip", concurrency_limit=1)
