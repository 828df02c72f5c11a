"""`vif serve` as a process, and what it refuses to start with."""

import json
import signal
import socket
import sys
import urllib.request

import pytest

pytest.importorskip("fastapi", reason="vif serve needs the extra `serve`")
pytest.importorskip("uvicorn", reason="vif serve needs the extra `serve`")

from vif.cli import main
from vif.errors import ConfigError
from vif.retrieval import create_gallery
from vif.serve import server

from tests.retrieval.people import people as vectors
from tests.serve.serving import Server


@pytest.fixture
def ran(monkeypatch):
    """The command without its last step; gives what would have run."""
    calls = []
    monkeypatch.setattr(server, "run", lambda app, bound: calls.append(bound.getsockname()))
    return calls


@pytest.fixture
def plain(tmp_path):
    create_gallery(str(tmp_path / "plain"), vectors(9))
    return str(tmp_path / "plain")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_at_the_address_that_it_prints_and_a_signal_ends_it(number, people):
    with Server(people.gallery) as server_:
        assert "52 rows" in server_.said
        assert f"images from {people.images}" in server_.said
        assert "no uploads: they need --config-file and --weights, or --onnx" in server_.said
        assert server_.url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(server_.url + "api/rows/7") as answer:
            assert json.load(answer)["id"] == 7
            assert "server" not in {name.lower() for name in answer.headers}
        with urllib.request.urlopen(server_.url) as answer:
            assert b"<!doctype html>" in answer.read()
        code, said = server_.stop(number)
        assert code == 0
        assert said.strip() == ""


def test_a_gallery_saved_anew_does_not_change_what_is_served(plain, ran, monkeypatch):
    from starlette.testclient import TestClient

    served = []
    monkeypatch.setattr(server, "run", lambda app, bound: served.append(app))
    assert main(["serve", plain, "--port", "0"]) == 0
    client = TestClient(served[0], base_url="http://127.0.0.1")
    before = client.get("/api/similar/3").json()
    create_gallery(plain, vectors(5, seed=1), overwrite=True)
    assert client.get("/api/gallery").json()["rows"] == 9
    assert client.get("/api/similar/3").json() == before


def test_a_port_that_is_taken(plain, capsys, ran):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", plain, "--port", str(port)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: --host 127.0.0.1 --port {port}: cannot listen there")
    assert "name another --port" in error
    assert error.count("\n") == 1
    assert not ran


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "'nowhere' is no gallery"),
        (["{plain}", "--weights", "w.pth"], "images need --config-file and --weights, or --onnx FILE alone"),
        (["{plain}", "--onnx", "none.onnx"], "none.onnx"),
        (["{plain}", "--root", "nowhere"], "there is no folder 'nowhere' of images"),
        (["{plain}", "--host", "no.such.host.invalid"], "no address of this machine"),
        (["{plain}", "--port", "99999"], "--port 99999: ports are 0 to 65535"),
        (["{plain}", "--max-upload-mib", "0"], "--max-upload-mib 0 must be above 0"),
    ],
)
def test_what_cannot_work_ends_in_one_line(arguments, message, plain, capsys, ran):
    arguments = [argument.replace("{plain}", plain) for argument in arguments]
    assert main(["serve", "--port", "0", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not ran


def test_a_network_of_other_weights_is_refused_at_start(plain, people, capsys, ran):
    assert main(["serve", plain, "--port", "0", *people.network]) == 1
    assert "the network's features are of the weights" in capsys.readouterr().err
    assert not ran


def test_another_host_is_allowed_and_said_aloud(plain, capsys, ran):
    assert main(["serve", plain, "--host", "0.0.0.0", "--port", "0"]) == 0
    captured = capsys.readouterr()
    assert "there is no authentication" in captured.err
    assert ran[0][0] == "0.0.0.0"
    assert main(["serve", plain, "--port", "0"]) == 0
    assert capsys.readouterr().err == ""
    assert ran[1][0] == "127.0.0.1"


def test_images_that_have_moved(plain, people, tmp_path, capsys, ran):
    table = vectors(3)
    table.meta["root"] = str(tmp_path / "gone")
    create_gallery(str(tmp_path / "moved"), table)
    assert main(["serve", str(tmp_path / "moved"), "--port", "0"]) == 0
    captured = capsys.readouterr()
    assert (
        f"no images: {tmp_path / 'gone'} is not here; name the folder they are in now with --root"
        in captured.out
    )
    assert main(["serve", str(tmp_path / "moved"), "--port", "0", "--root", str(people.images)]) == 0
    assert f"images from {people.images}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["fastapi", "uvicorn", "python-multipart"])
def test_without_the_extra_it_says_what_to_install(name, plain, capsys, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    module = name.replace("-", "_")
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == module else real(n, *a))
    assert main(["serve", plain]) == 1
    remedy = "pip install fastapi uvicorn python-multipart"
    assert capsys.readouterr().err == f"error: vif serve needs {name}: `{remedy}`.\n"


def test_the_command_line_needs_no_web_framework(monkeypatch):
    import importlib

    from vif.cli import build_parser
    from vif.serve import cli

    for name in ("fastapi", "starlette", "uvicorn", "anyio", "pydantic"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    importlib.reload(cli)
    assert build_parser().parse_args(["serve", "people"]).port == 8000


def test_names_that_requests_may_be_for():
    with server.listen("127.0.0.1", 0) as bound:
        assert server.own_names("127.0.0.1", bound) == {"localhost", "127.0.0.1", "::1"}
        assert server.url("127.0.0.1", bound) == f"http://127.0.0.1:{bound.getsockname()[1]}/"
    with server.listen("0.0.0.0", 0) as bound:
        assert server.own_names("0.0.0.0", bound) is None
    try:
        bound = server.listen("::1", 0)
    except ConfigError:
        pytest.skip("this machine has no IPv6")
    with bound:
        assert server.is_loopback(bound)
        assert server.url("::1", bound) == f"http://[::1]:{bound.getsockname()[1]}/"
