"""Who may ask the server: those with its API key, or on this machine if it has none."""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from llmrec.errors import OptionError

KEY_VARIABLE = "LLMREC_API_KEY"
COOKIE = "llmrec_login"
LOGIN_SECONDS = 12 * 3600
LOGIN_PATH = "/login"
OPEN_PATHS = frozenset({"/healthz", LOGIN_PATH})
STATIC_PREFIX = "/static/"
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Access:
    """Checks keys and the cookies of the login page; nothing of it takes longer for a near miss.

    Attributes
    ----------
    key
        The API key; "" if none is needed.
    """

    key: str = field(default="", repr=False)

    @classmethod
    def from_environment(cls, host: str) -> Access:
        """Take the key of LLMREC_API_KEY; OptionError if it is missing or unusable."""
        key = os.environ.get(KEY_VARIABLE, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise OptionError(f"{KEY_VARIABLE}: use ASCII letters, digits and signs, as headers do")
        if not key and host not in _LOOPBACK:
            raise OptionError(
                f"--host {host} can be reached from other machines, and {KEY_VARIABLE} is not set: "
                "set it to a long random text that clients send, or listen on 127.0.0.1"
            )
        return cls(key)

    @property
    def is_needed(self) -> bool:
        """Whether there is a key to be shown."""
        return bool(self.key)

    def accepts(self, given: str) -> bool:
        """Whether a text is the key."""
        digests = (hashlib.sha256(text.encode()).digest() for text in (self.key, given))
        return hmac.compare_digest(*digests)

    def login(self, key: str) -> str | None:
        """Give the value of the cookie for who has shown the key; None if it is another."""
        if not self.accepts(key):
            return None
        ends = str(int(time.time()) + LOGIN_SECONDS)
        return f"{ends}.{self._signature(ends)}"

    def set_cookie(self, response: Response, value: str, *, secure: bool) -> None:
        """Put what `login` gave into an answer; ``secure``: whether it came over HTTPS."""
        response.set_cookie(
            COOKIE, value, LOGIN_SECONDS, httponly=True, samesite="strict", secure=secure
        )

    def accepts_cookie(self, value: str) -> bool:
        """Whether a cookie is one that `login` gave within the last twelve hours."""
        ends, _, signature = value.partition(".")
        is_own = hmac.compare_digest(self._signature(ends).encode(), signature.encode())
        return is_own and int(ends) > time.time()

    def allows(self, headers: Headers) -> bool:
        """Whether a request has the key, as a header, or the cookie of the login page."""
        if not self.is_needed:
            return True
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        cookies = cookie_parser(headers.get("cookie", ""))
        return self.accepts(given) | self.accepts_cookie(cookies.get(COOKIE, ""))

    def _signature(self, ends: str) -> str:
        return hmac.new(self.key.encode(), f"login until {ends}".encode(), "sha256").hexdigest()


class AccessMiddleware:
    """Lets those requests through that `Access` allows, and nothing that another site's page sends.

    A browser is led to the login page; other clients get 401. Without a key only names of this
    machine are answered, so that a site cannot reach the server by a name of its own that points
    here.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] == "http" and (refusal := self._refusal(scope)) is not None:
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers, path, method = Headers(scope=scope), scope["path"], scope["method"]
        host = headers.get("host", "")
        if not self._access.is_needed and _host_name(host) not in _LOOPBACK:
            text = f"host {host[:80]!r} is not this machine; ask 127.0.0.1, or set {KEY_VARIABLE}"
            return _error(403, text)
        origin = headers.get("origin", "")
        if method not in _SAFE_METHODS and origin and origin.partition("://")[2] != host:
            return _error(403, f"a page of {origin[:80]!r} may not change anything here")
        if path in OPEN_PATHS or path.startswith(STATIC_PREFIX) or self._access.allows(headers):
            return None
        if method == "GET" and "text/html" in headers.get("accept", ""):
            asked = f"?{query}" if (query := scope["query_string"].decode("latin-1")) else ""
            return RedirectResponse(f"{LOGIN_PATH}?next={quote(path + asked)}", 303)
        text = "send the key of the server as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
        return _error(401, text, {"WWW-Authenticate": "Bearer"})


def _host_name(host: str) -> str:
    """Give the name in a Host header, which may have a port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # "[", for one
        return ""


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": text}, status, headers)
