"""The image files below a folder."""

import os
from typing import List, Tuple

from ..errors import DataError
from .images import FORMATS, ImageFailure

ENDINGS = tuple(ending for endings in FORMATS.values() for ending in endings)


def find_images(folder: str) -> Tuple[List[str], List[ImageFailure]]:
    """Images below a folder: files with one of `ENDINGS`, in any case, that no "." hides.

    Links to files inside the folder count as files. Links to files outside, links to folders and folders that
    cannot be listed are failures.

    Returns:
        Sorted paths relative to the folder, with "/" between names; and failures.

    Raises:
        DataError: there is no such folder.
    """
    if not os.path.isdir(folder):
        raise DataError(f"there is no folder {folder!r} of images; check the path.")
    root = os.path.realpath(folder)
    paths: List[str] = []
    failures: List[ImageFailure] = []

    def relative(path: str) -> str:
        return os.path.relpath(path, folder).replace(os.sep, "/")

    def fail(path: str, reason: str) -> None:
        failures.append(ImageFailure(relative(path), reason))

    def unlisted(error: OSError) -> None:
        fail(error.filename, f"the folder cannot be listed: {error.strerror}; check its permissions")

    for parent, folders, files in os.walk(folder, onerror=unlisted):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if os.path.islink(os.path.join(parent, name)):
                fail(os.path.join(parent, name), "a link to a folder, which is not followed; copy the folder")
        for name in files:
            path = os.path.join(parent, name)
            if name.startswith(".") or not name.lower().endswith(ENDINGS):
                continue
            if os.path.islink(path) and not os.path.realpath(path).startswith(os.path.join(root, "")):
                fail(path, "a link out of the folder, which is not followed; copy the file")
            else:
                paths.append(relative(path))
    return sorted(paths), failures
