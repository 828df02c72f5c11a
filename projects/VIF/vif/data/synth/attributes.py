"""What can be said of a synthetic person in words, as binary attributes in a file of AG-ReID's form."""

import io
from typing import Dict, Iterable, Tuple

import numpy as np

from vif.data.synth.people import _HAIR, _SKIN, CLOTH, Identity, sample_identity

FILE = "synthag_attributes.mat"
_SHORT, _TALL = 1.65, 1.79  # m: about a quarter of the people below, a quarter above
_THIN, _FAT = 0.93, 1.07  # of the girth, likewise
_HEADER = b"MATLAB 5.0 MAT-file, attributes of SynthAG"
_HEADER_LENGTH = 116
VALUES: Dict[str, Tuple[str, ...]] = {  # attribute: its values
    "height": ("short", "medium", "tall"),
    "weight": ("thin", "medium", "fat"),
    "skin": tuple(_SKIN),
    "haircolor": tuple(_HAIR),
    "hairstyle": ("bald", "buzz", "short", "bob", "long", "ponytail", "bun", "afro"),
    "beard": ("on", "off"),
    "glasses": ("on", "off"),
    "head": ("none", "cap", "beanie", "sunhat", "hood"),
    "upper": ("tshirt", "shirt", "sweater", "jacket", "coat", "hoodie", "tank"),
    "sleeves": ("none", "short", "long"),
    "uppercolor": tuple(CLOTH),
    "lower": ("trousers", "slim", "wide", "shorts", "skirt", "longskirt", "dress"),
    "lowercolor": tuple(CLOTH),
    "bag": ("none", "backpack", "handbag", "messenger"),
}


def describe(who: Identity) -> Dict[str, str]:
    """The value of each attribute of `VALUES`."""
    return {
        "height": _size(who.height, _SHORT, _TALL, VALUES["height"]),
        "weight": _size(who.girth, _THIN, _FAT, VALUES["weight"]),
        "skin": who.skin.name,
        "haircolor": who.hair_colour.name,
        "hairstyle": who.hair,
        "beard": "on" if who.beard else "off",
        "glasses": "on" if who.glasses else "off",
        "head": who.hat,
        "upper": who.upper,
        "sleeves": who.sleeves,
        "uppercolor": who.upper_colour.name,
        "lower": who.lower,
        "lowercolor": who.lower_colour.name,
        "bag": who.bag,
    }


def _size(value: float, low: float, high: float, names: Tuple[str, ...]) -> str:
    return names[(value >= low) + (value > high)]


def attribute_bytes(seed: int, train: Iterable[int], test: Iterable[int]) -> bytes:
    """The attribute file of the world ``seed``: one binary attribute a value, 1 no and 2 yes.

    Args:
        seed: of the world.
        train, test: identities.

    Returns:
        A MATLAB 5 file; the same arguments give the same bytes.
    """
    from scipy.io import savemat

    buffer = io.BytesIO()
    content = {"train": _part(seed, list(train)), "test": _part(seed, list(test))}
    savemat(buffer, {"synthag_attribute": content}, oned_as="row")
    # scipy writes the date into the text that a MATLAB file begins with
    return _HEADER.ljust(_HEADER_LENGTH) + buffer.getvalue()[_HEADER_LENGTH:]


def _part(seed: int, pids: Iterable[int]) -> Dict[str, np.ndarray]:
    pids = list(pids)
    said = [describe(sample_identity(seed, pid)) for pid in pids]
    fields = {
        (group + value).replace(" ", ""): np.array([1 + (s[group] == value) for s in said], dtype=np.uint8)
        for group, values in VALUES.items()
        for value in values
    }
    return {**fields, "image_index": np.array([str(pid) for pid in pids], dtype=object)}
