"""Distances between query and gallery, handed out in strips so that the whole matrix never has to exist.

Q queries, G gallery images, D feature dimension. A strip is (rows, columns) of the Q x G matrix.
"""

import warnings
from typing import Any, Optional, Tuple, Union

import numpy as np
import torch

from ..errors import EvaluationError

Array = Union[np.ndarray, torch.Tensor]

METRICS = ("cosine", "euclidean")

# BLAS takes other kernels, with another order of summation, for very thin matrices. So products are never
# thinner than this: equal features then give equal distances, and results do not depend on the blocks.
_MIN_SIDE = 32


def as_matrix(values: Any, what: str) -> torch.Tensor:
    """``values`` as a two-dimensional floating point tensor, without a copy where that is possible.

    Integers become float64. Raises EvaluationError, naming ``what``, unless there are two dimensions, neither
    of them empty.
    """
    tensor = values.detach() if isinstance(values, torch.Tensor) else _from_numpy(np.asarray(values))
    if tensor.ndim != 2:
        raise EvaluationError(f"{what}: expected two dimensions, got shape {tuple(tensor.shape)}.")
    if 0 in tensor.shape:
        raise EvaluationError(
            f"{what}: shape {tuple(tensor.shape)} is empty, so there is nothing to rank. "
            "Check the split and the views that the protocol selects."
        )
    return tensor if tensor.is_floating_point() else tensor.to(torch.float64)


