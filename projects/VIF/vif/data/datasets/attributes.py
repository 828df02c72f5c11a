"""Attribute files: what the authors of AG-ReID annotated of each identity, and SynthAG's of the same form.

A MATLAB file of version 5 to 7.2 that holds one struct of two structs, ``train`` and ``test``, as do the
attributes of Market-1501. Each has ``image_index``, the identities (P, T and A together, as readers number
them), and one vector for each binary attribute: 1 no, 2 yes. The 15 attributes of AG-ReIDv1 and v2 come as 88
binary ones, one for each value ("uppershirt", "upperdress", ...).

References: Nguyen et al., Aerial-Ground Person Re-ID, ICME 2023, and AG-ReID.v2, IEEE TIFS 2024.
"""

import os
from itertools import islice
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from ...errors import DataError
from .agreid import AGREIDV1, AGREIDV2
from .cargo import SYNTHAG
from .checks import SHOWN
from .tree import Layout, find_beside, find_root

PARTS = ("train", "test")
INDEX = "image_index"
FILES: Dict[str, Tuple[Layout, str]] = {  # data set: its layout and the name of its attribute file
    "AGReIDv1": (AGREIDV1, "qut_attribute_v4_88_attributes.mat"),
    "AGReIDv2": (AGREIDV2, "qut_attribute_v8.mat"),
    "SynthAG": (SYNTHAG, "synthag_attributes.mat"),
}


class Attributes(NamedTuple):
    """Binary attributes of identities.

    Attributes:
        path: the file.
        names: K names, in the file's order.
        rows: pid -> float32 (K,), 1 yes, 0 no; identities of train and test.
    """

    path: str
    names: Tuple[str, ...]
    rows: Dict[int, np.ndarray]

    def of(self, pids: Sequence[int]) -> np.ndarray:
        """Rows of identities: float32 (N, K).

        Raises:
            DataError: an identity has no row.
        """
        missing = sorted({pid for pid in pids if pid not in self.rows})
        if missing:
            shown = ", ".join(str(pid) for pid in islice(missing, SHOWN))
            raise DataError(
                f"{self.path} has no attributes of {len(missing)} training identities, such as {shown}; it "
                "is of another data set or version: take the file that came with these images."
            )
        return np.stack([self.rows[pid] for pid in pids])


def find_attributes(dataset: str, root: str, path: str = "") -> str:
    """Where the attribute file of a data set is.

    Args:
        dataset: name of the data set.
        root: data root.
        path: the file, where it is not in its usual place (DATASETS.ATTRIBUTES).

    Raises:
        DataError: it is not there, or the data set has none.
    """
    if path:
        found, tried = (path if os.path.isfile(path) else None), [path]
    elif dataset in FILES:
        layout, name = FILES[dataset]
        home = find_root(root, layout)
        found, tried = find_beside(home, name)
    else:
        raise DataError(
            f"{dataset} comes without attributes; {', '.join(FILES)} have them. Annotate it in a file of "
            "their form and name that in DATASETS.ATTRIBUTES, or train a system that reads none."
        )
    if found:
        return found
    remedy = (
        f"write it with `vif synth`, called once more as for {dataset}'s images"
        if dataset == "SynthAG"
        else f"get it from the authors of {dataset}, who publish it beside the images"
    )
    raise DataError(
        f"The attribute file of {dataset} is not on disk (looked for {' and '.join(tried)}); {remedy}, and "
        "put it there or name it in DATASETS.ATTRIBUTES."
    )


def read_attributes(path: str) -> Attributes:
    """Read an attribute file.

    Raises:
        DataError: it cannot be read or has another form; names the file, the field and what was expected.
    """
    content = _load(path)
    names: List[str] = []
    rows: Dict[int, np.ndarray] = {}
    for part in PARTS:
        fields = content.get(part)
        if not isinstance(fields, dict) or INDEX not in fields or len(fields) < 2:
            raise DataError(f"{path}: {part!r} is no struct of {INDEX} and attributes; get the file again.")
        names = names or [name for name in fields if name != INDEX]
        if set(names) != set(fields) - {INDEX}:
            odd = sorted(set(names) ^ (set(fields) - {INDEX}))
            raise DataError(f"{path}: only one of train and test has the attributes {', '.join(odd)}.")
        pids = [_pid(path, part, value) for value in np.atleast_1d(fields[INDEX])]
        columns = [_column(f"{path}, {part}.{name}", fields[name], len(pids)) for name in names]
        for pid, row in zip(pids, np.stack(columns, axis=1)):
            if not np.array_equal(rows.setdefault(pid, row), row):
                raise DataError(f"{path}: identity {pid} has two different rows; keep one of them.")
    return Attributes(path, tuple(names), rows)


def _load(path: str) -> Dict[str, Any]:
    """The struct of train and test."""
    from scipy.io import loadmat  # never unpickles

    try:
        variables = loadmat(path, simplify_cells=True)
    except Exception as e:  # scipy has no one error for a damaged file
        raise DataError(
            f"{path} cannot be read as a MATLAB file of version 5 to 7.2 ({e}); get it again, or save it "
            "with -v7."
        ) from e
    structs = [value for name, value in variables.items() if not name.startswith("__")]
    if len(structs) != 1 or not isinstance(structs[0], dict):
        raise DataError(f"{path} does not hold one struct of train and test; it is no attribute file.")
    return structs[0]


def _pid(path: str, part: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError) as e:
        raise DataError(
            f"{path}: {part}.{INDEX} holds {value!r}, which is no identity; expected P, T and A together, as "
            "6021400 for P0006T02140A0."
        ) from e


def _column(where: str, values: Any, count: int) -> np.ndarray:
    """One attribute as float32 (count,) of 0 and 1."""
    column = np.atleast_1d(values)
    if column.shape != (count,) or not np.isin(column, (1, 2)).all():
        raise DataError(
            f"{where} is no vector of {count} values 1 (no) or 2 (yes); an attribute of more values needs "
            "one field for each of them."
        )
    return (column == 2).astype(np.float32)
