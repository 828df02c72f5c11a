"""The rule that keeps the borders: pure modules import no fastreid, and work where fastreid is missing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "projects" / "VIF" / "vif"
# the rim: modules that adapt fastreid
ADAPTERS = {
    "cli.py",
    "compat/checkpointer.py",
    "compat/distributed.py",
    "compat/builders.py",
    "compat/step.py",
    "config.py",
    "config_checks.py",
    "config_file.py",
    "config_ranges.py",
    "data/build.py",
    "data/datasets/registry.py",
    "evaluation/evaluator.py",
    "evaluation/extract.py",
    "evaluation/extract_file.py",
    "evaluation/training_count.py",
    "experiments/sweep.py",
    "experiments/worker.py",
    "hooks.py",
    "inference/build.py",
    "modeling/attention.py",
    "modeling/backbones.py",
    "modeling/explain.py",
    "modeling/meta_arch.py",
    "modeling/timm_backbone.py",
    "modeling/osnet.py",
    "modeling/pcb.py",
    "modeling/vdt.py",
    "modeling/vv.py",
    "plugin.py",
    "report/config.py",
    "registries.py",
    "replay.py",
    "resume/state.py",
    "resume/trainer.py",
    "trainer.py",
    "unread.py",
    "writers.py",
}
MODULES = sorted(p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


@pytest.mark.parametrize("name", [m for m in MODULES if m not in ADAPTERS])
def test_a_pure_module_imports_no_fastreid(name):
    assert not [m for m in imports(PACKAGE / name) if m.split(".")[0] in ("fastreid", "yacs")]


def test_every_adapter_is_there():
    assert set(MODULES) >= ADAPTERS


def run_without_fastreid(code):
    block = "import sys, importlib.abc\n"
    block += "class Block(importlib.abc.MetaPathFinder):\n"
    block += "    def find_spec(self, name, path=None, target=None):\n"
    block += "        if name.split('.')[0] == 'fastreid': raise ModuleNotFoundError(name)\n"
    hide = (
        "import importlib.util, importlib.machinery\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n, p=None: None if n == 'fastreid' else real(n, p)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", block + "sys.meta_path.insert(0, Block())\n" + hide + code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(PACKAGE.parent), "PATH": ""},
        check=False,
    )


def test_the_pure_parts_work_where_fastreid_is_missing():
    done = run_without_fastreid(
        "from vif.data.transforms import patch_probability, rotate_mix, PatchLevelRotateMix\n"
        "from vif.modeling.losses import vial_loss, VIALLoss\n"
        "from vif.evaluation import rank_metrics\n"
        "print(patch_probability(2, 2, 0.3, 0.8).shape, 'fastreid' in sys.modules)\n"
    )
    assert done.stdout.strip() == "(2, 2) False", done.stderr


def test_where_fastreid_is_missing_the_error_says_what_to_do():
    done = run_without_fastreid("import vif\nvif.add_vif_config\n")
    assert "ImportError" in done.stderr
    assert "pip install --no-deps fastreid==1.4.0" in done.stderr


def test_a_predictor_on_an_onnx_file_needs_neither_fastreid_nor_torch():
    done = run_without_fastreid(
        "import vif\n"
        "from vif.errors import VIFError\n"
        "try: vif.Predictor.from_onnx('none.onnx')\n"
        "except VIFError: print('torch' in sys.modules)\n"
        "vif.Predictor('config.yml', 'model.pth')\n"
    )
    assert done.stdout.strip() == "False", done.stderr
    assert "ImportError" in done.stderr
    assert "pip install --no-deps fastreid==1.4.0" in done.stderr


def test_serving_a_gallery_needs_neither_opencv_nor_torch():
    done = run_without_fastreid(
        "sys.modules.update(cv2=None, torch=None)\n"  # importing them fails
        "import vif.serve.service, vif.retrieval.cli\n"
        "print('served')\n"
    )
    assert done.stdout.strip() == "served", done.stderr
