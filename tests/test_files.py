"""Files that appear whole: their modes, and what is said where the system cannot write them."""

import os
import resource
import threading

import pytest
from vif.cli import main
from vif.files import atomic_path, write_text

from tests.retrieval.people import people


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_threads_write_files_of_the_modes_that_the_umask_leaves(umask, tmp_path):
    def write(thread):
        for index in range(100):
            write_text(str(tmp_path / f"{thread}-{index}"), "x")

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}
    assert len(list(tmp_path.iterdir())) == 400


def test_the_umask_is_never_another(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("other threads would make files of this mask"))
    write_text(str(tmp_path / "a"), "x")
    assert (tmp_path / "a").read_text() == "x"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError("3 requested, 1 written")])
def test_what_cannot_be_written_names_the_file_and_leaves_nothing(error, tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(OSError, match="No space left|3 requested") as raised, atomic_path(str(path)):
        raise error
    assert raised.value.filename == str(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]
    with pytest.raises(FileNotFoundError, match="other"), atomic_path(str(path)):
        os.stat("other")


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_a_feature_file_that_finds_no_room(ending, tmp_path):
    if ending == "safetensors":
        pytest.importorskip("safetensors")
    table, path = people(300), str(tmp_path / f"f.{ending}")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            table.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.filename == path
    assert os.listdir(tmp_path) == []


def test_a_command_that_cannot_write_ends_in_one_line(tmp_path, capsys):
    people(9).save(str(tmp_path / "f.npz"))
    gallery = str(tmp_path / "g")
    assert main(["index", "--features", str(tmp_path / "f.npz"), "--out", gallery]) == 0
    (tmp_path / "out.json").mkdir()
    assert main(["search", gallery, "--ids", "1", "--json", str(tmp_path / "out.json")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'out.json'}: Is a directory\n"
