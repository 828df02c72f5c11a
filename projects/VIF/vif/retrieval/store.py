"""A gallery as a folder: files of plain arrays in a folder of one version, and a manifest that names it.

The manifest is replaced last and in one step: the folder always holds a whole gallery, the old or the new.
"""

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
from typing import Any, Dict, Iterator, Optional, Tuple

import numpy as np

from ..errors import DataError
from ..files import sync_folder, write_json

FORMAT = "vif-gallery-1"
MANIFEST = "manifest.json"
_VERSION = re.compile(r"v\d{6,}-[0-9a-f]{8}")
_FILE = re.compile(r"[a-z][a-z0-9_]{0,40}\.(npy|faiss)")
_CHUNK = 1 << 20


class _Torn(DataError):
    """The manifest is no JSON: a file system lost its end."""


def holds_gallery(folder: str) -> bool:
    """Whether there is a gallery in a folder, be it whole or torn.

    Raises:
        DataError: the folder holds something else.
    """
    if not os.path.lexists(_manifest(folder)):
        if os.path.isdir(folder):
            _refuse_foreign(folder)
        return False
    _current_version(folder, overwrite=True)
    return True


def _current_version(folder: str, overwrite: bool) -> str:
    """Version that a folder holds, "" if none; a torn gallery holds none where it may be overwritten."""
    if not os.path.lexists(_manifest(folder)):
        return ""
    try:
        return str(read_manifest(folder)["version"])
    except _Torn:
        if not overwrite:
            raise
        _refuse_foreign(folder)
        return ""


def write(
    folder: str, arrays: Dict[str, np.ndarray], index: Any, header: Dict[str, Any], base: Optional[str]
) -> str:
    """Write a new version and make it the folder's.

    Args:
        folder: is made when missing.
        arrays: by file name without ending.
        index: FAISS index, or None.
        header: further keys of the manifest.
        base: version that the folder must hold still, "" for none; None: replace whatever gallery is there.

    Returns:
        The version written.

    Raises:
        DataError: another process is saving there, has saved since, the folder holds something else, or it
            cannot be written.
    """
    try:
        holds_gallery(folder)
        os.makedirs(folder, exist_ok=True)
        with _locked(folder):
            found = _current_version(folder, overwrite=base is None)
            if base is not None and found != base:
                raise DataError(
                    f"gallery {folder!r} holds version {found or 'none'}, not {base or 'none'}: something "
                    "else saved there. Open it again and repeat the change, or save with overwrite=True."
                )
            number = int(found[1:].split("-")[0]) + 1 if found else 1
            version = f"v{number:06d}-{secrets.token_hex(4)}"
            with _whole_or_none(folder, version):
                files = _write_version(os.path.join(folder, version), arrays, index)
                header = {"format": FORMAT, "version": version, **header, "files": files}
                write_json(_manifest(folder), header)
            _clean(folder, version)
    except OSError as error:
        raise DataError(
            f"gallery {folder!r} cannot be written: {error}. The old one, if any, is whole."
        ) from error
    return version


def read(folder: str, verify: bool) -> Tuple[Dict[str, Any], Dict[str, np.ndarray], Any]:
    """Manifest, memory-mapped arrays by name, and FAISS index or None.

    Args:
        folder: written by `write`.
        verify: compare all files with their sha256; otherwise their sizes only.

    Raises:
        DataError: no gallery, or one with a missing or changed file; names it.
    """
    for _ in range(5):
        manifest = read_manifest(folder)
        try:
            return (manifest, *_read_version(folder, manifest, verify))
        except DataError:
            if read_manifest(folder)["version"] == manifest["version"]:
                raise
    raise DataError(f"gallery {folder!r} is saved faster than it can be read; try again.")


