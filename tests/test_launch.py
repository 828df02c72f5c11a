"""How a process learns its place, and what is refused before any process waits for another."""

import socket
import types

import numpy as np
import pytest
import torch
from fastreid.data import samplers
from fastreid.utils import comm
from vif.data.build import _build_sampler, check_batch
from vif.errors import ConfigError, ProcessError
from vif.evaluation.extract_file import extract_file
from vif.processes import launch
from vif.processes.place import find_place, first_host

from tests.tiny import tiny_cfg

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "GROUP_RANK": "1",
    "MASTER_ADDR": "here",
    "MASTER_PORT": "5",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}
SRUN = {
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "gpu[01-04,07]",
    "SLURM_JOB_ID": "12345",
    "SLURM_STEP_ID": "6",
}


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu[01-04,07]", "gpu01"),
        ("gpu[3,5-9]", "gpu3"),
        ("login", "login"),
        ("a1,b[2-3]", "a1"),
        ("rack[1-2]n[03-05],x", "rack1n03"),
        ("n[007]-ib.site.org,z", "n007-ib.site.org"),
    ],
)
def test_the_first_host_of_slurms_lists(nodes, first):
    assert first_host(nodes) == first


def test_torchruns_variables_give_the_place():
    place = find_place(TORCHRUN)
    assert (place.rank, place.world_size, place.local_rank, place.node) == (3, 4, 1, 1)
    assert (place.host, place.port, place.serves) == ("here", 5, False)
    assert (place.own_gpu, place.attempt) == (False, 0)
    assert find_place({**TORCHRUN, "TORCHELASTIC_RESTART_COUNT": "2"}).attempt == 2
    without_agent = {**TORCHRUN, "RANK": "0", "TORCHELASTIC_USE_AGENT_STORE": "False"}
    assert find_place(without_agent).serves
    assert not find_place({**without_agent, "RANK": "1"}).serves


def test_sruns_variables_give_the_place():
    place = find_place(SRUN)
    assert (place.rank, place.world_size, place.local_rank, place.node) == (2, 4, 0, 1)
    assert (place.host, place.port, place.serves) == ("gpu01", 20000 + 12351 % 12000, False)
    assert place.own_gpu
    other_step = find_place({**SRUN, "SLURM_STEP_ID": "7"})
    assert other_step.port == place.port + 1
    named = find_place({**SRUN, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "77"})
    assert (named.host, named.port) == ("10.0.0.1", 77)


def test_one_process_is_alone_whatever_a_batch_job_has_reserved():
    assert find_place({}) is None
    assert find_place({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"}) is None
    assert find_place({**SRUN, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}) is None
    assert find_place({"RANK": "0", "WORLD_SIZE": "1"}) is None


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"RANK": "0"}, "has RANK and lacks WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "lacks LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
        ({**TORCHRUN, "RANK": "4"}, "has rank 4, and there are 4 processes"),
        ({**TORCHRUN, "RANK": "x"}, "RANK='x' is no number"),
        ({k: v for k, v in SRUN.items() if "NODELIST" not in k}, "set MASTER_ADDR to the first host"),
    ],
)
def test_an_environment_that_cannot_be_is_refused(env, message):
    with pytest.raises(ProcessError, match=message):
        find_place(env)


