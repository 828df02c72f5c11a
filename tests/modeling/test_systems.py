"""SBS, BoT, AGW, MGN and OSNet: published settings, distinguishing parts; every config of all seven runs."""

import copy
import json

import vif
import numpy as np
import pytest
import torch
from vif import compat
from fastreid.layers.non_local import Non_local
from fastreid.modeling.backbones.osnet import OSBlock
from fastreid.modeling.heads import build_heads
from fastreid.utils.events import EventStorage
from vif.cli import main
from vif.config import lookup
from vif.errors import ConfigError
from vif.features import FeatureTable

from tests import fake_trees
from tests.systems import CONVOLUTIONAL, load, small_cfg

DATASETS = ("AGReIDv1", "AGReIDv2", "CARGO", "SynthAG")
TARGETS = torch.tensor([0, 0, 1, 1, 2, 2])


@pytest.fixture(scope="module", autouse=True)
def trees(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    size = (16, 32)
    fake_trees.make_cargo(root, ids=2, size=size)
    fake_trees.make_synthag(root, ids=2, size=size)
    fake_trees.make_agreidv1(root, ids=2, size=size)
    fake_trees.make_agreidv2(root, ids=2, size=size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(root))
        yield root


@pytest.fixture(scope="module")
def untrained():
    """Models by their part of the config, so that each is initialised once."""
    models, build_model = {}, vif.VIFTrainer.build_model

    def build(cfg):
        key = cfg.MODEL.dump()
        if key not in models:
            torch.manual_seed(0)
            models[key] = build_model(cfg)
        return models[key]

    return build


def run(cfg, iterations=2):
    """Train and evaluate without writing weights."""
    trainer = vif.VIFTrainer(cfg)
    trainer.iters_per_epoch = trainer.max_iter = iterations
    trainer.checkpointer.save_to_disk = False
    trainer.resume_or_load(resume=False)
    return trainer, trainer.train()


@pytest.mark.parametrize("system", CONVOLUTIONAL)
def test_every_config_trains_and_evaluates(system, tmp_path, untrained):
    for dataset in DATASETS:
        cfg = small_cfg(f"{dataset}/{system}.yml", tmp_path / dataset, "MODEL.FREEZE_LAYERS", [])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vif.VIFTrainer, "build_model", classmethod(lambda cls, cfg: untrained(cfg)))
            trainer, results = run(cfg)
        assert set(results) == {dataset}
        assert all(0 < scores["mAP"] <= 100 for scores in results[dataset].values())
        lines = [json.loads(line) for line in (tmp_path / dataset / "metrics.json").read_text().splitlines()]
        assert all(np.isfinite(line["total_loss"]) for line in lines if "total_loss" in line)
        assert trainer.iter == 2


@pytest.mark.parametrize("system", CONVOLUTIONAL)
def test_a_leaf_names_its_data_set_and_nothing_else(system):
    cfgs = [load(f"{dataset}/{system}.yml") for dataset in DATASETS[:3]]
    for dataset, cfg in zip(DATASETS, cfgs):
        assert tuple(cfg.DATASETS.NAMES) == tuple(cfg.DATASETS.TESTS) == (dataset,)
        assert f"logs/{dataset}/{system}" == cfg.OUTPUT_DIR
        assert cfg.MODEL.BACKBONE.PRETRAIN
        cfg.merge_from_list(["DATASETS.NAMES", (), "DATASETS.TESTS", (), "OUTPUT_DIR", ""])
    assert cfgs[0] == cfgs[1] == cfgs[2]


@pytest.mark.parametrize("system", CONVOLUTIONAL)
def test_the_small_data_set_needs_neither_weights_nor_a_gpu(system):
    cfg, demo = load(f"SynthAG/{system}.yml"), load("SynthAG/vit.yml")
    assert not cfg.MODEL.BACKBONE.PRETRAIN
    assert not cfg.SOLVER.AMP.ENABLED
    assert not cfg.SOLVER.FREEZE_ITERS
    same = ("SOLVER.MAX_EPOCH", "SOLVER.IMS_PER_BATCH", "SEED", "DATASETS.NAMES", "DATASETS.TESTS")
    assert [lookup(cfg, key) for key in same] == [lookup(demo, key) for key in same]
    vif.check_config(cfg)


