"""Who may talk to the page: a browser that got the link, asking for a page of this server, and no one else.

Pictures on the page are private, and the server runs on a machine that other people and other web pages can reach:

    Host      is a bare address or one of the names that this server answers to, or a page elsewhere could give its
              own name this machine's address (DNS rebinding) and read everything
    Origin    of what changes something is this server's own page (cross-site request forgery); where a browser
              says that another site asks (Sec-Fetch-Site), it is refused too, so that no other page can embed a
              picture from here
    token     is in the link that the command prints, then in a cookie: another user of the machine has neither
"""

from __future__ import annotations

import ipaddress
import secrets
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware. hosts: names that the Host header may have, without port. token: what a browser must know."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str], token: str) -> None:
        self.app, self.hosts, self.token = app, hosts, token
        self.cookie = (
            f"cleanplate-{secrets.token_hex(4)}"  # Cookies do not know ports: another server's stays apart.
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            return await refusal(scope, receive, with_headers)
        return await self.app(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that must not reach the page; None for one that may."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = _name(host)
        if name not in self.hosts and not _is_address(name):
            return PlainTextResponse(f"this server does not answer to {host!r}", 421)
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return PlainTextResponse(f"requests from {origin!r} are refused", 403)
        entering = scope["method"] == "GET" and scope["path"] == "/"
        # A link on another page may lead to this one; nothing else may come from there.
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not entering:
            return PlainTextResponse("requests from other sites are refused", 403)
        if self._known(cookie_parser(headers.get("cookie", "")).get(self.cookie, "")):
            return None
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if entering and self._known(query.pop("token", [""])[0]):
            answer = RedirectResponse("/" + ("?" + urlencode(query, doseq=True) if query else ""), 303)
            answer.set_cookie(self.cookie, self.token, httponly=True, samesite="strict")
            return answer
        return PlainTextResponse("open the link that `cleanplate serve` printed: it holds the token", 401)

    def _known(self, token: str) -> bool:
        return secrets.compare_digest(token.encode(), self.token.encode())


def _name(host: str) -> str:
    """The name of a Host header without its port, in small letters; "" for what is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
