"""Signals from a scheduler or a keyboard: the run saves, ends with a code of its own, and goes on exactly."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from vif.errors import STOPPED

from tests.faults.killing import OPTS, assert_same_run, printed, train
from tests.tiny import CONFIGS, TINY

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("tree")


def at_iteration(iteration, act):
    """Do something in the child in the middle of a step."""

    def prepare(trainer):
        inner = trainer.run_step

        def run_step():
            if trainer.iter == iteration:
                act()
            inner()

        trainer.run_step = run_step

    return prepare


def send(*signals):
    def one_by_one():
        for number in signals:
            os.kill(os.getpid(), number)
            time.sleep(0.1)  # two of a kind that come at once are one to the interpreter

    return one_by_one


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_within_an_epoch_finishes_the_step_and_the_run_goes_on_exactly(name, unbroken, tmp_path):
    number = getattr(signal, name)
    code, _ = train(tmp_path, *OPTS, prepare=at_iteration(7, send(number)))
    assert code == STOPPED == 75
    assert f"Stopped by {name} after 8 iterations; --resume goes on from here" in printed(tmp_path)
    assert (tmp_path / "last_checkpoint").read_text() == "model_resume.pth"
    assert torch.load(tmp_path / "model_resume.pth")["run"]["iteration"] == 8
    assert train(tmp_path, *OPTS, resume=True)[0] == 0
    assert_same_run(unbroken, tmp_path)


def test_a_signal_during_an_evaluation_ends_at_once_and_the_evaluation_is_run_again(unbroken, tmp_path):
    def prepare(trainer):
        inner = trainer.model.backbone.forward

        def forward(images):
            if not trainer.model.training and trainer.epoch == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return inner(images)

        trainer.model.backbone.forward = forward

    code, _ = train(tmp_path, *OPTS, prepare=prepare)
    assert code == STOPPED
    assert "model_0001.pth" not in os.listdir(tmp_path)
    assert train(tmp_path, *OPTS, resume=True)[0] == 0
    assert_same_run(unbroken, tmp_path)


def test_a_signal_during_the_save_before_an_evaluation_is_answered_before_it(unbroken, tmp_path):
    def prepare(trainer):
        save, forward = trainer.checkpointer.save, trainer.model.backbone.forward

        def saved(name, **rest):
            save(name, **rest)
            if name == "model_resume" and trainer.epoch == 1:
                os.kill(os.getpid(), signal.SIGTERM)

        def told(images):
            if not trainer.model.training and trainer.epoch == 1:
                print("EVALUATED", flush=True)
            return forward(images)

        trainer.checkpointer.save, trainer.model.backbone.forward = saved, told

    code, _ = train(tmp_path, *OPTS, prepare=prepare)
    assert code == STOPPED
    assert "EVALUATED" not in printed(tmp_path)
    assert train(tmp_path, *OPTS, resume=True)[0] == 0
    assert_same_run(unbroken, tmp_path)


def test_a_second_interrupt_ends_at_once(tmp_path):
    code, _ = train(tmp_path, *OPTS, prepare=at_iteration(7, send(signal.SIGINT, signal.SIGINT)))
    assert code == 3
    assert "KeyboardInterrupt" in printed(tmp_path)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000.pth"


def in_a_group(iteration, ready):
    """The child leads a group of its own, and waits for a signal in the middle of a step."""

    def prepare(trainer):
        os.setpgid(0, 0)

        def wait():
            ready.touch()
            while not trainer.signals.received:
                time.sleep(0.01)

        at_iteration(iteration, wait)(trainer)

    return prepare


def send_to_group(number, ready):
    def during(child):
        while not ready.exists() and child.exitcode is None:
            time.sleep(0.01)
        os.killpg(child.pid, number)

    return during


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_signals_to_the_whole_group_leave_the_loaders_workers_alive(name, unbroken, tmp_path):
    """As Ctrl-C and SLURM send them."""
    opts, ready = (*OPTS, "DATALOADER.NUM_WORKERS", 2), tmp_path / "ready"
    during = send_to_group(getattr(signal, name), ready)
    code, _ = train(tmp_path / "run", *opts, prepare=in_a_group(7, ready), during=during)
    assert code == STOPPED, printed(tmp_path / "run")
    assert train(tmp_path / "run", *OPTS, resume=True)[0] == 0
    a, b = (torch.load(f / "model_final.pth")["model"] for f in (unbroken, tmp_path / "run"))
    assert all(torch.equal(a[k], b[k]) for k in a)


class SlowToArrive:
    """Takes a second to arrive in a worker process that is no fork of the main one; says when it begins."""

    def __init__(self, begun):
        self.begun = begun

    def __reduce__(self):
        return arrive, (self.begun,)


def arrive(begun):
    begun.touch()
    time.sleep(1)


@pytest.mark.parametrize(
    ("method", "name"),
    [("spawn", "SIGTERM"), ("spawn", "SIGUSR1"), ("forkserver", "SIGTERM"), ("forkserver", "SIGINT")],
)
def test_signals_to_the_whole_group_leave_workers_alive_that_are_starting(method, name, tmp_path):
    """forkserver is Python's own choice from 3.14 on; a fork has the main process's handlers."""
    begun = tmp_path / "begun"

    def prepare(trainer):
        os.setpgid(0, 0)
        multiprocessing.set_start_method(method, force=True)
        trainer.data_loader.loader.dataset.more = SlowToArrive(begun)

    opts = (*OPTS, "DATALOADER.NUM_WORKERS", 1)
    during = send_to_group(getattr(signal, name), begun)
    code, _ = train(tmp_path / "run", *opts, prepare=prepare, during=during)
    assert code == STOPPED, printed(tmp_path / "run")
    assert f"Stopped by {name} after 1 iterations" in printed(tmp_path / "run")
    assert (tmp_path / "run" / "last_checkpoint").read_text() == "model_resume.pth"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_end_when_their_run_ends_with_an_error(method, tmp_path):
    """The main process ends its workers with SIGTERM then; the interpreter waits for them."""
    code = (
        "import multiprocessing, sys, vif\n"
        "multiprocessing.set_start_method(sys.argv[2])\n"
        "from tests.tiny import tiny_cfg\n"
        "t = vif.VIFTrainer(tiny_cfg('SynthAG/vif.yml', sys.argv[1], 'DATALOADER.NUM_WORKERS', 1))\n"
        "t.resume_or_load(resume=False)\n"
        "t.optimizer.step = lambda: 1 / 0\n"
        "t.train()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), method],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'projects' / 'VIF'}:{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def in_group(leader):
    """Living processes of a group, by their lines in /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            stat = path.read_text()
            state, _, group = stat.rpartition(")")[2].split()[:3]
            if state not in "ZX" and int(group) == leader:
                found.append(stat)
    return found


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_nothing_is_left_of_a_run_that_was_killed(method, tmp_path):
    """Its workers, and what Python starts beside them."""
    leaders = []

    def prepare(trainer):
        os.setpgid(0, 0)
        multiprocessing.set_start_method(method, force=True)
        at_iteration(2, lambda: os.kill(os.getpid(), signal.SIGKILL))(trainer)

    opts = (*OPTS, "DATALOADER.NUM_WORKERS", 2)
    code, _ = train(tmp_path, *opts, prepare=prepare, during=lambda child: leaders.append(child.pid))
    assert code == -signal.SIGKILL, printed(tmp_path)
    deadline = time.monotonic() + 30
    while in_group(leaders[0]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert in_group(leaders[0]) == []


def test_a_signal_after_the_last_step_lets_the_run_finish(unbroken, tmp_path):
    def prepare(trainer):
        hook = next(h for h in trainer._hooks if type(h).__name__ == "BestCheckpointer")
        inner = hook.after_epoch

        def after_epoch():
            inner()
            if trainer.epoch == 2:
                trainer.signals.saved = False
                os.kill(os.getpid(), signal.SIGTERM)

        hook.after_epoch = after_epoch

    assert train(tmp_path, *OPTS, prepare=prepare)[0] == 0
    assert_same_run(unbroken, tmp_path)


def test_a_finished_run_that_is_resumed_gives_its_results_again(unbroken, tmp_path):
    before = (unbroken / "results.json").read_text()
    (unbroken / "results.json").unlink()
    assert train(unbroken, *OPTS, resume=True)[0] == 0
    assert (unbroken / "results.json").read_text() == before


def test_the_command_line_saves_on_sigterm_exits_with_75_and_resumes(unbroken, tmp_path):
    command = [sys.executable, str(ROOT / "train_net.py"), "--config-file", str(CONFIGS / "SynthAG/vif.yml")]
    opts = [str(o) for o in (*TINY, *OPTS, "OUTPUT_DIR", tmp_path, "SOLVER.MAX_EPOCH", 400)]
    opts += ["TEST.EVAL_PERIOD", "400", "SOLVER.CHECKPOINT_PERIOD", "100"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command + opts, stdout=subprocess.PIPE, text=True, env=env)
    for line in process.stdout:
        if "iter 20/" in line:
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stdout.read()
    assert process.wait(60) == STOPPED, rest
    assert "Stopped by SIGTERM" in rest
    done = torch.load(tmp_path / "model_resume.pth")["run"]["iteration"]
    process = subprocess.Popen([*command, "--resume", *opts], stdout=subprocess.PIPE, text=True, env=env)
    said = ""
    for line in process.stdout:
        said += line
        if "iter " in line and "/2400" in line:
            process.kill()
            break
    process.wait(60)
    assert f"Going on after {done} iterations" in said
    lines = [line for line in said.splitlines() if "  iter " in line]
    first = int(lines[0].split("iter ")[1].split("/")[0])
    assert done < first <= done + 2
