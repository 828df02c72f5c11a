"""Signals that ask a run to stop: noted while a step runs, answered between two steps."""

import os
import signal
import threading
from typing import Any, Dict

from ..errors import Stopped

# a scheduler's end, Ctrl-C, and what SLURM sends ahead of the end (--signal=USR1@120)
STOPPING = ("SIGTERM", "SIGINT", "SIGUSR1")


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


def spare_workers() -> None:
    """In a loader's worker process: what is sent to the whole group is the main process's to answer.

    SIGTERM is obeyed when it is the main process that sends it, as it does to end its workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # Linux; elsewhere a SIGTERM to the group ends the workers
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_when_told, daemon=True).start()


def _end_when_told() -> None:
    while True:
        told = signal.sigwaitinfo([signal.SIGTERM])
        if told.si_pid == os.getppid():
            os._exit(0)
