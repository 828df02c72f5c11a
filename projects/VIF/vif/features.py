"""FeatureTable, the noun that crosses every border after the model, and its file (docs/features.md)."""

import json
import os
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Optional

import numpy as np

from .errors import DataError
from .files import atomic_path

_FORMAT = "vif-features-1"
_NUMBERS = ("features", "pids", "camids")
_WORDS = ("views", "paths", "splits")


@dataclass(eq=False)
class FeatureTable:
    """Features and labels of N images; one row is one image and one forward pass.

    Integers of any width and features of any float type are converted.

    Attributes:
        features: (N, D) float32.
        pids: (N,) int64 identities.
        camids: (N,) int64 cameras.
        views: (N,) str, kind of camera, as "aerial"; "" where a data set has no views.
        paths: (N,) str, unique: which image this is.
        splits: (N,) str, comma-separated names of the splits that the image is in, as "query,gallery".
        meta: what else is worth keeping (data set, config, weights), text by name.

    Raises:
        DataError: lengths differ, a type is wrong, or a path comes twice.
    """

    features: np.ndarray
    pids: np.ndarray
    camids: np.ndarray
    views: np.ndarray
    paths: np.ndarray
    splits: np.ndarray
    meta: Dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.features = np.asarray(self.features)
        if self.features.ndim != 2 or self.features.dtype.kind != "f":
            raise DataError(
                f"features: expected (N, D) floats, got shape {self.features.shape} of {self.features.dtype}."
            )
        self.features = self.features.astype(np.float32, copy=False)
        for name in ("pids", "camids", *_WORDS):
            kinds, what, dtype = ("U", "text", np.str_) if name in _WORDS else ("iu", "integers", np.int64)
            values = np.asarray(getattr(self, name))
            if values.shape != (len(self),):
                raise DataError(
                    f"{name}: expected {len(self)} values, one a feature row, got shape {values.shape}."
                )
            if values.dtype.kind not in kinds and values.size:
                raise DataError(f"{name}: expected {what}, got {values.dtype}.")
            if values.dtype.kind == "u" and values.size and values.max() > np.iinfo(np.int64).max:
                raise DataError(f"{name}: {values.max()} is too large for int64.")
            setattr(self, name, values.astype(dtype, copy=False))
        if not isinstance(self.meta, dict) or not all(
            isinstance(text, str) for item in self.meta.items() for text in item
        ):
            raise DataError(f"meta: expected text by name, got {self.meta!r}.")
        paths, counts = np.unique(self.paths, return_counts=True)
        if len(paths) < len(self):
            raise DataError(
                f"paths: {len(self) - len(paths)} of {len(self)} rows repeat an image, such as "
                f"{str(paths[counts.argmax()])!r}. Keep one row an image and join its splits with commas."
            )

    def __len__(self) -> int:
        return len(self.features)

    def split_names(self) -> Dict[str, int]:
        """Number of images in each split, by sorted name."""
        names: Dict[str, int] = {}
        for joined, count in zip(*np.unique(self.splits, return_counts=True)):
            for name in str(joined).split(","):
                names[name] = names.get(name, 0) + int(count)
        return dict(sorted(names.items()))

    def rows(self, split: str, view: Optional[str] = None) -> np.ndarray:
        """Ascending indices (K,) int64 of a split's images, of one view if it is named; none is no error."""
        joined, inverse = np.unique(self.splits, return_inverse=True)
        within = np.array([split in str(names).split(",") for names in joined], dtype=bool)
        chosen = within[inverse.reshape(-1)] if len(joined) else np.zeros(0, dtype=bool)
        if view is not None:
            chosen = chosen & (self.views == view)
        return np.flatnonzero(chosen).astype(np.int64)

    def _repr_html_(self) -> str:
        from .notebook import card, grid

        counts: Dict[Any, int] = {}
        for split, view in zip(self.splits.tolist(), self.views.tolist()):
            for name in split.split(","):
                counts[name, view] = counts.get((name, view), 0) + 1
        identities = len(np.unique(self.pids[self.pids >= 0]))
        facts = [("images", f"{len(self):,}"), ("dimensions", self.features.shape[1])]
        facts += [("identities", f"{identities:,}"), *sorted(self.meta.items())]
        rows = [(split, view, f"{count:,}") for (split, view), count in sorted(counts.items())]
        return card("FeatureTable", facts, grid(("split", "view", "images"), rows))

    def by_path(self) -> "FeatureTable":
        """The same table in the order of its paths, so that two tables can be compared row by row."""
        order = np.argsort(self.paths, kind="stable")
        arrays = {name: getattr(self, name)[order] for name in _NUMBERS + _WORDS}
        return FeatureTable(**arrays, meta=dict(self.meta))

    def save(self, path: str) -> None:
        """Write to ``path``, .npz or .safetensors; the file appears when it is complete.

        Raises:
            DataError: another ending, no such folder, or safetensors is missing.
            OSError: the system cannot write it.
        """
        check_path(path)
        write = _ending(path, {".npz": self._write_npz, ".safetensors": self._write_safetensors})
        with atomic_path(path) as partial:
            write(partial)

    @classmethod
    def load(cls, path: str) -> "FeatureTable":
        """Read what `save`, or another code base in this format, has written.

        Raises:
            DataError: no such file, not in the format, or an error of the table itself; names the file.
        """
        read = _ending(path, {".npz": _read_npz, ".safetensors": _read_safetensors})
        if not os.path.isfile(path):
            raise DataError(f"there is no feature file {path!r}. Write it with `vif extract`.")
        arrays = read(path)
        version = str(arrays.get("format", ""))  # other libraries have words of their own there
        if version.startswith("vif-features-") and version != _FORMAT:
            raise DataError(f"{path}: is of the format {version}, this vif reads {_FORMAT}; update vif.")
        missing = [name for name in _NUMBERS + _WORDS if name not in arrays]
        if missing:
            raise DataError(f"{path}: lacks {', '.join(missing)}; docs/features.md describes the format.")
        try:
            return cls(**{name: arrays[name] for name in (*_NUMBERS, *_WORDS, "meta") if name in arrays})
        except DataError as error:
            raise DataError(f"{path}: {error}") from error

    def _write_npz(self, path: str) -> None:
        arrays = {name: getattr(self, name) for name in _NUMBERS + _WORDS}
        with open(path, "wb") as file:
            np.savez(file, format=np.array(_FORMAT), meta=np.array(json.dumps(self.meta)), **arrays)

    def _write_safetensors(self, path: str) -> None:
        words = {name: json.dumps(getattr(self, name).tolist()) for name in _WORDS}
        metadata = {"format": _FORMAT, "meta": json.dumps(self.meta), **words}
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in _NUMBERS}
        library = _safetensors()
        try:
            library.save_file(tensors, path, metadata=metadata)
        except _safetensors("safetensors").SafetensorError as error:  # its word for a full disk, too
            raise OSError(str(error)) from error