FASTREID = {  # of fast-reid's configs/Base-bagtricks.yml, Base-SBS.yml, Base-AGW.yml, Base-MGN.yml
    "bot": "Baseline False before GlobalAvgPool Linear 0.1 0.3 True 256 4 120 MultiStepLR 0 0.00035",
    "sbs": "Baseline True after GeneralizedMeanPoolingP CircleSoftmax 0.1 0.0 True 384 16 60 "
    "CosineAnnealingLR 1000 0.00035",
    "agw": "Baseline True before GeneralizedMeanPooling Linear 0.1 0.0 False 256 4 120 MultiStepLR 0 0.00035",
    "mgn": "MGN False after GeneralizedMeanPoolingP CircleSoftmax 0.1 0.0 True 384 16 60 "
    "CosineAnnealingLR 1000 0.00035",
}


@pytest.mark.parametrize("system", FASTREID)
def test_fastreids_published_settings(system):
    cfg = load(f"CARGO/{system}.yml")
    model, heads, losses = cfg.MODEL, cfg.MODEL.HEADS, cfg.MODEL.LOSSES
    found = [model.META_ARCHITECTURE, model.BACKBONE.WITH_NL, heads.NECK_FEAT, heads.POOL_LAYER]
    found += [heads.CLS_LAYER, losses.CE.EPSILON, losses.TRI.MARGIN, losses.TRI.HARD_MINING]
    found += [cfg.INPUT.SIZE_TRAIN[0], cfg.DATALOADER.NUM_INSTANCE]
    found += [cfg.SOLVER.MAX_EPOCH, cfg.SOLVER.SCHED, cfg.SOLVER.FREEZE_ITERS, cfg.SOLVER.BASE_LR]
    assert " ".join(str(value) for value in found) == FASTREID[system]
    assert (model.BACKBONE.DEPTH, model.BACKBONE.LAST_STRIDE, heads.WITH_BNNECK) == ("50x", 1, True)
    assert ("Adam", system in ("sbs", "mgn")) == (cfg.SOLVER.OPT, cfg.INPUT.AUTOAUG.ENABLED)
    assert cfg.INPUT.REA.ENABLED


# Baseline's losses from the feature map, in numpy


def gem(maps, p):
    return (np.maximum(maps, 1e-6) ** p).mean((2, 3)) ** (1 / p)


def bnneck(x):
    return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def smoothed_cross_entropy(logits, targets, eps):
    log_p = logits - logits.max(1, keepdims=True)
    log_p = log_p - np.log(np.exp(log_p).sum(1, keepdims=True))
    count = logits.shape[1]
    wanted = np.full(logits.shape, eps / (count - 1))
    wanted[np.arange(len(targets)), targets] = 1 - eps
    return -(wanted * log_p).sum(1).mean()


def circle_logits(cosine, targets, margin, scale):
    own = np.zeros(cosine.shape, dtype=bool)
    own[np.arange(len(targets)), targets] = True
    positive = np.maximum(1 + margin - cosine, 0) * (cosine - (1 - margin))
    negative = np.maximum(cosine + margin, 0) * (cosine - margin)
    return scale * np.where(own, positive, negative)


def distances(x):
    return np.array([[np.linalg.norm(a - b) for b in x] for a in x])


def hard_pairs(x, targets):
    d = distances(x)
    same = targets[:, None] == targets
    return np.where(same, d, -np.inf).max(1), np.where(same, np.inf, d).min(1)


def weighted_pairs(x, targets):
    """As fastreid has it: the anchor counts as its own positive; 1e-6 in the denominators."""
    d_p, d_n = [], []
    for row, target in zip(distances(x), targets):
        own, others = row[targets == target], row[targets != target]
        w = np.exp(own - own.max())
        d_p.append((own * w).sum() / (w.sum() + 1e-6))
        w = np.exp(-others)
        d_n.append((others * w).sum() / (w.sum() + 1e-6))
    return np.array(d_p), np.array(d_n)


