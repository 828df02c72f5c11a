"""Unreadable training images, counted over all processes and put beside the scores of a run."""

import logging
from typing import Any, Dict

from fastreid.utils import comm

from ..data.unreadable import training_count

logger = logging.getLogger(__name__)


def add_training_count(cfg: Any, results: Dict[str, Dict[str, Dict[str, float]]]) -> None:
    """Add unreadable_train to every protocol's scores, where DATALOADER.BAD_IMAGES is "skip".

    It counts the images met since the run began to train, 0 where it did not. All processes must call.

    Args:
        cfg: config with VIF's keys.
        results: scores by data set and protocol, changed in place; empty but on the first process.
    """
    if cfg.DATALOADER.BAD_IMAGES != "skip":
        return
    mine = training_count()
    shares = comm.all_gather((set(mine.found), mine.draws))
    images = set().union(*(found for found, _ in shares))
    if images and comm.is_main_process():
        draws = sum(draws for _, draws in shares)
        logger.warning(
            "Training met %d unreadable images so far; other images took %d draws of theirs",
            len(images),
            draws,
        )
    for protocols in results.values():
        for scores in protocols.values():
            scores["unreadable_train"] = float(len(images))
