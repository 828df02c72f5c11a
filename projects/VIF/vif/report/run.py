"""A run's folder as training leaves it, read without trust in any of its files."""

import json
import os
import re
from dataclasses import dataclass, field
from typing import Any, Dict, List

from ..errors import DataError

# rows of fastreid's environment table that say something of the numbers
_ENVIRONMENT = (
    "sys.platform", "Python", "numpy", "fastreid", "PyTorch", "torchvision", "Pillow", "cv2", "GPU available",
    "CUDA available", "GPU",
)  # fmt: skip
_LOG_BYTES = 1 << 20  # the environment stands at the log's start


@dataclass(frozen=True)
class Run:
    """What is in a run's folder; an empty value where a file is missing or broken.

    Attributes:
        folder: where it is.
        config: text of config.yaml.
        metrics: lines of metrics.json, each a dict of numbers, in the order of their iterations.
        results: results.json: scores by data set and protocol.
        environment: name -> value of the machine that trained, from log.txt.
        weights: path of model_final.pth, or "".
        missing: why a value is empty, by file name.
    """

    folder: str
    config: str = ""
    metrics: List[Dict[str, float]] = field(default_factory=list)
    results: Dict[str, Dict[str, Dict[str, float]]] = field(default_factory=dict)
    environment: Dict[str, str] = field(default_factory=dict)
    weights: str = ""
    missing: Dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The last two parts of the folder's path, as "SynthAG/vif"."""
        return "/".join(os.path.abspath(self.folder).split(os.sep)[-2:]).strip("/")


def read_run(folder: str) -> Run:
    """Read a run's folder.

    Raises:
        DataError: there is no such folder, or nothing of a run in it.
    """
    if not os.path.isdir(folder):
        raise DataError(f"there is no run {folder!r}: name the OUTPUT_DIR of a training.")
    missing: Dict[str, str] = {}
    found: Dict[str, Any] = {}
    for key, name, parse in (
        ("config", "config.yaml", str),
        ("metrics", "metrics.json", parse_metrics),
        ("results", "results.json", _results),
        ("environment", "log.txt", _environment),
    ):
        path = os.path.join(folder, name)
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                found[key] = parse(file.read(_LOG_BYTES if name == "log.txt" else -1))
            if not found[key]:
                missing[name] = f"{name} holds nothing that can be used"
        except FileNotFoundError:
            missing[name] = f"the run has no {name}"
        except (OSError, ValueError) as error:
            missing[name] = f"{name} cannot be read ({error})"
    weights = os.path.join(folder, "model_final.pth")
    if not os.path.isfile(weights):
        weights, missing["model_final.pth"] = "", "the run has no model_final.pth"
    if len(missing) == 5:
        raise DataError(
            f"{folder!r} holds nothing of a run: expected config.yaml, metrics.json, results.json, log.txt "
            "or model_final.pth, as training writes them into its OUTPUT_DIR."
        )
    found = {key: value for key, value in found.items() if value}
    return Run(folder, weights=weights, missing=missing, **found)


def parse_metrics(text: str) -> List[Dict[str, float]]:
    """Lines of fastreid's metrics.json by iteration; broken lines (a run that was killed) are passed over.

    A resumed run writes iterations again: the last line of an iteration counts, joined to what the earlier
    ones have beside.
    """
    rows: Dict[float, Dict[str, float]] = {}
    for line in text.splitlines():
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict) and isinstance(content.get("iteration"), (int, float)):
            numbers = {k: float(v) for k, v in content.items() if isinstance(v, (int, float))}
            rows.setdefault(numbers["iteration"], {}).update(numbers)
    return [rows[iteration] for iteration in sorted(rows)]


def _results(text: str) -> Dict[str, Dict[str, Dict[str, float]]]:
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("not an object")
    found: Dict[str, Dict[str, Dict[str, float]]] = {}
    for dataset, protocols in content.items():
        for protocol, scores in (protocols if isinstance(protocols, dict) else {}).items():
            numbers = scores.items() if isinstance(scores, dict) else ()
            row = {name: float(v) for name, v in numbers if isinstance(v, (int, float))}
            found.setdefault(dataset, {})[protocol] = row
    return found


def _environment(text: str) -> Dict[str, str]:
    """Whitelisted rows of the first environment table, without the folders that it names."""
    found: Dict[str, str] = {}
    table = re.search(r"Environment info:\n(-[- ]+)\n(.*?)\n-[- ]+\n", text, flags=re.DOTALL)
    for line in table.group(2).splitlines() if table else ():
        name, _, value = line.partition("  ")
        if name.split(" 0")[0] in _ENVIRONMENT and value.strip():
            found[name] = re.sub(r"\s*@\S.*$", "", value.strip())
    seconds = re.findall(r"Total training time: ([\d:, a-z]+\d)", text)
    if seconds:
        found["training time"] = seconds[-1]
    return found
