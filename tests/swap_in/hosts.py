"""Hosts: a clone of fastreid that is not installed, with a train_net.py as fastreid's users have it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import fastreid
import torch

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "swap-in.md"

# as tools/train_net.py of fastreid 1.3 and 1.4: set-up, evaluation alone, training, the launcher
TRAIN_NET = '''#!/usr/bin/env python
"""Train or evaluate."""

import sys

sys.path.append('.')

from fastreid.config import get_cfg
from fastreid.engine import DefaultTrainer, default_argument_parser, default_setup, launch
from fastreid.utils.checkpoint import Checkpointer


def setup(args):
    """
    Config, logs.
    """
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    default_setup(cfg, args)
    return cfg


def main(args):
    cfg = setup(args)
    if args.eval_only:
        cfg.defrost()
        cfg.MODEL.BACKBONE.PRETRAIN = False
        model = DefaultTrainer.build_model(cfg)
        Checkpointer(model).load(cfg.MODEL.WEIGHTS)
        return DefaultTrainer.test(cfg, model)
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


if __name__ == "__main__":
    args = default_argument_parser().parse_args()
    launch(main, args.num_gpus, num_machines=args.num_machines, machine_rank=args.machine_rank,
           dist_url=args.dist_url, args=(args,))
'''

# the same with a trainer of its own, as the projects in fastreid's repository have one
OWN_TRAINER = (
    TRAIN_NET.replace("DefaultTrainer", "Trainer")
    .replace("import Trainer,", "import DefaultTrainer,")
    .replace("\n\ndef setup", "\n\nclass Trainer(DefaultTrainer):\n    seen = []\n\n\ndef setup")
)


def guide_diff():
    """The diff in docs/swap-in.md."""
    return re.search(r"```diff\n(.*?)```", GUIDE.read_text(), re.DOTALL)[1]


def apply_diff(clone):
    """Apply the guide's diff to a clone's tools/train_net.py; the changed text."""
    subprocess.run(["git", "apply", "-"], input=guide_diff(), text=True, cwd=clone, check=True)
    return (clone / "tools" / "train_net.py").read_text()


def make_clone(folder, train_net=TRAIN_NET):
    """fastreid's package and tools/ in a folder, as `git clone` leaves them: nothing installed."""
    package = Path(fastreid.__file__).parent
    shutil.copytree(package, folder / "fastreid", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tools").mkdir()
    (folder / "tools" / "train_net.py").write_text(train_net)
    return folder


def make_fork(clone):
    """A CARGO and a PCB of the clone's own, registered as VDT's fork does it."""
    datasets = clone / "fastreid" / "data" / "datasets"
    (datasets / "cargo.py").write_text(
        "from . import DATASET_REGISTRY\n"
        "from .bases import ImageDataset\n\n\n"
        "@DATASET_REGISTRY.register()\n"
        "class CARGO(ImageDataset):\n"
        "    def __init__(self, root='', **kwargs):\n"
        "        raise SystemExit('the CARGO of the fork was asked')\n"
    )
    systems = clone / "fastreid" / "modeling" / "meta_arch"
    (systems / "pcb.py").write_text(
        "from torch import nn\nfrom .build import META_ARCH_REGISTRY\n\n\n"
        "@META_ARCH_REGISTRY.register()\n"
        "class PCB(nn.Module):\n"
        "    pass\n"
    )
    for folder, line in ((datasets, "from .cargo import CARGO\n"), (systems, "from .pcb import PCB\n")):
        with open(folder / "__init__.py", "a") as f:
            f.write(f"\n{line}")


def bare_packages(folder):
    """site-packages by links, without fastreid and vif."""
    folder.mkdir()
    for entry in Path(torch.__file__).parents[1].iterdir():
        if not re.match(r"fastreid|vif|__editable__|.*\.pth$", entry.name):
            (folder / entry.name).symlink_to(entry)
    return folder


def run(clone, packages, *arguments):
    """A script of the clone, as fastreid's projects are run: their folder on PYTHONPATH."""
    path = os.pathsep.join(["projects/VIF", str(packages)])
    return subprocess.run(
        [sys.executable, "-S", *map(str, arguments)],  # -S: no site-packages, no .pth files
        cwd=clone,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
