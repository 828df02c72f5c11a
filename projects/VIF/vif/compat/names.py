"""Names that fastreid's modules import and that newer releases dropped."""

import collections
import collections.abc
import contextlib
import importlib
import sys
import types
from typing import Any, Iterator


@contextlib.contextmanager
def old_names() -> Iterator[None]:
    """Names that fastreid's modules import and that newer releases dropped, for the time of the import.

    Serves: `from torch._six import string_classes` (gone since torch 2.0) and, in the release 1.3.0,
    `container_abcs, int_classes` (gone since torch 1.9) in `fastreid.data.build`; `from collections import
    Mapping` (gone since Python 3.10) there and in `fastreid.evaluation.testing`. Can go when fastreid imports
    them from where they live.
    """
    had_mapping = "Mapping" in vars(collections)  # Python 3.9 has it, and warns when it is taken from there
    six_name = "torch._six"
    six: Any
    try:
        six = importlib.import_module(six_name)
        had_six = True
    except ModuleNotFoundError:
        six = sys.modules[six_name] = types.ModuleType(six_name)
        had_six = False
    old = {"string_classes": (str, bytes), "int_classes": int, "container_abcs": collections.abc}
    added = [name for name in old if not hasattr(six, name)]
    for name in added:
        setattr(six, name, old[name])
    if not had_mapping:
        collections.Mapping = collections.abc.Mapping  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for name in added:
            delattr(six, name)
        if not had_six:
            del sys.modules[six_name]
        if not had_mapping:
            del collections.Mapping  # type: ignore[attr-defined]
