"""Galleries as folders: what they hold, refused when torn or foreign, one writer."""

import fcntl
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from vif.errors import DataError
from vif.retrieval import IVFPQ, Gallery, store
from vif.retrieval.exact import import_faiss

from tests.retrieval.people import people


@pytest.fixture
def folder(tmp_path):
    path = str(tmp_path / "gallery")
    Gallery.build(people(300), index=IVFPQ(lists=2)).save(path)
    return path


def files(folder):
    version = store.read_manifest(folder)["version"]
    return sorted(os.path.join(folder, version, name) for name in os.listdir(os.path.join(folder, version)))


def test_what_a_folder_holds(folder):
    manifest = json.loads(Path(folder, "manifest.json").read_text())
    assert manifest["format"] == "vif-gallery-1"
    assert manifest["meta"] == {"fingerprint": "0123456789abcdef"}
    assert (manifest["dim"], manifest["rows"], manifest["metric"]) == (16, 300, "cosine")
    assert manifest["index"] == {"kind": "ivfpq", "lists": 2, "code_bytes": 64, "probes": 256, "refine": 16}
    names = [os.path.basename(path) for path in files(folder)]
    assert names == sorted(manifest["files"])
    assert "index.faiss" in names
    vectors = np.load(next(path for path in files(folder) if path.endswith("vectors.npy")))
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, Gallery.load(folder).rows().vectors)


def test_vectors_and_metadata_are_mapped_not_read(folder):
    gallery = Gallery.load(folder)
    assert isinstance(gallery.rows().vectors, np.memmap)
    assert all(isinstance(column, np.memmap) for column in gallery.rows().columns.values())


@pytest.mark.parametrize("index", ["flat", "hnsw", "ivfpq"])
def test_removed_rows_stay_removed_and_new_ones_new(index, tmp_path):
    path = str(tmp_path / "gallery")
    gallery = Gallery.build(people(400), index=index)
    gallery.save(path)
    gallery = Gallery.load(path)
    gallery.remove([1, 2])
    gallery.add(people(3, seed=1, prefix="b"))
    gallery.save()
    again = Gallery.load(path)
    assert again.rows().ids.tolist() == gallery.rows().ids.tolist()
    assert again.index.kind == index
    queries = people(20, seed=2, prefix="q")
    assert (again.search(queries).ids == gallery.search(queries).ids).all()
    assert not {1, 2} & set(again.search(queries, k=500).ids.ravel().tolist())
    again.rebuild()
    again.save()
    assert saved_vectors(path) == 401  # the removed ones are gone from the disk


def saved_vectors(folder):
    return len(np.load(next(path for path in files(folder) if path.endswith("vectors.npy"))))


def test_a_flat_gallery_leaves_no_removed_vector_on_disk(tmp_path):
    gallery = Gallery.build(people(40))
    gallery.remove([5])
    gallery.save(str(tmp_path / "g"))
    assert saved_vectors(str(tmp_path / "g")) == 39


def test_a_choice_by_hand_stays_one(tmp_path, monkeypatch):
    for index, chosen in (("hnsw", "hnsw"), ("auto", "flat")):
        path = str(tmp_path / index)
        Gallery.build(people(10), index=index).save(path)
        gallery = Gallery.load(path)
        gallery.rebuild()
        assert gallery.index.kind == chosen
        monkeypatch.setattr("vif.retrieval.kinds.FLAT_ROWS", 5)
        gallery.rebuild()
        assert gallery.index.kind == "hnsw"
        monkeypatch.undo()


