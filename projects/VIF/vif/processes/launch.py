"""Start a function in one or several processes: torchrun's, srun's, or some that are spawned here."""

import contextlib
import datetime
import logging
import os
import signal
import socket
import sys
import time
from typing import Any, Callable, Iterator, List, Sequence, Tuple
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ..compat.distributed import enter_group, leave_group
from ..errors import ConfigError, ProcessError, VIFError
from ..resume.signals import STOPPING
from .place import Place, find_place
from .watch import SILENCE, Watch

logger = logging.getLogger(__name__)
MEETING = datetime.timedelta(minutes=10)  # that machines of one run may start apart
# The longest that processes wait in a collective, as for the first one's ranking: a process that is gone is
# found by Watch long before, so this only has to be longer than any evaluation.
WAITING = datetime.timedelta(hours=6)
_PEER = ("connection closed by peer", "connection reset", "gloo", "nccl", "socket", "broken pipe")


def launch(
    main: Callable[..., Any],
    args: Sequence[Any],
    *,
    device: str,
    processes: int = 1,
    machines: int = 1,
    machine_rank: int = 0,
    url: str = "auto",
) -> None:
    """Call `main(*args)` in each of the processes that torchrun or srun has started, or that start here.

    Args:
        main: a function that can be pickled, where it is spawned.
        args: its arguments.
        device: MODEL.DEVICE; "cuda" takes one GPU a process and NCCL, where there is a GPU, else gloo.
        processes: to spawn on this machine; 1 where a launcher starts them.
        machines, machine_rank: how many machines spawn that many, and which this one is.
        url: tcp://HOST:PORT of the first machine, or "auto" on a single one.

    Raises:
        ConfigError: the arguments do not go together.
        ProcessError: a process cannot start, or has ended with an error; names it.
    """
    place = find_place(os.environ)
    if place is not None and processes * machines > 1:
        raise ConfigError(
            f"--num-gpus {processes} would spawn processes in each of {place.world_size} that a launcher has "
            "started; leave it out under torchrun and srun."
        )
    if place is not None:
        _work(place, device, main, args)
    elif processes * machines == 1:
        main(*args)
    else:
        _spawn(main, args, device, processes, machines, machine_rank, url)


def _spawn(
    main: Any, args: Sequence[Any], device: str, processes: int, machines: int, machine_rank: int, url: str
) -> None:
    if not (0 <= machine_rank < machines) or processes < 1:
        raise ConfigError(
            f"--num-gpus {processes} --num-machines {machines} --machine-rank {machine_rank}: ranks go "
            f"from 0 to {machines - 1}, and each machine has at least one process."
        )
    check_gpus(device, processes)
    host, port = _meeting_point(url, machines, serves=machine_rank == 0)
    where = (device, host, port, processes, machines, machine_rank)
    context = mp.start_processes(
        _spawned, (where, main, tuple(args)), processes, join=False, start_method="spawn"
    )
    told: List[int] = []

    def pass_on(number: int, _: Any) -> None:
        told.append(number)
        for pid in context.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)  # for any: of Ctrl-C they have their own, and two count

    stopping = [getattr(signal, name) for name in STOPPING if hasattr(signal, name)]
    before = {number: signal.signal(number, pass_on) for number in stopping}
    try:
        while not context.join():
            pass
    except mp.ProcessRaisedException as e:
        sys.stderr.write(str(e))
        raise ProcessError(f"process {e.error_index} on this machine ended with the error above.") from None
    except mp.ProcessExitedException as e:
        name = f"process {e.error_index} on this machine (pid {e.error_pid})"
        if told and e.signal_name:  # before they began to train, from when on they save
            sys.exit(128 + told[0])
        if e.signal_name:
            raise ProcessError(f"{name} was killed by {e.signal_name}, so the others ended.") from None
        sys.stderr.write(f"error: {name} ended with exit code {e.exit_code}; its own lines say why.\n")
        sys.exit(e.exit_code)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _spawned(local_rank: int, where: Tuple[Any, ...], main: Any, args: Tuple[Any, ...]) -> None:
    device, host, port, processes, machines, machine_rank = where
    rank = machine_rank * processes + local_rank
    place = Place(rank, machines * processes, local_rank, machine_rank, host, port, serves=rank == 0)
    try:
        _work(place, device, main, args)
    except VIFError as e:
        sys.exit(f"error: {e}")
    except KeyboardInterrupt:  # a second one; torch takes it for an end without error
        sys.exit(128 + signal.SIGINT)


