"""Scoring CARGO's four protocols: one extraction for all against one for each, as fastreid does it.

    python benchmarks/extraction.py [--quick]

On SynthAG in CARGO's layout with a small ViT; the share of forward passes follows from the protocols and is
computed for CARGO's own counts as well.
"""

import os
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, Dict, List

import torch
from common import compare, main, report

NAMES = ("CARGO", "CARGO_AA", "CARGO_GG", "CARGO_AG")
CARGO_IMAGES = 51_024  # of its test set; AA and GG together are all of it, ALL and AG each are
CONFIG = Path(__file__).resolve().parents[1] / "configs" / "SynthAG" / "vif.yml"


def run(quick: bool) -> bool:
    import vif
    from fastreid.config import get_cfg
    from vif.data.build import build_test_loader, find_dataset
    from vif.data.synth import write_synthag
    from vif.evaluation.extract import extract_table
    from vif.records import ImageRecord
    from vif.trainer import prepare

    forwards: List[int] = []

    def four_passes(cfg: Any, model: Any) -> None:
        for name in NAMES:  # each registered data set reads, forwards and ranks its own images
            dataset = find_dataset(cfg, name)
            sides = (("query", dataset.query), ("gallery", dataset.gallery))
            splits = OrderedDict((k, [ImageRecord(p, i, c, "") for p, i, c in rows]) for k, rows in sides)
            table = extract_table(model, build_test_loader(cfg, splits), splits)
            vif.EVALUATOR_REGISTRY.get("ProtocolEvaluator")(cfg).evaluate(
                table, vif.evaluation.PROTOCOLS["DEFAULT"]
            )

    with tempfile.TemporaryDirectory() as folder:
        os.environ["FASTREID_DATASETS"] = folder
        write_synthag(os.path.join(folder, "CARGO"), ids=12 if quick else 60, progress=False)
        cfg = get_cfg()
        vif.add_vif_config(cfg)
        cfg.merge_from_file(str(CONFIG))
        opts = [
            "DATASETS.TESTS",
            NAMES,
            "OUTPUT_DIR",
            folder,
            "DATALOADER.NUM_WORKERS",
            0,
            "MODEL.DEVICE",
            "cpu",
        ]
        cfg.merge_from_list([*opts, "TEST.CONFIDENCE", 0.0])
        cfg = prepare(cfg)
        model = vif.VIFTrainer.build_model(cfg)
        model.backbone.register_forward_hook(lambda _, inputs, __: forwards.append(len(inputs[0])))
        counts: Dict[str, int] = {}
        cases = {
            "one for each protocol": lambda: four_passes(cfg, model),
            "one for all": lambda: vif.VIFTrainer.test(cfg, model),
        }
        for name, case in cases.items():
            forwards.clear()
            case()
            counts[name] = sum(forwards)
        torch.set_num_threads(1)
        rows: Dict[str, Any] = compare(
            cases, baseline="one for each protocol", rounds=1 if quick else 5, warmup=1
        )
    rows["forward passes"] = counts
    rows["forward passes on CARGO"] = {"one for each protocol": 3 * CARGO_IMAGES, "one for all": CARGO_IMAGES}
    return report("extraction", {"evaluation of four protocols": rows}, [], write=not quick)


if __name__ == "__main__":
    main(run, __doc__)
