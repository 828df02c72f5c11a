"""A socket and the server that answers on it."""

import contextlib
import ipaddress
import os
import signal
import socket
from typing import Any, FrozenSet, Iterator, Optional

from ..errors import ConfigError

_GRACE = 5  # seconds that open requests have when the server ends


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound to an address; port 0 takes any free one.

    Raises:
        ConfigError: the address is taken, or not this machine's.
    """
    if not 0 <= port < 2**16:
        raise ConfigError(f"--port {port}: ports are 0 to 65535.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host} --port {port}: no address of this machine ({error}).") from error
    try:
        if os.name == "posix":  # elsewhere it would let two servers share a port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(128)
    except OSError as error:
        bound.close()
        raise ConfigError(
            f"--host {host} --port {port}: cannot listen there ({error}); name another --port, or end what "
            "listens there."
        ) from error
    return bound


def is_loopback(bound: socket.socket) -> bool:
    """Whether only this machine reaches a socket."""
    return ipaddress.ip_address(bound.getsockname()[0]).is_loopback


def own_names(host: str, bound: socket.socket) -> Optional[FrozenSet[str]]:
    """Host names that requests may be for: those of this machine on loopback, else any (None)."""
    return frozenset({"localhost", "127.0.0.1", "::1", host.lower()}) if is_loopback(bound) else None


def url(host: str, bound: socket.socket) -> str:
    """Where a browser finds it."""
    return f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}/"


def run(app: Any, bound: socket.socket) -> None:
    """Answer until Ctrl-C or SIGTERM; open requests are finished first."""
    import uvicorn

    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE,
    )
    with _signals_end_quietly():
        uvicorn.Server(config).run(sockets=[bound])


@contextlib.contextmanager
def _signals_end_quietly() -> Iterator[None]:
    """uvicorn raises the signal that ended it once more; here it has done its work."""
    kept = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
