"""Held-out training identities: a validation set, so that nobody chooses settings on the test set."""

from typing import Dict, List, Set, Tuple

import numpy as np

from ..errors import DataError
from ..records import ImageRecord

Splits = Dict[str, List[ImageRecord]]
_SEED = 0  # the same identities in every run and on every machine


def hold_out(splits: Splits, share: float) -> Splits:
    """Splits made of the training images alone: some identities to train on, the others as query and gallery.

    Of each held-out identity the first image of every view, in the order of file names, is a query; the rest
    is gallery. The test images are left out.

    Args:
        splits: records by split name; only "train" is read.
        share: part of the identities that is held out, in (0, 1).

    Returns:
        "train", "query" and "gallery".

    Raises:
        DataError: fewer than two identities would be left to train on or to test on.
    """
    pids = np.array(sorted({record.pid for record in splits["train"]}))
    count = round(share * len(pids))
    if min(count, len(pids) - count) < 2:
        raise DataError(
            f"DATASETS.HOLDOUT={share:g} of {len(pids)} training identities leaves {len(pids) - count} to "
            f"train on and {count} to test on; both need at least 2."
        )
    held = set(np.random.default_rng(_SEED).permutation(pids)[:count].tolist())
    result: Splits = {"train": [], "query": [], "gallery": []}
    seen: Set[Tuple[int, str]] = set()
    for record in splits["train"]:
        if record.pid not in held:
            result["train"].append(record)
            continue
        key = (record.pid, record.view)
        result["gallery" if key in seen else "query"].append(record)
        seen.add(key)
    return result