def require_finite(values: torch.Tensor, what: str, chunk_bytes: int = 1 << 24) -> None:
    """Raise EvaluationError if a (N, K) tensor has NaN or infinite entries, with their number."""
    step = max(1, chunk_bytes // (values.shape[1] * values.element_size()))
    bad_values = bad_rows = 0
    first: Optional[int] = None
    for start in range(0, values.shape[0], step):
        chunk = values[start : start + step]
        # One NaN or infinity makes the sum NaN or infinite; only then is it worth to look closer.
        if bool(torch.isfinite(chunk.sum())):
            continue
        bad = ~torch.isfinite(chunk)
        rows = bad.any(dim=1).nonzero()[:, 0]
        bad_values += int(bad.sum())
        bad_rows += len(rows)
        if first is None and len(rows):
            first = start + int(rows[0])
    if first is not None:
        raise EvaluationError(
            f"{what}: {bad_values} of {values.numel()} values, in {bad_rows} of {values.shape[0]} rows, are "
            f"NaN or infinite; the first is in row {first}. Look for a diverged network, or for half "
            "precision that overflows, and extract the features again."
        )


class MatrixDistances:
    """Strips of a distance matrix (Q, G) that exists already; only one of 16 bit is copied."""

    def __init__(self, distances: Array) -> None:
        self._matrix = as_matrix(distances, "distances")
        self._matrix = self._matrix.to(torch.promote_types(self._matrix.dtype, torch.float32))
        require_finite(self._matrix, "distances")
        self.shape: Tuple[int, int] = (self._matrix.shape[0], self._matrix.shape[1])
        self.device = self._matrix.device
        self.itemsize: int = self._matrix.element_size()
        self.row_bytes = 0

    def strip(self, rows: np.ndarray, columns: slice) -> torch.Tensor:
        """Distances of some rows (ascending indices) and a range of columns; a view of adjacent rows."""
        if rows[-1] - rows[0] + 1 == len(rows):
            return self._matrix[rows[0] : rows[-1] + 1, columns]
        return self._matrix[:, columns].index_select(0, torch.as_tensor(rows, device=self.device))


class FeatureDistances:
    """Strips of the distances between two sets of features, computed when asked for.

    Features of 16 bit are multiplied in float32, others in their own precision: float32 in float32.
    ``cosine`` is 1 - cos, in [0, 2]; a norm below 1e-12 counts as 1e-12, so zero features are at distance 1
    from everything. ``euclidean`` is the squared distance |q|^2 + |g|^2 - 2 q.g, which ranks like its root;
    rounding can leave it slightly below 0.

    Args:
        query: (Q, D) features.
        gallery: (G, D) features on the same device.
        metric: ``cosine`` or ``euclidean``.
        chunk_bytes: largest piece of the gallery that is converted at a time, if it has to be.
    """

    def __init__(self, query: Array, gallery: Array, metric: str, chunk_bytes: int) -> None:
        if metric not in METRICS:
            raise EvaluationError(f"metric: got {metric!r}; there are {', '.join(METRICS)}.")
        self._query = as_matrix(query, "query features")
        self._gallery = as_matrix(gallery, "gallery features")
        if self._query.shape[1] != self._gallery.shape[1]:
            raise EvaluationError(
                f"query features have {self._query.shape[1]} dimensions, gallery features "
                f"{self._gallery.shape[1]}. "
                "Both must come from the same network and the same layer."
            )
        if self._query.device != self._gallery.device:
            raise EvaluationError(
                f"query features are on {self._query.device}, gallery features on {self._gallery.device}. "
                "Move both to one device."
            )
        self.shape: Tuple[int, int] = (self._query.shape[0], self._gallery.shape[0])
        self.device = self._query.device
        wider = torch.promote_types(self._query.dtype, self._gallery.dtype)
        self.dtype = torch.promote_types(wider, torch.float32)
        self._metric = metric
        self.itemsize = 4 if self.dtype == torch.float32 else 8
        dim_bytes = self._query.shape[1] * self.itemsize
        self.row_bytes = 2 * dim_bytes
        self._step = max(_MIN_SIDE, chunk_bytes // dim_bytes)
        self._query_scale = self._scales(self._query, "query features")
        self._gallery_scale = self._scales(self._gallery, "gallery features")
        self._buffer = torch.empty(0, dtype=self.dtype, device=self.device)

    def _scales(self, features: torch.Tensor, what: str) -> torch.Tensor:
        """(N,) 1 / norm for ``cosine``, squared norm for ``euclidean``; the features must be finite."""
        parts = []
        for start in range(0, len(features), self._step):
            chunk = features[start : start + self._step].to(self.dtype)
            if self._metric == "cosine":
                parts.append(torch.linalg.vector_norm(chunk, dim=1))
            else:
                parts.append(chunk.square().sum(dim=1))
        norms = torch.cat(parts)
        if not bool(torch.isfinite(norms).all()):
            require_finite(features, what)
            raise EvaluationError(f"{what}: so large that a norm overflows {norms.dtype}. Scale them down.")
        return norms.clamp_min(1e-12).reciprocal() if self._metric == "cosine" else norms

    def strip(self, rows: np.ndarray, columns: slice) -> torch.Tensor:
        """Distances of some rows (indices) and a range of columns; the next call overwrites the result."""
        index = torch.as_tensor(rows, device=self.device)
        query = _pad(self._query[index].to(self.dtype))
        query_scale = _pad(self._query_scale[index, None])
        if self._metric == "cosine":
            query = query * query_scale
        width = columns.stop - columns.start
        out = self._rectangle(len(query), max(width, _MIN_SIDE))
        step = width if self._gallery.dtype == self.dtype else self._step
        for begin in range(columns.start, columns.stop, step):
            stop = min(begin + step, columns.stop)
            # A thin rest takes columns before it once more; a thin gallery is padded.
            start = max(columns.start, min(begin, stop - _MIN_SIDE))
            gallery = _pad(self._gallery[start:stop].to(self.dtype))
            scale = _pad(self._gallery_scale[start:stop, None])[:, 0]
            part = out[:, start - columns.start :][:, : len(gallery)]
            torch.mm(query, gallery.t(), out=part)
            if self._metric == "cosine":
                torch.addcmul(scale.new_ones(()), part, scale, value=-1, out=part)
            else:
                part.mul_(-2).add_(query_scale).add_(scale)
        return out[: len(rows), :width]

    def _rectangle(self, height: int, width: int) -> torch.Tensor:
        """An uninitialised (height, width) piece of a buffer that is kept between calls."""
        if self._buffer.numel() < height * width:
            self._buffer = torch.empty(height * width, dtype=self.dtype, device=self.device)
        return self._buffer[: height * width].view(height, width)


def _pad(matrix: torch.Tensor) -> torch.Tensor:
    """``matrix`` with rows of zeros below until it has at least ``_MIN_SIDE``."""
    missing = _MIN_SIDE - len(matrix)
    if missing <= 0:
        return matrix
    return torch.cat([matrix, matrix.new_zeros(missing, matrix.shape[1])])


def _from_numpy(array: np.ndarray) -> torch.Tensor:
    if array.dtype.kind not in "fiub":
        raise EvaluationError(f"expected numbers, got an array of {array.dtype}.")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    with warnings.catch_warnings():  # the array is only read, so one that cannot be written to is fine
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return torch.from_numpy(array)
