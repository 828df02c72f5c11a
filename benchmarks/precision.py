#!/usr/bin/env python3
"""Training steps of ViTs on the CPU: float32 and bfloat16, fastreid's and fused attention, compiled or not.

A step is VIFTrainer's: forward, losses, backward, optimizer, on a batch of noise that is already there. The
small ViT is that of configs/SynthAG/vif.yml, the other ViT-B/16 on 256 x 128 of configs/CARGO/vif.yml.
"""

import itertools
from typing import Any, Callable, Dict, Tuple

import vif
import torch
from common import ROOT, compare, main, report
from fastreid.config import get_cfg
from fastreid.utils.events import EventStorage
from vif.compat.step import StepTrainer
from vif.precision import amp_dtype

# title -> config, images of a batch, rounds, rounds in `--quick`
SIZES: Dict[str, Tuple[str, int, int, int]] = {
    "small ViT, 128 x 64, batch 32": ("SynthAG/vif.yml", 32, 7, 1),
    "ViT-B/16, 256 x 128, batch 4": ("CARGO/vif.yml", 4, 3, 1),
}
# title -> bfloat16, attention, compiled
CASES = {
    "float32, eager": (False, "eager", False),
    "float32, sdpa": (False, "sdpa", False),
    "float32, eager, compiled": (False, "eager", True),
    "float32, sdpa, compiled": (False, "sdpa", True),
    "bfloat16, eager": (True, "eager", False),
    "bfloat16, sdpa": (True, "sdpa", False),
    "bfloat16, sdpa, compiled": (True, "sdpa", True),
}
IDENTITIES = 100


def build_step(config: str, batch: int, mixed: bool, attention: str, compiled: bool) -> Callable[[], None]:
    """One training step of a shipped config, with random weights."""
    cfg = get_cfg()
    vif.add_vif_config(cfg)
    cfg.merge_from_file(str(ROOT / "configs" / config))
    cfg.merge_from_list(
        ["MODEL.BACKBONE.PRETRAIN", False, "MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", mixed]
    )
    cfg.merge_from_list(["MODEL.BACKBONE.VIT.ATTENTION", attention, "MODEL.COMPILE", compiled])
    cfg.MODEL.HEADS.NUM_CLASSES = IDENTITIES
    vif.check_config(cfg)
    torch.manual_seed(0)
    model = vif.VIFTrainer.build_model(cfg)
    optimizer, wrapper = vif.VIFTrainer.build_optimizer(cfg, model)
    trainer = StepTrainer(model, itertools.repeat(None), optimizer, wrapper)
    if mixed:
        trainer.set_dtype(amp_dtype("bfloat16", "cpu"))
    images = torch.rand(batch, 3, *cfg.INPUT.SIZE_TRAIN) * 255
    targets = torch.arange(batch) // 4
    storage = EventStorage(0)

    def step() -> None:
        trainer._data_loader_iter = iter([{"images": images.clone(), "targets": targets}])
        trainer.iter = 0
        with storage:
            trainer.run_step()

    return step


def measure(config: str, batch: int, rounds: int) -> Dict[str, Dict[str, float]]:
    cases = {title: build_step(config, batch, *settings) for title, settings in CASES.items()}
    rows = compare(cases, "float32, eager", rounds=rounds, warmup=1)
    for row in rows.values():
        row["images_per_s"] = batch / row["median_s"]
    return rows


def run(quick: bool) -> bool:
    torch.set_num_threads(2)
    sections: Dict[str, Any] = {
        title: measure(config, batch, few if quick else rounds)
        for title, (config, batch, rounds, few) in SIZES.items()
    }
    return report("precision", sections, [], write=not quick)


if __name__ == "__main__":
    main(run, __doc__ or "")
