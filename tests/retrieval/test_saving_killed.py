"""A gallery's folder is whole, the old gallery or the new, after a kill at any point of a save."""

import os
import shutil
import signal
import stat

import pytest
from vif.errors import DataError
from vif.retrieval import Gallery

from tests.retrieval.people import people

CALLS = ("fsync", "replace", "mkdir", "rmdir", "unlink")  # points at which a process may end


def killed_at(point, change):
    """Run `change` in a process of its own that is killed (SIGKILL) before the point-th such call.

    Returns whether it was killed; it was not when it made fewer calls.
    """
    child = os.fork()
    if not child:
        try:
            count = [0]

            def wrap(function):
                def call(*args, **kwargs):
                    if count[0] == point:
                        os.kill(os.getpid(), signal.SIGKILL)
                    count[0] += 1
                    return function(*args, **kwargs)

                return call

            for name in CALLS:
                setattr(os, name, wrap(getattr(os, name)))
            change()
        finally:
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    return os.WIFSIGNALED(status)


def test_a_process_killed_while_saving_leaves_the_old_gallery_whole(tmp_path):
    old, new = people(30), people(5, seed=1, prefix="b")
    first = tmp_path / "first"
    Gallery.build(old, index="hnsw").save(str(first))
    old_paths = old.paths.tolist()
    outcomes = []

    def change(folder):
        gallery = Gallery.load(folder)
        gallery.add(new)
        gallery.save()

    for point in range(200):
        folder = str(tmp_path / "gallery")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(first, folder)
        killed = killed_at(point, lambda folder=folder: change(folder))
        gallery = Gallery.load(folder)  # verifies every file
        paths = gallery.rows().columns["paths"].tolist()
        assert paths in (old_paths, [*old_paths, *new.paths.tolist()])
        outcomes.append(len(paths))
        assert gallery.search(old.features[:3], k=1).ids[:, 0].tolist() == [0, 1, 2]
        if not killed:
            break
        gallery.add(people(1, seed=2, prefix="c"))  # what the dead process left is in nobody's way
        gallery.save()
        assert len(os.listdir(folder)) == 3  # manifest, lock, one version
    assert not killed
    assert outcomes == sorted(outcomes)  # old up to one point, new from there
    assert outcomes[0] == 30
    assert outcomes[-1] == 35
    assert outcomes.count(30) >= 10


def test_a_first_save_that_is_killed_leaves_a_folder_that_can_be_saved_to(tmp_path):
    folder = str(tmp_path / "gallery")
    for point in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        killed = killed_at(point, lambda: Gallery.build(people(3)).save(folder))
        if os.path.exists(os.path.join(folder, "manifest.json")):
            assert len(Gallery.load(folder)) == 3
        else:
            with pytest.raises(DataError, match="is no gallery"):
                Gallery.load(folder)
            Gallery.build(people(4)).save(folder)
            assert len(Gallery.load(folder)) == 4
        if not killed:
            break
    assert not killed


def test_the_manifest_is_on_disk_before_the_old_version_goes(tmp_path, monkeypatch):
    """A machine may lose power: what is named is synced first, and what was replaced is removed last."""
    folder = str(tmp_path / "gallery")
    gallery = Gallery.build(people(3))
    gallery.save(folder)
    steps = []

    def spy(name, step):
        function = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, **k: (steps.append(step(*a)), function(*a, **k))[1])

    spy("replace", lambda *_: "manifest named")
    spy("rmdir", lambda *_, **__: "old version removed")
    spy("fsync", lambda handle: "folder synced" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file synced")
    gallery.save()
    named, removed = steps.index("manifest named"), steps.index("old version removed")
    assert steps[named + 1 : removed] == ["folder synced"]
    assert steps[:named].count("file synced") == 10  # a file a column, ids, vectors, alive, the manifest
    assert "folder synced" in steps[:named]
