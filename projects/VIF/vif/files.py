"""Files that appear whole: readers see the old one or the new one, never half of either."""

import contextlib
import errno
import json
import os
import secrets
import stat
import tempfile
from typing import Any, Iterator

from .errors import ConfigError


@contextlib.contextmanager
def atomic_path(path: str) -> Iterator[str]:
    """Give a temporary name beside `path`; on leaving, what was written there takes the name `path`.

    If the block raises, `path` stays as it was and the temporary file is removed. The folder must exist.

    Raises:
        OSError: the system cannot write it; its `filename` is `path`.
    """
    folder, name = os.path.split(os.path.abspath(path))
    partial = os.path.join(folder, f".{name}.{secrets.token_hex(8)}.part")
    try:
        handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)  # less the process's umask
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
        os.close(handle)
        yield partial
        with open(partial, "rb+") as f:
            os.fsync(f.fileno())
        os.chmod(partial, mode)  # safetensors puts a file of its own in its place
        os.replace(partial, path)
        sync_folder(folder)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        if isinstance(error, OSError) and error.filename in (None, partial):
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), path) from error
        raise


def sync_folder(folder: str) -> None:
    """Have a folder's names on disk, before anything is removed that they replace."""
    with contextlib.suppress(OSError):  # not every file system does
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def require_writable(folder: str) -> None:
    """Make the folder when it is missing, and write to it.

    Raises:
        ConfigError: it cannot be written to, with the system's reason.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as f:
            f.write(bytes(4096))
    except OSError as e:
        raise ConfigError(
            f"OUTPUT_DIR={folder!r} cannot be written to: {e.strerror}. Name another folder, or make room."
        ) from e


def write_text(path: str, text: str) -> None:
    """Write UTF-8 text through `atomic_path`; the folder is made when it is missing."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with atomic_path(path) as partial, open(partial, "w", encoding="utf-8") as f:
        f.write(text)


def write_json(path: str, content: Any) -> None:
    """`write_text` of JSON."""
    write_text(path, json.dumps(content, indent=2) + "\n")
