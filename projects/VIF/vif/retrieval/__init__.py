"""Find a person: a gallery of images, searched by their vectors."""

from .filters import Filter
from .gallery import Gallery
from .kinds import HNSW, IVFPQ, Flat
from .neighbours import Neighbours
from .opening import create_gallery, open_gallery, open_images

__all__ = [
    "HNSW",
    "IVFPQ",
    "Filter",
    "Flat",
    "Gallery",
    "Neighbours",
    "create_gallery",
    "open_gallery",
    "open_images",
]
