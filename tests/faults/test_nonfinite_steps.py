"""Single steps on numbers that are not finite: the scale of float16, fastreid's own trainer, processes."""

import json
import socket

import vif  # noqa: F401  makes fastreid importable
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from fastreid.utils import comm
from fastreid.utils.events import EventStorage
from vif.compat.step import StepTrainer
from vif.errors import NonFiniteError
from vif.nonfinite import Guard


class Steep(torch.nn.Module):
    """A loss whose gradient is `slopes[call]`."""

    def __init__(self, slopes):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.slopes = slopes

    def forward(self, batch):
        slope = self.slopes.pop(0)
        loss = self.weight.float().sum()
        loss.register_hook(lambda gradient: gradient * slope)
        return {"loss": loss}


@pytest.mark.skipif(not hasattr(torch.amp, "GradScaler"), reason="torch < 2.3 scales on a GPU only")
def test_overflows_of_float16_are_counted_and_halve_the_scale_until_it_is_below_one(tmp_path):
    big = torch.finfo(torch.float32).max / 2**10  # out of range at scales above 2 ** 10
    net = Steep([big] * 7 + [torch.inf] * 20)
    trainer = StepTrainer(net, [{"images": None}] * 27, torch.optim.SGD(net.parameters(), lr=0.0), None)
    trainer.set_dtype(torch.float16)
    trainer.guard = Guard("stop", 10, str(tmp_path), "", None)
    with EventStorage(0) as storage:
        for trainer.iter in range(7):
            trainer.run_step()
        assert trainer.grad_scaler.get_scale() == 2**10
        assert trainer.guard.counts() == {"amp_overflows": 6}
        assert storage.latest()["amp_overflows"][0] == 6
        for trainer.iter in range(7, 18):
            trainer.run_step()
        trainer.iter = 18
        with pytest.raises(NonFiniteError, match="gradient is not finite at iteration 18"):
            trainer.run_step()
    assert trainer.grad_scaler.get_scale() == 0.5


@pytest.mark.skipif(not hasattr(torch.amp, "GradScaler"), reason="torch < 2.3 scales on a GPU only")
def test_a_skipped_loss_leaves_the_loss_scale_alone():
    class Broken(Steep):
        def forward(self, batch):
            return {"loss": super().forward(batch)["loss"] * (torch.nan if len(self.slopes) == 1 else 1)}

    net = Broken([1.0] * 3)
    trainer = StepTrainer(net, [{"images": None}] * 3, torch.optim.SGD(net.parameters(), lr=0.5), None)
    trainer.set_dtype(torch.float16)
    trainer.guard = Guard("skip", 10, "unused", "", None)
    trainer.guard.refuse = lambda *args: None
    weights = []
    with EventStorage(0):
        for trainer.iter in range(3):
            trainer.run_step()
            weights.append(float(net.weight.detach()))
    assert weights == [0.5, 0.5, 0.0]
    assert trainer.grad_scaler.state_dict()["scale"] == 2**16
    assert trainer.grad_scaler.state_dict()["_growth_tracker"] == 2


def test_under_fastreids_own_trainer_a_broken_loss_is_its_floating_point_error():
    net = Steep([1.0])
    with torch.no_grad():
        net.weight.fill_(torch.nan)
    trainer = StepTrainer(net, [{}], torch.optim.SGD(net.parameters(), lr=0.5), None)
    trainer.iter = 4
    with EventStorage(4), pytest.raises(FloatingPointError, match="not finite at iteration 4"):
        trainer.run_step()


class OneRankBreaks(torch.nn.Module):
    """A loss that is NaN at call 1 on rank 1 alone, and a batch norm in front of it."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(2)
        self.calls = 0

    def forward(self, batch):
        self.calls += 1
        broken = comm.get_rank() == 1 and self.calls == 2
        return {"loss": self.norm(batch["images"]).square().sum() * (torch.nan if broken else 1.0)}


def train_on_two(rank, port, action, output):
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    comm._LOCAL_PROCESS_GROUP = dist.group.WORLD
    torch.set_num_threads(1)
    net = torch.nn.parallel.DistributedDataParallel(OneRankBreaks(), broadcast_buffers=False)
    batches = [{"images": torch.rand(4, 2), "img_paths": [f"{rank}_{i}.jpg"] * 4} for i in range(3)]
    trainer = StepTrainer(net, batches, torch.optim.SGD(net.parameters(), lr=0.1), None)
    trainer.guard = Guard(action, 10, output, "", None, rank, 2)
    stopped = ""
    try:
        with EventStorage(0):
            for trainer.iter in range(3):
                trainer.run_step()
    except NonFiniteError as error:
        stopped = str(error)
    torch.save({"stopped": stopped, **net.module.state_dict()}, f"{output}/{rank}.pth")
    dist.destroy_process_group()


@pytest.mark.parametrize("action", ["stop", "skip"])
def test_processes_decide_alike_when_the_loss_of_one_is_broken(action, tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.start_processes(train_on_two, (port, action, str(tmp_path)), nprocs=2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in range(2))
    assert [bool(state["stopped"]) for state in (first, second)] == [action == "stop"] * 2
    assert torch.equal(first["norm.weight"], second["norm.weight"])
    assert int(first["norm.num_batches_tracked"]) == int(second["norm.num_batches_tracked"])
    assert int(first["norm.num_batches_tracked"]) == (1 if action == "stop" else 2)
    reports = [json.loads((tmp_path / f"nonfinite_0000001_rank{rank}.json").read_text()) for rank in (0, 1)]
    assert [report["batch"][0]["path"] for report in reports] == ["0_1.jpg", "1_1.jpg"]
    assert [report["fault"] for report in reports] == ["loss", "loss"]
    assert reports[1]["losses"] == {"loss": "nan"}
    assert reports[0]["not_finite"]["gradients"] == ["norm.weight", "norm.bias"]  # the mean over both
    assert reports[0]["losses"]["loss"] > 0
