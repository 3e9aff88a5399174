"""What goes wrong, told to the person in one sentence; tracebacks go to the server's log, without what the person gave."""

from __future__ import annotations

import functools
import html
import logging
import traceback
from typing import Callable

import gradio as gr
from gradio.context import LocalContext

from msademo import limits
from msademo.errors import InputError
from msademo.ui import access, visitors

UNEXPECTED = "Something went wrong on our side; nothing of yours was lost, so please try again or choose another clip."
log = logging.getLogger("msademo.ui")


class Busy(InputError):
    """Somebody asks too often. One sentence: for how long to wait."""


def too_many(wait: int) -> str:
    return (f"There were too many requests from you just now ({limits.current().per_minute} a minute are allowed); wait {wait} "
            f"second{'' if wait == 1 else 's'} and try again.")


def asking():
    """The request whose event goes on; None outside of one."""
    request = LocalContext.request.get(None)
    return request[0] if isinstance(request, list) and request else request


def spend(cost: int) -> None:
    """Count so many requests for the visitor whose event goes on; Busy where that is too many. Outside of an event nothing is counted."""
    request = asking()
    if not cost or request is None or getattr(request, "client", None) is None:
        return
    allowed = limits.current().per_minute
    here = visitors.address(request.client.host, request.headers.get("x-forwarded-for", ""), access.current().proxies)
    asked = [(("address", here), allowed * visitors.SHARED)]
    if getattr(request, "session_hash", None):
        asked.append((("session", request.session_hash), allowed))
    wait = visitors.RATES.ask(cost, *asked)
    if wait:
        raise Busy(too_many(wait))


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


def guarded(outputs: int, cost: int = 1) -> Callable:
    """For a page event with that many outputs, the first of them the message line: trouble becomes a warning and a line
    there, and every other output stays as it is. cost: the requests it counts for; 0 for what only shows what is there."""

    def decorate(handler: Callable) -> Callable:
        @functools.wraps(handler)
        def event(*args, **kwargs):
            try:
                spend(cost)
                return handler(*args, **kwargs)
            except Exception as error:
                told = sentence(error)
                gr.Warning(html.escape(told), duration=12)
                return (alert(told), *[gr.skip()] * (outputs - 1))

        return event

    return decorate


def guarded_steps(outputs: int, cost: int = 1) -> Callable:
    """`guarded` for an event that shows its outputs one after the other: a generator."""

    def decorate(handler: Callable) -> Callable:
        @functools.wraps(handler)
        def event(*args, **kwargs):
            try:
                spend(cost)
                yield from handler(*args, **kwargs)
            except Exception as error:
                said = sentence(error)
                gr.Warning(html.escape(said), duration=12)
                yield (alert(said), *[gr.skip()] * (outputs - 1))

        return event

    return decorate


def told(handler: Callable) -> Callable:
    """For an API endpoint: trouble becomes the one sentence in the client's exception. A call counts as one request; spend() adds to it."""

    @functools.wraps(handler)
    def endpoint(*args, **kwargs):
        try:
            spend(1)
            return handler(*args, **kwargs)
        except Exception as error:
            raise gr.Error(sentence(error), print_exception=False) from None

    return endpoint
