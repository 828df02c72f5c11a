"""What stands around the whole application: whom it answers, and what browsers may do with the answers."""

import json
from typing import Any, Collection, Dict, List, Optional, Tuple
from urllib.parse import urlsplit

# blob: shows the image that was dropped, before and beside its upload
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: List[Tuple[bytes, bytes]] = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Guard:
    """ASGI application around another one: security headers on every answer, and a check of the Host header.

    A page of a stranger can make its own name point to this machine (DNS rebinding); its requests then carry
    that name, and are refused.

    Args:
        app: ASGI application.
        hosts: names that requests may be for, in lower case, without port; None: any.
    """

    def __init__(self, app: Any, hosts: Optional[Collection[str]]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Dict[str, Any], receive: Any, send: Any) -> None:
        """One request."""

        async def send_with_headers(message: Dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                kept = [*message.get("headers", []), *_HEADERS]
                if scope["path"].startswith("/api/"):  # images of people stay out of the browser's cache
                    kept.append((b"cache-control", b"no-store"))
                else:
                    kept.append((b"cache-control", b"no-cache"))
                message = {**message, "headers": kept}
            await send(message)

        if scope["type"] != "http":  # start and end of the server
            await self._app(scope, receive, send)
        elif self._is_for_us(scope):
            await self._app(scope, receive, send_with_headers)
        else:
            await _refuse(send_with_headers)

    def _is_for_us(self, scope: Dict[str, Any]) -> bool:
        if self._hosts is None:
            return True
        given = [value for name, value in scope["headers"] if name == b"host"]
        try:
            name = urlsplit("//" + given[0].decode("ascii")).hostname if len(given) == 1 else None
        except ValueError:
            name = None
        return name in self._hosts


async def _refuse(send: Any) -> None:
    body = json.dumps({"error": "the Host header names another machine; open the address that was printed."})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})
