"""Asking a multimodal language model: any OpenAI-compatible endpoint, through the official SDK.

One question, one answer, one bound on the time of all attempts together. Whatever goes wrong becomes one sentence. The key is read
from the environment when a request is made, or given by whoever asks, and neither shown, logged nor stored; nothing that is asked or answered is logged.
"""

from __future__ import annotations

import base64
import logging
import os
import queue
import re
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Sequence
from urllib.parse import urlsplit

import cv2
import numpy as np

from msademo.errors import InputError

OPENAI = "https://api.openai.com/v1"
MODEL = "gpt-4o-mini"           # the paper's
IMAGE_SIDE = 512                # pixels of the longer side; what such models see at low cost
JPEG_QUALITY = 85
KEY = re.compile(r"[\x21-\x7e]{8,300}")


class GuidanceError(InputError):
    """The language model gave no usable answer. One sentence: why, and what to do."""


class _Passing(Exception):
    """An attempt failed in a way that may pass; `wait`: seconds the server asks for."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.reason, self.wait = reason, wait


@dataclass(frozen=True)
class ChatSettings:
    """timeout_s bounds one question with all its attempts; attempt_s bounds one attempt. The key is not part of the settings."""

    model: str = MODEL
    base_url: str = OPENAI
    timeout_s: float = 45.0
    attempt_s: float = 20.0
    retries: int = 3
    backoff_s: float = 1.0          # before the second attempt; doubles
    max_tokens: int = 700

    def __post_init__(self):
        try:
            parts = urlsplit(self.base_url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc and not parts.query
        except ValueError:
            usable = False
        if not usable:
            raise InputError("The address of the language model must look like https://host/v1, without a name, a password or a query in it; "
                             "correct OPENAI_BASE_URL.")
        if not isinstance(self.model, str) or not self.model.strip():
            raise InputError("The language model needs a name; set MSADEMO_OPENAI_MODEL.")
        if not (0 < self.timeout_s <= 600 and self.attempt_s > 0 and self.retries >= 0 and self.backoff_s >= 0 and self.max_tokens >= 1):
            raise InputError(f"A language model cannot be asked with {self}; time-outs must lie between 0 and 600 s and counts not be negative.")

    @classmethod
    def from_environment(cls, **settings) -> "ChatSettings":
        """OPENAI_BASE_URL and MSADEMO_OPENAI_MODEL, where they are set; `settings` come before them."""
        found = {"base_url": os.environ.get("OPENAI_BASE_URL", "").strip(), "model": os.environ.get("MSADEMO_OPENAI_MODEL", "").strip()}
        return cls(**{**{name: value for name, value in found.items() if value}, **settings})

    @property
    def host(self) -> str:
        return urlsplit(self.base_url).netloc


def usable_key(text: str) -> str:
    """The key a person gave. InputError, which does not quote it, for what cannot be one."""
    if not KEY.fullmatch(text):
        raise InputError("The key for the language model must be one word of 8 to 300 letters, digits and signs; copy it again.")
    return text


def has_key() -> bool:
    return bool(os.environ.get("OPENAI_API_KEY", "").strip())


@lru_cache(maxsize=1)
def certificates():
    """Read once, for that takes as long as a quick answer."""
    import httpx
    return httpx.create_ssl_context()


def jpeg(picture: np.ndarray) -> str:
    """(H, W, 3) uint8 RGB -> a JPEG of at most IMAGE_SIDE pixels a side, as a data URL."""
    picture = np.asarray(picture)
    if picture.ndim != 3 or picture.shape[-1] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise InputError(f"A picture for the language model must be (H, W, 3) uint8, not {picture.shape} {picture.dtype}; decode it with msademo.media.")
    scale = IMAGE_SIDE / max(picture.shape[:2])
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in picture.shape[1::-1])
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    coded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(coded.tobytes()).decode()


class Chat:
    """Asks questions; usable from many threads. key: None = the environment's. used: requests answered and tokens read and written so far."""

    def __init__(self, settings: ChatSettings, key: str | None = None):
        self.settings, self._key = settings, key
        self.used = {"requests": 0, "read": 0, "written": 0}
        self._lock = threading.Lock()

    def ask(self, instruction: str, text: str, images: Sequence[np.ndarray] = ()) -> str:
        """The answer to `text` and pictures (H, W, 3) uint8 RGB under `instruction`. GuidanceError within timeout_s, whatever happens."""
        deadline = time.monotonic() + self.settings.timeout_s
        if self._key is None and not has_key():
            raise GuidanceError("No key for a language model is set; set OPENAI_API_KEY (any value will do for a local server) or use offline guidance.")
        content = [{"type": "text", "text": text}, *({"type": "image_url", "image_url": {"url": jpeg(picture), "detail": "low"}} for picture in images)]
        messages = [{"role": "system", "content": instruction}, {"role": "user", "content": content}]
        # Errors are raised outside of the `except` blocks, for the SDK's exceptions carry the request with its headers.
        for attempt in range(self.settings.retries + 1):
            outcome = self._attempt(messages, deadline)
            if isinstance(outcome, str):
                return outcome
            if isinstance(outcome, GuidanceError):
                raise outcome
            wait = self.settings.backoff_s * 2**attempt if outcome.wait is None else outcome.wait
            if attempt == self.settings.retries or time.monotonic() + wait >= deadline:
                break
            time.sleep(wait)
        raise GuidanceError(f"The language model at {self.settings.host} {outcome.reason} ({attempt + 1} attempt{'s' if attempt else ''}); "
                            "try again later or use offline guidance.")

    def _attempt(self, messages: list[dict], deadline: float) -> str | GuidanceError | _Passing:
        """One request in a thread of its own: a server that sends a byte now and then, or a name that does not resolve, would outlast the
        SDK's own time-outs, which hold for single reads."""
        import httpx                        # late, for the two take a second to load and most people never ask
        import openai
        seconds = max(0.001, min(self.settings.attempt_s, deadline - time.monotonic()))
        for name in ("openai", "httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)       # below that they log what is asked
        client = openai.OpenAI(api_key=self._key or os.environ["OPENAI_API_KEY"].strip(), base_url=self.settings.base_url, timeout=seconds, max_retries=0,
                               http_client=httpx.Client(follow_redirects=False, timeout=seconds, verify=certificates()))
        outcomes: queue.Queue = queue.Queue(1)
        threading.Thread(target=lambda: outcomes.put(self._request(client, messages)), daemon=True).start()
        try:
            return outcomes.get(timeout=seconds)
        except queue.Empty:
            return _Passing("did not answer in time")
        finally:
            client.close()                  # ends a read that still hangs

    def _request(self, client, messages: list[dict]) -> str | GuidanceError | _Passing:
        import openai
        here = f"The language model at {self.settings.host}"
        try:
            answer = client.chat.completions.create(model=self.settings.model, messages=messages, temperature=0, max_tokens=self.settings.max_tokens)
        except openai.APITimeoutError:
            return _Passing("did not answer in time")
        except openai.APIConnectionError:
            return _Passing("cannot be reached")
        except openai.RateLimitError as error:
            if error.code == "insufficient_quota":
                return GuidanceError(f"{here} says that the quota of this key is used up; add credit or use offline guidance.")
            return _Passing("gets too many requests (429)", retry_after(error.response.headers))
        except openai.APIStatusError as error:
            status = error.status_code
            if status in (401, 403):
                return GuidanceError(f"{here} does not accept the key ({status}); check OPENAI_API_KEY.")
            if status >= 500 or status in (408, 409):
                return _Passing(f"fails ({status})", retry_after(error.response.headers))
            return GuidanceError(f"{here} refuses the request ({status}); check OPENAI_BASE_URL, and that the model {self.settings.model} exists and takes pictures.")
        except Exception:                   # cut-off or foreign JSON surfaces as several kinds, and no reason is worth a traceback here
            return _Passing("gave an answer that cannot be read")
        return self._content(answer)

    def _content(self, answer) -> str | GuidanceError | _Passing:
        """The text of an answer. The SDK does not check what a server sends, so nothing is taken for granted."""
        here = f"The language model at {self.settings.host}"
        try:
            choice = answer.choices[0]
            message, reason = choice.message, choice.finish_reason
            text, refusal = message.content, getattr(message, "refusal", None)
        except (AttributeError, IndexError, TypeError):
            return _Passing("gave an answer that cannot be read")
        usage = getattr(answer, "usage", None)
        count = lambda name: value if isinstance(value := getattr(usage, name, 0), int) else 0
        with self._lock:
            self.used = {"requests": self.used["requests"] + 1, "read": self.used["read"] + count("prompt_tokens"),
                         "written": self.used["written"] + count("completion_tokens")}
        if refusal or reason == "content_filter":
            return GuidanceError(f"{here} refused to describe this; use offline guidance or type the cues.")
        if reason == "length":
            return GuidanceError(f"{here} was cut off after {self.settings.max_tokens} tokens; raise max_tokens or use offline guidance.")
        if not isinstance(text, str) or not text.strip():
            return _Passing("gave an empty answer")
        return text


def retry_after(headers) -> float | None:
    """Seconds a server asks to wait for; None when it does not say, or says it as a date."""
    try:
        return max(0.0, float(headers.get("retry-after", "")))
    except ValueError:
        return None