def test_a_file_that_was_cut_or_changed_is_named(folder):
    for path in files(folder):
        whole = Path(path).read_bytes()
        for torn in (whole[:-1], whole[:10], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
            Path(path).write_bytes(torn)
            with pytest.raises(DataError, match=f"{os.path.basename(path)}: not what was saved"):
                Gallery.load(folder)
            if len(torn) != len(whole):
                with pytest.raises(DataError, match=f"{os.path.basename(path)}: not what was saved"):
                    Gallery.load(folder, verify=False)
        os.unlink(path)
        with pytest.raises(DataError, match=f"{os.path.basename(path)}: cannot be read"):
            Gallery.load(folder)
        Path(path).write_bytes(whole)
    assert len(Gallery.load(folder)) == 300


def change_manifest(folder, **changes):
    path = Path(folder, "manifest.json")
    manifest = json.loads(path.read_text())
    manifest.update(changes)
    manifest = {name: value for name, value in manifest.items() if value is not None}
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "another"}, "not the manifest of a gallery"),
        ({"version": "../../elsewhere"}, "names files that no gallery has"),
        ({"version": None}, "names files that no gallery has"),
        ({"files": {"../../secret.npy": {"bytes": 1}}}, "names files that no gallery has"),
        ({"files": {"ids.npy/../../../secret.npy": {"bytes": 1}}}, "names files that no gallery has"),
        ({"files": None}, "names files that no gallery has"),
        ({"index": {"kind": "lsh"}}, "is not whole"),
        ({"indexed": 299}, "is not whole .*other vectors"),
        ({"dim": 17}, "is not whole"),
        ({"meta": None}, "is not whole"),
    ],
)
def test_a_manifest_of_something_else(folder, changes, message):
    change_manifest(folder, **changes)
    with pytest.raises(DataError, match=message):
        Gallery.load(folder)


def test_a_manifest_of_other_sizes_than_its_files(tmp_path):
    """Without an index, which would say so itself."""
    folder = str(tmp_path / "flat")
    Gallery.build(people(5)).save(folder)
    change_manifest(folder, dim=17)
    with pytest.raises(DataError, match="its files are of different sizes"):
        Gallery.load(folder)


def test_pickles_are_not_loaded(folder):
    path = next(path for path in files(folder) if path.endswith("paths.npy"))
    np.save(path, np.array([{}] * 300, dtype=object), allow_pickle=True)
    size, name = os.path.getsize(path), "paths.npy"
    content = {os.path.basename(p): {"bytes": os.path.getsize(p), "sha256": ""} for p in files(folder)}
    change_manifest(folder, files={**content, name: {"bytes": size, "sha256": ""}})
    with pytest.raises(DataError, match=r"paths.npy: cannot be read"):
        Gallery.load(folder, verify=False)
    Path(path).write_bytes(pickle.dumps(["a"] * 300))
    change_manifest(folder, files={**content, name: {"bytes": os.path.getsize(path), "sha256": ""}})
    with pytest.raises(DataError, match=r"paths.npy: cannot be read .*contain(s|ing) pickled"):
        Gallery.load(folder, verify=False)


def test_no_gallery(tmp_path):
    with pytest.raises(DataError, match="it has no manifest.json"):
        Gallery.load(str(tmp_path))
    (tmp_path / "manifest.json").write_text("not json")
    with pytest.raises(DataError, match="cannot be read as a gallery's manifest"):
        Gallery.load(str(tmp_path))
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(DataError, match="not the manifest of a gallery"):
        Gallery.load(str(tmp_path))


