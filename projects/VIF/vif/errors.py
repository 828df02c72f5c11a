"""The project's own errors: each message says what happened, where, and what to do."""

import os
from typing import Union


class VIFError(Exception):
    """Base of every error that this project raises on purpose."""


class ConfigError(VIFError, ValueError):
    """A config key has a value that cannot work; names the key, the value and what is allowed."""


class DataError(VIFError, ValueError):
    """A data set, image, list or feature file is missing or malformed; names the file."""


class UnreadableImage(DataError):
    """An image file is missing, no regular file, empty, torn, no image, or too large; names the file."""


class EvaluationError(VIFError, ValueError):
    """A protocol cannot be scored: no valid query, an empty side, mismatched lengths, NaN features."""


class NonFiniteError(VIFError, FloatingPointError):
    """A loss or a gradient is NaN or infinite; names iteration, losses and the file that reproduces it."""


class ExportError(VIFError, RuntimeError):
    """An exported file cannot be written, or gives other features than the network; names it."""


class ProcessError(VIFError, RuntimeError):
    """One of several processes cannot start, or has ended and so ends the others; names it."""


class CheckpointError(VIFError, RuntimeError):
    """A checkpoint cannot be written, or there is none that is good to go on from; names the files."""


STOPPED = 75  # exit code of a run that a signal stopped and that can go on: EX_TEMPFAIL, "try again later"


class Stopped(SystemExit):
    """A signal stopped the run; its state is saved. The process ends with the code `STOPPED`."""

    def __init__(self, signal: str) -> None:
        super().__init__(STOPPED)
        self.signal = signal


def shown(path: Union[str, "os.PathLike[str]"]) -> str:
    """A path on one line, escaped where it holds line breaks or what cannot be printed."""
    text = os.fspath(path)
    return text if text.isprintable() else repr(text)
