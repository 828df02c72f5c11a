"""What differs between the fastreids that people have: release 1.3.0, forks with names of their own."""

import collections
import functools
import sys

import vif
import pytest
import torch
from vif import compat
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from fastreid.modeling.meta_arch.baseline import Baseline
from fastreid.solver import build as solver
from fastreid.utils.registry import Registry
from vif.data.build import find_dataset

from tests import fake_trees
from tests.systems import small_cfg
from tests.tiny import tiny_cfg


def test_the_names_that_1_3_0_imports_are_there_while_it_is_imported():
    before = sys.modules.get("torch._six")
    with compat.old_names():
        six = sys.modules["torch._six"]
        assert issubclass(dict, six.container_abcs.Mapping)
        assert isinstance(3, six.int_classes)
        assert isinstance("", six.string_classes)
        assert issubclass(dict, vars(collections)["Mapping"])
    assert sys.modules.get("torch._six") is before
    assert "Mapping" not in vars(collections)
    assert not hasattr(before, "container_abcs")


def test_the_optimizer_of_1_3_0_comes_alone_and_freezes_by_whole_names(tmp_path, monkeypatch):
    """1.3.0's build_optimizer(cfg, model): no flat buffers, so no parameter wrapper."""
    seen = []

    def build_optimizer(cfg, model):
        seen.append(cfg.MODEL.FREEZE_LAYERS)
        return torch.optim.Adam(model.parameters(), lr=1e-3)

    monkeypatch.setattr(solver, "build_optimizer", build_optimizer)
    cfg = tiny_cfg("CARGO/vif.yml", tmp_path, "MODEL.FREEZE_LAYERS", ["backbone"])
    cfg.defrost()
    cfg.SOLVER.OPT, cfg.SOLVER.AMSGRAD = "Adam", True
    built = vif.VIFTrainer.build_optimizer(cfg, torch.nn.Linear(2, 2))
    assert built.param_groups[0]["amsgrad"]
    assert seen == [["backbone"]]
    simple = compat.step.StepTrainer.__mro__[1]
    monkeypatch.setattr(simple, "__init__", lambda self, model, loader, optimizer: None)
    compat.step.AMPTrainer(torch.nn.Linear(2, 2), None, built)  # no wrapper there either


@pytest.fixture
def shop():
    """A registry whose host has a "Cargo"; VIF's comes second."""
    registry = Registry("SHOP")

    class Cargo:
        __module__ = "fork.datasets"

    theirs = Cargo
    registry.register(theirs)

    @compat.register(registry)
    class Cargo:
        pass

    yield registry, theirs, Cargo
    compat.entries._SECOND.clear()


def test_a_name_that_the_host_has_means_vifs_in_vifs_hands_and_is_said_once(shop, caplog):
    registry, theirs, ours = shop
    compat.process._SAID.clear()
    for _ in range(2):
        assert registry.get("Cargo") is theirs
        with compat.own_entry(registry, "Cargo"):
            assert registry.get("Cargo") is ours
    assert [r.message for r in caplog.records] == [
        "the fastreid at hand has a 'Cargo' of its own (fork.datasets). For VIF's trainer and commands "
        f"the name means VIF's ({__name__}); fastreid's own trainer keeps the other one"
    ]
    with pytest.raises(ZeroDivisionError), compat.own_entry(registry, "Cargo"):
        raise ZeroDivisionError
    assert registry.get("Cargo") is theirs


def test_names_of_vif_alone_are_registered_as_ever(shop, caplog):
    registry, _, _ = shop

    @compat.register(registry)
    class Ship:
        pass

    compat.register(registry)(Ship)  # again: nothing changes
    with compat.own_entry(registry, "Ship"), compat.own_entry(registry, "Nothing"):
        assert registry.get("Ship") is Ship
    assert caplog.records == []


def test_a_baseline_that_asks_for_cameras_takes_plain_images():
    class Forked(torch.nn.Module):
        def forward(self, batch):
            seen.append(batch["camids"])
            return batch["images"]

    seen = []
    assert "camids" in Forked.forward.__code__.co_consts  # how `install` knows it
    assert "camids" not in Baseline.forward.__code__.co_consts
    forked, images, cameras = Forked(), torch.zeros(2), torch.ones(2)
    forked.forward = functools.partial(compat.without_cameras(Forked.forward), forked)
    assert forked({"images": images}) is images
    assert forked({"images": images, "camids": cameras}) is images
    assert seen == [None, cameras]
    with pytest.raises(IndexError):
        forked(images)  # a tensor is passed on as it is


@pytest.mark.parametrize("name", ["CARGO", "PCB"])
def test_data_sets_and_systems_of_a_fork_stay_for_its_own_trainer(name, tmp_path, monkeypatch):
    registry = DATASET_REGISTRY if name == "CARGO" else META_ARCH_REGISTRY
    ours = registry.get(name)
    monkeypatch.setitem(compat.entries._SECOND, (registry._name, name), ours)
    monkeypatch.setitem(registry._obj_map, name, type(name, (), {"__module__": "fork"}))
    fake_trees.make_cargo(tmp_path, ids=2)
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    cfg = small_cfg("CARGO/pcb.yml", tmp_path, "MODEL.HEADS.NUM_CLASSES", 2)
    found = find_dataset(cfg, "CARGO") if name == "CARGO" else vif.VIFTrainer.build_model(cfg)
    assert type(found) is ours
    assert registry.get(name).__module__ == "fork"
