import json
import os

import numpy as np
import pytest
from vif.errors import DataError
from vif.features import FeatureTable

ENDINGS = (".npz", ".safetensors")


def columns(count=5, dim=3):
    rng = np.random.default_rng(0)
    return {
        "features": rng.standard_normal((count, dim)).astype(np.float32),
        "pids": np.arange(count) + 6021400,
        "camids": np.arange(count) % 3,
        "views": np.array(["aerial", "ground", "aerial", "cctv", "ground"])[:count],
        "paths": np.array(["c/1.jpg", "b/2.jpg", "ä/3.jpg", "a/long name, 4.jpg", "5.jpg"])[:count],
        "splits": np.array(["query", "gallery", "query,gallery", "gallery@A2C", "query"])[:count],
        "meta": {"dataset": "CARGO", "config": "{\n}"},
    }


def assert_same(a, b):
    assert set(a.__dict__) == set(b.__dict__)
    for name, value in a.__dict__.items():
        if name == "meta":
            assert value == b.meta
        else:
            np.testing.assert_array_equal(value, getattr(b, name))
            assert value.dtype.kind == getattr(b, name).dtype.kind


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("count", [5, 0])
def test_round_trip(tmp_path, ending, count):
    if ending == ".safetensors":
        pytest.importorskip("safetensors")
    table = FeatureTable(**columns(count))
    path = str(tmp_path / f"features{ending}")
    table.save(path)
    table.save(path)  # over itself
    loaded = FeatureTable.load(path)
    assert_same(loaded, table)
    assert [a.dtype for a in (loaded.features, loaded.pids, loaded.camids)] == [
        np.float32,
        np.int64,
        np.int64,
    ]
    assert os.listdir(tmp_path) == [f"features{ending}"]
    assert os.stat(path).st_mode & 0o444 == 0o444 & ~current_umask()


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("version", ["vif-features-2", "pt"])
def test_a_later_format_is_refused_and_another_librarys_word_is_not(ending, version, tmp_path, monkeypatch):
    if ending == ".safetensors":
        pytest.importorskip("safetensors")
    table, path = FeatureTable(**columns()), str(tmp_path / f"f{ending}")
    with monkeypatch.context() as later:
        later.setattr("vif.features._FORMAT", version)
        table.save(path)
    if version == "pt":
        assert_same(FeatureTable.load(path), table)
    else:
        with pytest.raises(DataError, match=f"{path}: is of the format vif-features-2, .* update vif"):
            FeatureTable.load(path)


def test_table_of_another_code_base(tmp_path):
    # What docs/features.md promises: plain arrays, any widths, no meta, no format.
    path = str(tmp_path / "theirs.npz")
    np.savez(
        path,
        features=np.ones((2, 4), np.float16),
        pids=np.array([1, 2], np.int32),
        camids=np.array([0, 1], np.uint8),
        views=["aerial", "ground"],
        paths=["0", "1"],
        splits=["query", "gallery"],
        something_else=np.zeros(3),
    )
    table = FeatureTable.load(path)
    assert (table.features.dtype, table.pids.dtype, table.camids.dtype) == (np.float32, np.int64, np.int64)
    assert table.meta == {}


