"""fastreid's published configs: the same losses and scores as from fastreid's own trainer, driven on the CPU.

The stock side is fastreid's DefaultTrainer with its own data set, sampler, model, losses, optimizer, schedule
and evaluator. What a CPU and torch >= 2 need is bridged here: a loader without CUDA streams, gradients zeroed
in place (or its flat buffers never step), no Cython.
"""

import functools
import json
import subprocess
import sys

import vif
import fastreid.data.build
import numpy as np
import pytest
import torch
from vif import compat
from fastreid.config import get_cfg
from fastreid.engine import DefaultTrainer
from fastreid.engine.train_loop import TrainerBase
from fastreid.evaluation import rank
from fastreid.evaluation.reid_evaluation import ReidEvaluator
from fastreid.solver.build import build_optimizer
from fastreid.utils import comm
from fastreid.utils.env import seed_all_rng
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F
from vif.data import transforms as T
from vif.data.build import build_transforms

from tests import fake_trees
from tests.swap_in.hosts import ROOT
from tests.swap_in.their_configs import write_configs

SEED = 5
SMALL = [
    *("MODEL.BACKBONE.PRETRAIN", False, "MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", False),
    *("INPUT.SIZE_TRAIN", [48, 16], "INPUT.SIZE_TEST", [48, 16], "INPUT.PADDING.SIZE", 3),
    *("DATALOADER.NUM_WORKERS", 0, "DATALOADER.NUM_INSTANCE", 2, "SOLVER.IMS_PER_BATCH", 8),
    *("SOLVER.WARMUP_ITERS", 3, "SOLVER.MAX_EPOCH", 40, "TEST.IMS_PER_BATCH", 16),
    # erasing paints whole grey levels here and fractions there
    *("INPUT.REA.VALUE", [124.0, 116.0, 104.0], "INPUT.AUTOAUG.ENABLED", False),
]
SHALLOW = ["MODEL.BACKBONE.DEPTH", "18x", "MODEL.BACKBONE.FEAT_DIM", 512]
SYSTEMS = {
    "bagtricks_R50": SHALLOW,
    "sbs_R50": [],
    "AGW_R50": [],
    # MGN's heads, which fastreid freezes with its branches: see compat.build_optimizer
    "mgn_R50-ibn": ["SOLVER.FREEZE_ITERS", 0],
    "bagtricks_vit": ["MODEL.BACKBONE.DEPTH", "small"],
}
FIXED = ["INPUT.REA.ENABLED", False, "INPUT.FLIP.ENABLED", False, "INPUT.PADDING.ENABLED", False]


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    root = tmp_path_factory.mktemp("market")
    home = fake_trees.make_market1501(root, ids=6, images=3, size=(37, 90))  # odd sides: all are resized
    for k, path in enumerate(sorted((home / "bounding_box_test").iterdir())):
        if k % 3 == 0:
            fake_trees.write_image(path, 1000 + k, size=(37, 90))  # somebody else: no perfect scores
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(root))
        patch.setattr(fastreid.data.build, "_root", str(root))
        yield write_configs(root / "configs")


@pytest.fixture
def stock(monkeypatch):
    """What a CPU and today's torch need to run fastreid's own trainer."""
    torch_loader = torch.utils.data.DataLoader
    cpu_loader = lambda rank, pin_memory, **kwargs: torch_loader(**{**kwargs, "num_workers": 0})  # noqa: E731
    monkeypatch.setattr(fastreid.data.build, "DataLoaderX", cpu_loader)
    monkeypatch.setattr(comm, "shared_random_seed", lambda: SEED)
    monkeypatch.setattr(ReidEvaluator, "_compile_dependencies", lambda self: None, raising=False)
    monkeypatch.setattr(rank, "IS_CYTHON_AVAI", False)


def load(configs, name, output, *opts, vifs=False):
    output.mkdir(exist_ok=True)
    cfg = get_cfg()
    if vifs:
        vif.add_vif_config(cfg)
    cfg.merge_from_file(str(configs / "Market1501" / f"{name}.yml"))
    cfg.merge_from_list([*SMALL, *SYSTEMS[name], *opts, "OUTPUT_DIR", str(output)])
    if vifs:
        cfg.merge_from_list(["SEED", SEED, "INPUT.EXACT", True])
    return cfg


class Replay:
    """torchvision's operations on PIL images, as fastreid has them, with the decisions that VIF draws."""

    def __init__(self, cfg):
        self.ops, self.draw = build_transforms(cfg, is_train=True).ops, 0

    def __call__(self, image):
        rng, self.draw = np.random.default_rng((SEED, self.draw)), self.draw + 1
        for op in self.ops:
            image = getattr(self, type(op).__name__)(image, op, op.sample(rng, image.height, image.width))
        return image

    def Resize(self, image, op, params):
        return F.resize(image, op.size, InterpolationMode.BICUBIC)

    def PadCrop(self, image, op, params):
        return F.crop(F.pad(image, op.padding), params["top"], params["left"], *op.size)

    def HorizontalFlip(self, image, op, params):
        return F.hflip(image) if params["flip"] else image

    def RandomErasing(self, image, op, params):
        image = F.pil_to_tensor(image).float()
        value = torch.tensor(op.value)[:, None, None]
        return F.erase(image, params["top"], params["left"], params["height"], params["width"], value)


