"""`vif serve` over a gallery in a folder and in Milvus, without a network and so without torch."""

import pytest

pytest.importorskip("fastapi", reason="vif serve needs the extra `serve`")
pytest.importorskip("httpx", reason="Starlette's test client needs httpx")

from starlette.testclient import TestClient
from vif.cli import main
from vif.retrieval import Filter, open_gallery
from vif.serve import server

from tests.retrieval.people import people
from tests.retrieval.places import PLACES, close


@pytest.mark.parametrize("place", PLACES)
def test_it_finds_what_the_gallery_finds(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    people(30).save("f.npz")
    assert main(["index", "--features", "f.npz", "--out", place]) == 0
    served = []
    monkeypatch.setattr(server, "run", lambda app, bound: served.append(app))
    assert main(["serve", place, "--port", "0"]) == 0
    assert "30 rows" in capsys.readouterr().out
    client = TestClient(served[0], base_url="http://localhost")
    told = client.get("/api/gallery").json()
    assert (told["rows"], told["index"]) == (30, "milvus" if place.endswith(".db") else "flat")
    gallery = open_gallery(place)
    for parameters, where in (
        ({}, Filter()),
        ({"views": "aerial", "camids": [0, 2]}, Filter(views=["aerial"], camids=[0, 2])),
        ({"other_cameras": True}, Filter(other_cameras=True)),
        ({"views": 'aerial"] or id in [1'}, Filter(views=['aerial"] or id in [1'])),
    ):
        answer = client.get("/api/similar/7", params={"k": 9, **parameters}).json()
        assert answer["neighbours"] == gallery.similar([7], 9, where).of(0)
    assert answer["neighbours"] == []
    close(gallery)