def expected_losses(system, maps, weight, p):
    targets = TARGETS.numpy()
    if system == "bot":
        pooled = maps.mean((2, 3))
        d_p, d_n = hard_pairs(pooled, targets)
        return smoothed_cross_entropy(bnneck(pooled) @ weight.T, targets, 0.1), np.maximum(
            0.3 + d_p - d_n, 0
        ).mean()
    if system == "agw":
        pooled = gem(maps, 3)
        d_p, d_n = weighted_pairs(pooled, targets)
        return smoothed_cross_entropy(bnneck(pooled) @ weight.T, targets, 0.1), np.log1p(
            np.exp(d_p - d_n)
        ).mean()
    neck = bnneck(gem(maps, p))
    d_p, d_n = hard_pairs(neck, targets)
    logits = circle_logits(unit(neck) @ unit(weight).T, targets, 0.35, 64)
    return smoothed_cross_entropy(logits, targets, 0.1), np.log1p(np.exp(d_p - d_n)).mean()


@pytest.mark.parametrize("system", ["bot", "sbs", "agw"])
def test_pooling_neck_classifier_and_losses_against_numpy(system, tmp_path, untrained):
    cfg = small_cfg(f"CARGO/{system}.yml", tmp_path, "MODEL.FREEZE_LAYERS", [], "MODEL.HEADS.NUM_CLASSES", 5)
    torch.manual_seed(3)
    heads = build_heads(cfg).double().train()
    if system == "sbs":  # the exponent is learned: away from where it starts
        heads.pool_layer.p.data.fill_(2.5)
    two = small_cfg(f"CARGO/{system}.yml", tmp_path, "MODEL.FREEZE_LAYERS", [], "MODEL.HEADS.NUM_CLASSES", 2)
    maps = torch.rand(6, cfg.MODEL.BACKBONE.FEAT_DIM, 2, 2, dtype=torch.float64) * 0.6
    with EventStorage(0), torch.no_grad():
        losses = untrained(two).losses(heads(maps, TARGETS), TARGETS)
    cls, triplet = expected_losses(system, maps.numpy(), heads.weight.detach().numpy(), 2.5)
    assert set(losses) == {"loss_cls", "loss_triplet"}
    assert losses["loss_cls"].item() == pytest.approx(cls, rel=1e-5)
    assert losses["loss_triplet"].item() == pytest.approx(triplet, rel=1e-5)


@pytest.mark.parametrize(("system", "count"), [("bot", 0), ("sbs", 5), ("agw", 5)])
def test_non_local_blocks(system, count, tmp_path, untrained):
    cfg = small_cfg(f"CARGO/{system}.yml", tmp_path, "MODEL.HEADS.NUM_CLASSES", 2, "MODEL.FREEZE_LAYERS", [])
    backbone = untrained(cfg).backbone
    seen, hooks = [], []
    for module in backbone.modules():
        if isinstance(module, Non_local):
            hooks.append(module.register_forward_hook(lambda *_: seen.append(1)))
    with torch.no_grad():
        backbone(torch.rand(2, 3, 32, 16))
    for hook in hooks:
        hook.remove()
    assert len(hooks) == len(seen) == count


