"""Checkpoints of a run on disk: which one to go on from, whether it is whole, which are old."""

import contextlib
import logging
import os
import re
import zipfile
from typing import Any, Callable, Collection, Dict, List, NamedTuple, Optional, Tuple

from ..errors import CheckpointError, DataError
from ..weight_files import Weights, read_weights

logger = logging.getLogger(__name__)

FORMAT = 1  # of what a checkpoint holds under "run"
LAST = "last_checkpoint"  # fastreid's file that names the newest checkpoint
RESUME = "model_resume"  # the checkpoint between those of epochs; goes when a newer one is there
_NAMES = re.compile(r"model_(\d{4,}|best|final|resume)\.pth")
_NUMBERED = re.compile(r"model_(\d{4,})\.pth")


class Found(NamedTuple):
    """A checkpoint that was read and found whole."""

    path: str
    weights: Weights

    @property
    def position(self) -> Tuple[int, int]:
        """(last epoch that is done, finished iterations or 0): how far the run had come."""
        return self.weights.rest["epoch"], self.weights.rest.get("run", {}).get("iteration", 0)


def checkpoints(folder: str) -> List[str]:
    """Paths of the files that have a checkpoint's name."""
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return [os.path.join(folder, name) for name in names if _NAMES.fullmatch(name)]


def named_last(folder: str) -> str:
    """Path of the checkpoint that `last_checkpoint` names; empty without that file.

    Raises:
        DataError: the file is empty, torn, or names something outside the folder.
    """
    path = os.path.join(folder, LAST)
    try:
        with open(path, "rb") as f:
            name = f.read(4096).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return ""
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e.strerror}.") from e
    target = os.path.join(folder, name)
    inside = os.path.dirname(os.path.realpath(target)) == os.path.realpath(folder)
    if not (name.endswith(".pth") and name == os.path.basename(name) and name.isprintable() and inside):
        raise DataError(f"{path} names {name[:80]!r}, which is no checkpoint in this folder.")
    return target


def read(path: str, keys: Collection[str]) -> Found:
    """Read a checkpoint and check it: every part's checksum, and the parts that a run needs.

    Args:
        path: of the file.
        keys: parts beside the weights, e.g. optimizer.

    Raises:
        DataError: the file is missing, empty, cut off, changed, holds code, or is no checkpoint of a run.
    """
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise DataError(f"{path} is empty.")
    if os.path.isfile(path) and zipfile.is_zipfile(path):
        _check_sums(path)
    weights = read_weights(path)
    missing = [key for key in ("epoch", *keys) if key not in weights.rest]
    if missing:
        raise DataError(f"{path} is no checkpoint of this kind of run: it lacks {', '.join(missing)}.")
    run = weights.rest.get("run", {"format": FORMAT, "iteration": 0})
    if not (isinstance(run, dict) and run.get("format") == FORMAT and type(run.get("iteration")) is int):
        raise DataError(f"{path} holds a run's state that this version does not read (format {FORMAT}).")
    if type(weights.rest["epoch"]) is not int:
        raise DataError(f"{path} is no checkpoint of this kind of run: its epoch is no whole number.")
    return Found(path, weights)


def _check_sums(path: str) -> None:
    """torch writes a checksum for each part of the archive, and does not look at it when it reads."""
    try:
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
    except Exception as e:  # zipfile has errors of many kinds for bytes that it does not understand
        raise DataError(f"{path} is torn: {(str(e) or type(e).__name__).splitlines()[0]}.") from e
    if changed is not None:
        raise DataError(f"{path} is damaged: the checksum of {changed} is wrong.")


