"""The adapter: our data sets in fastreid's DATASET_REGISTRY; importing this module registers them."""

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, Type

import numpy as np
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.datasets.bases import ImageDataset

from ...compat import register
from ...errors import ConfigError, DataError
from ...evaluation.protocols import PROTOCOLS, Protocol, view_protocols
from ...records import AERIAL, GROUND
from ..holdout import hold_out
from .agreid import read_agreidv1, read_agreidv2
from .attributes import find_attributes, read_attributes
from .cargo import read_cargo, read_synthag
from .checks import Splits
from .manifest import read_manifest

Item = Tuple[str, Any, Any]  # what fastreid reads: path, identity, camera
VIEW_CAMERAS = {AERIAL: 0, GROUND: 1}  # camids of a protocol whose same-camera filter compares views


class Row(NamedTuple):
    """One registered data set.

    Attributes:
        name: name in the registry.
        source: data set whose images and features serve it, itself or another.
            A row with another source is a view on it: its one protocol, as `.query` and `.gallery`.
        read: reader, called with the data root (AGManifest: with the manifest).
    """

    name: str
    source: str
    read: Callable[[Any], Splits]


ROWS = (
    Row("CARGO", "CARGO", read_cargo),
    Row("CARGO_AA", "CARGO", read_cargo),
    Row("CARGO_GG", "CARGO", read_cargo),
    Row("CARGO_AG", "CARGO", read_cargo),
    Row("AGReIDv1", "AGReIDv1", read_agreidv1),
    Row("AGReIDv2", "AGReIDv2", read_agreidv2),
    Row("SynthAG", "SynthAG", read_synthag),
    Row("AGManifest", "AGManifest", read_manifest),
)


class AerialGroundDataset(ImageDataset):
    """A data set of `ROWS` as fastreid sees it; the subclasses differ by their row only.

    Args:
        root: data root; fastreid passes FASTREID_DATASETS, "datasets" by default.
        manifest: CSV file, for AGManifest only (DATASETS.MANIFEST).
        attributes: attribute file, where it is not in its usual place (DATASETS.ATTRIBUTES).
        holdout: share of the training identities to test on in place of the test set (DATASETS.HOLDOUT).
        **kwargs: of fastreid's `ImageDataset`.

    Attributes:
        splits: the records, with views, by split name.
        protocols: what the data set is scored on; empty for a manifest without test images.
        source: name of the data set whose features serve; equal for CARGO and CARGO_AG. "CARGO held-out"
            when the test is on held-out training identities.
        train: (path, "{source}_{pid}", "{source}_{camid}") for each image: no view label.
        query, gallery: (path, pid, camid), ints. All images, or one protocol's for CARGO_AA, CARGO_GG and
            CARGO_AG, so that fastreid's own evaluator gives that protocol's numbers.
    """

    row: Row
    dataset_name: str

    LABELS = ("views", "attributes")  # what `train_labels` knows

    def __init__(
        self,
        root: str = "datasets",
        manifest: Optional[str] = None,
        holdout: float = 0.0,
        attributes: str = "",
        **kwargs: Any,
    ) -> None:
        row = self.row
        self.root, self.attributes = root, attributes
        self.source = row.source
        self.splits = row.read(manifest if row.source == "AGManifest" else root)
        self.protocols = _protocols(row, self.splits)
        if holdout:
            if row.name != row.source:
                raise ConfigError(
                    f"DATASETS.HOLDOUT holds out identities of {row.source}, not of {row.name}."
                )
            self.source = f"{row.source} held-out"
            self.splits = hold_out(self.splits, holdout)
            self.protocols = view_protocols([r.view for r in self.splits["query"]])
        train = [(r.path, f"{row.source}_{r.pid}", f"{row.source}_{r.camid}") for r in self.splits["train"]]
        only = self.protocols[0] if row.name != row.source else None
        super().__init__(
            train, _items(self.splits, "query", only), _items(self.splits, "gallery", only), **kwargs
        )

    def train_labels(self, name: str) -> np.ndarray:
        """A further label of each training image, for the systems that ask for it in DATALOADER.LABELS.

        Args:
            name: ``views``: int64 (N,), 0 aerial, 1 any other view. ``attributes``: float32 (N, K) of 0 and
                1, the binary attributes of the image's identity.

        Raises:
            ConfigError: the name is unknown.
            DataError: the data set does not have this label.
        """
        if name == "attributes":
            path = find_attributes(self.row.source, self.root, self.attributes)
            return read_attributes(path).of([r.pid for r in self.splits["train"]])
        if name != "views":
            raise ConfigError(f"DATALOADER.LABELS names {name!r}; there are {', '.join(self.LABELS)}.")
        views = [r.view for r in self.splits["train"]]
        if not all(views):
            raise DataError(
                f"{self.dataset_name} has training images without a view; label each with its view."
            )
        return np.array([0 if view == AERIAL else 1 for view in views], dtype=np.int64)


def _protocols(row: Row, splits: Splits) -> Tuple[Protocol, ...]:
    if row.source != "AGManifest":
        return PROTOCOLS[row.name]
    views = {r.view for side in ("query", "gallery") for r in splits[side]}
    return view_protocols(sorted(views)) if views else ()  # a manifest may be for training alone


def _items(splits: Splits, side: str, only: Optional[Protocol]) -> List[Item]:
    """(path, pid, camid) of one side ("query" or "gallery"); an image of several lists comes once."""
    rows = sorted({r for split, records in splits.items() if split.split("@")[0] == side for r in records})
    if only is None:
        return [(r.path, r.pid, r.camid) for r in rows]
    view = only.query_view if side == "query" else only.gallery_view
    return [
        (r.path, r.pid, VIEW_CAMERAS[r.view] if only.cameras == "view" else r.camid)
        for r in rows
        if view in (None, r.view)
    ]


def _register(row: Row) -> Type[AerialGroundDataset]:
    made = type(
        row.name,
        (AerialGroundDataset,),
        {
            "row": row,
            "dataset_name": row.name,
            "__module__": __name__,
            "__doc__": AerialGroundDataset.__doc__,
        },
    )
    return register(DATASET_REGISTRY)(made)


DATASETS: Dict[str, Type[AerialGroundDataset]] = {row.name: _register(row) for row in ROWS}
globals().update(DATASETS)  # under their names, as pickling their instances asks
