"""SynthAG: seeded synthetic people under five aerial and eight ground cameras, rendered with numpy."""

from vif.data.synth.camera import AERIAL_CAMERAS, CAMERAS, GROUND_CAMERAS, Camera
from vif.data.synth.people import Colour, Identity, sample_identity
from vif.data.synth.render import contact_sheet, draw, render_image, shot, silhouette
from vif.data.synth.writer import SynthImage, plan_synthag, write_synthag

__all__ = [
    "AERIAL_CAMERAS",
    "CAMERAS",
    "GROUND_CAMERAS",
    "Camera",
    "Colour",
    "Identity",
    "SynthImage",
    "contact_sheet",
    "draw",
    "plan_synthag",
    "render_image",
    "sample_identity",
    "shot",
    "silhouette",
    "write_synthag",
]