def find(
    folder: str, keys: Collection[str], accept: Callable[[Found], None] = lambda found: None
) -> Optional[Found]:
    """The checkpoint to go on from: the one in `last_checkpoint`, else the newest that is good.

    Args:
        folder: of the run.
        keys: as `read` takes them.
        accept: raises DataError for a checkpoint that is whole but of another run; changes nothing.

    Returns:
        None where the folder has no checkpoint at all.

    Raises:
        CheckpointError: there are some, and none is good; names each with the reason.
    """
    refused: Dict[str, str] = {}
    last = ""
    try:
        last = named_last(folder)
    except DataError as e:
        refused[LAST] = str(e)
    if last:
        found = _try(last, keys, accept, refused)
        if found is not None:
            return found
    best = _newest([path for path in checkpoints(folder) if path != last], keys, accept, refused)
    for reason in refused.values():
        logger.warning("Refused: %s", reason)
    if best is not None:
        why = "what is above was refused" if refused else f"there is no {LAST}"
        logger.warning("The run goes on from %s: %s", best.path, why)
    elif refused:
        raise CheckpointError(
            f"There is no checkpoint in {folder} to go on from: {' '.join(refused.values())} Put a good one "
            "there, or start from the beginning, without --resume or in another OUTPUT_DIR."
        )
    return best


def _newest(
    paths: List[str], keys: Collection[str], accept: Callable[[Found], None], refused: Dict[str, str]
) -> Optional[Found]:
    """The first that is accepted, from the newest on; older ones are not asked. Holds one at a time."""
    whole: List[Tuple[Tuple[int, int], str]] = []
    for path in paths:
        found = _try(path, keys, lambda found: None, refused)
        if found is not None:
            whole.append((found.position, path))
    for _, path in sorted(whole, key=lambda entry: entry[0], reverse=True):
        found = _try(path, keys, accept, refused)
        if found is not None:
            return found
    return None


def _try(
    path: str, keys: Collection[str], accept: Callable[[Found], None], refused: Dict[str, str]
) -> Optional[Found]:
    try:
        found = read(path, keys)
        accept(found)
    except DataError as e:
        refused[path] = str(e)
        return None
    return found


def thin(folder: str, keep: int, epoch: int) -> List[str]:
    """Remove the oldest checkpoints of epochs, `model_0003.pth` and so on; best, final, last stay.

    Args:
        folder: of the run.
        keep: how many stay; 0: all.
        epoch: the one just saved; higher numbers are of an older run, and neither counted nor removed.

    Returns:
        Paths that were removed; what could not be is said in the log.
    """
    names = [_NUMBERED.fullmatch(os.path.basename(path)) for path in checkpoints(folder)]
    numbered = sorted((int(name[1]), name[0]) for name in names if name and int(name[1]) <= epoch)
    last = named_last(folder)
    old = [os.path.join(folder, name) for _, name in numbered[:-keep]] if keep else []
    old = [path for path in old if path != last]
    removed = []
    for path in old:
        try:
            os.unlink(path)
            removed.append(path)
        except OSError as e:
            logger.error("%s could not be removed (%s); the run goes on", path, e.strerror)
    return removed


def leave_older_run(folder: str) -> None:
    """At a fresh start: an older run of this folder is not what `--resume` goes on from."""
    older = checkpoints(folder)
    if not older and not os.path.lexists(os.path.join(folder, LAST)):
        return
    for name in (LAST, f"{RESUME}.pth"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name))
    logger.warning(
        "%s holds checkpoints of an older run. This run starts afresh: %s and %s.pth of the older one were "
        "removed; its other checkpoints (%s) stay until this run writes one of their name, are no part of "
        "this run, and would be taken by --resume before the first save. Better choose another OUTPUT_DIR.",
        folder,
        LAST,
        RESUME,
        ", ".join(os.path.basename(path) for path in older if not path.endswith(f"{RESUME}.pth")) or "none",
    )


def clear_partial(folder: str) -> None:
    """Remove what a save that was killed left behind: hidden files that never took their name."""
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if re.fullmatch(r"\.(model_\w+\.pth|last_checkpoint)\.\w+\.part", name):
            os.unlink(os.path.join(folder, name))


def plain(values: Any) -> Any:
    """Tuples and lists as tuples, all the way down: what compares equal after a round trip."""
    return tuple(plain(value) for value in values) if isinstance(values, (list, tuple)) else values
