"""What programs can ask of a running demo: one endpoint a task, JSON back."""

from __future__ import annotations

import gradio as gr

from msademo.errors import InputError
from msademo.ui.guard import told


def add_clip_api(analyzer) -> None:
    """Adds /analyze_clip to the current Blocks: the answer is ClipResult.to_dict()."""

    def analyze_clip(video: gr.FileData, transcript: str | None = None, text_ratio: float = 0.0, audio_ratio: float = 0.0, vision_ratio: float = 0.0,
                     kind: str = "random", seed: int = 0, models: str | list[str] | None = None, guidance: str | None = None, maps: bool = False) -> dict:
        """Sentiment of a video or sound file with parts of its words, voice and face taken away.

        models: "pglh", "pgmf-student", "pgmf-teacher", several with commas or as a list; none named: all. guidance: what the teacher is told, "offline"
        (the default: written from the complete clip), "openai", "none", or the text itself. maps: send the attention maps along.
        """
        if video is None:
            raise InputError("No file was sent; pass the clip as video=handle_file(\"talk.mp4\").")
        missing = {"text": text_ratio, "audio": audio_ratio, "vision": vision_ratio}
        result = analyzer.clip(video["path"], transcript or None, missing, kind, seed, models=models or None, guidance=guidance)
        return result.to_dict(maps=maps is True)

    gr.api(told(analyze_clip), api_name="analyze_clip", concurrency_limit=1)
