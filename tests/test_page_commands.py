"""The commands of the pages on galleries, serving and reports, run in their order as they stand there."""

import json
import os
import re
import shlex

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
pytest.importorskip("jinja2")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from fastreid.engine import default_argument_parser
from PIL import Image
from starlette.testclient import TestClient
from vif.cli import main
from vif.retrieval import open_gallery
from vif.serve import server

import train_net
from tests import fake_trees
from tests.pages import ROOT, commands
from tests.tiny import tiny_cfg

# what a reader has of his own: ids, folders, runs
OWN = {"1342": "41", "/path/to/data": "datasets", "logs/CARGO/vif": "logs/SynthAG/vif"}
NETWORK = ["--config-file", "configs/SynthAG/vif.yml", "--weights", "logs/SynthAG/vif/model_final.pth"]


def run(line):
    words = [OWN.get(word, word) for word in shlex.split(line, comments=True)]
    assert main(words[1:]) == 0, line


def vif_lines(page):
    """Those that need neither Milvus, whose lines tests/retrieval/test_page.py runs, nor another page."""
    return [line for line in commands(ROOT / page, "vif") if "people.db" not in line and "19530" not in line]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder as `make demo` leaves it, with a tiny network, and photos as a reader may have them."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("FASTREID_DATASETS", "datasets")
        data = fake_trees.make_synthag(home / "datasets", ids=4)
        os.makedirs("configs/SynthAG")
        cfg = tiny_cfg("SynthAG/vif.yml", "logs/SynthAG/vif")
        (home / "configs/SynthAG/vif.yml").write_text(cfg.dump())
        args = default_argument_parser().parse_args(NETWORK[:2])
        train_net.main(train_net.read(args), args)
        assert main(["export", *NETWORK, "--formats", "onnx", "--out", "."]) == 0
        lines = ["path,pid,camid,view,time"]
        for camid, day in ((1, "monday"), (2, "tuesday"), (9, "monday")):
            (home / "photos" / day).mkdir(parents=True, exist_ok=True)
            for source in sorted((data / f"gallery/Cam{camid}").iterdir()):
                (home / "photos" / day / source.name).write_bytes(source.read_bytes())
                pid, view = source.name.split("_")[2], "aerial" if camid <= 5 else "ground"
                lines.append(f"{source.name},{pid},{camid},{view},2026-03-01T12:{camid:02d}")
        (home / "labels.csv").write_text("\n".join(lines))
        (home / "photo.jpg").write_bytes(next((data / "query/Cam1").iterdir()).read_bytes())
    return home


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """A working directory like it, for one page."""
    for path in trained.iterdir():
        os.symlink(path, tmp_path / path.name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTREID_DATASETS", "datasets")
    return tmp_path


@pytest.fixture
def served(monkeypatch):
    """Instead of answering, `vif serve` leaves its applications and the ports here."""
    apps, ports, listen = [], [], server.listen

    def on_any_port(host, port):
        ports.append(port)
        return listen(host, 0)

    monkeypatch.setattr(server, "listen", on_any_port)
    monkeypatch.setattr(server, "run", lambda app, bound: apps.append(app))
    return apps, ports


def test_galleries(folder, capsys):
    for line in vif_lines("docs/retrieval.md"):
        capsys.readouterr()
        run(line)
        out = capsys.readouterr().out
        assert "rows, 16 dimensions" in out if " index " in line else True
        if " search " in line:
            assert "| 1      |" in out, line
        if "--top 3" in line:
            assert "| 3      |" in out
            assert "| 4      |" not in out
    (query,) = json.loads((folder / "found.json").read_text())
    assert {row["view"] for row in query["neighbours"]} == {"ground"}
    for name, root in (("people", "datasets"), ("street", "photos")):
        gallery = open_gallery(name)
        for path in gallery.rows().columns["paths"]:
            assert (folder / root / path).is_file()
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/retrieval.md").read_text(), flags=re.DOTALL)
    exec(code, {})


def test_serving(folder, served):
    extract, index, *_ = vif_lines("docs/retrieval.md")
    run(extract)
    run(index)
    apps, ports = served
    for line in vif_lines("docs/serve.md"):
        run(line)
    assert ports == [8000, 9000, 8000]
    clients = [TestClient(app, base_url="http://127.0.0.1:8000") for app in apps]
    told = [client.get("/api/gallery").json() for client in clients]
    assert [about["uploads"] for about in told] == [True, True, False]
    assert [about["max_upload_bytes"] for about in told] == [16 << 20, 4 << 20, 16 << 20]
    assert all(about["images"] for about in told)
    for id_ in (0, 51):
        assert clients[0].get(f"/api/image/{id_}").status_code == 200
    found = [ask(clients[0], line) for line in commands(ROOT / "docs/serve.md", "curl")]
    similar, searched = found
    assert len(similar) == len(searched) == 3
    assert {row["camid"] for row in similar} == {2}
    assert 1 not in {row["camid"] for row in searched}


def ask(client, line):
    """The neighbours that a line of curl gets: with -F NAME=@FILE it posts a form."""
    *options, address = shlex.split(line)[1:]
    for word, own in OWN.items():
        address = address.replace(word, own)
    if options:
        flag, form = options
        assert flag == "-F"
        name, file = form.split("=@")
        with open(file, "rb") as image:
            answer = client.post(address, files={name: image})
    else:
        answer = client.get(address)
    assert answer.status_code == 200, answer.text
    return answer.json()["neighbours"]


def test_reports_and_pictures(folder):
    extract, *_ = vif_lines("docs/retrieval.md")
    run(extract)
    for line in vif_lines("docs/report.md"):
        run(line)
    for page in ("logs/SynthAG/vif/report.html", "report.html"):
        assert "left out" not in (folder / page).read_text().split('id="protocols"')[0]
    for picture in ("plrm.png", "attention.png", "synthag.jpg", "pictures/cmc.png"):
        assert Image.open(folder / picture).size[0] > 300
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/report.md").read_text(), flags=re.DOTALL)
    found = {}
    exec(code.replace("gallery.search", "found = gallery.search"), found)
    assert found["found"]._repr_html_().count("<img") == 5


def test_the_readme_gives_commands_of_these_pages():
    of_pages = {line for page in ("retrieval", "serve", "report") for line in vif_lines(f"docs/{page}.md")}
    assert set(vif_lines("README.md")) <= of_pages