def _meeting_point(url: str, machines: int, serves: bool) -> Tuple[str, int]:
    if url == "auto":
        if machines > 1:
            raise ConfigError(
                "--dist-url auto finds a port on one machine; give tcp://HOST:PORT of the first."
            )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return "127.0.0.1", free.getsockname()[1]
    parts = urlsplit(url)
    if parts.scheme != "tcp" or not parts.hostname or not parts.port:
        raise ConfigError(f"--dist-url {url}: give tcp://HOST:PORT, or auto on one machine.")
    if serves:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", parts.port))
            except OSError as e:
                raise ProcessError(_taken(parts.port, e)) from None
    return parts.hostname, parts.port


def _taken(port: int, error: Any) -> str:
    return (
        f"port {port} cannot be opened ({error}): another run may use it, or what is left of one. Choose "
        "another: --dist-url tcp://HOST:PORT or auto, torchrun's --master-port, or MASTER_PORT under srun."
    )


def check_gpus(device: str, processes: int) -> bool:
    """Whether `processes` of one machine run on a GPU each; False: on the CPU.

    Raises:
        ConfigError: `device` names one GPU for all.
        ProcessError: there are fewer GPUs.
    """
    if not device.startswith("cuda") or not torch.cuda.is_available():
        return False
    if device != "cuda":
        raise ConfigError(
            f"MODEL.DEVICE={device!r} names one GPU for several processes; set 'cuda' or 'cpu'."
        )
    if processes > torch.cuda.device_count():
        raise ProcessError(
            f"{processes} processes on this machine need a GPU each, and it shows "
            f"{torch.cuda.device_count()}; start fewer, or set MODEL.DEVICE cpu."
        )
    return True


def _work(place: Place, device: str, main: Any, args: Sequence[Any]) -> None:
    with group(place, device) as watch:
        work(watch, main, args)


def work(watch: Watch, main: Callable[..., Any], args: Sequence[Any]) -> None:
    """`main(*args)`; its end, whatever it is, is one of all processes."""
    try:
        main(*args)
    except SystemExit as e:
        try:
            watch.leave(within=30)  # a process that still saves is not hurried
        except ProcessError:
            watch.failed(e)
        raise
    except Exception as e:
        if isinstance(e, RuntimeError) and any(word in str(e).lower() for word in _PEER):
            logger.error("A collective broke off: %s", e)
            time.sleep(SILENCE + 5)  # Watch ends this process sooner and names the one that is gone
        watch.failed(e)
        raise
    watch.leave()


@contextlib.contextmanager
def group(place: Place, device: str) -> Iterator[Watch]:
    """The process group of a place, for fastreid as well; it is gone afterwards, except after an error."""
    own_gpu = place.own_gpu and torch.cuda.is_available() and torch.cuda.device_count() == 1
    gpu = check_gpus(device, 1 if own_gpu else place.local_rank + 1)
    try:
        first = dist.TCPStore(place.host, place.port, None, place.serves, MEETING, wait_for_workers=False)
        second = dist.TCPStore(place.host, place.port, None, False, MEETING, wait_for_workers=False)
    except (RuntimeError, ValueError) as e:
        if place.serves:
            raise ProcessError(_taken(place.port, e)) from None
        raise ProcessError(f"{place} does not reach {place.host}:{place.port}, the first one: {e}") from None
    if gpu:
        torch.cuda.set_device(0 if own_gpu else place.local_rank)
    store = dist.PrefixStore(f"vif/{place.attempt}", first)
    dist.init_process_group(
        "nccl" if gpu else "gloo", store=store, rank=place.rank, world_size=place.world_size, timeout=WAITING
    )
    enter_group(store, place.node, WAITING)
    watch = Watch(
        dist.PrefixStore(f"watch/{place.attempt}", second), place.rank, place.world_size, serves=place.serves
    )
    logger.info("%s, %s on machine %d", place, "GPU" if gpu else "CPU", place.node)
    yield watch
    leave_group()  # not after an error: NCCL would wait here for those that are gone
