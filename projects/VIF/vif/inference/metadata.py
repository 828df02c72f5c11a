"""Signature: what a network expects and gives, kept as text in the files that `vif export` writes."""

import json
import re
from dataclasses import asdict, dataclass, fields
from typing import Any, Dict, Mapping, Tuple

from ..errors import DataError

PREFIX = "vif."
INPUT_NAME = "images"
OUTPUT_NAME = "features"
_FINGERPRINT = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True)
class Signature:
    """Input and output of a network.

    The input is named `INPUT_NAME`, its batch size B is free: with ``uint8_input`` it is uint8 (B, H, W, 3),
    RGB as decoded, and the network normalises; otherwise it is float32 (B, 3, H, W), RGB, already normalised
    as (x - mean) / std. The output is named `OUTPUT_NAME`, float32 (B, dim). Whole images are resized to
    H x W (`vif.data.transforms.Resize`); a config with INPUT.CROP.ENABLED is not described by this alone.

    Attributes:
        height, width: of the input.
        mean, std: three numbers each, on the scale 0..255.
        uint8_input: whether the input is uint8 and normalisation is inside.
        l2_output: whether the rows of the output have length 1.
        dim: numbers in a feature.
        fingerprint: short sha256 of the weights that the network came from (`vif.inference.fingerprint`).
    """

    height: int
    width: int
    mean: Tuple[float, float, float]
    std: Tuple[float, float, float]
    uint8_input: bool
    l2_output: bool
    dim: int
    fingerprint: str

    def to_dict(self) -> Dict[str, str]:
        """Text by name, each name with `PREFIX`: metadata of ONNX, safetensors and TorchScript files."""
        return {PREFIX + name: json.dumps(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, metadata: Mapping[str, str]) -> "Signature":
        """What `to_dict` gave; other names are ignored.

        Raises:
            DataError: a name is missing or its value makes no sense; names it.
        """
        return cls(**{field.name: _read(metadata, field.name) for field in fields(cls)})


def _read(metadata: Mapping[str, str], name: str) -> Any:
    if PREFIX + name not in metadata:
        raise DataError(f"the metadata lacks {PREFIX + name}; write the file with `vif export`")
    text = metadata[PREFIX + name]
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if name in ("mean", "std"):
        if isinstance(value, list) and len(value) == 3 and all(isinstance(v, (int, float)) for v in value):
            return (float(value[0]), float(value[1]), float(value[2]))
    elif name in ("uint8_input", "l2_output"):
        if isinstance(value, bool):
            return value
    elif name == "fingerprint":
        if isinstance(value, str) and _FINGERPRINT.fullmatch(value):
            return value
    elif type(value) is int and value > 0:
        return value
    raise DataError(
        f"the metadata has {PREFIX + name}={text!r}, which makes no sense; write the file with `vif export`"
    )
