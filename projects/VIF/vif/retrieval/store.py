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
from typing import Any, Dict, Iterator, Tuple

import numpy as np

from ..errors import DataError
from ..files import sync_folder, write_json

FORMAT = "vif-gallery-1"
MANIFEST = "manifest.json"
_VERSION = re.compile(r"v\d{6,}-[0-9a-f]{8}")
_FILE = re.compile(r"[a-z][a-z0-9_]{0,40}\.(npy|faiss)")
_CHUNK = 1 << 20


def current_version(folder: str) -> str:
    """Version that a folder holds, "" if it holds no gallery yet.

    Raises:
        DataError: there is a manifest, but of no gallery.
    """
    return str(read_manifest(folder)["version"]) if os.path.lexists(_manifest(folder)) else ""


def write(folder: str, arrays: Dict[str, np.ndarray], index: Any, header: Dict[str, Any], base: str) -> str:
    """Write a new version and make it the folder's.

    Args:
        folder: is made when missing.
        arrays: by file name without ending.
        index: FAISS index, or None.
        header: further keys of the manifest.
        base: version that the folder must hold still, "" for none.

    Returns:
        The version written.

    Raises:
        DataError: another process is saving there, has saved since, the folder holds something else, or it
            cannot be written.
    """
    try:
        if os.path.isdir(folder) and not os.path.lexists(_manifest(folder)):
            _refuse_foreign(folder)
        os.makedirs(folder, exist_ok=True)
        with _locked(folder):
            found = current_version(folder)
            if found != base:
                raise DataError(
                    f"gallery {folder!r} holds version {found or 'none'}, not {base or 'none'}: something "
                    "else saved there. Open it again and repeat the change, or save with overwrite=True."
                )
            number = int(found[1:].split("-")[0]) + 1 if found else 1
            version = f"v{number:06d}-{secrets.token_hex(4)}"
            files = _write_version(os.path.join(folder, version), arrays, index)
            write_json(_manifest(folder), {"format": FORMAT, "version": version, **header, "files": files})
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
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a gallery's manifest ({error}).") from error
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


def _write_version(folder: str, arrays: Dict[str, np.ndarray], index: Any) -> Dict[str, Any]:
    """Write all files of a version, or leave nothing of it."""
    os.mkdir(folder)
    try:
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
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
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
    """A folder without a manifest may hold what a first save left behind, and nothing else."""
    foreign = [name for name in os.listdir(folder) if not _VERSION.fullmatch(name) and name[0] != "."]
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
