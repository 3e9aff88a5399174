"""What the endpoints' parameters mean, said once: for Gradio's own API page, for MCP tools and for the OpenAPI document."""

from __future__ import annotations

from typing import Callable

FILE = "as gradio_client's handle_file sends it, the path that POST /gradio_api/upload gave, or a data: address in base64"
MEANINGS = {
    "video": f"The video or sound file (mp4, webm, mov, avi, wav, mp3, m4a): {FILE}.",
    "transcript": "The words spoken, plain or as the content of an .srt or .vtt file. Empty or left out: the speech is recognised (English).",
    "text_ratio": "Share of the words taken away, from 0 to 1.",
    "audio_ratio": "Share of the voice taken away, from 0 to 1 (severity, for kinds that harm the signal).",
    "vision_ratio": "Share of the face's frames taken away, from 0 to 1 (severity, for kinds that harm the signal).",
    "kind": "How things go missing: random, span, or kinds that harm the signal (noise, clipping, dropouts, lowband; blur, occlusion, darkness, freeze, jpeg; "
            "deletion, asr_errors), several joined with '+'.",
    "seed": "Seed of all that is random, a whole number from 0; the same seed takes the same things away.",
    "models": "Who answers: pglh, pgmf-student, pgmf-teacher, several with commas or as a list. Left out: all there are.",
    "guidance": "What the PGMF teacher is told: offline (the default, written from the complete clip), openai (where the server has a key), none, or the text itself.",
    "maps": "Send the attention maps along (true or false).",
    "image": f"The post's picture (JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF): {FILE}. May be left out.",
    "text": "The post's words. May be left out.",
    "image_ratio": "Share of the picture's patches taken away, from 0 to 1.",
    "captions": "Stage captions: offline (the default), openai (where the server has a key), or texts by stage: tone, content, emotion.",
    "videos": f"Video or sound files, each {FILE}.",
    "transcripts": "The words of each file in the same order; empty or null in a place: that speech is recognised. Left out: all are recognised.",
    "images": f"The posts' pictures, each {FILE}; null in a place: that post has none. Left out: no post has one.",
    "texts": "The posts' words in the same order; null in a place: that post has none. Left out: no post has any.",
}


def worded(summary: str, names: tuple[str, ...], answer: str) -> Callable:
    """Gives a function the docstring that Gradio takes apart: what it does, a line for each parameter in `names`, what it answers."""

    def decorate(function: Callable) -> Callable:
        lines = [f"    {name}: {MEANINGS[name]}" for name in names]
        function.__doc__ = "\n".join([summary, "", "Args:", *lines, "", "Returns:", f"    {answer}"])
        return function

    return decorate
