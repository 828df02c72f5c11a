"""A config small enough to train in seconds, for any data set."""

from pathlib import Path

import vif
from fastreid.config import get_cfg

CONFIGS = Path(__file__).parents[1] / "configs"
# on top of any shipped config: a ViT of one block on 32 x 16 pixels, two iterations
TINY = [
    *("MODEL.BACKBONE.PRETRAIN", False, "MODEL.BACKBONE.FEAT_DIM", 16),
    *("MODEL.BACKBONE.VIT.EMBED_DIM", 16, "MODEL.BACKBONE.VIT.DEPTH", 1),
    *(
        "MODEL.BACKBONE.VIT.NUM_HEADS",
        2,
        "MODEL.BACKBONE.VIT.PATCH_SIZE",
        8,
        "MODEL.BACKBONE.STRIDE_SIZE",
        (8, 8),
    ),
    *("INPUT.SIZE_TRAIN", [32, 16], "INPUT.SIZE_TEST", [32, 16], "INPUT.PADDING.SIZE", 2),
    *("INPUT.PLRM.PATCH_SIZE", 8, "MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 0),
    *("SOLVER.IMS_PER_BATCH", 8, "DATALOADER.NUM_INSTANCE", 2, "SOLVER.WARMUP_ITERS", 1),
    *("SOLVER.MAX_EPOCH", 2, "SOLVER.LOG_PERIOD", 1, "SOLVER.CHECKPOINT_PERIOD", 1, "TEST.EVAL_PERIOD", 1),
    *("SEED", 1, "TEST.EXPECTED_RESULTS", []),
]


def tiny_cfg(name, output, *opts):
    """A shipped config ("CARGO/vif.yml") made tiny."""
    cfg = get_cfg()
    vif.add_vif_config(cfg)
    cfg.merge_from_file(str(CONFIGS / name))
    if cfg.MODEL.BACKBONE.NAME == "build_vit_backbone":  # which has two sizes, neither of them tiny
        cfg.MODEL.BACKBONE.NAME = "build_vif_vit_backbone"
    cfg.merge_from_list([*TINY, "OUTPUT_DIR", str(output)])
    if cfg.MODEL.BACKBONE.NAME == "build_vif_timm_backbone":  # timm's smallest, in place of the leaf's
        cfg.merge_from_list(
            ["MODEL.BACKBONE.TIMM.NAME", "vit_tiny_patch16_224", "MODEL.BACKBONE.FEAT_DIM", 192]
        )
    cfg.merge_from_list(list(opts))
    cfg.freeze()
    return cfg
