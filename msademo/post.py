"""Picture and text -> Post. Either half may be absent; what that means is said in the notes, never passed over in silence."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass, replace

import numpy as np

from msademo import limits
from msademo.apart import picture_apart
from msademo.errors import InputError
from msademo.features.posts import post_words
from msademo.guidance.offline import foreign
from msademo.picture import MAX_SIDE, read_picture, shrink

MAX_TEXT = 1_000_000        # characters; beyond it, it is no post
MAX_WORDS = 500
LINK = re.compile(r"https?://|www\.|^[@#]")


@dataclass(frozen=True)
class Post:
    """picture: (H, W, 3) uint8 RGB, upright, long side at most picture.MAX_SIDE; None without one. words: as written, in order; empty
    without any. Notes are sentences for the user: what was changed or cut, and what is absent."""

    picture: np.ndarray | None
    words: tuple[str, ...]
    picture_notes: tuple[str, ...] = ()
    word_notes: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        return self.picture_notes + self.word_notes


def load_post(image: str | os.PathLike | bytes | np.ndarray | None, text: str | None, apart: bool = False) -> Post:
    """image: a local file, its bytes, (H, W, 3) uint8 RGB, or None. text: the post's words, None or "" for none. apart: decode in a
    process of its own, which a hostile file may take down without harm; for what strangers give.

    InputError, one sentence, for what cannot be used, and when neither half says anything.
    """
    picture, notes = _picture(image, apart)
    return replace_text(Post(picture, (), notes), text)


def replace_text(post: Post, text: str | None) -> Post:
    """The same picture with other words."""
    words, notes = _words(text)
    if post.picture is None and not words:
        raise InputError("The post has neither a picture nor words; give at least one of them.")
    return replace(post, words=words, word_notes=notes)


def _picture(image, apart: bool) -> tuple[np.ndarray | None, tuple[str, ...]]:
    if image is None:
        return None, ("There is no picture, so the answer comes from the words alone.",)
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8 or not image.size:
            raise InputError(f"A picture given as an array must be (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}; give its file instead.")
        return shrink(image, MAX_SIDE), ()
    if not isinstance(image, (str, os.PathLike, bytes)):
        raise InputError(f"A picture must be a file, its bytes or an array, not {type(image).__name__}; give the path of a file.")
    picture = (picture_apart if apart else read_picture)(image, limits.current().pixels)
    return picture.rgb, picture.notes


def _words(text: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words, and what to know about them."""
    if text is not None and not isinstance(text, str):
        raise InputError(f"The post's text must be text, not {type(text).__name__}; give its words.")
    if text is not None and len(text) > MAX_TEXT:
        raise InputError(f"The text has more than {MAX_TEXT} characters, which is no post; give only its words.")
    words = post_words(text or "")
    if not words:
        return (), ("There are no words, so the answer comes from the picture alone.",)
    notes = []
    most = min(MAX_WORDS, limits.current().words)
    if len(words) > most:
        notes.append(f"The post has {len(words)} words; only the first {most} are used.")
        words = words[:most]
    plain = [word for word in words if not LINK.match(word)]
    if not any(c.isalnum() for word in words for c in word):
        notes.append("The post has no letters, only signs or emoji; the model reads them as they are, and less surely.")
    elif foreign(plain):
        written = " They are shown from right to left." if right_to_left(words) else ""
        notes.append(f"The words do not look English; they are read as they are, but the model learnt from English posts, so trust it less.{written}")
    return tuple(words), tuple(notes)


def right_to_left(words: tuple[str, ...]) -> bool:
    """Is the first letter with a direction one of a script written from the right?"""
    return next((kind in ("R", "AL") for word in words for c in word if (kind := unicodedata.bidirectional(c)) in ("L", "R", "AL")), False)
