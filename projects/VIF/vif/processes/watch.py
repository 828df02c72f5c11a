"""No process waits for one that is gone: each shows every second that it lives and looks at the next."""

import logging
import os
import socket
import sys
import threading
import time
from typing import Any, Callable, Optional

from ..errors import ProcessError

logger = logging.getLogger(__name__)
BEAT = 1.0  # seconds between two signs of life
SILENCE = 25.0  # seconds without one after which a process counts as gone


def end_now(reason: str) -> None:
    """End this process, also where its main thread waits in a collective that will not come back."""
    logger.error("%s", reason)
    sys.stderr.write(f"error: {reason}\n")
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


class Watch:
    """Signs of life of a group of processes, in a store that all of them reach.

    Process r looks at process r + 1, so that the cost does not grow with their number; who finds the next one
    silent says so to all. A process that fails says why before it ends.

    Args:
        store: torch's store with `add`, `check`, `set`, `get`; used here alone, since its calls wait in line.
        rank, world_size: this process and how many there are.
        serves: this process holds the store, and so has to be the last to leave.
        beat, silence: seconds.
        lost: called with the reason, in a thread, when the group cannot go on.
    """

    def __init__(
        self,
        store: Any,
        rank: int,
        world_size: int,
        serves: bool = False,
        beat: float = BEAT,
        silence: float = SILENCE,
        lost: Callable[[str], None] = end_now,
    ) -> None:
        self.store, self.rank, self.world_size, self.serves = store, rank, world_size, serves
        self.beat, self.silence, self.lost = beat, silence, lost
        self.next = (rank + 1) % world_size
        self._stop = threading.Event()
        self._alive = time.monotonic()  # when the next process was last heard of
        self._reason: Optional[str] = None
        self._name("name", f"{socket.gethostname()}, pid {os.getpid()}")
        # two threads: a store on a machine without power does not answer, and so cannot be asked and watched
        for work in (self._talk, self._guard):
            threading.Thread(target=work, daemon=True).start()

    def _name(self, key: str, value: str) -> None:
        self.store.set(f"{key}/{self.rank}", value)

    def _who(self, rank: int) -> str:
        name = f" ({self.store.get(f'name/{rank}').decode()})" if self.store.check([f"name/{rank}"]) else ""
        return f"process {rank} of {self.world_size}{name}"

    def _talk(self) -> None:
        count, heard = -1, time.monotonic()
        while not self._stop.wait(self.beat):
            try:
                self.store.add(f"beat/{self.rank}", 1)
                found = self.store.add(f"beat/{self.next}", 0)
                now = time.monotonic()
                self._alive = now  # the store answers
                if found != count:
                    count, heard = found, now
                elif now - heard > self.silence:
                    self.fail(f"{self._who(self.next)} has shown no sign of life for {self.silence:.0f} s")
                if self.store.check(["failed"]):
                    self._reason = self.store.get("failed").decode()
                    return
            except RuntimeError:
                if not self._stop.is_set():
                    self._reason = "the first process, or the launcher that holds what all share, is gone"
                return

    def _guard(self) -> None:
        while not self._stop.wait(self.beat / 2):
            reason = self._reason
            if reason is None and time.monotonic() - self._alive > self.silence + 5 * self.beat:
                reason = f"the first process has not answered for {self.silence:.0f} s"
            if reason is not None and not self._stop.is_set():
                self.lost(f"{reason}; this process, {self.rank} of {self.world_size}, ends with it.")
                return

    def fail(self, reason: str) -> None:
        """Tell all processes why they have to end; the first reason stays."""
        if self.store.add("failing", 1) == 1:
            self.store.set("failed", reason)

    def failed(self, error: BaseException) -> None:
        """Tell why this process ends, and give the others the time to read it."""
        self._stop.set()
        try:
            self.fail(f"{self._who(self.rank)} failed: {type(error).__name__}: {error}")
            time.sleep(3 * self.beat)
        except RuntimeError:
            pass  # the store is gone, and with it all who could read

    def leave(self, within: Optional[float] = None) -> None:
        """Wait until all processes are here; nobody is watched any more.

        Args:
            within: seconds; None: as long as the others live.

        Raises:
            ProcessError: the time is over.
        """
        end = None if within is None else time.monotonic() + within
        self.store.add("left", 1)
        while self.store.add("left", 0) < self.world_size:
            if end is not None and time.monotonic() > end:
                raise ProcessError(f"the other processes did not end within {within:.0f} s.")
            time.sleep(self.beat / 10)
        self._stop.set()
        gone = self.store.add("gone", 1)
        end = time.monotonic() + 5
        while self.serves and gone < self.world_size and time.monotonic() < end:
            time.sleep(self.beat / 10)
            gone = self.store.add("gone", 0)
