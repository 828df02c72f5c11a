"""Predictor: features of images that belong to no data set; no camera, view or identity is needed.

Shape letters: B images, H x W pixels, D embedding.
"""

import itertools
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Iterable, Iterator, List, Tuple, Union

import numpy as np

from ..data.transforms import Compose, Resize
from ..errors import ConfigError, DataError
from ..features import FeatureTable
from .backends import OnnxBackend
from .folder import find_images
from .images import MAX_PIXELS, ImageFailure, check_colour, describe, load_image
from .metadata import Signature

PathLike = Union[str, "os.PathLike[str]"]
Result = Union[np.ndarray, ImageFailure]


class Predictor:
    """L2-normalised features of images, those of evaluation where evaluation reads the same file.

    Threads may share one Predictor. Images are decoded in threads of its own, one batch ahead of the network.

    Args:
        config: config file, or config with VIF's keys.
        weights: checkpoint.
        device: "auto" (CUDA where it works, else the CPU), "cpu" or "cuda", an error where there is none.
        batch_size: images in one pass, >= 1.
        workers: threads that decode; None: the cores, at most 8.
        max_pixels: images with more pixels are failures.

    Attributes:
        signature: size, mean, std, D and fingerprint.
        device: where the network runs.

    Raises:
        ConfigError: config, device or a number cannot work.
        DataError: the checkpoint is missing or malformed.
    """

    def __init__(
        self,
        config: Any,
        weights: PathLike,
        device: str = "auto",
        batch_size: int = 64,
        workers: Union[int, None] = None,
        max_pixels: int = MAX_PIXELS,
    ):
        from ..compat import install

        install()  # where fastreid is missing, says how to get it
        from .build import build_torch_backend

        backend, transform = build_torch_backend(config, os.fspath(weights), device)
        self._set(backend, transform, batch_size, workers, max_pixels)

    @classmethod
    def from_onnx(
        cls,
        path: PathLike,
        device: str = "auto",
        batch_size: int = 64,
        workers: Union[int, None] = None,
        max_pixels: int = MAX_PIXELS,
    ) -> "Predictor":
        """A Predictor on a file of `vif export`, run by onnxruntime, without torch and fastreid.

        Args:
            path: .onnx file; the rest as in the constructor.

        Raises:
            ConfigError: onnxruntime is missing or lacks the device, or a number cannot work.
            DataError: no such file, no ONNX file, or not one of `vif export`.
        """
        backend = OnnxBackend(os.fspath(path), device)
        size = (backend.signature.height, backend.signature.width)
        predictor = cls.__new__(cls)
        predictor._set(backend, Compose([Resize(size, exact=True)]), batch_size, workers, max_pixels)
        return predictor

    def _set(
        self, backend: Any, transform: Compose, batch_size: int, workers: Union[int, None], max_pixels: int
    ) -> None:
        workers = min(8, os.cpu_count() or 1) if workers is None else workers
        for name, value in (("batch_size", batch_size), ("workers", workers), ("max_pixels", max_pixels)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name}={value!r} must be an integer of 1 or more.")
        self.backend = backend
        self.signature: Signature = backend.signature
        self.device: str = backend.device
        self.batch_size, self.workers, self.max_pixels = batch_size, workers, max_pixels
        self._transform = transform
        red, green, blue = (round(value) for value in self.signature.mean)
        self._background = (red, green, blue)  # what the network sees as 0, and random erasing fills in

    def _repr_html_(self) -> str:
        from ..notebook import card

        size = f"{self.signature.height} x {self.signature.width}"
        facts = [("images", size), ("dimensions", self.signature.dim), ("weights", self.fingerprint)]
        return card("Predictor", [*facts, ("device", self.device), ("batch size", self.batch_size)])

    @property
    def fingerprint(self) -> str:
        """Short name of the weights; features of other weights cannot be compared with these."""
        return self.signature.fingerprint

    def __call__(self, images: Any, colour: str = "RGB") -> Any:
        """Features of one image, of many, or of a folder.

        Args:
            images: a path, bytes of an image file, PIL image, or uint8 array (H, W), (H, W, 3) or (H, W, 4);
                a list or tuple of these, or an array (B, H, W, 3); or the path of a folder.
            colour: order of the channels of arrays, "RGB" or "BGR" (as OpenCV reads); ignored for others.

        Returns:
            float32 (D,) for one image, (B, D) for many, rows of length 1; for a folder what `folder` returns.

        Raises:
            DataError: an image cannot be used; names it. `stream` and `folder` go on instead.
            ConfigError: `colour` is neither.
        """
        check_colour(colour)
        if isinstance(images, (str, os.PathLike)) and os.path.isdir(images):
            return self.folder(images)
        if isinstance(images, (list, tuple)) or (isinstance(images, np.ndarray) and images.ndim == 4):
            rows = [
                _row(result, f"number {index} of {len(images)}, ")
                for index, (_, result) in enumerate(self.stream(images, colour))
            ]
            return np.stack(rows) if rows else np.empty((0, self.signature.dim), dtype=np.float32)
        return _row(self._features([self._pixels(images, colour)])[0])

    def folder(self, path: PathLike) -> Tuple[FeatureTable, List[ImageFailure]]:
        """Features of all images below a folder, and what could not be used.

        Returns:
            A table in the order of its paths, relative to the folder; identities and cameras are -1, views
            and splits empty, `meta` holds the fingerprint. And the failures, sorted by path.

        Raises:
            DataError: there is no such folder, or no image in it.
        """
        from tqdm import tqdm

        root = os.fspath(path)
        names, failures = find_images(root)
        if not names and not failures:
            raise DataError(f"folder {root!r} holds no image; files of images end as .jpg and .png do.")
        paths, rows = [], []
        results = self.stream(os.path.join(root, name) for name in names)
        progress = tqdm(total=len(names), unit="image", desc="features", delay=2, leave=False, disable=None)
        with progress:
            for name, (_, result) in zip(names, results):
                progress.update()
                if isinstance(result, ImageFailure):
                    failures.append(ImageFailure(name, result.reason))
                else:
                    paths.append(name)
                    rows.append(result)
        unknown, empty = np.full(len(rows), -1), np.full(len(rows), "")
        table = FeatureTable(
            features=np.stack(rows) if rows else np.empty((0, self.signature.dim), dtype=np.float32),
            pids=unknown,
            camids=unknown,
            views=empty,
            paths=np.array(paths, dtype=np.str_),
            splits=empty,
            meta={"fingerprint": self.fingerprint, **({"flip": "flip test"} if self.backend.flip else {})},
        )
        return table, sorted(failures, key=lambda failure: failure.path)

    def stream(self, images: Iterable[Any], colour: str = "RGB") -> Iterator[Tuple[Any, Result]]:
        """Each image with its features, in order; at most two batches of pixels are in memory.

        Args:
            images: any number of paths, bytes, PIL images or arrays; read up to two batches ahead.
            colour: as in a call.

        Yields:
            (image as given, float32 (D,) of length 1 or `ImageFailure`).

        Raises:
            ConfigError: `colour` is neither.
        """
        check_colour(colour)
        items = iter(images)
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="vif-decode")

        def submit() -> List[Tuple[Any, "Future[Result]"]]:
            batch = itertools.islice(items, self.batch_size)
            return [(item, pool.submit(self._pixels, item, colour)) for item in batch]

        try:
            ready = submit()
            while ready:
                following = submit()
                results = self._features([future.result() for _, future in ready])
                yield from ((item, result) for (item, _), result in zip(ready, results))
                ready = following
        finally:
            pool.shutdown(cancel_futures=True)

    def _pixels(self, source: Any, colour: str) -> Result:
        """uint8 (H, W, 3) of the network's size."""
        image = load_image(source, colour, self._background, self.max_pixels)
        if isinstance(image, ImageFailure):
            return image
        try:
            return self._transform(image, np.random.default_rng(0))
        except (ValueError, MemoryError) as error:  # an image so thin that a side would be 0
            return ImageFailure(describe(source), f"cannot be resized ({error}); take it out")

    def _features(self, batch: List[Result]) -> List[Result]:
        """Features in place of pixels; failures stay."""
        results = list(batch)
        good = {index: pixels for index, pixels in enumerate(batch) if isinstance(pixels, np.ndarray)}
        if good:
            features = self.backend(np.stack(list(good.values())))
            if not np.isfinite(features).all():
                raise DataError(
                    "the network gives NaN or infinity; its weights are broken or overflow in float16."
                )
            lengths = np.linalg.norm(features, axis=1, keepdims=True)
            features = features / np.maximum(lengths, np.finfo(np.float32).tiny)
            for index, row in zip(good, features):
                results[index] = row
        return results


def _row(result: Result, where: str = "") -> np.ndarray:
    if isinstance(result, ImageFailure):
        raise DataError(f"{where}{result}.")
    return result
