"""Uploads: images and what is none, limits of size, time and number, nothing on disk."""

import pytest

pytest.importorskip("fastapi", reason="vif serve needs the extra `serve`")
pytest.importorskip("httpx", reason="Starlette's test client needs httpx")

import anyio
import httpx
from starlette.testclient import TestClient
from vif.serve import upload
from vif.serve.app import create_app
from vif.serve.service import Service

from tests.serve.clients import LIMIT, picture, post, refused


def bomb():
    """A PNG of 60,000 x 60,000 pixels in a few kB, of which only the header is true."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    lines = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def test_images_that_cannot_be_used(client, people):
    for data, message in (
        (b"plain text", "no image of a known format"),
        (picture(people)[:-200], "cannot be decoded"),
        (bomb(), "too large to be a photo of a person"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no image of a known format"),
        (b"", "no image of a known format"),
    ):
        refused(post(client, data), 422, f"the image cannot be used: {message}")


def test_forms_that_are_none(client, people):
    refused(client.post("/api/search", content=picture(people)), 415, "multipart/form-data")
    refused(client.post("/api/search", json={}), 415, "multipart/form-data")
    refused(client.post("/api/search", files={"photo": picture(people)}), 400, "no file named `image`")
    refused(client.post("/api/search", data={"image": "x"}, files={"image": b"x"}), 400, "Too many fields")
    refused(client.post("/api/search", files=[("image", b"1"), ("image", b"2")]), 400, "Too many files")
    form = {"content-type": "multipart/form-data; boundary=b"}
    refused(client.post("/api/search", content=b"broken", headers=form), 400, "the form cannot be read")
    form = {"content-type": "multipart/form-data"}
    refused(client.post("/api/search", content=b"broken", headers=form), 400, "the form cannot be read")


def test_an_upload_may_be_as_large_as_the_limit_and_no_larger(client):
    refused(post(client, bytes(LIMIT)), 422, "no image of a known format")
    refused(post(client, bytes(LIMIT + 1)), 413, "larger than 0.190735 MiB (--max-upload-mib)")
    refused(post(client, bytes(3 * LIMIT)), 413, "larger than")


def ask_by_hand(service, headers, receive):
    """POST /api/search with a body that `receive` gives; status and text of the answer."""
    app, sent = create_app(service), []
    form = [(b"host", b"x"), (b"content-type", b"multipart/form-data; boundary=b"), *headers]
    scope = {"type": "http", "method": "POST", "path": "/api/search", "query_string": b"", "headers": form}

    async def send(message):
        sent.append(message)

    async def request():
        await app({**scope, "root_path": "", "scheme": "http", "http_version": "1.1"}, receive, send)

    anyio.run(request)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]).decode()


HEAD = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'


@pytest.mark.parametrize("length", [None, b"100", b"1000000000"])
def test_reading_stops_at_the_limit_whatever_the_length_says(length, people, gallery):
    read = []

    async def receive():
        read.append(HEAD if not read else bytes(10_000))
        return {"type": "http.request", "body": read[-1], "more_body": True}

    service = Service.build(gallery, "", people.predictor, LIMIT)
    status, text = ask_by_hand(service, [(b"content-length", length)] if length else [], receive)
    assert status == 413
    assert "larger than" in text
    assert sum(map(len, read)) <= (0 if length == b"1000000000" else LIMIT + 20_000)


def test_an_upload_that_takes_too_long_is_given_up(people, gallery, monkeypatch):
    monkeypatch.setattr(upload, "SECONDS", 0.1)

    async def receive():
        await anyio.sleep(0.02)
        return {"type": "http.request", "body": b"", "more_body": True}

    status, text = ask_by_hand(Service.build(gallery, "", people.predictor, LIMIT), [], receive)
    assert status == 408
    assert "longer than" in text


def test_an_upload_that_breaks_off(people, gallery):
    parts = iter([{"type": "http.request", "body": HEAD, "more_body": True}, {"type": "http.disconnect"}])

    async def receive():
        return next(parts)

    status, text = ask_by_hand(Service.build(gallery, "", people.predictor, LIMIT), [], receive)
    assert status == 400
    assert "broke off" in text


def test_uploads_never_touch_the_disk(people, gallery, monkeypatch):
    import tempfile

    def on_disk(*arguments, **options):
        raise AssertionError("an upload went to disk")

    monkeypatch.setattr(tempfile, "TemporaryFile", on_disk)
    client = TestClient(
        create_app(Service.build(gallery, "", people.predictor, 4 << 20)), base_url="http://x"
    )
    refused(post(client, bytes(4 << 20)), 422, "no image of a known format")
    assert post(client, picture(people)).status_code == 200


def test_uploads_beyond_those_that_wait_are_turned_away(people, gallery, monkeypatch):
    from vif.serve import routes

    monkeypatch.setattr(routes, "UPLOADS", 1)
    service = Service.build(gallery, "", people.predictor, LIMIT)
    app = create_app(service)

    async def two():
        transport = httpx.ASGITransport(app)
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://x") as client,
            anyio.create_task_group() as group,
        ):
            waiting, more = anyio.Event(), anyio.Event()

            async def body():
                yield HEAD
                waiting.set()
                await more.wait()
                yield picture(people) + b"\r\n--b--\r\n"

            headers = {"content-type": "multipart/form-data; boundary=b"}
            answers = []

            async def first():
                answers.append(await client.post("/api/search", content=body(), headers=headers))

            group.start_soon(first)
            await waiting.wait()
            refused(await client.post("/api/search", files={"image": b"x"}), 503, "busy with other uploads")
            more.set()
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            answers.append(await client.post("/api/search", files={"image": picture(people)}))
        return [answer.status_code for answer in answers]

    assert anyio.run(two) == [200, 200]
