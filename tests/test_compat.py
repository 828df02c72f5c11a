"""The bridge to fastreid: imports, devices, seeds, samplers, checkpoints."""

import collections
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from vif import compat
from fastreid.data.samplers import NaiveIdentitySampler
from fastreid.engine import defaults
from fastreid.modeling.meta_arch import baseline
from vif.errors import CheckpointError, ConfigError, DataError
from vif.weight_files import load_tensors

PACKAGE = Path(__file__).parents[1] / "projects" / "VIF"


@pytest.mark.parametrize("order", ["import vif, fastreid.config", "import fastreid.config, vif"])
def test_vif_imports_before_and_after_fastreids_config(order):
    code = (
        f"{order}\nimport fastreid.engine, fastreid.data, fastreid.evaluation\nprint(vif.VIFTrainer.__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(PACKAGE)},
        check=False,
    )
    assert done.stdout.strip() == "VIFTrainer", done.stderr


def test_no_old_name_stays_behind():
    assert "Mapping" not in vars(collections)  # Python 3.9 knows it all the same
    assert not hasattr(sys.modules.get("torch._six"), "container_abcs")  # torch 1.13 has the module
    if int(torch.__version__.split(".")[0]) >= 2:
        assert "torch._six" not in sys.modules


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_without_a_gpu_the_cpu_is_used_and_said_once(caplog):
    compat.process._SAID.clear()
    with caplog.at_level("WARNING"):
        assert compat.resolve_device("cuda") == "cpu"
        assert compat.resolve_device("cuda") == "cpu"
    assert [r.message for r in caplog.records] == [
        'MODEL.DEVICE is "cuda" and this machine has no usable GPU: running on the CPU'
    ]
    assert compat.resolve_device("cpu") == "cpu"


def test_one_seed_gives_the_same_numbers_everywhere():
    import random

    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    compat.seed_everything(7)
    first = draw()
    assert compat.seed_everything(7) == 7
    assert draw() == first
    assert compat.seed_everything(-1) >= 0
    with pytest.raises(ConfigError, match="SEED=4294967296 is too large"):
        compat.seed_everything(2**32)


def items(ids=6, images=8):
    return [(f"{i}_{k}.jpg", i, k % 3) for i in range(ids) for k in range(images)]


def test_private_random_gives_the_samplers_own_indices_and_leaves_the_global_state():
    plain = iter(NaiveIdentitySampler(items(), 8, 4, seed=3))
    expected = [int(next(plain)) for _ in range(100)]
    private = iter(compat.PrivateRandom(NaiveIdentitySampler(items(), 8, 4, seed=3), chunk=7))
    found = []
    np.random.seed(11)
    for _ in range(100):
        found.append(next(private))
        np.random.rand(5)  # somebody else draws, which must not matter
    assert found == expected
    np.random.seed(11)
    undisturbed = np.random.rand(501)[-1]
    np.random.seed(11)
    private = iter(compat.PrivateRandom(NaiveIdentitySampler(items(), 8, 4, seed=3)))
    np.random.rand(500)
    next(private)
    assert np.random.rand() == undisturbed


def test_private_random_leaves_torchs_global_state_too():
    class Draws:  # as fastreid's ImbalancedDatasetSampler does, from the global state
        def __iter__(self):
            while True:
                yield int(torch.randint(10**6, (1,)))

    def first(seed):
        torch.manual_seed(seed)
        private = iter(compat.PrivateRandom(Draws(), chunk=2, seed=7))
        indices = [next(private) for _ in range(5)]
        return indices, torch.rand(1).item()

    torch.manual_seed(3)
    undisturbed = torch.rand(1).item()
    assert first(3)[1] == undisturbed
    assert first(4)[0] == first(3)[0]


def test_private_random_ends_with_a_finite_sampler():
    assert list(compat.PrivateRandom(range(10), chunk=4)) == list(range(10))


def test_engine_uses_the_bridged_classes():
    assert defaults.Checkpointer is compat.checkpointer.Checkpointer
    assert defaults.AMPTrainer is compat.step.AMPTrainer
    assert defaults.SimpleTrainer is compat.step.StepTrainer


def test_installing_again_changes_nothing():
    def in_place():
        names = ("AMPTrainer", "Checkpointer", "DistributedDataParallel", "SimpleTrainer", "build_model")
        methods = (vars(defaults.DefaultTrainer)[name] for name in ("build_train_loader", "test"))
        losses = (getattr(baseline, name) for name in compat.losses.NAMES)
        return [*(getattr(defaults, name) for name in names), *methods, *losses, baseline.Baseline.forward]

    before = in_place()
    compat.install()
    assert all(now is then for now, then in zip(in_place(), before))


def test_checkpoint_round_trip_and_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    model = torch.nn.Linear(3, 2)
    checkpointer = defaults.Checkpointer(model, str(tmp_path))
    checkpointer.save("model_final", epoch=4)
    other = torch.nn.Linear(3, 2)
    extra = defaults.Checkpointer(other, str(tmp_path)).load(str(tmp_path / "model_final.pth"))
    assert extra == {"epoch": 4}
    assert torch.equal(other.weight, model.weight)
    before = (tmp_path / "model_final.pth").read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(CheckpointError, match=r"model_final.pth could not be written: disk full"):
        checkpointer.save("model_final", epoch=5)
    assert (tmp_path / "model_final.pth").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_final.pth"]


class Code:
    def __reduce__(self):
        return (print, ("this code ran",))


def test_a_file_with_code_in_it_is_refused_and_nothing_runs(tmp_path, capsys):
    path = tmp_path / "evil.pth"
    torch.save({"model": Code()}, path)
    with pytest.raises(DataError, match=r"evil.pth holds pickled code"):
        load_tensors(str(path))
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Code()))
    with pytest.raises(DataError, match=r"raw.pth"):
        load_tensors(str(tmp_path / "raw.pth"))
    assert capsys.readouterr().out == ""


def test_torn_and_missing_weights_are_named(tmp_path):
    torch.save({"model": {"w": torch.zeros(1000)}}, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "torn.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.pth").write_bytes(b"")
    for name in ("torn.pth", "empty.pth"):
        with pytest.raises(DataError, match=name):
            load_tensors(str(tmp_path / name))
    with pytest.raises(DataError, match=r"none.pth does not exist; check MODEL.WEIGHTS"):
        load_tensors(str(tmp_path / "none.pth"))
