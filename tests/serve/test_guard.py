"""Whom the server answers, what stands on every answer, and that no other file is served."""

import pytest

pytest.importorskip("fastapi", reason="vif serve needs the extra `serve`")
pytest.importorskip("httpx", reason="Starlette's test client needs httpx")

import anyio
from vif.serve.guard import Guard

from tests.serve.clients import LOOPBACK, refused


@pytest.mark.parametrize("address", ["/", "/main.js", "/api/gallery", "/api/nothing", "/api/image/7"])
def test_security_headers_stand_on_every_answer(address, client):
    headers = client.get(address).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cache-control"] == ("no-store" if address.startswith("/api") else "no-cache")
    assert not {"set-cookie", "access-control-allow-origin", "server"} & set(headers)


def test_no_other_origin_is_let_in(client):
    asked = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    answer = client.options("/api/search", headers=asked)
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000"])
def test_hosts_that_are_this_machine(host, client):
    assert client.get("/api/rows/7", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "",
        "127.0.0.1@evil.example",
        "[::1",
        "é",
    ],
)
def test_hosts_that_are_not(host, client):
    answer = client.get("/api/rows/7", headers={"host": host.encode()})
    refused(answer, 400, "the Host header names another machine")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_two_hosts_are_none():
    sent = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "path": "/api/rows",
        "headers": [(b"host", b"localhost"), (b"host", b"evil.example")],
    }
    anyio.run(Guard(None, LOOPBACK), scope, None, send)
    assert sent[0]["status"] == 400


@pytest.mark.parametrize(
    "path", ["../app.py", "..%2fapp.py", "%2e%2e/app.py", "/etc/passwd", "page/..%2f..%2fapp.py"]
)
def test_the_pages_files_are_all_that_is_served(path, client):
    refused(client.get(f"/{path}"), 404, "there is nothing at")
