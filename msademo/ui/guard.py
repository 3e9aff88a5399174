"""What goes wrong, told to the person in one sentence; tracebacks go to the server's log, without what the person gave."""

from __future__ import annotations

import functools
import html
import logging
import traceback
from typing import Callable

import gradio as gr

from msademo.errors import InputError

UNEXPECTED = "Something went wrong on our side; nothing of yours was lost, so please try again or choose another clip."
log = logging.getLogger("msademo.ui")


def sentence(error: Exception) -> str:
    """What to tell the person. An unexpected error is logged by place and type alone: its message may quote the person."""
    if isinstance(error, InputError):
        return str(error)
    log.error("unexpected %s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
    return UNEXPECTED


def alert(text: str) -> str:
    return f'<p class="msa-alert" role="alert">{html.escape(text)}</p>'


def quiet(text: str) -> str:
    return f'<p class="msa-quiet" role="status">{html.escape(text)}</p>'


def guarded(outputs: int) -> Callable:
    """For a page event with that many outputs, the first of them the message line: trouble becomes a warning and a line
    there, and every other output stays as it is."""

    def decorate(handler: Callable) -> Callable:
        @functools.wraps(handler)
        def event(*args, **kwargs):
            try:
                return handler(*args, **kwargs)
            except Exception as error:
                told = sentence(error)
                gr.Warning(html.escape(told), duration=12)
                return (alert(told), *[gr.skip()] * (outputs - 1))

        return event

    return decorate


def guarded_steps(outputs: int) -> Callable:
    """`guarded` for an event that shows its outputs one after the other: a generator."""

    def decorate(handler: Callable) -> Callable:
        @functools.wraps(handler)
        def event(*args, **kwargs):
            try:
                yield from handler(*args, **kwargs)
            except Exception as error:
                said = sentence(error)
                gr.Warning(html.escape(said), duration=12)
                yield (alert(said), *[gr.skip()] * (outputs - 1))

        return event

    return decorate


def told(handler: Callable) -> Callable:
    """For an API endpoint: trouble becomes the one sentence in the client's exception."""

    @functools.wraps(handler)
    def endpoint(*args, **kwargs):
        try:
            return handler(*args, **kwargs)
        except Exception as error:
            raise gr.Error(sentence(error), print_exception=False) from None

    return endpoint
