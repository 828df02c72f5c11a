"""Who a synthetic person is: build, clothes, hair, hat, bag and skin, drawn from (seed, pid) alone."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Dict, NamedTuple, Sequence, Tuple

import numpy as np

RGB = Tuple[float, float, float]


class Colour(NamedTuple):
    """A named colour; ``rgb`` is sRGB in [0, 1] and differs a little between two people of one name."""

    name: str
    rgb: RGB


CLOTH: Dict[str, RGB] = {
    "black": (0.10, 0.10, 0.11),
    "charcoal": (0.24, 0.25, 0.27),
    "grey": (0.52, 0.53, 0.54),
    "white": (0.92, 0.92, 0.90),
    "navy": (0.11, 0.15, 0.32),
    "blue": (0.18, 0.34, 0.66),
    "sky": (0.50, 0.70, 0.88),
    "teal": (0.10, 0.46, 0.48),
    "green": (0.16, 0.42, 0.22),
    "olive": (0.38, 0.38, 0.20),
    "red": (0.74, 0.13, 0.13),
    "burgundy": (0.40, 0.09, 0.16),
    "pink": (0.90, 0.58, 0.66),
    "purple": (0.40, 0.24, 0.52),
    "orange": (0.90, 0.46, 0.14),
    "yellow": (0.92, 0.78, 0.26),
    "beige": (0.80, 0.70, 0.54),
    "brown": (0.38, 0.25, 0.16),
    "khaki": (0.62, 0.54, 0.38),
    "denim": (0.24, 0.34, 0.52),
}
_LOWER = ("black", "charcoal", "grey", "white", "navy", "denim", "denim", "olive", "beige", "khaki", "brown",
          "black", "burgundy", "sky", "teal")  # fmt: skip
_SHOES = ("black", "white", "white", "brown", "grey", "red", "navy", "charcoal", "blue", "orange")
_BAGS = ("black", "charcoal", "navy", "brown", "red", "beige", "olive", "teal", "orange", "grey", "purple")
_HAIR: Dict[str, RGB] = {
    "black": (0.07, 0.06, 0.06),
    "dark brown": (0.18, 0.11, 0.07),
    "brown": (0.34, 0.21, 0.12),
    "blond": (0.72, 0.56, 0.32),
    "red": (0.52, 0.22, 0.10),
    "grey": (0.58, 0.57, 0.56),
}
_SKIN: Dict[str, RGB] = {
    "very light": (0.93, 0.76, 0.66),
    "light": (0.87, 0.67, 0.54),
    "medium": (0.74, 0.53, 0.39),
    "tan": (0.60, 0.40, 0.28),
    "brown": (0.45, 0.29, 0.20),
    "dark": (0.31, 0.20, 0.14),
}


@dataclass(frozen=True)
class Identity:
    """What stays the same in every image of a person. Lengths in metres, factors around 1.

    Attributes:
        pid: identity number.
        height: body height without hat and shoes, m (1.50 to 1.98).
        girth: factor of all radii (0.86 to 1.3); belly: extra depth of the waist (0 to 1).
        shoulders, hips, legs: factors of shoulder width, hip width and leg length.
        skin, hair_colour, upper_colour, second_colour, lower_colour, shoe_colour, hat_colour, bag_colour:
            named colours; ``second_colour`` is that of the pattern or of what an open jacket shows.
        hair: bald, buzz, short, bob, long, ponytail, bun, afro. beard, glasses: yes or no.
        hat: none, cap, beanie, sunhat, hood.
        upper: tshirt, shirt, sweater, jacket, coat, hoodie, tank. sleeves: none, short, long.
        pattern: plain, stripes, pinstripes, checks, two-tone, logo, backprint, camo, open, sash, sleeves.
        lower: trousers, slim, wide, shorts, skirt, longskirt, dress.
        lower_pattern: plain, sidestripe, checks.
        bag: none, backpack, handbag, messenger. bag_side: -1 left, 1 right.
        pattern_scale: factor of the pattern's period; pattern_phase: its offset, in periods.
    """

    pid: int
    height: float
    girth: float
    belly: float
    shoulders: float
    hips: float
    legs: float
    skin: Colour
    hair: str
    hair_colour: Colour
    beard: bool
    glasses: bool
    hat: str
    hat_colour: Colour
    upper: str
    sleeves: str
    pattern: str
    upper_colour: Colour
    second_colour: Colour
    lower: str
    lower_pattern: str
    lower_colour: Colour
    shoe_colour: Colour
    bag: str
    bag_colour: Colour
    bag_side: int
    pattern_scale: float
    pattern_phase: float


def _choose(rng: np.random.Generator, names: Sequence[str], weights: Sequence[float]) -> str:
    edges = np.cumsum(np.asarray(weights, dtype=np.float64))
    return names[min(int(np.searchsorted(edges, rng.random() * edges[-1], side="right")), len(names) - 1)]


def _colour(rng: np.random.Generator, table: Dict[str, RGB], names: Sequence[str], jitter: float) -> Colour:
    name = names[int(rng.integers(len(names)))]
    shade = 1.0 + jitter * float(rng.uniform(-1.5, 1.5))
    rgb = [float(np.clip(c * shade + rng.uniform(-jitter, jitter) * 0.4, 0.02, 0.97)) for c in table[name]]
    return Colour(name, (rgb[0], rgb[1], rgb[2]))


def _contrasting(rng: np.random.Generator, other: Colour) -> Colour:
    """A cloth colour that can be told from ``other``."""
    while True:
        colour = _colour(rng, CLOTH, list(CLOTH), 0.10)
        if sum(abs(a - b) for a, b in zip(colour.rgb, other.rgb)) > 0.55:
            return colour


@lru_cache(maxsize=256)
def sample_identity(seed: int, pid: int) -> Identity:
    """The person ``pid`` of the world ``seed``; nothing else has an influence."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 1, pid]))
    girth = float(np.clip(rng.normal(1.0, 0.10), 0.86, 1.30))
    build = int(rng.integers(2))  # broad shoulders or broad hips, with overlap
    upper = _choose(rng, ("tshirt", "shirt", "sweater", "jacket", "coat", "hoodie", "tank"),
                    (26, 16, 13, 17, 9, 12, 7))  # fmt: skip
    sleeves = {"tshirt": "short", "tank": "none"}.get(upper, "long")
    if upper == "shirt" and rng.random() < 0.35:
        sleeves = "short"
    patterns = ("plain", "stripes", "pinstripes", "checks", "two-tone", "logo", "backprint", "camo", "open",
                "sash", "sleeves")  # fmt: skip
    weights = {
        "tshirt": (26, 16, 5, 3, 10, 18, 8, 4, 0, 5, 5),
        "shirt": (34, 4, 18, 24, 3, 2, 0, 4, 11, 0, 0),
        "sweater": (34, 22, 4, 6, 16, 6, 2, 3, 0, 4, 3),
        "jacket": (26, 2, 0, 2, 17, 4, 6, 6, 28, 2, 7),
        "coat": (54, 0, 2, 8, 2, 0, 0, 2, 32, 0, 0),
        "hoodie": (34, 5, 0, 0, 14, 18, 10, 4, 8, 2, 5),
        "tank": (50, 14, 4, 0, 12, 16, 4, 0, 0, 0, 0),
    }[upper]
    pattern = _choose(rng, patterns, weights)
    lower = _choose(rng, ("trousers", "slim", "wide", "shorts", "skirt", "longskirt", "dress"),
                    (34, 20, 8, 18, 7, 5, 8))  # fmt: skip
    if upper in ("coat", "jacket", "hoodie", "tank") and lower == "dress":
        lower = "slim"
    hair = _choose(rng, ("bald", "buzz", "short", "bob", "long", "ponytail", "bun", "afro"),
                   (4, 10, 34, 14, 16, 11, 6, 5))  # fmt: skip
    if lower in ("skirt", "longskirt", "dress") and hair in ("bald", "buzz"):
        hair = "long"
    hat = _choose(rng, ("none", "cap", "beanie", "sunhat"), (70, 16, 8, 6))
    if upper == "hoodie" and rng.random() < 0.2:
        hat = "hood"
    skin = _colour(rng, _SKIN, list(_SKIN), 0.04)
    hair_names = ("black", "dark brown", "dark brown", "brown", "blond", "red", "grey")
    if sum(skin.rgb) < 1.35:
        hair_names = ("black", "black", "black", "dark brown", "dark brown", "grey", "black")
    upper_colour = _colour(rng, CLOTH, list(CLOTH), 0.10)
    lower_colour = upper_colour if lower == "dress" else _colour(rng, CLOTH, _LOWER, 0.10)
    lower_patterns = (78, 14, 0) if lower in ("trousers", "slim", "shorts", "wide") else (70, 0, 30)
    return Identity(
        pid=pid,
        height=float(np.clip(rng.normal(1.72, 0.095), 1.50, 1.98)),
        girth=girth,
        belly=float(np.clip(rng.normal(0.15, 0.25) + (girth - 1.0) * 2.2, 0.0, 1.0)),
        shoulders=float(rng.normal(1.05 if build else 0.96, 0.035)),
        hips=float(rng.normal(0.97 if build else 1.06, 0.035)),
        legs=float(rng.normal(1.0, 0.025)),
        skin=skin,
        hair=hair,
        hair_colour=_colour(rng, _HAIR, hair_names, 0.08),
        beard=bool(build and hair in ("bald", "buzz", "short", "bun") and rng.random() < 0.35),
        glasses=bool(rng.random() < 0.22),
        hat=hat,
        hat_colour=upper_colour if hat == "hood" else _colour(rng, CLOTH, list(CLOTH), 0.10),
        upper=upper,
        sleeves=sleeves,
        pattern=pattern,
        upper_colour=upper_colour,
        second_colour=_contrasting(rng, upper_colour),
        lower=lower,
        lower_pattern=_choose(rng, ("plain", "sidestripe", "checks"), lower_patterns),
        lower_colour=lower_colour,
        shoe_colour=_colour(rng, CLOTH, _SHOES, 0.08),
        bag=_choose(rng, ("none", "backpack", "handbag", "messenger"), (52, 26, 12, 10)),
        bag_colour=_colour(rng, CLOTH, _BAGS, 0.10),
        bag_side=-1 if rng.random() < 0.5 else 1,
        pattern_scale=float(rng.uniform(0.75, 1.4)),
        pattern_phase=float(rng.random()),
    )