def read_manifest(folder: str) -> Dict[str, Any]:
    """The manifest, checked.

    Raises:
        DataError: there is none, or it is of something else.
    """
    path = _manifest(folder)
    try:
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
    except FileNotFoundError:
        raise DataError(
            f"{folder!r} is no gallery: it has no {MANIFEST}. Make one with `vif index`."
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read as a gallery's manifest ({error}).") from error
    except ValueError as error:
        raise _Torn(
            f"{path}: cannot be read as a gallery's manifest ({error}). Restore it, or replace the gallery: "
            "`vif index --overwrite`, or save(folder, overwrite=True)."
        ) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError(f"{path}: not the manifest of a gallery ({FORMAT}); the folder is something else's.")
    files = manifest.get("files")
    names = [manifest.get("version"), *(files if isinstance(files, dict) else [None])]
    if not all(isinstance(name, str) for name in names) or not (
        _VERSION.fullmatch(names[0]) and all(_FILE.fullmatch(name) for name in names[1:])
    ):
        raise DataError(f"{path}: names files that no gallery has; it was written by something else.")
    return manifest


def _read_version(folder: str, manifest: Dict[str, Any], verify: bool) -> Tuple[Dict[str, np.ndarray], Any]:
    arrays: Dict[str, np.ndarray] = {}
    index = None
    for name, expected in manifest["files"].items():
        path = os.path.join(folder, manifest["version"], name)
        try:
            size = os.path.getsize(path)
            if size != expected["bytes"] or (verify and _sha256(path) != expected["sha256"]):
                raise DataError(
                    f"{path}: not what was saved ({size} bytes, expected {expected['bytes']}, or another "
                    "sha256); the file was cut or changed. Restore it, or build the gallery again."
                )
            stem, ending = os.path.splitext(name)
            if ending == ".npy":
                arrays[stem] = np.load(path, mmap_mode="r", allow_pickle=False)
            else:
                index = _read_index(path)
        except DataError:
            raise
        except Exception as error:  # FAISS and numpy raise what they like
            raise DataError(f"{path}: cannot be read ({error}). Build the gallery again.") from error
    return arrays, index


def _read_index(path: str) -> Any:
    from .exact import import_faiss

    faiss = import_faiss()
    return faiss.read_index(path, getattr(faiss, "IO_FLAG_MMAP_IFC", 0))


@contextlib.contextmanager
def _whole_or_none(folder: str, version: str) -> Iterator[None]:
    """A version that has not become the folder's leaves nothing behind."""
    try:
        yield
    except BaseException:
        named = b""
        with contextlib.suppress(OSError), open(_manifest(folder), "rb") as file:
            named = file.read()
        if version.encode() not in named:
            shutil.rmtree(os.path.join(folder, version), ignore_errors=True)
        raise


def _write_version(folder: str, arrays: Dict[str, np.ndarray], index: Any) -> Dict[str, Any]:
    """Write all files of a version."""
    os.mkdir(folder)
    for name, array in arrays.items():
        with open(os.path.join(folder, f"{name}.npy"), "wb") as file:
            np.save(file, array, allow_pickle=False)
    if index is not None:
        _write_index(index, os.path.join(folder, "index.faiss"))
    files = {}
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
        files[name] = {"bytes": os.path.getsize(path), "sha256": _sha256(path)}
    sync_folder(folder)
    return files


def _write_index(index: Any, path: str) -> None:
    from .exact import import_faiss

    try:
        import_faiss().write_index(index, path)
    except RuntimeError as error:  # FAISS's word for a full disk
        raise OSError(str(error)) from error


def _clean(folder: str, version: str) -> None:
    """Take away older versions, and what killed processes left."""
    for name in os.listdir(folder):
        if _VERSION.fullmatch(name) and name != version:
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
        elif name.startswith(f".{MANIFEST}.") and name.endswith(".part"):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))


def _refuse_foreign(folder: str) -> None:
    """A folder without a manifest, or with a torn one, may hold what a save left behind, and nothing else."""
    own = [name for name in os.listdir(folder) if _VERSION.fullmatch(name) or name == MANIFEST]
    foreign = [name for name in os.listdir(folder) if name not in own and name[0] != "."]
    if foreign:
        raise DataError(f"{folder!r} is no gallery and not empty ({foreign[0]!r}); name another folder.")


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """One process saves at a time; the lock goes when its process does, however that ends."""
    try:
        import fcntl
    except ImportError:  # Windows: nothing but the version guards
        yield
        return
    with open(os.path.join(folder, ".lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"another process is saving the gallery {folder!r}; wait for it.") from None
        yield


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _manifest(folder: str) -> str:
    return os.path.join(folder, MANIFEST)
