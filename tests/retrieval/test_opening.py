"""Galleries by address: what an address and the environment say to Milvus."""

import pytest
from vif.cli import main
from vif.errors import ConfigError, DataError
from vif.retrieval import create_gallery, milvus, open_gallery
from vif.retrieval.opening import is_milvus

from tests.retrieval.people import people
from tests.retrieval.places import close, needs_milvus


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("people", False),
        ("people#night", False),
        ("a.db/people", False),
        ("people.db", True),
        ("people.db#night", True),
        ("http://localhost:19530", True),
        ("https://host#night", True),
    ],
)
def test_whose_an_address_is(uri, expected):
    assert is_milvus(uri) == expected


@pytest.mark.parametrize(
    ("uri", "token", "options", "expected"),
    [
        ("http://h:1", "", {}, ("http://h:1", "vif", "")),
        ("http://h:1#night", "user:word", {}, ("http://h:1", "night", "user:word")),
        (
            "g.db#night",
            "user:word",
            {"collection": "day", "token": "other"},
            ("g.db", "day", "other"),
        ),
    ],
)
def test_collection_and_token(uri, token, options, expected, monkeypatch):
    asked = []

    def connect(*arguments):
        asked.append(arguments)
        raise DataError("nobody there")

    monkeypatch.setattr(milvus, "connect", connect)
    monkeypatch.setenv("MILVUS_TOKEN", token)
    for call in (lambda: open_gallery(uri, **options), lambda: create_gallery(uri, people(3), **options)):
        with pytest.raises(DataError, match="nobody there"):
            call()
    assert asked == [expected, expected]


def test_options_of_another_place_are_refused(tmp_path):
    folder = str(tmp_path / "g")
    for option in ({"collection": "night"}, {"token": "secret"}):
        for call in (
            lambda o=option: create_gallery(folder, people(3), **o),
            lambda o=option: open_gallery(folder, **o),
        ):
            with pytest.raises(ConfigError, match=f"the option {next(iter(option))} is not for .* a folder"):
                call()
    with pytest.raises(ConfigError, match="the option index is not for 'g.db', which is Milvus"):
        create_gallery("g.db", people(3), index="flat")


@needs_milvus
def test_two_galleries_of_one_file_by_their_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    people(3).save("f.npz")
    assert main(["index", "--features", "f.npz", "--out", "g.db#night"]) == 0
    assert "'night' at g.db: 3 rows" in capsys.readouterr().out
    assert main(["search", "g.db", "--ids", "1"]) == 1
    assert "holds no gallery 'vif'" in capsys.readouterr().err
    assert main(["search", "g.db#night", "--ids", "1", "--top", "1"]) == 0
    close(open_gallery("g.db#night"))
