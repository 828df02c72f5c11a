"""The HTTP API: answers against the gallery's own, and every error."""

import io
import threading

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="vif serve needs the extra `serve`")
pytest.importorskip("httpx", reason="Starlette's test client needs httpx")

import anyio
import httpx
from PIL import Image
from starlette.testclient import TestClient
from vif.errors import DataError
from vif.retrieval import Filter, Gallery, open_gallery
from vif.serve import upload
from vif.serve.app import create_app
from vif.serve.service import Service

from tests.retrieval.people import people as vectors
from tests.serve.serving import NIGHT

LIMIT = 200_000
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@pytest.fixture(scope="module")
def gallery(people):
    return open_gallery(str(people.gallery))


@pytest.fixture(scope="module")
def client(people, gallery):
    service = Service.build(gallery, gallery.meta["root"], people.predictor, LIMIT)
    return TestClient(create_app(service, LOOPBACK), base_url="http://localhost")


@pytest.fixture(scope="module")
def bare():
    """Neither images nor a network; some rows without camera."""
    table = vectors(10)
    table.camids[0] = -1
    service = Service.build(Gallery.build(table), "", None, LIMIT)
    return TestClient(create_app(service, LOOPBACK), base_url="http://localhost")


def picture(people, camid=1, pid=5):
    return (people.images.parent / "query" / f"Cam{camid}" / f"Cam{camid}_day_{pid}_1.jpg").read_bytes()


def post(client, data, address="/api/search", **parameters):
    return client.post(address, params=parameters, files={"image": ("x.jpg", data, "image/jpeg")})


def refused(answer, status, message):
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert message in answer.json()["error"]


def test_the_gallery_tells_what_it_is(client, gallery, bare):
    told = client.get("/api/gallery").json()
    assert told["rows"] == len(gallery) == 52
    assert (told["dim"], told["fingerprint"], told["index"]) == (gallery.dim, gallery.fingerprint, "flat")
    assert told["views"] == [{"view": "aerial", "rows": 20}, {"view": "ground", "rows": 32}]
    assert told["cameras"][4:6] == [
        {"camid": 5, "view": "aerial", "rows": 4},
        {"camid": 6, "view": "ground", "rows": 4},
    ]
    assert told["times"] == {"first": NIGHT, "last": NIGHT + 12 * 3600}
    assert (told["images"], told["uploads"], told["max_upload_bytes"]) == (True, True, LIMIT)
    told = bare.get("/api/gallery").json()
    assert (told["images"], told["uploads"], told["times"]) == (False, False, None)
    assert "root" not in client.get("/api/gallery").text


FILTERS = [
    ({}, Filter()),
    ({"views": "aerial"}, Filter(views=["aerial"])),
    ({"views": ["aerial", "ground"], "camids": [2, 9]}, Filter(views=["aerial", "ground"], camids=[2, 9])),
    (
        {"since": "2026-03-01T02:00", "until": str(NIGHT + 20_000)},
        Filter(since=NIGHT + 7200, until=NIGHT + 20_000),
    ),
    ({"since": "", "until": ""}, Filter()),
    ({"other_cameras": "true"}, Filter(other_cameras=True)),
    ({"views": "nowhere"}, Filter(views=["nowhere"])),
]


@pytest.mark.parametrize(("parameters", "where"), FILTERS)
def test_similar_rows_are_those_that_the_gallery_finds(parameters, where, client, gallery):
    answer = client.get("/api/similar/7", params={**parameters, "k": 9})
    assert answer.status_code == 200
    assert answer.json()["neighbours"] == gallery.similar([7], 9, where).of(0)
    assert answer.json()["query"] == client.get("/api/rows/7").json()
    assert answer.json()["query"]["path"] == str(gallery.rows([7]).columns["paths"][0])


@pytest.mark.parametrize(("parameters", "where"), FILTERS)
def test_an_uploaded_image_finds_what_its_vector_finds(parameters, where, client, gallery, people):
    if where.other_cameras:
        parameters = {**parameters, "query_camid": 3}
    data = picture(people)
    vector = people.predictor(data)
    answer = post(client, data, **parameters, k=9)
    assert answer.status_code == 200, answer.text
    expected = gallery.search(vector, 9, where, [3]).of(0)
    found = answer.json()["neighbours"]
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    np.testing.assert_allclose([r["distance"] for r in found], [r["distance"] for r in expected], atol=1e-6)
    assert answer.json()["query"] is None


def test_rows_come_in_pages(client):
    everything = client.get("/api/rows", params={"limit": 200}).json()
    assert (everything["total"], len(everything["rows"])) == (52, 52)
    page = client.get("/api/rows", params={"limit": 10, "offset": 45}).json()
    assert page == {"total": 52, "offset": 45, "rows": everything["rows"][45:]}
    page = client.get("/api/rows", params={"views": "aerial", "camids": 2, "find": "_6_"}).json()
    assert [row["path"] for row in page["rows"]] == ["Cam2/Cam2_day_6_0.jpg"]
    assert client.get("/api/rows", params={"offset": 10**9}).json()["rows"] == []


def test_the_image_of_a_row(client, people):
    row = client.get("/api/rows/7").json()
    answer = client.get("/api/image/7")
    assert answer.headers["content-type"] == "image/jpeg"
    shown = np.asarray(Image.open(io.BytesIO(answer.content)), dtype=int)
    file = np.asarray(Image.open(people.images / row["path"]), dtype=int)
    assert np.abs(shown - file).mean() < 3
    small = Image.open(io.BytesIO(client.get("/api/image/7", params={"size": 16}).content))
    assert small.size == (8, 16)


