"""Evaluation does not depend on the number of processes, also when the images do not divide evenly."""

import json

import vif
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from fastreid.utils import comm

from tests import fake_trees
from tests.tiny import tiny_cfg


def evaluate(rank, world, port, output):
    if world > 1:
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
        comm._LOCAL_PROCESS_GROUP = dist.group.WORLD
    torch.set_num_threads(1)
    cfg = tiny_cfg("SynthAG/vif.yml", f"{output}/{world}", "TEST.IMS_PER_BATCH", 8)
    torch.manual_seed(0)
    vif.VIFTrainer.test(cfg, vif.VIFTrainer.build_model(cfg))
    if world > 1:
        dist.destroy_process_group()


def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.parametrize("world", [2, 3])
def test_tables_of_one_and_several_processes_are_the_same(world, tmp_path, monkeypatch):
    fake_trees.make_synthag(tmp_path / "data", ids=4)
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "data"))
    (next((tmp_path / "data" / "SynthAG" / "gallery").rglob("*.jpg"))).unlink()  # 59: no even share
    evaluate(0, 1, 0, tmp_path)
    mp.start_processes(evaluate, (world, free_port(), str(tmp_path)), nprocs=world, start_method="spawn")
    tables = [json.loads((tmp_path / str(n) / "results.json").read_text()) for n in (1, world)]
    assert tables[0] == tables[1]