def test_mgns_eight_parts_are_stripes_of_three_branches(tmp_path, untrained):
    cfg = small_cfg("CARGO/mgn.yml", tmp_path, "MODEL.FREEZE_LAYERS", [], "MODEL.HEADS.NUM_CLASSES", 2)
    model = untrained(cfg).eval()
    names = ("b1", "b2", "b3", "b21", "b22", "b31", "b32", "b33")
    maps, parts, hooks = {}, {}, []
    for name in names:

        def keep(_, inputs, output, name=name):
            maps[name], parts[name] = inputs[0], output

        hooks.append(getattr(model, f"{name}_head").register_forward_hook(keep))
    images = torch.rand(2, 3, 96, 16, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        joined = model(images)
    for hook in hooks:
        hook.remove()
    assert maps["b1"].shape[2] == 6
    for branch, stripes in (("b2", ("b21", "b22")), ("b3", ("b31", "b32", "b33"))):
        rows = 6 // len(stripes)
        for i, name in enumerate(stripes):
            assert torch.equal(maps[name], maps[branch][:, :, i * rows : (i + 1) * rows])
    assert not torch.equal(model.b2[1][0].conv1.weight, model.b3_head.weight)
    assert joined.shape == (2, 8 * 256)
    assert torch.equal(joined, torch.cat([parts[name] for name in names], dim=1))
    weights = [getattr(model, f"{name}_head").weight for name in names]
    assert len({w.data_ptr() for w in weights}) == 8


def test_osnets_block_sees_four_scales_and_its_head_ends_in_relu(tmp_path, untrained):
    cfg = small_cfg("CARGO/osnet.yml", tmp_path, "MODEL.FREEZE_LAYERS", [], "MODEL.HEADS.NUM_CLASSES", 2)
    model = untrained(cfg)
    blocks = [module for module in model.backbone.modules() if isinstance(module, OSBlock)]
    assert len(blocks) == 6
    block = blocks[0].eval()
    x = torch.rand(1, block.conv1.conv.out_channels, 15, 15, requires_grad=True)
    for stream, side in (("conv2a", 3), ("conv2b", 5), ("conv2c", 7), ("conv2d", 9)):
        (grad,) = torch.autograd.grad(getattr(block, stream)(x)[0, :, 7, 7].sum(), x)
        rows = grad.abs().sum((0, 1, 3)).nonzero()
        assert rows.max() - rows.min() + 1 <= side
        assert rows.max() - rows.min() + 1 > side - 2
    maps = torch.rand(6, 128, 2, 2)
    heads = model.heads.train()
    heads(maps, torch.zeros(6, dtype=torch.int64))
    embedding = heads.eval()(maps)
    assert embedding.shape == (6, 512)
    assert embedding.min() == 0 < embedding.max()
    assert heads.bottleneck[1].bias.requires_grad
    with EventStorage(0), torch.no_grad():
        outputs = heads.train()(maps, TARGETS % 2)
        assert set(model.losses(outputs, TARGETS % 2)) == {"loss_cls"}
    model.train()


def test_amsgrad_reaches_the_optimizer(tmp_path, untrained):
    cfg = small_cfg("CARGO/osnet.yml", tmp_path, "MODEL.FREEZE_LAYERS", [], "MODEL.HEADS.NUM_CLASSES", 2)
    for amsgrad in (True, False):
        cfg = cfg.clone()
        cfg.defrost()
        cfg.SOLVER.AMSGRAD = amsgrad
        optimizer, _ = vif.VIFTrainer.build_optimizer(cfg, copy.deepcopy(untrained(cfg)))
        optimizer.step()
        assert all(("max_exp_avg_sq" in state) == amsgrad for state in optimizer.state.values())
        assert optimizer.state


def test_frozen_layers_are_frozen_by_their_whole_name_and_thaw():
    """fastreid matches prefixes: with MGN's "b1" its head "b1_head" would stand still as well."""
    cfg = load("CARGO/mgn.yml", "SOLVER.FREEZE_ITERS", 1, "MODEL.FREEZE_LAYERS", ["b1"])
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"b1": torch.nn.Linear(2, 2), "b1_head": torch.nn.Linear(2, 2)})
    optimizer, _ = compat.build_optimizer(cfg, model)
    moved = []
    for _ in range(2):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer.zero_grad()
        sum(part(torch.ones(1, 2)).square().sum() for part in model.values()).backward()
        optimizer.step()
        moved.append(
            {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        )
    assert moved == [{"b1_head"}, {"b1", "b1_head"}]


@pytest.mark.parametrize("system", ["bot", "mgn", "osnet", "pcb", "vv"])
def test_a_checkpoint_evaluates_and_extracts_with_nothing_skipped(system, tmp_path, untrained, caplog):
    name = f"CARGO/{system}.yml"
    cfg = small_cfg(name, tmp_path, "MODEL.FREEZE_LAYERS", [], "MODEL.HEADS.NUM_CLASSES", 2)
    model = untrained(cfg)
    weights = tmp_path / "model.pth"
    torch.save({"model": model.state_dict()}, weights)
    cfg = small_cfg(name, tmp_path, "MODEL.WEIGHTS", str(weights))
    with caplog.at_level("WARNING"):
        loaded = vif.VIFTrainer.load_model(cfg)
    assert [record for record in caplog.records if record.name.startswith("fastreid")] == []
    state = loaded.state_dict()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vif.VIFTrainer, "load_model", classmethod(lambda cls, cfg: loaded))
        results = vif.VIFTrainer.evaluate_weights(cfg)["CARGO"]
        (tmp_path / "config.yml").write_text(cfg.dump())
        out = tmp_path / "features.npz"
        arguments = ["extract", "--config-file", tmp_path / "config.yml", "--weights", weights, "--out", out]
        assert main([str(argument) for argument in arguments]) == 0
    dims = {"bot": 512, "mgn": 2048, "osnet": 512, "pcb": 1536, "vv": 128}
    features = FeatureTable.load(str(out)).features
    assert features.shape == (results["ALL"]["queries"] + results["ALL"]["gallery"], dims[system])


