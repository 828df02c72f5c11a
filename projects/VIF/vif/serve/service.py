"""What the page and the API ask for, without HTTP."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, List, Optional

import numpy as np

from ..errors import DataError
from ..inference.images import ImageFailure
from ..retrieval import Filter
from ..retrieval.base import AbstractGallery
from ..retrieval.rows import check_same_network
from .catalogue import Catalogue
from .crops import Crops

if TYPE_CHECKING:
    from ..inference import Predictor


@dataclass(frozen=True)
class Service:
    """A gallery as it was when it was opened; threads may share it.

    Attributes:
        gallery: to search in.
        catalogue: its rows.
        crops: their images, None where the gallery names no folder of them.
        predictor: makes vectors of uploaded images, None without a network.
        max_upload: bytes of an upload.
    """

    gallery: AbstractGallery
    catalogue: Catalogue
    crops: Optional[Crops]
    predictor: "Optional[Predictor]"
    max_upload: int

    @classmethod
    def build(
        cls, gallery: AbstractGallery, root: str, predictor: "Optional[Predictor]", max_upload: int
    ) -> "Service":
        """A service over a gallery.

        Args:
            gallery: its rows are read once.
            root: folder of the images, "" for none.
            predictor: of the gallery's weights, or None.
            max_upload: bytes.

        Raises:
            DataError: the predictor is of other weights, or there is no such folder.
        """
        if predictor:
            own = predictor.signature
            check_same_network(
                "the network's features", own.dim, own.fingerprint, gallery.dim, gallery.fingerprint
            )
        crops = Crops(root) if root else None
        return cls(gallery, Catalogue(gallery.rows(vectors=False)), crops, predictor, max_upload)

    def info(self) -> Dict[str, Any]:
        """What the gallery is and what can be asked of it."""
        kind = getattr(self.gallery, "index", None)  # Milvus chooses its own
        return {
            **self.catalogue.summary,
            "dim": self.gallery.dim,
            "fingerprint": self.gallery.fingerprint,
            "index": kind.kind if kind else "milvus",
            "images": self.crops is not None,
            "uploads": self.predictor is not None,
            "max_upload_bytes": self.max_upload,
        }

    def similar(self, id_: int, k: int, where: Filter) -> List[Dict[str, Any]]:
        """The k nearest other rows of a row, nearest first.

        Raises:
            DataError: the id is not there.
            ConfigError: a filter that cannot work for it.
        """
        return self.gallery.similar([id_], k, where).of(0)

    def search(self, image: bytes, k: int, where: Filter, camid: Optional[int]) -> List[Dict[str, Any]]:
        """The k nearest rows of an image, nearest first.

        Args:
            image: file of any format that `Predictor` reads.
            k: at most so many.
            where: which rows may be found.
            camid: the image's own camera, for `Filter(other_cameras=True)`.

        Raises:
            DataError: the image cannot be used.
            ConfigError: a filter that cannot work for it.
        """
        assert self.predictor is not None
        ((_, result),) = self.predictor.stream([image])
        if isinstance(result, ImageFailure):
            why = result.reason.split("; ")[0]  # what follows is for files of one's own
            raise DataError(f"the image cannot be used: {why}. Choose another, of one person.")
        camids = None if camid is None else [camid]
        return self.gallery.search(np.asarray(result), k, where, camids).of(0)
