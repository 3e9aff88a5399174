"""The words of a post: the units that are shown, taken away and read."""

from __future__ import annotations

import re

from msademo.transcript import split_words

_USER = re.compile(r"@\w+")
_LINK = re.compile(r"(?<!\w)(?:https?:?\S*|www\.\S+|htt(?=…?$))", re.IGNORECASE)       # old retweets end in the middle of a link


def post_words(text: str) -> tuple[str, ...]:
    """The words of a post as they are written, in order; one that is longer than an encoder reads is cut by its tokenizer."""
    return tuple(split_words(text))


def as_read(word: str) -> str:
    """The word as the encoder gets it: every user is @user and every link http, as in TweetEval (Barbieri et al. 2020). Who and where is no
    sentiment, and names cost more tokens than the rest of a tweet."""
    return _LINK.sub("http", _USER.sub("@user", word))