@pytest.mark.parametrize(
    ("address", "status", "message"),
    [
        ("/api/rows/99", 404, "id 99 is not in the gallery; it has 52 rows"),
        ("/api/similar/99", 404, "id 99 is not in the gallery"),
        ("/api/image/99", 404, "id 99 is not in the gallery"),
        ("/api/nothing", 404, "there is nothing at /api/nothing"),
        ("/nothing", 404, "there is nothing at /nothing"),
        ("/docs", 404, "there is nothing at /docs"),
        ("/redoc", 404, "there is nothing at /redoc"),
        ("/api/search", 405, "Method Not Allowed"),
        ("/api/rows/x", 422, "id: Input should be a valid integer"),
        ("/api/rows/99999999999999999999", 422, "id: Input should be less than 9223372036854775808"),
        ("/api/similar/7?k=0", 422, "k: Input should be greater than or equal to 1"),
        ("/api/similar/7?k=501", 422, "k: Input should be less than or equal to 500"),
        ("/api/similar/7?view=aerial", 422, "view: Extra inputs are not permitted"),
        ("/api/similar/7?camids=one", 422, "camids.0: Input should be a valid integer"),
        ("/api/similar/7?camids=99999999999999999999", 422, "camids"),
        ("/api/similar/7?since=noon", 422, "time 'noon' is neither seconds since 1970 nor ISO 8601"),
        ("/api/similar/7?since=5&until=4", 422, "no row could pass"),
        ("/api/rows?limit=201", 422, "limit: Input should be less than or equal to 200"),
        ("/api/rows?offset=-1", 422, "offset: Input should be greater than or equal to 0"),
        ("/api/rows?other_cameras=true", 422, "other_cameras: Extra inputs are not permitted"),
        ("/api/image/7?size=9999", 422, "size: Input should be less than or equal to 2048"),
    ],
)
def test_errors_say_what_is_wrong(address, status, message, client):
    refused(client.get(address), status, message)


def test_a_query_whose_camera_is_unknown_has_no_other_cameras(bare, client, people):
    refused(bare.get("/api/similar/0?other_cameras=true"), 422, "needs the queries' cameras")
    refused(post(client, picture(people), other_cameras=True), 422, "other_cameras needs query_camid")


def test_without_images_or_network_the_error_says_what_to_start_it_with(bare):
    refused(bare.get("/api/image/3"), 404, "this gallery names no folder of images; start it with --root")
    refused(post(bare, b"x"), 503, "start `vif serve` with --config-file and --weights, or with --onnx")


def test_a_row_whose_file_is_gone_and_one_that_leads_outside(people, gallery, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (tmp_path / "secret.jpg").write_bytes(picture(people))
    table = vectors(2)
    table.paths = np.array(["gone.jpg", "../secret.jpg"])
    service = Service.build(Gallery.build(table), str(folder), None, LIMIT)
    client = TestClient(create_app(service), base_url="http://anything")
    refused(client.get("/api/image/0"), 404, "there is no such file")
    refused(client.get("/api/image/1"), 404, "lies outside the gallery's folder")


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


def test_a_failure_of_the_server_is_json_too_and_tells_no_secret(people, gallery, monkeypatch):
    service = Service.build(gallery, "", None, LIMIT)
    client = TestClient(create_app(service), base_url="http://x", raise_server_exceptions=False)
    monkeypatch.setattr(Gallery, "similar", lambda *_: 1 / 0)
    answer = client.get("/api/similar/7")
    refused(answer, 500, "the server failed; its terminal says why")
    assert "content-security-policy" in answer.headers


def test_searches_leave_the_event_loop_free_and_run_at_the_same_time(gallery, monkeypatch):
    both, real, in_loop = threading.Barrier(2, timeout=20), Gallery.similar, []

    def similar(self, *arguments):
        in_loop.append(threading.current_thread() is threading.main_thread())
        both.wait()  # goes on when two are here
        return real(self, *arguments)

    monkeypatch.setattr(Gallery, "similar", similar)
    app = create_app(Service.build(gallery, "", None, LIMIT), threads=2)

    async def two():
        answers = []
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:

            async def ask():
                answers.append(await client.get("/api/similar/7"))

            async with anyio.create_task_group() as group:
                group.start_soon(ask)
                group.start_soon(ask)
        return [answer.status_code for answer in answers]

    assert anyio.run(two) == [200, 200]
    assert in_loop == [False, False]


def test_a_network_of_other_weights_is_refused(people, gallery):
    other = Gallery.build(
        gallery.to_table().__class__(**{**vars(gallery.to_table()), "meta": {"fingerprint": "feed"}})
    )
    with pytest.raises(
        DataError, match="the network's features are of the weights .*, the gallery's of feed"
    ):
        Service.build(other, "", people.predictor, LIMIT)


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
    from vif.serve.guard import Guard

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


def test_the_description_of_the_api_loads_nothing_from_elsewhere(client):
    told = client.get("/openapi.json").json()
    assert set(told["paths"]) == {
        "/api/gallery",
        "/api/rows",
        "/api/rows/{id}",
        "/api/similar/{id}",
        "/api/search",
        "/api/image/{id}",
    }
    body = told["paths"]["/api/search"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert body["properties"]["image"]["format"] == "binary"


@pytest.mark.parametrize(
    "path", ["../app.py", "..%2fapp.py", "%2e%2e/app.py", "/etc/passwd", "page/..%2f..%2fapp.py"]
)
def test_the_pages_files_are_all_that_is_served(path, client):
    refused(client.get(f"/{path}"), 404, "there is nothing at")
