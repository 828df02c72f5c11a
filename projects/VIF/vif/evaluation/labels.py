"""Which gallery images match a query and which the same-camera filter ignores, from their labels alone."""

from typing import Any, Iterator, Tuple

import numpy as np
import torch

from ..errors import EvaluationError


class Matches:
    """Gallery images of the query's identity, found without comparing every query with every gallery image.

    Args:
        query_pids: (Q,) integers.
        gallery_pids: (G,) integers.
        query_camids: (Q,) integers.
        gallery_camids: (G,) integers.
        shape: (Q, G), what the lengths have to be.

    Attributes:
        valid: (V,) int64 indices of the queries with a match in another camera, ascending.
        same_count: (V,) int64 gallery images of the query's identity, in the same camera or not.

    Raises:
        EvaluationError: lengths differ from ``shape``, labels are not integers, or no query is valid.
    """

    def __init__(
        self,
        query_pids: Any,
        gallery_pids: Any,
        query_camids: Any,
        gallery_camids: Any,
        shape: Tuple[int, int],
    ) -> None:
        query_pid = _labels("query_pids", query_pids, shape[0])
        gallery_pid = _labels("gallery_pids", gallery_pids, shape[1])
        query_cam = _labels("query_camids", query_camids, shape[0])
        gallery_cam = _labels("gallery_camids", gallery_camids, shape[1])
        # Images of the queries' identities, sorted by identity, then camera: an identity is a range of them,
        # and so is a camera within it. One number stands for both, so that each end is found in one call.
        ids, query_id = np.unique(query_pid, return_inverse=True)
        cams, query_cam = np.unique(query_cam, return_inverse=True)
        known = np.flatnonzero(np.isin(gallery_pid, ids))
        camera = np.searchsorted(cams, gallery_cam[known])  # those of no query share one number:
        camera[~np.isin(gallery_cam[known], cams)] = len(cams)
        code = np.searchsorted(ids, gallery_pid[known]) * (len(cams) + 1) + camera
        order = np.argsort(code, kind="stable")
        code, self._order = code[order], known[order]
        query_id = query_id.reshape(-1) * (len(cams) + 1)
        query_code = query_id + query_cam.reshape(-1)
        self._start = np.searchsorted(code, query_id, side="left")
        self._stop = np.searchsorted(code, query_id + len(cams), side="right")
        self._ignored_start = np.searchsorted(code, query_code, side="left")
        self._ignored_stop = np.searchsorted(code, query_code, side="right")
        same = self._stop - self._start
        self.valid = np.flatnonzero(same > self._ignored_stop - self._ignored_start).astype(np.int64)
        self.same_count = same[self.valid]
        if len(self.valid) == 0:
            raise EvaluationError(
                f"no valid query: none of the {shape[0]} queries has a match among the {shape[1]} gallery "
                f"images after the same-camera filter ({int((same > 0).sum())} have one in their own camera "
                "only). Check that query and gallery share identities and number cameras alike."
            )

    def pairs(self, rows: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The gallery images of each query's identity, query after query.

        Args:
            rows: (R,) query indices.

        Returns:
            counts (R,), how many there are for each query; columns (P,), their gallery indices; ignored (P,)
            bool, True for those in the query's own camera.
        """
        counts = self._stop[rows] - self._start[rows]
        ends = np.cumsum(counts)
        position = np.arange(ends[-1]) + np.repeat(self._start[rows] - (ends - counts), counts)
        ignored = position >= np.repeat(self._ignored_start[rows], counts)
        ignored &= position < np.repeat(self._ignored_stop[rows], counts)
        return counts, self._order[position], ignored

    def blocks(self, row_bytes: int, block_bytes: int) -> Iterator[np.ndarray]:
        """Valid queries in blocks (R,) within ``block_bytes``, at ``row_bytes`` a query plus its pairs."""
        cost = np.cumsum(row_bytes + 64 * self.same_count)
        begin = 0
        while begin < len(self.valid):
            before = cost[begin - 1] if begin else 0
            end = max(begin + 1, int(np.searchsorted(cost, before + block_bytes, side="right")))
            yield self.valid[begin:end]
            begin = end


def _labels(name: str, values: Any, length: int) -> np.ndarray:
    """``values`` as int64 (length,)."""
    array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    if array.shape != (length,):
        side = name.split("_", maxsplit=1)[0]
        raise EvaluationError(
            f"{name}: expected one label for each of the {length} {side} images, got shape {array.shape}."
        )
    if array.dtype.kind not in "iu":
        raise EvaluationError(f"{name}: expected integers, got {array.dtype}. Number the labels first.")
    return array.astype(np.int64, copy=False)