def stock_trainer(cfg, transforms=None):
    class Stock(DefaultTrainer):
        @classmethod
        def build_train_loader(cls, cfg):
            if transforms is None:
                return DefaultTrainer.build_train_loader.__func__(cls, cfg)
            return fastreid.data.build.build_reid_train_loader(cfg, transforms=transforms)

        @classmethod
        def build_optimizer(cls, cfg, model):
            built = build_optimizer(cfg, model)
            optimizer = built[0] if isinstance(built, tuple) else built  # 1.3.0: no parameter wrapper
            optimizer.zero_grad = functools.partial(optimizer.zero_grad, set_to_none=False)
            return built

    seed_all_rng(SEED)
    return Stock(cfg)


def first_losses(trainer, steps=3):
    """Losses of the first iterations by name; dropout and drop path draw the same on both sides."""
    initial = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    step = iter(range(steps))
    trainer.model.register_forward_pre_hook(lambda *_: (torch.manual_seed(next(step)), None)[1])
    trainer._hooks = [
        h for h in trainer._hooks if type(h).__name__ in ("LRScheduler", "LayerFreeze", "Freeze")
    ]
    TrainerBase.train(trainer, 0, 1, steps)
    found = {k: [v for v, _ in h.values()] for k, h in trainer.storage.histories().items() if "loss" in k}
    return initial, found


def compare(theirs, ours):
    weights, expected = first_losses(theirs)
    own_weights, found = first_losses(ours)
    assert weights.keys() == own_weights.keys()
    assert [name for name in weights if not torch.equal(weights[name], own_weights[name])] == []
    assert expected.keys() == found.keys() >= {"total_loss"}
    assert len(set(expected["total_loss"])) == 3
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-4), name


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_first_losses_are_fastreids_under_the_same_random_decisions(name, configs, stock, tmp_path):
    cfg = load(configs, name, tmp_path / "ours", vifs=True)
    theirs = stock_trainer(load(configs, name, tmp_path / "theirs"), Replay(cfg))
    compare(theirs, vif.VIFTrainer(cfg))


def test_without_augmentation_nothing_of_fastreids_is_replaced(configs, stock, tmp_path):
    name = "bagtricks_R50"
    theirs = stock_trainer(load(configs, name, tmp_path / "theirs", *FIXED))
    compare(theirs, vif.VIFTrainer(load(configs, name, tmp_path / "ours", *FIXED, vifs=True)))


def test_exact_pixels_are_read_and_resized_by_pillow(configs, tmp_path):
    for exact, read in ((True, T.read_image), (False, T.read_image_fast)):
        cfg = load(configs, "bagtricks_R50", tmp_path, vifs=True)
        cfg.INPUT.EXACT = exact
        images = vif.VIFTrainer.build_train_loader(cfg).dataset
        assert images.read is read
        assert images.transform.ops[0].exact is exact


def test_the_scores_are_those_of_fastreids_evaluator(configs, stock, tmp_path):
    """With distractors and junk in the gallery, and one image of every camera as a query."""
    cfg = load(configs, "bagtricks_R50", tmp_path)
    compat.seed_everything(SEED)
    model = DefaultTrainer.build_model(cfg)
    expected = DefaultTrainer.test(cfg, model)
    own = load(configs, "bagtricks_R50", tmp_path, vifs=True)
    ((protocol, found),) = vif.VIFTrainer.test(own, model)["Market1501"].items()
    assert protocol == "ALL"
    assert (found["queries"], found["valid_queries"]) == (18, 18)
    assert found["gallery"] == 6 * 3 * 3 + 1  # junk (-1) is no distractor (0000)
    assert found["mAP"] < 99
    for metric in ("Rank-1", "Rank-5", "Rank-10", "mAP", "mINP"):
        assert found[metric] == pytest.approx(expected[metric], abs=1e-4)


def test_our_train_net_runs_their_config(configs, tmp_path):
    """All that a user changes is the script."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "train_net.py"), "--config-file"]
        + [str(configs / "Market1501" / "bagtricks_R50.yml")]
        + [str(part) for part in (*SMALL, *SHALLOW, "SOLVER.MAX_EPOCH", 1, "OUTPUT_DIR", tmp_path)]
        + ["INPUT.AUTOAUG.ENABLED", "True", "TEST.EVAL_PERIOD", "1", "SOLVER.AMP.ENABLED", "True"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert set(json.loads((tmp_path / "results.json").read_text())["Market1501"]) == {"ALL"}
