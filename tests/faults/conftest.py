"""Data and runs that several files of the fault suite start from."""

import shutil

import pytest

from tests import fake_trees
from tests.faults.bad_files import KINDS
from tests.faults.killing import OPTS, build, train


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A small SynthAG that FASTREID_DATASETS names."""
    with fake_trees.installed(tmp_path_factory.mktemp("data"), fake_trees.make_synthag) as root:
        yield root


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory):
    """Folder of a run under OPTS that nothing happened to."""
    folder = tmp_path_factory.mktemp("unbroken")
    with fake_trees.installed(tmp_path_factory.mktemp("data"), fake_trees.make_synthag):
        assert train(folder, *OPTS)[0] == 0
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tree):
    """Folder of a run of four epochs; epochs 0 to 2 have a checkpoint of their own."""
    folder = tmp_path_factory.mktemp("finished")
    build(folder, resume=False).train()
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy as it was after the third epoch."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "model_final.pth").unlink()
    shutil.copy(folder / "model_0000.pth", folder / "model_best.pth")
    (folder / "last_checkpoint").write_text("model_0002.pth")
    return folder


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory):
    """SynthAG with a bad image in train, and one of each kind in gallery and query."""
    root = tmp_path_factory.mktemp("data")
    home = fake_trees.make_synthag(root, ids=5)
    for split, place in (("train", 0), ("query", 2)):
        sorted((home / split).rglob("*.jpg"))[place].write_bytes(b"")
    gallery = sorted((home / "gallery").rglob("*.jpg"))
    for place, kind in enumerate(kind for kind in KINDS if kind != "gone"):
        KINDS[kind][0](gallery[5 * place])
    return root
