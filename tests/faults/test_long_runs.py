"""2,000 iterations and 20 evaluations: memory, descriptors and processes stay as they were."""

import json
import os

import pytest
import torch

from tests.faults.killing import printed, train

pytestmark = pytest.mark.usefixtures("tree")
# Growth of the resident memory from the 4th evaluation to the last, in MB, of the run and its workers.
BOUND = 24


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        found = [int(child) for child in f.read().split()]
    return found + [grand for child in found for grand in children(child)]


def measure():
    """Resident memory in MB of this process, its open descriptors, its child processes."""
    with open("/proc/self/statm") as f:
        resident = int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return resident, len(os.listdir("/proc/self/fd")), len(children(os.getpid()))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_long_run_grows_by_nothing(workers, tmp_path):
    # 104 training images in batches of 2: 26 iterations an epoch
    opts = ("SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_EPOCH", 80, "TEST.EVAL_PERIOD", 4)
    opts += ("SOLVER.CHECKPOINT_PERIOD", 4, "SOLVER.CHECKPOINT_KEEP", 2, "SOLVER.LOG_PERIOD", 50)
    opts += ("DATALOADER.NUM_WORKERS", workers, "TEST.CONFIDENCE", 0.0, "TEST.IMS_PER_BATCH", 32)

    def prepare(trainer):
        hook = trainer._hooks[-1]
        inner, seen = hook.after_epoch, []

        def after_epoch():
            inner()
            if (trainer.epoch + 1) % 4 == 0:
                seen.append(measure())
                (tmp_path / "seen.json").write_text(json.dumps([trainer.iter, seen]))

        hook.after_epoch = after_epoch

    code, _ = train(tmp_path, *opts, prepare=prepare)
    assert code == 0, printed(tmp_path)
    iterations, seen = json.loads((tmp_path / "seen.json").read_text())
    assert iterations >= 2000
    assert len(seen) == 20
    memory, descriptors, processes = zip(*seen)
    print(f"{workers} workers: {memory[0]:.0f} MB, {memory[3]:.0f} MB, {memory[-1]:.0f} MB")
    assert memory[-1] - memory[3] < BOUND, memory
    assert descriptors[-1] <= descriptors[1], descriptors
    assert processes[-1] == processes[0] == workers, processes
    histories = torch.load(tmp_path / "model_final.pth")["run"]["scalars"]
    assert max(len(entry["values"]) for entry in histories.values()) == 1000
    assert len(list(tmp_path.glob("model_0*.pth"))) == 2
