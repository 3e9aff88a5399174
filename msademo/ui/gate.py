"""What a request passes before Gradio sees it: only the addresses that the page needs, bodies of a size, uploads and logins at a rate.

Gradio's server offers more than this page uses (proxies to other hosts, links that keep a visitor's state, recordings, an editor). A list of what
is needed stays true when the next version offers more still.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Awaitable, Callable

from gradio.utils import get_upload_folder

from msademo import limits
from msademo.study.sets import inside
from msademo.ui import access, visitors
from msademo.ui.examples import EXAMPLES
from msademo.ui.guard import too_many

API = "/gradio_api/"
PAGES = ("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt", "/login", "/logout")
PARTS = ("/static/", "/assets/", "/svelte/")
CALLS = ("info", "openapi.json", "user", "login_check", "app_id", "theme.css", "startup-events", "queue/join", "queue/data", "queue/status", "cancel",
         "upload", "upload_progress", "reset")
FAMILIES = ("heartbeat/", "call/", "run/", "api/", "file=", "mcp")
BEHIND_LOGIN = ("openapi.json", "cancel", "heartbeat/", "mcp")      # which Gradio itself leaves open
MOST_JSON = 70_000_000          # bytes of a call; a file in it, in base64, may have 50 MB
ENVELOPE = 1 << 20              # of an upload, around its file
LOGINS = 10                     # a minute, of one address
QUEUE_FULL = "The page is busy: {} requests are waiting already; wait a minute and try again."
NO_ROOM = "The server has no room for uploads just now; try again later."
NOT_HERE = "There is nothing at this address."
LOG_IN = "This page asks for a login; log in first."


def open_path(path: str) -> bool:
    """Does the page need this address?"""
    if path in PAGES or path.startswith(PARTS):
        return True
    if not path.startswith(API):
        return False
    rest = path[len(API):]
    if rest.startswith("file="):
        return served(rest[5:])
    return rest.rstrip("/") in CALLS or rest.startswith(FAMILIES)


def served(path: str) -> bool:
    """Is it a file of the examples, an upload or a copy that the page made? Links are followed first, and what looks like an address of another
    server is a path like any other, which is not there: nothing is fetched."""
    try:
        return any(inside(Path(folder), Path.cwd() / path) for folder in (EXAMPLES, get_upload_folder()))
    except (OSError, ValueError):
        return False


class TooLarge(Exception):
    """A body grew beyond what is taken."""


class Gate:
    """An ASGI application around Gradio's."""

    def __init__(self, app: Callable):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refused(scope, path, headers)
        if refused:
            return await answer(send, path, *refused)
        most = self._most(path)
        if headers.get("content-length", "").isdigit() and int(headers["content-length"]) > most:
            return await answer(send, path, 413, self._too_large(path))
        read, large = 0, False

        async def bounded():
            nonlocal read, large
            message = await receive()
            read += len(message.get("body", b""))
            if read > most:
                large = True
                raise TooLarge
            return message

        await self._run(scope, bounded, send, path, lambda: large)

    async def _run(self, scope, receive, send, path: str, large: Callable[[], bool]) -> None:
        """Gradio's answer, with what it says of large files and a full queue in our words, and headers that keep a visitor's file from acting as a page of ours."""
        started = replaced = False

        async def sending(message) -> None:
            nonlocal started, replaced
            if message["type"] == "http.response.start":
                started = True
                status = 413 if large() else message["status"]
                if path.startswith(API) and status in (413, 503):
                    replaced = True
                    return await answer(send, path, status, self._too_large(path) if status == 413 else QUEUE_FULL.format(limits.current().queue))
                extra = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin")]
                if path.startswith(API + "file="):
                    extra.append((b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; sandbox"))
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            if not replaced:
                await send(message)

        try:
            await self.app(scope, receive, sending)
        except TooLarge:
            if not started:
                await answer(send, path, 413, self._too_large(path))
        except OSError as error:                # there was room when it began
            if started or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            await answer(send, path, 507, NO_ROOM)

    @staticmethod
    def _most(path: str) -> int:
        return (limits.current().upload_mb << 20) + ENVELOPE if path.startswith(API + "upload") else MOST_JSON

    @staticmethod
    def _too_large(path: str) -> str:
        if path.startswith(API + "upload"):
            return f"The file has more than the {limits.current().upload_mb} MB that are taken here; cut it shorter or save it smaller."
        return f"The call has more than {MOST_JSON // 1_000_000} MB; upload its files first (POST /gradio_api/upload)."

    def _refused(self, scope, path: str, headers: dict[str, str]) -> tuple[int, str, int] | tuple[int, str] | None:
        """Status and sentence, and seconds to wait, for what goes no further."""
        if not open_path(path):
            return 404, NOT_HERE
        if access.current().login and path.startswith(API) and path[len(API):].startswith(BEHIND_LOGIN) and not known(scope, headers):
            return 401, LOG_IN
        if scope["method"] != "POST":
            return None
        here = visitors.address((scope.get("client") or ("unknown",))[0], headers.get("x-forwarded-for", ""), access.current().proxies)
        wait = 0
        if path.rstrip("/") == API + "upload":
            wait = visitors.RATES.ask(1, (("address", here), limits.current().per_minute * visitors.SHARED))
            if shutil.disk_usage(_existing(get_upload_folder())).free < 2 * self._most(path):
                return 507, NO_ROOM
        elif path.rstrip("/") == "/login":
            wait = visitors.RATES.ask(1, (("login", here), LOGINS))
        return (429, too_many(wait), wait) if wait else None


def _existing(folder: str) -> str:
    """The upload folder is made with the first upload; its parent's disk is the same."""
    return folder if os.path.isdir(folder) else os.path.dirname(folder) or "/"


def known(scope, headers: dict[str, str]) -> bool:
    """Has whoever asks logged in?"""
    app = scope["app"]
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return False
    names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
    return any(name in cookies and cookies[name].value in app.tokens for name in names)


async def answer(send: Callable[[dict], Awaitable], path: str, status: int, sentence: str, wait: int = 0) -> None:
    """One sentence: as text after an upload, whose answer the page shows as it is, else as Gradio writes its own refusals."""
    upload = path.startswith(API + "upload")
    body = sentence.encode() if upload else json.dumps({"detail": sentence}).encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8" if upload else b"application/json"), (b"content-length", str(len(body)).encode()),
               *([(b"retry-after", str(wait).encode())] if wait else [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