@pytest.mark.parametrize(
    ("name", "opts", "message"),
    [
        ("mgn", ["MODEL.BACKBONE.DEPTH", "18x"], "'MGN' copies the last stage .*DEPTH='18x'; take .*50x"),
        ("mgn", ["MODEL.BACKBONE.NAME", "build_osnet_backbone"], "'MGN' copies the last stage of a ResNet"),
        ("bot", ["MODEL.BACKBONE.DEPTH", "18x"], r"DEPTH='18x' with FEAT_DIM=2048 is no .*18x \(512\)"),
        ("osnet", ["MODEL.BACKBONE.DEPTH", "50x"], r"DEPTH='50x' with FEAT_DIM=512 is no .*x1_0 \(512\)"),
        (
            "agw",
            ["MODEL.BACKBONE.DEPTH", "18x", "MODEL.BACKBONE.FEAT_DIM", 512],
            "WITH_NL=True does nothing in build_resnet_backbone 18x",
        ),
        (
            "pcb",
            ["MODEL.LOSSES.NAME", "('TripletLoss',)"],
            r"LOSSES.NAME=\('TripletLoss',\) does not go with .*'PCB'",
        ),
        (
            "vv",
            ["MODEL.LOSSES.NAME", "('CrossEntropyLoss',)"],
            r"does not go with .*'VV'.*\('TripletLoss',\)",
        ),
        ("vv", ["MODEL.LOSSES.TRI.NORM_FEAT", True], "NORM_FEAT=True off: its embedding is linear"),
        ("vv", ["MODEL.HEADS.EMBEDDING_DIM", 0], "EMBEDDING_DIM=0 above 0"),
        (
            "pcb",
            ["SOLVER.AMSGRAD", True],
            "SOLVER.AMSGRAD=True works with SOLVER.OPT Adam or AdamW, not 'SGD'",
        ),
        (
            "bot",
            ["MODEL.BACKBONE.PRETRAIN", True, "MODEL.BACKBONE.PRETRAIN_PATH", "nowhere.pth"],
            "PRETRAIN_PATH='nowhere.pth' is no file. Put ImageNet weights there",
        ),
    ],
)
def test_a_config_that_cannot_run_says_why(name, opts, message):
    with pytest.raises(ConfigError, match=message):
        vif.check_config(load(f"CARGO/{name}.yml", "MODEL.BACKBONE.PRETRAIN", False, *opts))


def test_a_download_without_gdown_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="gdown, which is not installed; `pip install gdown`, name a file"):
        vif.check_config(load("CARGO/bot.yml"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    vif.check_config(load("CARGO/bot.yml"))


def test_a_run_shorter_than_the_delay_of_its_cosine_says_so(caplog):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    cfg = load("CARGO/sbs.yml", "SOLVER.MAX_EPOCH", 30, "SOLVER.WARMUP_ITERS", 1)
    with caplog.at_level("WARNING"):
        scheduler = vif.VIFTrainer.build_lr_scheduler(cfg, optimizer, 10)["lr_sched"]
    assert "SOLVER.DELAY_EPOCHS=30 fills all 30 epochs" in caplog.text
    assert scheduler.T_max == 1
