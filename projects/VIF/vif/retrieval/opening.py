"""Galleries by address: a folder, a file of Milvus Lite, or a Milvus server."""

import logging
import os
from typing import Any, Dict, Tuple

from ..errors import ConfigError, DataError
from ..features import FeatureTable
from .base import AbstractGallery
from .gallery import Gallery
from .store import holds_gallery

logger = logging.getLogger(__name__)


def is_milvus(uri: str) -> bool:
    """Whether an address is Milvus's: http://..., https://..., or ends in .db; #collection may follow."""
    return uri.startswith(("http://", "https://")) or uri.partition("#")[0].endswith(".db")


def _in_milvus(uri: str, options: Dict[str, Any]) -> Tuple[str, Dict[str, Any]]:
    """An address without its #collection, and the options with what it and the environment name."""
    address, _, collection = uri.partition("#")
    named = {"collection": collection} if collection else {}
    token = os.environ.get("MILVUS_TOKEN", "")
    return address, {**({"token": token} if token else {}), **named, **options}


def _refuse(uri: str, what: str, options: Dict[str, Any], *names: str) -> None:
    stray = [name for name in names if name in options]
    if stray:
        raise ConfigError(f"the option {stray[0]} is not for {uri!r}, which is {what}; leave it out.")


def open_gallery(uri: str, **milvus: Any) -> AbstractGallery:
    """The gallery at an address; code that uses it need not know which it is.

    Args:
        uri: a folder, "gallery.db" (Milvus Lite) or "http://host:19530"; in Milvus, "#night" behind it names
            the collection.
        milvus: `collection` and `token`, for Milvus (the token's default: the variable MILVUS_TOKEN).

    Raises:
        DataError: there is none.
        ConfigError: pymilvus is needed and missing, or an option is of Milvus and the gallery is not.
    """
    uri = os.fspath(uri)
    if not is_milvus(uri):
        _refuse(uri, "a folder", milvus, "collection", "token")
        return Gallery.load(uri)
    from .milvus import MilvusGallery

    address, options = _in_milvus(uri, milvus)
    return MilvusGallery(address, **options)


def is_there(uri: str) -> bool:
    """Whether there is a gallery at an address, be it whole or torn.

    Raises:
        DataError: the folder holds something else, or nothing answers there.
        ConfigError: pymilvus is needed and missing.
    """
    if not is_milvus(uri):
        return holds_gallery(uri)
    from .milvus import MilvusGallery

    address, options = _in_milvus(uri, {})
    return MilvusGallery.exists(address, **options)


def open_images(predictor: Any, folder: str, **options: Any) -> Gallery:
    """A gallery, in memory, of all images below a folder; those that cannot be used are logged as warnings.

    Args:
        predictor: a `vif.Predictor`.
        folder: also where a notebook finds the images that a search shows.
        options: of `Gallery.build`.

    Raises:
        DataError: there is no such folder, or no image in it that can be used.
    """
    table, failures = predictor.folder(folder)
    for failure in failures:
        logger.warning("%s", failure)
    if not len(table):
        raise DataError(f"none of the {len(failures)} images below {folder!r} could be used.")
    table.meta["root"] = os.path.abspath(folder)
    return Gallery.build(table, **options)


def create_gallery(uri: str, table: FeatureTable, overwrite: bool = False, **options: Any) -> AbstractGallery:
    """A new gallery of a table's rows at an address, saved.

    Args:
        uri: as in `open_gallery`.
        table: N images.
        overwrite: replace the gallery that is there.
        options: ids, times, extra and fingerprint of `Gallery.build`; `index` for a folder; `collection` and
            `token` for Milvus.

    Raises:
        DataError: there is one already, or the table cannot be used.
        ConfigError: pymilvus is needed and missing, or an option cannot work.
    """
    uri = os.fspath(uri)
    if is_milvus(uri):
        from .milvus import MilvusGallery

        _refuse(uri, "Milvus, which chooses its own", options, "index")
        address, options = _in_milvus(uri, options)
        return MilvusGallery.build(address, table, overwrite=overwrite, **options)
    _refuse(uri, "a folder", options, "collection", "token")
    gallery = Gallery.build(table, **options)
    gallery.save(uri, overwrite=overwrite)
    return gallery
