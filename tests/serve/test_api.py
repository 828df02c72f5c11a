"""The HTTP API: answers against the gallery's own, and errors."""

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
from vif.retrieval import Filter, Gallery
from vif.serve.app import create_app
from vif.serve.service import Service

from tests.retrieval.people import people as vectors
from tests.serve.clients import LIMIT, picture, post, refused
from tests.serve.serving import NIGHT


def test_the_gallery_tells_what_it_is(client, gallery, bare_client):
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
    told = bare_client.get("/api/gallery").json()
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


def test_a_query_whose_camera_is_unknown_has_no_other_cameras(bare_client, client, people):
    refused(bare_client.get("/api/similar/0?other_cameras=true"), 422, "needs the queries' cameras")
    refused(post(client, picture(people), other_cameras=True), 422, "other_cameras needs query_camid")


def test_without_images_or_network_the_error_says_what_to_start_it_with(bare_client):
    refused(
        bare_client.get("/api/image/3"), 404, "this gallery names no folder of images; start it with --root"
    )
    refused(
        post(bare_client, b"x"), 503, "start `vif serve` with --config-file and --weights, or with --onnx"
    )


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
