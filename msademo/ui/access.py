"""What the owner of a page decides about its visitors: whether they log in, whose key asks the language model, which proxies are believed."""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Mapping

from msademo.errors import InputError

LOGIN = "MSADEMO_LOGIN must look like user:password, several with commas (user:password,user2:password2), with passwords of 8 letters or more; correct it."
SERVER_KEY = "MSADEMO_SERVER_KEY must be on or off; on lets visitors use the server's OPENAI_API_KEY."
PROXIES = "MSADEMO_PROXIES must be how many proxies of yours stand in front of the page, a whole number from 0 to 9."


@dataclass(frozen=True)
class Access:
    """login: (user, password) pairs, none = the page is open. server_key: may visitors use the server's key for the language model?
    proxies: how many proxies in front add to X-Forwarded-For; None = those of a Space, whose number is not known."""

    login: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    server_key: bool = True
    proxies: int | None = 0

    def admits(self, user: str, password: str) -> bool:
        """Compares with every pair, in a time that tells nothing about them."""
        found = False
        for name, secret in self.login:
            right = hmac.compare_digest(name.encode(), user.encode()) & hmac.compare_digest(secret.encode(), password.encode())
            found = found or bool(right)
        return found


def _login(text: str) -> tuple[tuple[str, str], ...]:
    """The sentence about a wrong one never quotes it."""
    pairs = [pair.strip().partition(":") for pair in text.split(",")] if text else []
    users = [user for user, _, _ in pairs]
    if any(not user or len(password) < 8 for user, _, password in pairs) or len(set(users)) < len(users):
        raise InputError(LOGIN)
    return tuple((user, password) for user, _, password in pairs)


def read(environment: Mapping[str, str]) -> Access:
    """What the variables say. On a Space (SPACE_ID) visitors do not get the owner's key unless MSADEMO_SERVER_KEY is on; elsewhere they do."""
    space = bool(environment.get("SPACE_ID"))
    said = environment.get("MSADEMO_SERVER_KEY", "").strip().lower() or ("off" if space else "on")
    if said not in ("on", "off"):
        raise InputError(SERVER_KEY)
    proxies = environment.get("MSADEMO_PROXIES", "").strip()
    if proxies and not (proxies.isascii() and proxies.isdigit() and len(proxies) == 1):
        raise InputError(PROXIES)
    return Access(_login(environment.get("MSADEMO_LOGIN", "").strip()), said == "on", int(proxies) if proxies else None if space else 0)


@lru_cache(maxsize=1)
def current() -> Access:
    """Of this process. Login and, where visitors may not use it, the key are taken out of its environment: no child and no dump has them."""
    found = read(os.environ)
    os.environ.pop("MSADEMO_LOGIN", None)
    if not found.server_key:
        os.environ.pop("OPENAI_API_KEY", None)
    return found
