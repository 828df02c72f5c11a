"""The convolutional systems, small: each keeps its architecture, on tiny images, two iterations an epoch."""

import vif
from fastreid.config import get_cfg

from tests.tiny import CONFIGS

# name -> (image height, overrides that keep what the system is made of)
SHALLOW = ("MODEL.BACKBONE.DEPTH", "18x", "MODEL.BACKBONE.FEAT_DIM", 512)
NO_MOMENTUM = ("SOLVER.OPT", "SGD", "SOLVER.MOMENTUM", 0.0)  # Adam's step is most of a ResNet-50's iteration
CONVOLUTIONAL = {
    "bot": (32, SHALLOW),
    "sbs": (32, NO_MOMENTUM),  # non-local blocks need a ResNet-50
    "agw": (32, NO_MOMENTUM),
    "mgn": (48, NO_MOMENTUM),  # so do bottlenecks
    "osnet": (32, ("MODEL.BACKBONE.DEPTH", "x0_25", "MODEL.BACKBONE.FEAT_DIM", 128)),
    "pcb": (96, SHALLOW),
    "vv": (32, SHALLOW),
}


def load(name, *opts):
    """A shipped config ("CARGO/bot.yml") with some keys changed."""
    cfg = get_cfg()
    vif.add_vif_config(cfg)
    cfg.merge_from_file(str(CONFIGS / name))
    cfg.merge_from_list(list(opts))
    return cfg


def small_cfg(name, output, *opts):
    """A shipped config of CONVOLUTIONAL made small."""
    height, own = CONVOLUTIONAL[name.split("/")[1][:-4]]
    small = [
        *("MODEL.BACKBONE.PRETRAIN", False, "MODEL.DEVICE", "cpu", *own),
        *("INPUT.SIZE_TRAIN", [height, 16], "INPUT.SIZE_TEST", [height, 16], "INPUT.PADDING.SIZE", 2),
        *("DATALOADER.NUM_WORKERS", 0, "DATALOADER.NUM_INSTANCE", 2, "SOLVER.IMS_PER_BATCH", 4),
        *("SOLVER.WARMUP_ITERS", 0, "SOLVER.FREEZE_ITERS", 0, "SOLVER.MAX_EPOCH", 1, "SOLVER.LOG_PERIOD", 1),
        *("TEST.EVAL_PERIOD", 1, "TEST.CONFIDENCE", 0.0, "SEED", 1, "OUTPUT_DIR", str(output)),
    ]
    cfg = load(name, *small, *opts)
    cfg.freeze()
    return cfg
