"""What several processes compute is what one computes: losses, gradients, statistics, training, tables.

Each group of processes starts once and does everything; the tests compare what it left with one process.
"""

import json
import socket

import vif
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from fastreid.layers.batch_norm import get_norm
from fastreid.modeling.losses import triplet_loss
from fastreid.utils import comm
from torch import nn
from vif.compat import distributed
from vif.compat.distributed import data_parallel, sync_norm_on_cpu
from vif.evaluation.extract import extract_table
from vif.modeling.losses import Gathered, VIALLoss, batch_triplet_loss, gather
from vif.processes.launch import WAITING, group
from vif.processes.place import Place

from tests import fake_trees
from tests.tiny import tiny_cfg

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5}
LOSSES = {
    "vial": VIALLoss(),
    "hard": batch_triplet_loss,
    "weighted": lambda f, t: batch_triplet_loss(f, t, hard=False, margin=0.3),
    "fastreid": lambda f, t: triplet_loss(f, t, 0.0, True, True),
}
EXACT = (  # with these, several processes train as one
    *("MODEL.HEADS.NORM", "syncBN", "MODEL.LOSSES.VIAL.GATHER", True, "MODEL.LOSSES.TRI.GATHER", True),
    # with fewer iterations of warm-up, the learning rate is the shipped one from the start
    *("SOLVER.IMS_PER_BATCH", 12, "SOLVER.WARMUP_ITERS", 0, "TEST.CONFIDENCE", 0.0),
)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def network(dtype):
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6)).to(dtype)


def images(dtype):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(12, 5, generator=generator).to(dtype), torch.arange(12) // 2 % 4


def part(x):
    size = len(x) // comm.get_world_size()
    return x[comm.get_rank() * size : (comm.get_rank() + 1) * size]


def one_loss(name, dtype):
    """Value and gradients of a loss over all 12 images, shared between the processes there are."""
    model = network(dtype)
    x, targets = images(dtype)
    wrapped = data_parallel(model) if comm.get_world_size() > 1 else model
    loss = Gathered(LOSSES[name])(wrapped(part(x)), part(targets))
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters())]


def one_norm(shape):
    """Output, gradients and running statistics of syncBN after two batches, all images."""
    norm = sync_norm_on_cpu(get_norm("syncBN", shape[1]).double())
    norm.weight.data.copy_(torch.linspace(0.5, 2, shape[1]))
    wrapped = data_parallel(norm) if comm.get_world_size() > 1 else norm
    generator = torch.Generator().manual_seed(4)
    for _ in range(2):
        x = torch.randn(*shape, generator=generator, dtype=torch.float64) * 3 + 5
        weight = torch.randn(*shape, generator=generator, dtype=torch.float64)
        mine = part(x).clone().requires_grad_()
        norm.zero_grad()
        out = wrapped(mine)
        (out * part(weight)).sum().mul(comm.get_world_size() / 12).backward()
    scale = 1 / comm.get_world_size()  # of a mean over all images, as DDP has it
    shared = [torch.cat(comm.all_gather(t)) for t in (out.detach(), mine.grad * scale)]
    return [*shared, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]


def uneven():
    """Gathering of 1, 2, ... rows a process: what all see, and the gradient of the first process's rows."""
    rank = comm.get_rank()
    mine = torch.full((rank + 1, 2), float(rank), requires_grad=True)
    features, targets = gather(mine, torch.full((rank + 1,), rank))
    (features * torch.arange(len(features))[:, None]).sum().backward()
    return [features.detach(), targets, mine.grad]


def train(cfg):
    trainer = vif.VIFTrainer(cfg)
    trainer.resume_or_load(resume=False)
    return trainer.train()


def few(model, cfg):
    """The table of two images, fewer than there may be processes."""
    from vif.data.build import build_test_loader, build_test_set

    splits = build_test_set(cfg, "SynthAG", show=False).splits
    splits = {"query": splits["query"][:1], "gallery": splits["gallery"][:1]}
    return torch.from_numpy(extract_table(model, build_test_loader(cfg, splits), splits).features)


def everything(output):
    world = comm.get_world_size()
    found = {f"{name}/{dtype}": one_loss(name, dtype) for name in LOSSES for dtype in TOLERANCE}
    found["norm"] = one_norm((12, 3))
    found["norm map"] = one_norm((12, 3, 4, 2))
    if world > 1:
        found["uneven"] = uneven()
    cfg = tiny_cfg("SynthAG/vif.yml", f"{output}/{world}/train", *EXACT)
    train(cfg)
    tests = (
        "DATASETS.TESTS",
        ("SynthAG", "CARGO", "CARGO_AA"),
        "TEST.IMS_PER_BATCH",
        8,
        "TEST.CONFIDENCE",
        0.0,
    )
    cfg = tiny_cfg("SynthAG/vif.yml", f"{output}/{world}/test", *tests, "DATALOADER.NUM_WORKERS", 1)
    torch.manual_seed(0)
    model = vif.VIFTrainer.build_model(cfg)
    for buffer in model.buffers():  # statistics of their own, as processes without syncBN have after training
        if buffer.is_floating_point() and buffer.dim() == 1:
            buffer.add_(comm.get_rank())
    vif.VIFTrainer.test(cfg, model)
    found["few"] = few(model.eval(), cfg)
    found["local"] = (comm.get_local_rank(), comm.get_local_size())
    torch.save(found, f"{output}/{world}/found{comm.get_rank()}.pth")


