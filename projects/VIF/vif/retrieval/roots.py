"""The folder that a gallery's paths are relative to, so that its images are found again and can be moved."""

import os
from typing import Sequence

import numpy as np

from ..errors import DataError


def relative_to(root: str, paths: Sequence[str]) -> np.ndarray:
    """(N,) str: paths below a root as they are below it, others as they are.

    Args:
        root: folder.
        paths: absolute, relative to the root, or else relative to the working directory.
    """
    inside = os.path.join(os.path.abspath(root), "")

    def shortened(path: str) -> str:
        if not os.path.isabs(path) and os.path.lexists(os.path.join(root, path)):
            return path
        whole = os.path.abspath(path)
        return whole[len(inside) :].replace(os.sep, "/") if whole.startswith(inside) else path

    return np.array([shortened(path) for path in paths], dtype=np.str_)


def of_folder(root: str, folder: str, paths: Sequence[str]) -> np.ndarray:
    """(N,) str: paths below a folder as they are below a root; absolute where there is no root ("").

    Raises:
        DataError: the folder lies outside the root, where its images would not be found.
    """
    whole = [os.path.join(os.path.abspath(folder), path) for path in paths]
    if not root:
        return np.array(whole, dtype=np.str_)
    found = relative_to(root, whole)
    if any(map(os.path.isabs, found)):
        raise DataError(
            f"{folder} lies outside {root}, the folder that the gallery's paths are relative to: its images "
            "would not be found. Move them there, or build the gallery again with --root, a folder of both."
        )
    return found
