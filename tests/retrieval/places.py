"""Where a gallery may be: addresses below a folder, for tests that run on all of them."""

import importlib.util

import pytest

HAS_MILVUS = all(importlib.util.find_spec(name) for name in ("pymilvus", "milvus_lite"))
needs_milvus = pytest.mark.skipif(not HAS_MILVUS, reason="needs `pip install pymilvus milvus-lite`")
PLACES = ["gallery", pytest.param("gallery.db", marks=needs_milvus)]


def close(gallery):
    """Let go of a server or file; a folder needs no such thing."""
    getattr(gallery, "close", int)()