def test_no_pickles(tmp_path):
    path = str(tmp_path / "bad.npz")
    parts = columns()
    parts["views"] = np.array(parts["views"], dtype=object)
    np.savez(path, **parts)
    with pytest.raises(DataError, match=r"bad.npz: not a readable .npz of plain arrays \(Object arrays"):
        FeatureTable.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = str(tmp_path / "features.npz")
    table = FeatureTable(**columns())
    table.save(path)

    def interrupted(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        table.save(path)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["features.npz"]
    assert_same(FeatureTable.load(path), table)


def test_rows():
    table = FeatureTable(**columns())
    assert table.rows("query").tolist() == [0, 2, 4]
    assert table.rows("query", "aerial").tolist() == [0, 2]
    assert table.rows("gallery").tolist() == [1, 2]  # not gallery@A2C
    assert table.rows("gallery@A2C").tolist() == [3]
    assert table.rows("train").tolist() == []
    assert table.rows("query", "wearable").tolist() == []
    assert table.rows("query").dtype == np.int64
    assert table.split_names() == {"gallery": 2, "gallery@A2C": 1, "query": 3}


def test_by_path():
    table = FeatureTable(**columns()).by_path()
    assert table.paths.tolist() == sorted(columns()["paths"].tolist())
    assert table.pids.tolist() == [6021404, 6021403, 6021401, 6021400, 6021402]
    assert table.views.tolist() == ["ground", "cctv", "ground", "aerial", "aerial"]
    assert table.meta == columns()["meta"]


WRONG = {
    "one dimension": (
        {"features": np.zeros(5)},
        r"features: expected \(N, D\) floats, got shape \(5,\) of float64",
    ),
    "integers": ({"features": np.zeros((5, 2), int)}, r"features: .* got shape \(5, 2\) of int64"),
    "length": ({"pids": np.arange(4)}, r"pids: expected 5 values, one a feature row, got shape \(4,\)"),
    "splits": ({"splits": np.array("query")}, r"splits: expected 5 values, .* got shape \(\)"),
    "floats": ({"camids": np.zeros(5)}, "camids: expected integers, got float64"),
    "numbers": ({"views": np.zeros(5, int)}, "views: expected text, got int64"),
    "objects": ({"paths": np.array(list("abcde"), dtype=object)}, "paths: expected text, got object"),
    "meta": ({"meta": {"epoch": 3}}, "meta: expected text by name, got {'epoch': 3}"),
    "repeats": (
        {"paths": np.array(list("abcbb"))},
        "paths: 2 of 5 rows repeat an image, such as 'b'. Keep one row",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors(case):
    change, message = WRONG[case]
    with pytest.raises(DataError, match=message):
        FeatureTable(**{**columns(), **change})


def test_file_errors(tmp_path):
    table = FeatureTable(**columns())
    with pytest.raises(DataError, match=r"feature files end in .npz or .safetensors, not in '.pkl'"):
        table.save(str(tmp_path / "features.pkl"))
    with pytest.raises(DataError, match=r"feature files end in .npz or .safetensors, not in ''"):
        FeatureTable.load(str(tmp_path / "features"))
    with pytest.raises(DataError, match=r"no folder '.*nowhere'. Create it first"):
        table.save(str(tmp_path / "nowhere" / "features.npz"))
    with pytest.raises(
        DataError, match=r"there is no feature file '.*missing.npz'. Write it with `vif extract`"
    ):
        FeatureTable.load(str(tmp_path / "missing.npz"))

    path = tmp_path / "some.npz"
    np.savez(
        path, **{name: value for name, value in columns().items() if name not in ("views", "meta", "pids")}
    )
    with pytest.raises(DataError, match=r"some.npz: lacks pids, views; docs/features.md"):
        FeatureTable.load(str(path))
    np.savez(path, **{**columns(), "pids": np.arange(4), "meta": np.array("{}")})
    with pytest.raises(DataError, match=r"some.npz: pids: expected 5 values"):
        FeatureTable.load(str(path))


@pytest.mark.parametrize("ending", ENDINGS)
def test_truncated_file(tmp_path, ending):
    if ending == ".safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / f"cut{ending}"
    FeatureTable(**columns()).save(str(path))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=rf"cut{ending}: not a readable {ending}"):
        FeatureTable.load(str(path))


def test_safetensors_is_optional(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors.numpy", None)
    with pytest.raises(DataError, match=r".safetensors files need `pip install safetensors`"):
        FeatureTable(**columns()).save(str(tmp_path / "features.safetensors"))
    assert os.listdir(tmp_path) == []


def test_safetensors_layout(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    parts = columns()
    path = str(tmp_path / "theirs.safetensors")
    tensors = {name: parts[name] for name in ("features", "pids", "camids")}
    words = {name: json.dumps(parts[name].tolist()) for name in ("views", "paths", "splits")}
    numpy.save_file(tensors, path, metadata=words)
    parts["meta"] = {}
    assert_same(FeatureTable.load(path), FeatureTable(**parts))
    numpy.save_file(tensors, path)
    with pytest.raises(DataError, match="lacks views, paths, splits"):
        FeatureTable.load(path)
