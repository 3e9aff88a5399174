"""Requests that no page sends, to every endpoint and every event of the page: wrong types, numbers that are none, files that were never uploaded."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import httpx
import numpy as np

from benchmarks.fuzz_files import CRASH, FAULT, HANG, READ, REFUSED, Verdict, trouble_with
from benchmarks.mutations import drawn, nested, strange
from benchmarks.visitor import Answer, Page, Visitor
from msademo.ui.guard import UNEXPECTED

WORK = ("models-measure", "models-use", "study-go")      # what keeps a server busy for minutes, or changes it for everybody
KEY = "a key of nobody, but long enough"
ADDRESSES = ("/etc/passwd", "../../../etc/passwd", "file:///etc/passwd", "http://127.0.0.1:1/x.mp4", "http://[::1]/", "ftp://nobody/x", "\\\\nobody\\share", "", "/",
             "/dev/zero", "a" * 5000, "x\0y", "data:video/mp4;base64,AAAA", "data:,", "/proc/self/environ")


@dataclass(frozen=True)
class Request:
    """An event by what it is called, its data, and more of the message where that is spoilt as well."""

    number: int
    name: str
    event: dict
    data: object
    more: dict


def called(page: Page, event: dict) -> str:
    """An endpoint's name, or which component and trigger an event is of."""
    names = {part: name for name, part in page.named.items()}
    of = [f"{names.get(part, part)}.{trigger}" for part, trigger in event["targets"]]
    return f"{event['id']}:{event['api_name'] if event.get('api_visibility') == 'public' else ','.join(of)}"


def targets(page: Page) -> list[dict]:
    """The events that may be asked: endpoints three times as often as an event of the page, as they take what programs send."""
    busy = {page.named.get(name) for name in WORK}
    asked = [event for event in page.events if event["backend_fn"] and not busy & {part for part, _ in event["targets"]}]
    public = [event for event in asked if event.get("api_visibility") == "public"]
    return asked + public * max(1, 3 * len(asked) // max(1, len(public)) // 4)


def request(seed: int, number: int, page: Page, asked: list[dict], clip: dict, picture: dict) -> Request:
    """The spoilt request of this number. clip, picture: files that were uploaded."""
    rng = np.random.default_rng([seed, 1, number])
    event = drawn(rng, asked)
    given = {page.named.get("study-key"): KEY, page.named.get("video"): clip, page.named.get("post-image"): picture, page.named.get("transcript"): "a word of mine"}
    data = page.inputs(event, given)
    if event.get("api_visibility") == "public" and data:
        data[0] = picture if "post" in str(event["api_name"]) else clip
    for _ in range(int(rng.integers(1, 4))):
        if rng.random() < 0.2 and data:                     # a file from elsewhere
            file = {"path": drawn(rng, ADDRESSES), "url": drawn(rng, (None, *ADDRESSES)), "orig_name": drawn(rng, ("a.mp4", "../a", "x" * 300)),
                    "meta": {"_type": "gradio.FileData"}, "size": drawn(rng, (None, -1, 10**30))}
            data[int(rng.integers(len(data)))] = file
        elif data:
            at = int(rng.integers(len(data)))
            data[at] = strange(rng, data[at])
    more: dict = {}
    if rng.random() < 0.1:
        data = drawn(rng, (data[:-1], data + [None], data + data, [], None, {}, "x", nested(0, 500), {"data": data}))
    if rng.random() < 0.1:
        more = {drawn(rng, ("fn_index", "event_data", "trigger_id", "batched", "simple_format", "data")): strange(rng, None)}
    return Request(number, called(page, event), event, data, more)


def judge(visitor: Visitor, asked: Request) -> Verdict:
    """What a request came to. A refusal in one sentence is as good as an answer."""
    started = time.monotonic()
    try:
        answer = visitor.ask(asked.event, asked.data, asked.more)
        # A message of another form never reaches us; where the web framework cannot even write it back, with infinity or half a letter in it, it
        # says a plain 500 to whoever sent it.
        foreign = bool(asked.more) or not isinstance(asked.data, list)
        what, told = (REFUSED, "status 500") if foreign and answer.status == 500 and answer.error == "Internal Server Error" else _judged(answer)
    except httpx.TimeoutException as error:
        what, told = HANG, repr(error)
    except (httpx.HTTPError, OSError) as error:             # the connection broke off
        what, told = CRASH, repr(error)
    return Verdict(asked.number, "payload", asked.name, what, told, round(time.monotonic() - started, 3))


def _judged(answer: Answer) -> tuple[str, str]:
    if answer.status >= 500 and not answer.busy:
        return FAULT, f"status {answer.status}: {answer.error}"
    if answer.status != 200:                                # a message that no page sends, refused by the web framework as such
        return REFUSED, f"status {answer.status}"
    said = [sentence for sentence in (answer.error, *answer.warned) if sentence is not None]
    for sentence in said:
        if UNEXPECTED in sentence or sentence == "None":
            return FAULT, f"an unexpected error behind {sentence!r}"
        if trouble_with(sentence):
            return FAULT, trouble_with(sentence)
    return (REFUSED, said[0]) if said else (READ, "")


def run(url: str, seed: int, numbers: range | list[int], clip: Path, picture: Path, until: float, timeout: float = 120.0) -> Iterator[tuple[Verdict, Request]]:
    """Verdicts of requests to a running server, one after the other, until the clock says `until`. A new page is opened every 50 of them."""
    page = Page(url)
    asked, visitor = targets(page), None
    try:
        for count, number in enumerate(numbers):
            if time.monotonic() > until:
                return
            if count % 50 == 0:
                if visitor is not None:
                    visitor.close()
                visitor = Visitor(page, timeout)
                files = visitor.upload(clip), visitor.upload(picture)
            wanted = request(seed, number, page, asked, *files)
            verdict = judge(visitor, wanted)
            if verdict.bad or wanted.more or not isinstance(wanted.data, list):                  # what is left of it, or a line that the server closed, is not for the next one
                visitor.close()
                visitor = Visitor(page, timeout)
            yield verdict, wanted
    finally:
        if visitor is not None:
            visitor.close()
