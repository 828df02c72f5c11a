#!/usr/bin/env python3
"""Train or evaluate as fastreid's users know it: train_net.py --config-file FILE [--eval-only] [--resume]."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "projects" / "VIF"))

import vif
from vif.errors import VIFError


def setup(args: Any) -> Any:
    """Read the config file and the KEY VALUE pairs, check them, start the logs."""
    from fastreid.config import get_cfg
    from fastreid.engine import default_setup

    cfg = get_cfg()
    vif.add_vif_config(cfg)
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    if args.eval_only:
        cfg.MODEL.BACKBONE.PRETRAIN = False  # MODEL.WEIGHTS holds the whole model
    vif.check_config(cfg)
    cfg.freeze()
    default_setup(cfg, args)
    return cfg


def main(args: Any) -> None:
    """Train and evaluate, or only evaluate MODEL.WEIGHTS; a miss of TEST.EXPECTED_RESULTS exits with 1."""
    cfg = setup(args)
    if args.eval_only:
        vif.VIFTrainer.evaluate_weights(cfg)
    else:
        trainer = vif.VIFTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        trainer.train()


def run() -> None:
    """Command-line entry; the project's own errors end in one line, not in a traceback."""
    from fastreid.engine import default_argument_parser, launch

    args = default_argument_parser().parse_args()
    try:
        launch(
            main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except VIFError as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    run()