def test_spawning_under_a_launcher_is_refused(monkeypatch):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="--num-gpus 2 would spawn processes in each of 4"):
        launch.launch(print, (), device="cpu", processes=2)
    with pytest.raises(ProcessError, match="vif extract runs in one process"):
        extract_file(None, "SynthAG", "x.npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"machines": 2}, "--dist-url auto finds a port on one machine"),
        ({"machines": 2, "machine_rank": 2}, "ranks go from 0 to 1"),
        ({"url": "file:///tmp/x"}, "give tcp://HOST:PORT"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        launch.launch(print, (), device="cpu", **{"processes": 2, **arguments})


def test_a_port_that_is_taken_is_named():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ProcessError, match=f"port {port} cannot be opened"):
            launch.launch(print, (), device="cpu", processes=2, url=f"tcp://127.0.0.1:{port}")


def test_each_process_needs_a_gpu_of_its_own(monkeypatch):
    assert not launch.check_gpus("cpu", 9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert launch.check_gpus("cuda", 2)
    with pytest.raises(ProcessError, match="3 processes on this machine need a GPU each, and it shows 2"):
        launch.check_gpus("cuda", 3)
    with pytest.raises(ConfigError, match="'cuda:1' names one GPU for several processes"):
        launch.check_gpus("cuda:1", 2)


@pytest.mark.parametrize(
    ("batch", "instances", "sampler", "message"),
    [
        (
            7,
            1,
            "TrainingSampler",
            "IMS_PER_BATCH=7, the batch of all .* divide among 2; take 6",
        ),
        (12, 4, "NaiveIdentitySampler", "among 2 with 4 images of an identity each .* take 8"),
        (4, 4, "BalancedIdentitySampler", "take 8"),
    ],
)
def test_a_batch_that_processes_cannot_share_is_refused(batch, instances, sampler, message, tmp_path):
    opts = ("DATALOADER.NUM_INSTANCE", instances, "DATALOADER.SAMPLER_TRAIN", sampler)
    cfg = tiny_cfg("SynthAG/vif.yml", tmp_path, "SOLVER.IMS_PER_BATCH", batch, *opts)
    check_batch(cfg, 1)
    with pytest.raises(ConfigError, match=message):
        check_batch(cfg, 2)


SAMPLERS = ("NaiveIdentitySampler", "BalancedIdentitySampler", "TrainingSampler")


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_give_the_images_of_one_process_to_all(name, tmp_path, monkeypatch):
    items = [(f"{pid}_{cam}.jpg", pid, cam) for pid in range(9) for cam in range(5)]
    cfg = tiny_cfg("SynthAG/vif.yml", tmp_path, "DATALOADER.SAMPLER_TRAIN", name)

    def drawn():
        return [int(i) for i, _ in zip(_build_sampler(cfg, items), range(96))]

    # fastreid's own, as it is where there is one process
    batch, instances = cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE
    own = getattr(samplers, name)
    own = own(len(items), seed=1) if name == "TrainingSampler" else own(items, batch, instances, seed=1)
    expected = [int(i) for i, _ in zip(own, range(96))]
    assert drawn() == expected
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        np.random.seed(rank)
        assert drawn() == expected


def test_a_sampler_that_draws_otherwise_in_each_process_is_refused(tmp_path, monkeypatch):
    items = [("a", 0, 0), ("b", 1, 1)]
    cfg = tiny_cfg("SynthAG/vif.yml", tmp_path, "DATALOADER.SAMPLER_TRAIN", "ImbalancedDatasetSampler")
    assert {int(i) for i, _ in zip(_build_sampler(cfg, items), range(50))} == {0, 1}
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    with pytest.raises(ConfigError, match="processes would not share one batch"):
        _build_sampler(cfg, items)


def test_a_sampler_of_fastreids_that_never_gives_a_batch_is_refused(tmp_path):
    cfg = tiny_cfg("SynthAG/vif.yml", tmp_path, "DATALOADER.SAMPLER_TRAIN", "SetReWeightSampler")
    with pytest.raises(ConfigError, match="never completes a batch"):
        _build_sampler(cfg, [("a", 0, 0), ("b", 0, 1)])


def test_a_process_that_saves_is_waited_for_when_all_are_told_to_end():
    events = []

    def main():
        raise SystemExit(75)

    watch = types.SimpleNamespace(leave=lambda within: events.append(within), failed=events.append)
    with pytest.raises(SystemExit, match="75"):
        launch.work(watch, main, ())
    assert events == [30]
