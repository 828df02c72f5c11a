"""Parts of the body, which blend with their neighbours, and materials, which have a colour each."""

import numpy as np

# parts: what an arm or a leg is blended with is decided by these, see RELATED
HEAD, NECK, TORSO, PELVIS = range(4)
ARMS = ((4, 5, 6), (7, 8, 9))  # left and right: upper arm, forearm, hand
LEGS = ((10, 11, 12), (13, 14, 15))  # left and right: thigh, shin, foot
HAIR_PART, HAT_PART, BAG_PART, SKIRT = range(16, 20)
# materials
SKIN, HAIR, UPPER, SLEEVE, LOWER, SHOE, SOLE, HAT, BAG, POCKET, HOOD = range(11)
MATERIALS = 11


def _related() -> np.ndarray:
    out = np.eye(20, dtype=bool)
    links = [(HEAD, NECK), (NECK, TORSO), (TORSO, PELVIS)]
    for arm, leg in zip(ARMS, LEGS):
        links += [(TORSO, arm[0]), (arm[0], arm[1]), (arm[1], arm[2])]
        links += [(PELVIS, leg[0]), (leg[0], leg[1])]
    for a, b in links:
        out[a, b] = out[b, a] = True
    return out


RELATED = _related()
