"""What the fuzzing tests share: the same examples in every run, and mutated bytes.

VIF_FUZZ=10 tries ten times as many examples.
"""

import contextlib
import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from vif.errors import VIFError


def fuzz(examples):
    """Settings of a test: `examples` examples, repeatable."""
    return settings(
        max_examples=examples * int(os.environ.get("VIF_FUZZ", "1")),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def own_errors():
    """Lets the project's own errors pass and no other."""
    return contextlib.suppress(VIFError)


@st.composite
def mutated(draw, whole):
    """Bytes that were `whole` once: some changed, cut short, put in, or repeated."""
    data = bytearray(whole)
    place = st.integers(0, len(whole) - 1)
    for at, value in draw(st.lists(st.tuples(place, st.integers(0, 255)), max_size=8)):
        data[at] = value
    kind = draw(st.sampled_from(["as it is", "cut", "hole", "more", "twice"]))
    at = draw(place)
    if kind == "cut":
        del data[at:]
    elif kind == "hole":
        del data[at : at + draw(st.integers(1, 64))]
    elif kind == "more":
        data[at:at] = draw(st.binary(max_size=64))
    elif kind == "twice":
        data[at:at] = data[: at // 2]
    return bytes(data)


def some(whole):
    """Mutated bytes, or any others."""
    return st.one_of(mutated(whole), mutated(whole), st.binary(max_size=200))
