"""Signals that ask a run to stop: noted while a step runs, answered between two steps."""

import contextlib
import multiprocessing
import os
import signal
import threading
from multiprocessing import resource_tracker
from typing import Any, Dict, Iterator

from ..errors import Stopped

# a scheduler's end, Ctrl-C, and what SLURM sends ahead of the end (--signal=USR1@120)
STOPPING = ("SIGTERM", "SIGINT", "SIGUSR1")
LOOK = 4.0  # seconds after which a loader's worker looks whether its run still lives


class StopSignals:
    """Within the block, the first of `STOPPING` is noted; a second SIGINT does what it did before.

    Attributes:
        received: name of the signal, or empty.
        saved: set it while nothing would be lost by stopping at once: the signal then raises `Stopped`.
    """

    def __init__(self) -> None:
        self.received = ""
        self.saved = False
        self._before: Dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
            for name in STOPPING:
                number = getattr(signal, name, None)
                if number is not None:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: Any) -> None:
        self.received = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(number, self._before[number])
        if self.saved:
            raise Stopped(self.received)


@contextlib.contextmanager
def sparing_workers() -> Iterator[None]:
    """Loader workers that start within the block are spared from their first moment on.

    A process inherits what the one that starts it blocks, be it new, a fork, or a fork of a server that was
    started so. What comes meanwhile is delivered after the block.
    """
    if not hasattr(signal, "sigtimedwait"):  # no Linux
        yield
        return
    if multiprocessing.get_start_method() != "fork":
        resource_tracker.ensure_running()  # which starts with the first worker else, and unblocks them
    stopping = {getattr(signal, name) for name in STOPPING}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stopping)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def spare_workers() -> None:
    """In a loader's worker process: what is sent to the whole group is the main process's to answer.

    SIGTERM is obeyed when it is the main process that sends it, as it does to end its workers; and a worker
    ends by itself when the main process is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, "sigtimedwait"):  # Linux; elsewhere a SIGTERM to the group ends the workers
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(main: Any) -> None:
    """End this process with the main one; os.getppid(), which torch looks at, may be a server that forks."""
    while True:
        told = signal.sigtimedwait([signal.SIGTERM], LOOK)
        if (told and told.si_pid == main.pid) or not main.is_alive():
            os._exit(0)
