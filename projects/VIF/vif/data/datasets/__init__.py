"""Readers of the data sets, plain: no fastreid here; `registry.py` is the adapter that registers them."""

from .agreid import decode_identity, read_agreidv1, read_agreidv2
from .cargo import read_cargo, read_synthag
from .checks import Splits
from .manifest import read_manifest

__all__ = [
    "Splits",
    "decode_identity",
    "read_agreidv1",
    "read_agreidv2",
    "read_cargo",
    "read_manifest",
    "read_synthag",
]