def test_a_folder_of_something_else_is_not_saved_to(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(DataError, match=r"is no gallery and not empty \('thesis.tex'\)"):
        Gallery.build(people(3)).save(str(tmp_path))
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match="not the manifest of a gallery"):
        Gallery.build(people(3)).save(str(tmp_path), overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "x"


def test_changes_of_another_process_are_not_lost(folder):
    ours, theirs = Gallery.load(folder), Gallery.load(folder)
    theirs.add(people(1, seed=1, prefix="b"))
    theirs.save()
    ours.add(people(2, seed=2, prefix="c"))
    with pytest.raises(DataError, match="something else saved there"):
        ours.save()
    assert len(Gallery.load(folder)) == 301
    ours.save(overwrite=True)
    assert len(Gallery.load(folder)) == 302
    assert len(theirs.search(people(1).features, k=1).ids) == 1  # its mapped files are gone, its data is not


def test_two_processes_do_not_save_at_once(folder):
    gallery = Gallery.load(folder)
    with open(os.path.join(folder, ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # the weakest: a save wants the folder for itself
        with pytest.raises(DataError, match="another process is saving"):
            gallery.save()
    gallery.save()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        Gallery.build(people(3)).save(str(tmp_path / "file" / "gallery"))


def test_a_save_that_fails_leaves_the_old_gallery_and_nothing_beside(folder, monkeypatch):
    """FAISS says RuntimeError where a disk is full, numpy OSError."""
    before = sorted(os.listdir(folder))
    gallery = Gallery.load(folder)
    gallery.add(people(1, seed=1, prefix="b"))

    errors = []

    def full(*arguments, **options):
        raise errors[-1](28, "No space left on device")

    for module, name, kind in (
        (import_faiss(), "write_index", RuntimeError),
        (np, "save", OSError),
        (store, "write_json", OSError),
        (os, "replace", OSError),
    ):
        errors.append(kind)
        monkeypatch.setattr(module, name, full)
        with pytest.raises(DataError, match="cannot be written: .*No space left.* is whole"):
            gallery.save()
        monkeypatch.undo()
        assert sorted(os.listdir(folder)) == before
        assert len(Gallery.load(folder)) == 300
    gallery.save()
    assert len(Gallery.load(folder)) == 301


def test_a_save_that_is_interrupted_once_it_counts_is_whole(folder, monkeypatch):
    gallery, write = Gallery.load(folder), store.write_json
    gallery.add(people(1, seed=1, prefix="b"))

    def interrupted(*arguments):
        write(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "write_json", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gallery.save()
    assert len(Gallery.load(folder)) == 301


@pytest.mark.parametrize("left", ["", '{"format": "vif-gal', "\udcff"])
def test_a_torn_manifest_is_replaced_on_demand_only(left, folder):
    Path(folder, "manifest.json").write_text(left, errors="surrogateescape")
    for call in (lambda: Gallery.load(folder), lambda: Gallery.build(people(3)).save(folder)):
        with pytest.raises(DataError, match=r"Restore it, or replace the gallery: `vif index --overwrite`"):
            call()
    Path(folder, "thesis.tex").write_text("x")
    with pytest.raises(DataError, match=r"is no gallery and not empty \('thesis.tex'\)"):
        Gallery.build(people(3)).save(folder, overwrite=True)
    Path(folder, "thesis.tex").unlink()
    Gallery.build(people(3)).save(folder, overwrite=True)
    assert len(Gallery.load(folder)) == 3
    assert len([name for name in os.listdir(folder) if name.startswith("v0")]) == 1


def test_a_gallery_that_is_replaced_while_it_is_read_is_read_again(folder, monkeypatch):
    read, turns = store._read_version, []

    def slow(path, manifest, verify):
        if not turns:
            turns.append(1)
            other = Gallery.load.__func__  # another process saves between the manifest and its files
            monkeypatch.setattr(store, "_read_version", read)
            gallery = other(Gallery, path)
            gallery.add(people(1, seed=1, prefix="b"))
            gallery.save()
        return read(path, manifest, verify)

    monkeypatch.setattr(store, "_read_version", slow)
    assert len(Gallery.load(folder)) == 301


def test_a_gallery_that_never_stands_still(folder, monkeypatch):
    versions = iter(range(100))
    manifest = store.read_manifest(folder)
    monkeypatch.setattr(store, "read_manifest", lambda path: {**manifest, "version": str(next(versions))})
    with pytest.raises(DataError, match="saved faster than it can be read"):
        Gallery.load(folder)


def test_an_empty_gallery(tmp_path):
    Gallery(8, "f").save(str(tmp_path / "g"))
    gallery = Gallery.load(str(tmp_path / "g"))
    assert len(gallery) == 0
    assert gallery.add(people(2, dim=8, meta={"fingerprint": "f"})).tolist() == [0, 1]


def test_columns_of_ones_own_come_back(tmp_path):
    gallery = Gallery.build(people(3), extra={"weather": ["sun", "", "rain"]}, times=[1.0, np.nan, 2.5])
    gallery.save(str(tmp_path / "g"))
    columns = Gallery.load(str(tmp_path / "g")).rows().columns
    assert columns["weather"].tolist() == ["sun", "", "rain"]
    np.testing.assert_array_equal(columns["times"], [1.0, np.nan, 2.5])
