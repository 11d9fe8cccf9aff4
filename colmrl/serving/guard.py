"""What stands before the page: who may ask, how much may be sent and how slowly, and what browsers are told.

- A page of another site must not read ours through a name that it points at this machine (DNS rebinding): on a loopback
  address only loopback names are answered. Nor may it send anything: no CORS, and `Sec-Fetch-Site` is looked at.
- A body is read whole, up to a limit and in a time, before anything else sees it.
- So many requests at once; a connection that has not asked for anything counts for none.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from ipaddress import ip_address
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_BODY_BYTES = 64 << 10  # of what is no upload
_DRAINED = 4  # times what may be sent is read, and thrown away: most clients look for an answer only when all is sent
_TOGETHER = 64  # requests
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Refused(Exception):
    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class Guard:
    """`hosts`: the names that it answers to, None: any; `uploads`: paths that take more, and how many bytes."""

    def __init__(self, app: App, hosts: frozenset[str] | None, uploads: Mapping[str, int], body_s: float):
        self._app, self._hosts, self._uploads, self._body_s = app, hosts, uploads, body_s
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                said = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *said]}
            await send(message)

        self._inside += 1
        try:
            self._check(scope)
            body = await self._body(scope, receive)
            if body is not None:
                await self._app(scope, _replaying(body, receive), send_with_headers)
        except Refused as refused:
            await _answer(send_with_headers, refused.status, str(refused))
        finally:
            self._inside -= 1

    def _check(self, scope: Scope) -> None:
        if self._inside > _TOGETHER:
            raise Refused(503, f"{_TOGETHER} requests are being answered: ask again in a moment")
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if self._hosts is not None and (len(hosts) != 1 or _name(hosts[0]) not in self._hosts):
            asked = ", ".join(hosts) or "none"
            raise Refused(403, f"host {asked[:100]}: not a name of this server: use its address as it was printed")
        site = next((value for name, value in scope["headers"] if name == b"sec-fetch-site"), b"none")
        if scope["path"].startswith("/api/") and site not in (b"none", b"same-origin"):
            raise Refused(403, "asked by the page of another site: open this server's own page")

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """None where the client has gone."""
        most = self._uploads.get(scope["path"], _BODY_BYTES) if scope["method"] not in ("GET", "HEAD") else 0
        too_large = Refused(413, f"{scope['path']}: more than {most:,} bytes were sent: send less")
        stated = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not stated.isdigit() or int(stated[:20]) > most:
            raise too_large
        body, read = bytearray(), 0
        try:
            async with asyncio.timeout(self._body_s):
                more = True
                while more and read <= _DRAINED * most:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    part = message.get("body", b"")
                    read, more = read + len(part), message.get("more_body", False)
                    if read <= most:
                        body += part
        except TimeoutError:
            raise Refused(408, f"not all was sent within {self._body_s:g} s: send it faster") from None
        if read > most:
            raise too_large
        return bytes(body)


def loopback_names(host: str) -> frozenset[str] | None:
    """The names by which a loopback address may be asked for; None where `host` is none."""
    try:
        loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        loopback = False
    bracketed = f"[{host}]" if ":" in host else host
    return frozenset({"localhost", "127.0.0.1", "[::1]", bracketed.lower()}) if loopback else None


def _name(host: str) -> str:
    """Without the port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and (port.isdigit() or not port) else host).lower()


def _replaying(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> MutableMapping[str, Any]:
        nonlocal sent
        if sent:
            return await receive()  # that the client has gone
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _answer(send: Send, status: int, message: str) -> None:
    content = json.dumps({"error": message}, ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    headers += [(b"connection", b"close")]  # what is left of the body is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
