#!/usr/bin/env python3
"""Train or evaluate as fastreid's users know it: train_net.py --config-file FILE [--eval-only] [--resume]."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "projects" / "VIF"))

import vif
from vif.errors import VIFError
from vif.files import require_writable


def read(args: Any) -> Any:
    """The config of the file and the KEY VALUE pairs, checked and frozen."""
    from vif.config_file import read_config

    cfg = read_config(args.config_file, args.opts)
    if args.eval_only:
        cfg.MODEL.BACKBONE.PRETRAIN = False  # MODEL.WEIGHTS holds the whole model
    vif.check_config(cfg)
    cfg.freeze()
    require_writable(cfg.OUTPUT_DIR)
    return cfg


def main(cfg: Any, args: Any) -> None:
    """Train and evaluate, or only evaluate MODEL.WEIGHTS; a miss of TEST.EXPECTED_RESULTS exits with 1."""
    from fastreid.engine import default_setup

    default_setup(cfg, args)
    if args.eval_only:
        vif.VIFTrainer.evaluate_weights(cfg)
    else:
        trainer = vif.VIFTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        trainer.train()


def run() -> None:
    """Command-line entry; the project's own errors end in one line, not in a traceback."""
    from fastreid.engine import default_argument_parser
    from vif.processes.launch import launch

    args = default_argument_parser().parse_args()
    try:
        cfg = read(args)
        launch(
            main,
            (cfg, args),
            device=cfg.MODEL.DEVICE,
            processes=args.num_gpus,
            machines=args.num_machines,
            machine_rank=args.machine_rank,
            url=args.dist_url,
        )
    except VIFError as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    run()