def start(rank, world, port, output):
    torch.set_num_threads(1)
    node = rank // 2  # three processes: two machines
    place = Place(rank, world, rank % 2, node, "127.0.0.1", port, serves=rank == 0)
    with group(place, "cpu") as watch:
        everything(output)
        watch.leave()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What 1, 2 and 3 processes left: folder, and results of each process by their number."""
    root = tmp_path_factory.mktemp("runs")
    fake_trees.make_synthag(root / "data", ids=7)
    fake_trees.make_cargo(root / "data", ids=3)
    next((root / "data" / "SynthAG" / "gallery").rglob("*.jpg")).unlink()  # no even share
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(root / "data"))
        torch.set_num_threads(1)
        everything(root)
        torch.set_num_threads(threads)
        for world in (2, 3):
            mp.start_processes(start, (world, free_port(), str(root)), nprocs=world, start_method="spawn")
    load = [[torch.load(root / str(w) / f"found{r}.pth") for r in range(w)] for w in (1, 2, 3)]
    return root, dict(zip((1, 2, 3), load))


def assert_close(found, expected, tolerance):
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("world", [2, 3])
def test_a_gathered_loss_and_its_gradients_are_those_of_one_process(runs, world, name, dtype):
    expected = runs[1][1][0][f"{name}/{dtype}"]
    assert any(gradient.abs().max() > 1e-3 for gradient in expected[1:])
    for found in runs[1][world]:
        assert_close(found[f"{name}/{dtype}"], expected, TOLERANCE[dtype])


@pytest.mark.parametrize("name", ["norm", "norm map"])
@pytest.mark.parametrize("world", [2, 3])
def test_synchronised_batch_norm_on_the_cpu_is_that_of_one_process(runs, world, name):
    for found in runs[1][world]:
        assert_close(found[name], runs[1][1][0][name], 1e-9)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_with_unequal_batches_gather_all_rows_in_order(runs, world):
    rows = torch.repeat_interleave(torch.arange(world), torch.arange(world) + 1)
    for rank, found in enumerate(runs[1][world]):
        features, targets, gradient = found["uneven"]
        assert torch.equal(targets, rows)
        assert torch.equal(features, rows[:, None].float().expand(-1, 2))
        place = torch.arange(len(rows))[rows == rank]
        assert torch.equal(gradient, (world * place)[:, None].float().expand(-1, 2))


def logged(root, world):
    lines = (root / str(world) / "train" / "metrics.json").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_train_as_one(runs, world):
    """The shipped configuration made tiny: PLRM, no drop path; synchronised statistics, gathered losses."""
    root, _ = runs
    alone, several = logged(root, 1), logged(root, world)
    assert len(alone) == len(several) > 5
    names = ("total_loss", "loss_cls", "loss_triplet", "loss_vial", "pos_cos", "neg_cos", "feat_norm")
    for a, b in zip(alone, several):
        for name in set(names) & set(a):
            assert b[name] == pytest.approx(a[name], rel=1e-5, abs=1e-5), (a["iteration"], name)


@pytest.mark.parametrize("world", [2, 3])
def test_tables_of_one_and_several_processes_are_the_same(runs, world):
    root, _ = runs
    alone, several = (json.loads((root / str(n) / "test" / "results.json").read_text()) for n in (1, world))
    assert alone == several
    assert set(alone) == {"CARGO", "CARGO_AA", "SynthAG"}


@pytest.mark.parametrize("world", [2, 3])
def test_tables_after_training_in_several_processes_differ_by_near_ties_at_most(runs, world):
    """Weights differ in their last bits, so two nearly equal distances may change places."""
    root, _ = runs
    alone, several = (
        json.loads((root / str(n) / "train" / "results.json").read_text())["SynthAG"] for n in (1, world)
    )
    assert alone.keys() == several.keys()
    for protocol, scores in alone.items():
        assert several[protocol] == pytest.approx(scores, abs=0.5), protocol


@pytest.mark.parametrize("world", [2, 3])
def test_features_do_not_depend_on_the_number_of_processes_to_the_bit(runs, world):
    for found in runs[1][world]:
        assert torch.equal(found["few"], runs[1][1][0]["few"])


def test_processes_know_their_machine(runs):
    assert [found["local"] for found in runs[1][3]] == [(0, 2), (1, 2), (0, 1)]
    assert [found["local"] for found in runs[1][2]] == [(0, 2), (1, 2)]


def test_synchronised_norm_takes_what_autocast_halved(monkeypatch):
    """Two processes with one batch: torch's own norm over both copies, in float32."""
    monkeypatch.setattr(distributed.comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "sum_over_processes", lambda x: 2 * x)
    norm, torchs = sync_norm_on_cpu(get_norm("syncBN", 4)).train(), nn.BatchNorm2d(4)
    x = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = norm(x)
    expected = torchs(torch.cat([x, x]).float())[:3]
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, expected.bfloat16(), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(norm.running_var, torchs.running_var)
    torch.testing.assert_close(norm.running_mean, torchs.running_mean)


@pytest.mark.parametrize("backend", ["nccl", "gloo"])
def test_gathering_objects_waits_as_long_as_the_run(backend, monkeypatch):
    """Under NCCL fastreid makes a group of Gloo of its own, with torch's half hour."""
    made = []
    monkeypatch.setattr(distributed.comm, "_LOCAL_PROCESS_GROUP", None)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: 1)
    monkeypatch.setattr(dist, "get_backend", lambda: backend)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    monkeypatch.setattr(dist, "new_group", lambda *ranks, **how: made.append(how) or how)
    before = comm._get_global_gloo_group
    distributed.enter_group(dist.HashStore(), 0, WAITING)
    try:
        if backend == "nccl":
            assert made[0] == {"backend": "gloo", "timeout": WAITING}
            assert comm._get_global_gloo_group() is made[0]
        else:
            assert comm._get_global_gloo_group is before
            assert made == [{}]
    finally:
        distributed.leave_group()
    assert comm._get_global_gloo_group is before
