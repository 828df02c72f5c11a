"""Entries of fastreid's registries where the host has one of the same name."""

import contextlib
from typing import Any, Callable, Dict, Iterator, Tuple

from .process import say_once

_SECOND: Dict[Tuple[str, str], Any] = {}  # VIF's entries by registry and name, where the host came first


def register(registry: Any) -> Callable[[Any], Any]:
    """Decorator: `registry.register()`, also where the host has an entry of that name.

    Serves: forks of fastreid with data sets CARGO or a meta architecture PCB of their own (VDT's has both).
    Theirs stay for their trainer; VIF's own look-ups go through `own_entry`. Can go with those forks.
    """

    def add(entry: Any) -> Any:
        theirs = registry._obj_map.get(entry.__name__)
        if theirs is None:
            registry.register(entry)
        elif theirs.__module__ != entry.__module__:
            _SECOND[registry._name, entry.__name__] = entry
        return entry

    return add


@contextlib.contextmanager
def own_entry(registry: Any, name: str) -> Iterator[None]:
    """For a time, `name` in `registry` means VIF's entry where there are two, not the host's; said aloud."""
    ours = _SECOND.get((registry._name, name))
    if ours is None:
        yield
        return
    theirs = registry._obj_map[name]
    say_once(
        f"the fastreid at hand has a {name!r} of its own ({theirs.__module__}). For VIF's trainer and "
        f"commands the name means VIF's ({ours.__module__}); fastreid's own trainer keeps the other one"
    )
    registry._obj_map[name] = ours
    try:
        yield
    finally:
        registry._obj_map[name] = theirs
