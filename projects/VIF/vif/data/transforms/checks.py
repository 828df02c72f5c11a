"""Range checks of the transforms' arguments: each error names the argument, the bound and the value."""

import math
import numbers
from typing import Any, Sequence, Tuple, Union

from vif.errors import ConfigError

Size = Union[int, Sequence[int]]


def number(name: str, value: Any, low: float, high: float = math.inf) -> float:
    """``value`` as a float, or a ConfigError when it is no finite number of [low, high]."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ConfigError(f"{name} must be a finite number, got {value!r}")
    result = float(value)
    if not low <= result <= high:
        bound = f">= {low}" if math.isinf(high) else f"in [{low}, {high}]"
        raise ConfigError(f"{name} must be {bound}, got {value!r}")
    return result


def integer(name: str, value: Any, low: int) -> int:
    """``value`` as an int, or a ConfigError when it is no whole number >= low."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < low:
        raise ConfigError(f"{name} must be a whole number >= {low}, got {value!r}")
    return int(value)


def choice(name: str, value: Any, allowed: Sequence[str]) -> str:
    """``value``, or a ConfigError that lists what is allowed."""
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
    return str(value)


def interval(name: str, value: Any, low: float, high: float = math.inf) -> Tuple[float, float]:
    """A pair (from, to) with low <= from <= to <= high, or a ConfigError."""
    if isinstance(value, str) or not hasattr(value, "__len__") or len(value) != 2:
        raise ConfigError(f"{name} must be a pair (from, to), got {value!r}")
    first = number(f"{name}[0]", value[0], low, high)
    last = number(f"{name}[1]", value[1], low, high)
    if first > last:
        raise ConfigError(f"{name} must have {name}[0] <= {name}[1], got {value!r}")
    return first, last


def height_width(name: str, value: Size) -> Tuple[int, int]:
    """A size as (height, width): one number is a square; ConfigError when a side is below 1."""
    sides = (value,) if isinstance(value, int) else tuple(value)
    if len(sides) not in (1, 2):
        raise ConfigError(f"{name} must be one number or (height, width), got {value!r}")
    height = integer(f"{name} height", sides[0], 1)
    return height, integer(f"{name} width", sides[-1], 1)
