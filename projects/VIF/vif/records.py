"""ImageRecord, the noun that crosses every border before the model."""

from typing import NamedTuple

AERIAL = "aerial"
GROUND = "ground"
CCTV = "cctv"
WEARABLE = "wearable"


class ImageRecord(NamedTuple):
    """One image on disk with its labels.

    Attributes:
        path: file name, absolute or relative to the working directory.
        pid: identity, unique within its data set (int, >= 0).
        camid: camera, as the data set numbers it (int, >= 0).
        view: kind of camera: ``aerial``, ``ground``, ``cctv``, ``wearable`` or a word of the user's own.
            Read by evaluation protocols only, never by VIF's training.
    """

    path: str
    pid: int
    camid: int
    view: str
