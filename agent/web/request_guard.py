"""Checks on every request, and headers of every response."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LONGEST_BODY_BYTES = 4096
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
"""The page loads nothing from other sites, cannot be embedded in them, and is not cached."""


class RequestGuard:
    """Refuses requests that the page itself does not send, and adds `HEADERS`.

    In a DNS rebinding attack, a foreign page whose name resolves to this address sends requests under that name. IP
    addresses and ``localhost`` cannot be such a name; ``names`` are allowed as well.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI application."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = self._refusal(scope, Headers(scope=scope))
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> PlainTextResponse | None:
        host = headers.get("host", "")
        if not self._is_allowed(host):
            text = "this page does not answer to that name; ask by address, or add the name to web.names\n"
            return PlainTextResponse(text, 421)
        if (
            scope["method"] not in {"GET", "HEAD"}
            and headers.get("origin", f"http://{host}").partition("://")[2] != host
        ):
            return PlainTextResponse("this request comes from another page\n", 403)
        if "transfer-encoding" in headers or _length(headers) > LONGEST_BODY_BYTES:
            return PlainTextResponse(f"more than {LONGEST_BODY_BYTES} bytes\n", 413)
        return None

    def _is_allowed(self, host: str) -> bool:
        name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.lower() in self._names
        return True


def _length(headers: Headers) -> int:
    length = headers.get("content-length", "0")
    return int(length) if length.isdecimal() else LONGEST_BODY_BYTES + 1
