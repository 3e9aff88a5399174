"""The words of a post: the units that are shown, taken away and read."""

from __future__ import annotations

from msademo.transcript import split_words


def post_words(text: str) -> tuple[str, ...]:
    """The words of a post as they are written, in order; one that is longer than an encoder reads is cut by its tokenizer."""
    return tuple(split_words(text))
