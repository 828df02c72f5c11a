"""Weights in: files of every kind, and what is refused."""

import pickle
import re
import sys
from argparse import Namespace
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from vif.errors import DataError
from vif.weight_files import load_tensors, read_weights
from vif.weights import load_weights

from tests.small_networks import Network, same, vit


def in_model(tensors):
    return {"model": tensors, "optimizer": {"state": {}}, "epoch": 3}


FORMATS = {
    "bare": lambda t: t,
    "model": in_model,
    "state_dict": lambda t: {"state_dict": t, "epoch": 3},
    "both": lambda t: {"model": {"state_dict": t}},
    "teacher": lambda t: {"student": {"x": torch.zeros(1)}, "teacher": t},
    "effnet": lambda t: {"model_state": t},
    "module.": lambda t: {f"module.{k}": v for k, v in t.items()},
    "model + module.": lambda t: in_model({f"module.{k}": v for k, v in t.items()}),
    "backbone.": lambda t: {f"backbone.{k}": v for k, v in t.items()},
    "compiled": lambda t: {f"_orig_mod.module.backbone.{k}": v for k, v in t.items()},
    "open_clip with a plain trunk": lambda t: {f"visual.trunk.{k}": v for k, v in t.items()},
}


@pytest.mark.parametrize("ending", ["pth", "pt", "bin", "safetensors"])
@pytest.mark.parametrize("wrap", FORMATS)
def test_every_format_gives_the_same_backbone(wrap, ending, tmp_path):
    source, target = vit(32, 16, seed=1), vit(32, 16, seed=2)
    content, path = FORMATS[wrap](source.state_dict()), str(tmp_path / f"file.{ending}")
    if ending != "safetensors":
        torch.save(content, path)
    elif all(isinstance(value, torch.Tensor) for value in content.values()):
        save_file(content, path)
    else:
        pytest.skip("a .safetensors file holds no wrappers")
    report = load_weights(target, read_weights(path))
    same(target.state_dict(), source.state_dict())
    assert (report.left_out, report.missing, report.resized) == ({}, [], {})
    assert report.loaded == list(source.state_dict())
    whole = Network(vit(32, 16, seed=3))
    load_weights(whole, read_weights(path))
    same(whole.backbone.state_dict(), source.state_dict())


@pytest.mark.parametrize("zipped", [True, False])
def test_a_trainers_checkpoint_is_read_in_both_formats_of_torch(zipped, tmp_path):
    """Floats, tuples and words beside the tensors, as optimizers and schedulers have them."""
    rest = {
        "optimizer": {"lr": 0.1, "betas": (0.9, 0.999), "on": True, "name": "x"},
        "epoch": 3,
        "none": None,
    }
    tensors = {"a": torch.ones(2), "half": torch.ones(2).half(), "count": torch.tensor(7)}
    state = OrderedDict(tensors, parameter=nn.Parameter(torch.ones(1)))
    torch.save({"model": state, **rest}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    found = read_weights(str(tmp_path / "a.pth"))
    same({key: found.tensors[key] for key in tensors}, tensors)
    assert found.rest == rest


class Code:
    def __reduce__(self):
        return (print, ("this code ran",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "code.pth",
            {"model": Code()},
            r"code.pth holds pickled code \([\w.]*print\), and is not read: loading it could "
            r"run anything. Where you trust it, take its tensors out: `torch.save\(torch.load\(path, 'cpu', "
            r"weights_only=False\)\['model'\], 'weights.pth'\)`, with the key under which",
        ),
        ("module.pth", nn.Linear(2, 2), r"module.pth holds pickled code \(torch.nn.modules.linear.Linear\)"),
        ("args.pth", {"args": Namespace()}, r"args.pth holds pickled code \(argparse.Namespace\)"),
        ("empty.pth", {}, r"empty.pth holds no tensors by name but: dict\. A state dict is needed"),
        ("wrapped.pth", {"model": {}}, r"wrapped.pth holds no tensors by name"),
        ("list.pth", [torch.zeros(2)], r"list.pth holds no tensors by name but: list"),
        ("numbers.pth", {"model": {"lr": 0.1, "step": 3}}, r"holds no tensors by name but: lr, step"),
        ("tensor.pth", torch.zeros(2), r"holds no tensors by name but: Tensor"),
    ],
)
def test_a_file_without_tensors_by_name_is_refused(name, content, message, tmp_path, capsys):
    torch.save(content, tmp_path / name)
    with pytest.raises(DataError, match=message):
        read_weights(str(tmp_path / name))
    assert "this code ran" not in capsys.readouterr().out


def test_a_file_that_is_refused_for_its_code_gives_its_tensors_as_the_message_says(tmp_path):
    path, tensors = tmp_path / "args.pth", {"a": torch.ones(2)}
    torch.save({"model": tensors, "args": Namespace(lr=0.1)}, path)
    with pytest.raises(DataError, match=r"`torch.save\(torch.load") as refused:
        read_weights(str(path))
    line = re.search("`(.*)`", str(refused.value))[1]
    target = tmp_path / "w.pth"
    exec(line.replace("'weights.pth'", "target"), {"torch": torch, "path": path, "target": target})
    same(read_weights(str(target)).tensors, tensors)


def test_torn_files_and_noise_are_refused_by_name(tmp_path, capsys):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "whole.pth")
    torch.save({"a": torch.zeros(1000)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file({"a": torch.zeros(1000)}, tmp_path / "whole.safetensors")
    rng = np.random.default_rng(0)
    for name in ("whole.pth", "old.pth", "whole.safetensors"):
        content = (tmp_path / name).read_bytes()
        for length in (0, 1, 9, len(content) // 2, len(content) - 1):
            path = tmp_path / f"torn{length}.{name.split('.')[1]}"
            path.write_bytes(content[:length])
            with pytest.raises(DataError, match=path.name):
                read_weights(str(path))
    for length in range(1, 60):
        (tmp_path / "noise.pth").write_bytes(rng.bytes(length))
        with pytest.raises(DataError, match="noise.pth"):
            load_tensors(str(tmp_path / "noise.pth"))
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Code()))
    with pytest.raises(DataError, match="raw.pth"):
        load_tensors(str(tmp_path / "raw.pth"))
    assert "this code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["none.pth", "none.safetensors"])
def test_a_missing_file_says_which_keys_to_check(name, tmp_path):
    with pytest.raises(DataError, match=rf"{name} does not exist; check MODEL.WEIGHTS or .*PRETRAIN_PATH"):
        read_weights(str(tmp_path / name))


def test_torchscript_is_refused_with_the_way_out(tmp_path):
    path = str(tmp_path / "clip.pt")
    torch.jit.script(nn.Linear(2, 2)).save(path)
    with pytest.raises(DataError, match=r"clip.pt is a TorchScript archive, .*torch.jit.load\(path, 'cpu'\)"):
        read_weights(path)
    torch.save(torch.jit.load(path, "cpu").state_dict(), tmp_path / "weights.pth")  # as the message says
    assert set(read_weights(str(tmp_path / "weights.pth")).tensors) == {"weight", "bias"}


def test_without_safetensors_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(DataError, match="a.safetensors needs the package .*`pip install safetensors`"):
        read_weights(str(tmp_path / "a.safetensors"))
