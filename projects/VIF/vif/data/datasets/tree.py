"""Folders on disk: where a data set lies, which images it holds, which paths stay inside it."""

import ntpath
import os
import stat
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

from ...errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_DEPTH = 4  # folders below a split; the layouts need one, and a looping link must end


class Layout(NamedTuple):
    """How one data set lies under the data root.

    Attributes:
        name: the data set's name, for messages.
        folders: usual folder names under the data root, best first, with "/" between nested ones.
        needed: subfolders that must be there.
        tree: the whole expected tree in words.
        remedy: where the data set comes from.
    """

    name: str
    folders: Tuple[str, ...]
    needed: Tuple[str, ...]
    tree: str
    remedy: str


def find_root(data_root: str, layout: Layout) -> str:
    """The first of the layout's folders under `data_root` that holds all it needs.

    Raises:
        DataError: none does; lists what was tried, what is missing, the expected tree and the remedy.
    """
    base = os.path.expanduser(data_root)
    tried = [os.path.join(base, *folder.split("/")) for folder in layout.folders]
    found = {}
    for path in tried:
        missing = [name for name in layout.needed if not os.path.isdir(os.path.join(path, name))]
        if not missing:
            return path
        if len(missing) < len(layout.needed):
            found[path] = missing
    if found:
        problem = "; ".join(f"{path} lacks {', '.join(missing)}" for path, missing in found.items())
    else:
        problem = "it is in none of: " + ", ".join(tried)
    raise DataError(
        f"{layout.name} was not found under {base!r}: {problem}. Expected {layout.tree}, best under "
        f"{tried[0]}. {layout.remedy} If it lies elsewhere, set the environment variable FASTREID_DATASETS "
        f"to the folder that holds {layout.folders[0].split('/')[0]}/."
    )


def is_junk(name: str) -> bool:
    """True for what desktops leave behind: .DS_Store, ._x, __MACOSX, Thumbs.db and other hidden files."""
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini", "__macosx")


def scan_images(folder: str, root: str) -> List[str]:
    """Sorted paths, relative to `folder` with "/" between, of its images (.jpg, .jpeg, .png; not opened).

    The ending alone makes an image: what is no file, or a link to nothing, is listed too and found when it is
    read, so that no image goes missing in silence.

    Args:
        folder: where to look.
        root: the data set's folder, which no link may leave; may itself be a link, or below one.

    Raises:
        DataError: a folder cannot be listed, or a link leaves the root.
    """
    real_root = os.path.realpath(root)
    _check_link(folder, real_root, root)
    return sorted(_walk(folder, "", 0, real_root, root))


def _walk(folder: str, prefix: str, depth: int, real_root: str, root: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_junk(entry.name):
                    continue
                image = entry.name.lower().endswith(IMAGE_SUFFIXES)
                deeper = not image and depth < MAX_DEPTH and entry.is_dir()
                if (image or deeper) and entry.is_symlink():
                    _check_link(entry.path, real_root, root)
                if image:
                    yield prefix + entry.name
                elif deeper:
                    yield from _walk(entry.path, f"{prefix}{entry.name}/", depth + 1, real_root, root)
    except OSError as e:
        raise DataError(f"Folder {folder} cannot be read ({e.strerror}); check its permissions.") from e


def find_beside(home: str, name: str) -> Tuple[Optional[str], List[str]]:
    """A file of this name in a data set's folder or one up, and all the paths tried.

    Raises:
        DataError: it is a link out of both.
    """
    folders = (home, os.path.dirname(home))
    tried = [os.path.join(folder, name) for folder in folders]
    found = next((path for path in tried if os.path.isfile(path)), None)
    if found and not any(is_inside(found, os.path.realpath(folder)) for folder in folders):
        raise DataError(f"{found!r} leaves {home} and its parent through a symbolic link; copy it there.")
    return found, tried


def is_inside(path: str, real_root: str) -> bool:
    """Whether a path, its links followed, is at or below a folder without links."""
    return os.path.join(os.path.realpath(path), "").startswith(os.path.join(real_root, ""))


def _check_link(path: str, real_root: str, root: str) -> None:
    if not is_inside(path, real_root):
        raise DataError(
            f"{path!r} leaves {root} through a symbolic link; copy what it points to there. Only the data "
            "set's folder as a whole may be a link."
        )


class ListedFiles:
    """Files that a list names, relative to `root`: each must exist and stay inside.

    Args:
        root: the folder that no listed path may leave; may itself be a symbolic link.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._real_root = os.path.realpath(root)
        self._inside: Dict[str, bool] = {}

    def resolve(self, listed: str, where: str) -> str:
        """Path of a listed file, under `root`, normalised.

        Args:
            listed: relative path with "/" between folders.
            where: list and line, for messages.

        Raises:
            DataError: the path is absolute, has "..", leaves the root through a link, or is no file on disk.
        """
        parts = listed.split("/")
        if not parts[0] or ntpath.splitdrive(listed)[0] or "\\" in listed or ".." in parts:
            raise DataError(
                f"{where}: path {listed!r} must be relative to {self.root}, with '/' between folders and "
                "without '..'."
            )
        path = os.path.join(self.root, os.path.normpath(listed))
        try:
            mode = os.lstat(path).st_mode
            is_link = stat.S_ISLNK(mode)
            is_file = stat.S_ISREG(os.stat(path).st_mode if is_link else mode)
        except (OSError, ValueError) as e:  # ValueError: a null byte
            raise DataError(
                f"{where}: {listed!r} is not on disk (looked for {path!r}); the copy is incomplete: get it "
                "again, or remove the line."
            ) from e
        if not self._stays_inside(path, is_link):
            raise DataError(
                f"{where}: {listed!r} leaves {self.root} through a symbolic link; copy the file there."
            )
        if not is_file:
            raise DataError(f"{where}: {listed!r} is not a file ({path!r}).")
        return path

    def _stays_inside(self, path: str, is_link: bool) -> bool:
        if is_link:
            return is_inside(path, self._real_root)
        folder = os.path.dirname(path)  # resolved once a folder: realpath costs more than reading a line
        if folder not in self._inside:
            self._inside[folder] = is_inside(folder, self._real_root)
        return self._inside[folder]
