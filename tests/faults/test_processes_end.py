"""A process that is killed or fails ends all others within a minute, and the reason is said.

Processes are really killed: mid-step, during the first one's ranking, under each launcher.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch.distributed as dist
from vif.processes.watch import Watch

from tests import fake_trees
from tests.tiny import CONFIGS, TINY

ROOT = Path(__file__).parents[2]
MINUTE = 60
START = 150  # seconds that a busy machine may take to start two processes
MARK = "VIF_TEST_RUN"  # in the environment of a run's processes: torchrun starts them in other sessions
ENDLESS = ("SOLVER.MAX_EPOCH", 100000, "TEST.EVAL_PERIOD", 100000, "SOLVER.CHECKPOINT_PERIOD", 100000)
# an evaluator whose ranking takes longer than any test
SLOW = """
import sys, time
from pathlib import Path
sys.path[:0] = [{root!r}, {root!r} + "/projects/VIF"]
import train_net
from vif.registries import EVALUATOR_REGISTRY
@EVALUATOR_REGISTRY.register()
def Slow(cfg):
    class Evaluator:
        def evaluate(self, table, protocols):
            Path(cfg.OUTPUT_DIR, "ranking").touch()
            time.sleep(1000)
    return Evaluator()
if __name__ == "__main__":
    train_net.run()
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def runs(tmp_path):
    """Starts commands in sessions of their own, and leaves none behind."""
    fake_trees.make_synthag(tmp_path / "data", ids=4)
    started = []
    own = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    base = {k: v for k, v in os.environ.items() if k not in own and not k.startswith("SLURM_")}
    base.update(FASTREID_DATASETS=str(tmp_path / "data"), OMP_NUM_THREADS="1")

    def start(*launcher, flags=(), opts=(), script=ROOT / "train_net.py", **env):
        config = ("--config-file", CONFIGS / "SynthAG" / "vif.yml")
        command = [*launcher, script, *flags, *config, *TINY, "OUTPUT_DIR", tmp_path / "run", *opts]
        log = tmp_path / f"log{len(started)}"
        with open(log, "w") as out:
            process = subprocess.Popen(
                [sys.executable, *map(str, command)],
                env={**base, **env, MARK: str(log)},
                cwd=tmp_path,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        process.log = log
        started.append(process)
        return process

    yield start
    for process in started:
        for pid in [*members(process), process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(10)


def wait_for(path, *processes):
    end = time.monotonic() + START
    while not (path.exists() and (path.is_dir() or path.stat().st_size or path.name == "ranking")):
        ended = [p for p in processes if p.poll() is not None]
        assert not ended, ended[0].log.read_text()[-3000:]
        assert time.monotonic() < end, processes[0].log.read_text()[-3000:]
        time.sleep(0.1)


def members(process):
    """Pids of the processes that train, in the order in which they were started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes()
            ours = f"{MARK}={process.log}".encode() in (folder / "environ").read_bytes().split(b"\0")
            trains = any(name in command for name in (b"spawn_main", b"train_net.py", b"slow.py"))
            if ours and trains and int(folder.name) != process.pid:
                found.append(int(folder.name))
    return sorted(found)


def ends(process):
    """What it wrote; it has a minute."""
    code = process.wait(MINUTE)
    assert code not in (0, None)
    end = time.monotonic() + 5
    while members(process) and time.monotonic() < end:
        time.sleep(0.1)
    assert members(process) == []
    return process.log.read_text()


def srun(rank, port):
    return {
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def test_a_process_killed_in_a_step_ends_those_of_num_gpus(runs, tmp_path):
    run = runs(flags=("--num-gpus", 2, "--dist-url", "auto"), opts=ENDLESS)
    wait_for(tmp_path / "run" / "metrics.json", run)
    os.kill(members(run)[1], signal.SIGKILL)
    assert re.search(
        r"error: process 1 on this machine \(?.*killed by SIGKILL, so the others ended", ends(run)
    )


def test_the_first_process_killed_while_it_ranks_ends_those_of_torchrun(runs, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW.format(root=str(ROOT)))
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}")
    run = runs(*launcher, script=tmp_path / "slow.py", opts=("TEST.EVALUATOR", "Slow"))
    wait_for(tmp_path / "run" / "ranking", run)
    time.sleep(3)  # the other one waits for it
    assert run.poll() is None
    os.kill(members(run)[0], signal.SIGKILL)
    assert "Signal 9 (SIGKILL)" in ends(run)


def test_a_process_killed_under_srun_is_named_by_the_other(runs, tmp_path):
    port = free_port()
    both = [runs(opts=ENDLESS, **srun(rank, port)) for rank in (0, 1)]
    wait_for(tmp_path / "run" / "metrics.json", *both)
    both[1].kill()
    assert re.search(r"error: process 1 of 2 \(.*, pid \d+\) has shown no sign of life for", ends(both[0]))


def test_a_file_that_one_process_cannot_read_ends_the_other_with_its_name(runs, tmp_path):
    broken = sorted((tmp_path / "data" / "SynthAG" / "gallery").rglob("*.jpg"))[-1]
    broken.write_bytes(b"no image")
    port = free_port()
    opts = ("TEST.IMS_PER_BATCH", 4)
    both = [runs(opts=opts, **srun(rank, port)) for rank in (0, 1)]
    logs = [run.wait(START + MINUTE) and run.log.read_text() for run in both]
    assert all(broken.name in log.strip().splitlines()[-1] for log in logs)
    assert sum("ends with it" in log for log in logs) == 1


def test_a_process_killed_on_one_machine_ends_torchrun_on_the_other(runs, tmp_path):
    port = free_port()
    launcher = ("-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1")
    machines = [
        runs(*launcher, f"--master_port={port}", f"--node_rank={node}", opts=ENDLESS) for node in (0, 1)
    ]
    wait_for(tmp_path / "run" / "metrics.json", *machines)
    os.kill(members(machines[1])[0], signal.SIGKILL)
    assert "Signal 9 (SIGKILL)" in ends(machines[1])
    assert "error: process 1 of 2" in ends(machines[0])


def watches(world, store=None, **more):
    store = store or dist.HashStore()
    lost = [[] for _ in range(world)]
    made = [
        Watch(store, rank, world, beat=0.05, silence=0.5, lost=lost[rank].append, **more)
        for rank in range(world)
    ]
    return made, lost


def test_a_silent_process_is_named_to_all():
    made, lost = watches(3)
    time.sleep(1)
    assert lost == [[], [], []]
    made[1]._stop.set()
    time.sleep(1.5)
    assert lost[1] == []
    assert all(re.search(r"process 1 of 3 \(.*\) has shown no sign of life", found[0]) for found in lost[::2])


class Lost(dist.HashStore):
    """A store that ends after a while: without an answer, or with an error as of a closed connection."""

    error = None
    ended = False

    def add(self, key, value):
        if self.ended:
            if self.error:
                raise self.error
            time.sleep(3)
        return super().add(key, value)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, "the first process has not answered for 0 s; this process, 1 of 2, ends with it"),
        (RuntimeError("Connection reset by peer"), "the first process, or the launcher .*, is gone; this"),
    ],
)
def test_a_store_that_is_gone_ends_all(error, reason):
    store = Lost()
    store.error = error
    _, lost = watches(2, store)
    time.sleep(0.5)
    assert lost == [[], []]
    store.ended = True
    time.sleep(1.8)
    assert re.search(reason, lost[1][0])


def test_the_process_that_holds_the_store_leaves_last():
    store = dist.HashStore()
    (first, _), _ = watches(2, store, serves=True)
    store.add("left", 1)  # the other one's
    leaving = threading.Thread(target=first.leave)
    leaving.start()
    time.sleep(0.5)
    assert leaving.is_alive()
    store.add("gone", 1)
    leaving.join(1)
    assert not leaving.is_alive()


def test_a_process_that_fails_says_why_to_all_and_the_first_reason_stays():
    made, lost = watches(3)
    made[2].failed(ValueError("no such image"))
    made[0].fail("something else")
    time.sleep(0.5)
    assert lost[2] == []
    for rank in (0, 1):
        assert re.search(r"process 2 of 3 \(.*\) failed: ValueError: no such image; this", lost[rank][0])


def test_processes_leave_together_and_nobody_is_missed():
    made, lost = watches(2, serves=False)
    early = threading.Thread(target=made[1].leave)
    early.start()
    time.sleep(1.2)
    assert early.is_alive()
    assert lost == [[], []]
    made[0].leave()
    early.join(2)
    assert not early.is_alive()
    time.sleep(0.8)
    assert lost == [[], []]