def check_path(path: str) -> None:
    """Refuse a name that `FeatureTable.save` could not write, before the work is done.

    Raises:
        DataError: another ending than .npz and .safetensors, or no such folder.
    """
    _ending(path, {".npz": str, ".safetensors": str})
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise DataError(f"cannot save features to {path!r}: no folder {folder!r}. Create it first.")


def _read_npz(path: str) -> Dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if "meta" in arrays:
            arrays["meta"] = json.loads(str(arrays["meta"]))
    except Exception as error:  # numpy raises what zipfile, zlib, pickle or struct do
        raise DataError(f"{path}: not a readable .npz of plain arrays ({error}). Write it again.") from error
    return arrays


def _read_safetensors(path: str) -> Dict[str, Any]:
    library = _safetensors()
    try:
        arrays: Dict[str, Any] = library.load_file(path)
        with _safetensors("safetensors").safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        arrays.update({n: np.array(json.loads(metadata[n]), dtype=str) for n in _WORDS if n in metadata})
        arrays["format"] = metadata.get("format", "")
        if "meta" in metadata:
            arrays["meta"] = json.loads(metadata["meta"])
    except Exception as error:  # the library has an exception of its own, the JSON another
        raise DataError(f"{path}: not a readable .safetensors file ({error}). Write it again.") from error
    return arrays


def _safetensors(module: str = "safetensors.numpy") -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(".safetensors files need `pip install safetensors`; .npz files do not.") from error


def _ending(path: str, choices: Dict[str, Callable[[str], Any]]) -> Callable[[str], Any]:
    ending = os.path.splitext(path)[1]
    if ending not in choices:
        raise DataError(f"{path!r}: feature files end in {' or '.join(choices)}, not in {ending!r}.")
    return choices[ending]
