"""End to end: every shipped config trains and evaluates; seeds, checkpoints, extraction, registries."""

import json
import subprocess
import sys
from pathlib import Path

import vif
import numpy as np
import pytest
import torch
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.datasets.bases import ImageDataset
from fastreid.evaluation.rank import evaluate_rank
from vif.errors import ConfigError, DataError

from tests import fake_trees
from tests.marks import needs_packages
from tests.systems import CONVOLUTIONAL
from tests.tiny import CONFIGS, TINY, tiny_cfg

ROOT = Path(__file__).parents[1]
# the convolutional systems run in tests/modeling/test_systems.py
SHIPPED = sorted(
    f"{p.parent.name}/{p.name}"
    for p in CONFIGS.glob("*/*.yml")
    if p.parent.name != "sweeps" and p.stem not in CONVOLUTIONAL
)
METRICS = {"Rank-1", "Rank-5", "Rank-10", "mAP", "mINP", "queries", "valid_queries", "gallery"}
PROTOCOLS = {
    "CARGO": {"ALL", "GG", "AA", "AG", "A2G", "G2A"},
    "SynthAG": {"ALL", "GG", "AA", "AG", "A2G", "G2A"},
    "AGReIDv1": {"A2G", "G2A"},
    "AGReIDv2": {"A2C", "A2W", "C2A", "W2A"},
}


@pytest.fixture(scope="module", autouse=True)
def trees(tmp_path_factory):
    with fake_trees.installed(tmp_path_factory.mktemp("data")) as root:
        yield root


def train(cfg, resume=False):
    trainer = vif.VIFTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    return trainer, trainer.train()


def logged(output):
    lines = [json.loads(line) for line in (Path(output) / "metrics.json").read_text().splitlines()]
    merged = {}
    for line in lines:
        merged.setdefault(line["iteration"], {}).update(line)
    return [merged[k] for k in sorted(merged)]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_trains_and_evaluates(name, tmp_path):
    cfg = tiny_cfg(name, tmp_path)
    needs_packages(cfg)
    _, results = train(cfg)
    dataset = name.split("/")[0]
    assert set(results) == {dataset}
    assert set(results[dataset]) == PROTOCOLS[dataset]
    for scores in results[dataset].values():
        assert set(scores) == METRICS
        assert 0 < scores["mINP"] <= 100
        assert 0 < scores["mAP"] <= 100
        assert 0 < scores["valid_queries"] <= scores["queries"]
    assert json.loads((tmp_path / "results.json").read_text()) == results
    found = logged(tmp_path)
    assert f"{dataset}/{next(iter(results[dataset]))}/mAP" in found[-1]
    needed = {"total_loss", "loss_cls", "loss_triplet", "cls_accuracy", "lr", "images_per_second"}
    if cfg.MODEL.META_ARCHITECTURE == "VIF":
        needed |= {"pos_cos", "neg_cos", "hard_share", "feat_norm"}
    needed |= {"loss_vial"} if "vif" in name else set()
    assert needed <= set().union(*found)
    assert len(list(tmp_path.glob("events.out.tfevents*"))) == 1


def test_weights_move(tmp_path):
    """fastreid's flat buffers under torch >= 2.0: without the bridge no weight ever changes."""
    trainer = vif.VIFTrainer(tiny_cfg("SynthAG/vif.yml", tmp_path))
    before = {k: v.clone() for k, v in trainer.model.named_parameters()}
    trainer.resume_or_load(resume=False)
    trainer.train()
    frozen = [k for k, v in trainer.model.named_parameters() if v.requires_grad and torch.equal(before[k], v)]
    assert frozen == []


def test_one_seed_gives_one_run_whatever_the_workers(tmp_path):
    runs = []
    for k, workers in enumerate((0, 2)):
        cfg = tiny_cfg("SynthAG/vif.yml", tmp_path / str(k), "DATALOADER.NUM_WORKERS", workers)
        _, results = train(cfg)
        runs.append(([line["total_loss"] for line in logged(tmp_path / str(k))], results))
    assert runs[0] == runs[1]
    other = tiny_cfg("SynthAG/vif.yml", tmp_path / "other", "SEED", 2)
    train(other)
    assert [line["total_loss"] for line in logged(tmp_path / "other")] != runs[0][0]


def test_the_command_line_trains_and_its_checkpoint_evaluates_to_the_same_numbers(tmp_path, trees):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, str(ROOT / "train_net.py"), "--config-file", str(CONFIGS / "SynthAG/vif.yml")]
            + [str(a) for a in arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )

    opts = [*TINY, "OUTPUT_DIR", tmp_path / "run", "MODEL.DEVICE", "cuda"]
    trained = run(*opts)
    assert trained.returncode == 0, trained.stderr
    if not torch.cuda.is_available():
        assert "this machine has no usable GPU: running on the CPU" in trained.stdout
    assert "images/s" in trained.stdout
    assert "chosen on the test set" in trained.stdout
    first = json.loads((tmp_path / "run" / "results.json").read_text())
    weights = tmp_path / "run" / "model_final.pth"
    opts[opts.index("OUTPUT_DIR") + 1] = tmp_path / "again"
    again = run("--eval-only", *opts, "MODEL.WEIGHTS", weights)
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "again" / "results.json").read_text()) == first
    # a wrong expectation fails the run, a wrong key ends in one line
    missed = run(
        "--eval-only",
        *opts,
        "MODEL.WEIGHTS",
        weights,
        "TEST.EXPECTED_RESULTS",
        "[('SynthAG','AG','mAP',101.,.1)]",
    )
    assert missed.returncode == 1
    assert "Expected result missed: SynthAG AG mAP" in missed.stdout
    refused = run(*opts, "INPUT.PLRM.PROB", "1.5")
    assert refused.returncode == 1
    assert refused.stderr.strip().splitlines()[-1].startswith("error: INPUT.PLRM.PROB=1.5 is out of range")
    assert "Traceback" not in refused.stderr


def test_batches_do_not_depend_on_who_else_draws_random_numbers(tmp_path):
    def paths(disturb):
        batches = iter(vif.VIFTrainer.build_train_loader(tiny_cfg("SynthAG/vif.yml", tmp_path)))
        seen = []
        for k in range(80):
            if disturb:
                np.random.seed(k)
            seen.append(next(batches)["img_paths"])
        return seen

    assert paths(True) == paths(False)


def test_a_seed_is_drawn_and_logged_where_none_is_set(tmp_path, caplog):
    with caplog.at_level("INFO"):
        trainers = [vif.VIFTrainer(tiny_cfg("SynthAG/vif.yml", tmp_path, "SEED", -1)) for _ in range(2)]
    seeds = [trainer.cfg.SEED for trainer in trainers]
    assert seeds[0] != seeds[1]
    assert all(f"this run draws {seed}" in caplog.text for seed in seeds)


def test_resume_goes_on_after_the_last_epoch(tmp_path):
    train(tiny_cfg("SynthAG/vif.yml", tmp_path))
    longer = ("SOLVER.MAX_EPOCH", 3, "SOLVER.RESUME_CHANGED", True)
    trainer, _ = train(tiny_cfg("SynthAG/vif.yml", tmp_path, *longer), resume=True)
    assert trainer.start_epoch == 2


def test_data_sets_with_one_source_share_one_extraction(tmp_path):
    cfg = tiny_cfg("CARGO/vif.yml", tmp_path, "DATASETS.TESTS", ("CARGO", "CARGO_AA", "CARGO_GG", "CARGO_AG"))
    model = vif.VIFTrainer.build_model(cfg)
    seen = []
    model.backbone.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    results = vif.VIFTrainer.test(cfg, model)
    assert sum(seen) == results["CARGO"]["ALL"]["queries"] + results["CARGO"]["ALL"]["gallery"]
    for name in ("AA", "GG", "AG"):
        assert results[f"CARGO_{name}"] == {name: results["CARGO"][name]}


def test_training_never_sees_a_view_label(tmp_path):
    loader = vif.VIFTrainer.build_train_loader(tiny_cfg("CARGO/vif.yml", tmp_path))
    assert all(len(item) == 3 for item in loader.dataset.img_items)
    batch = next(iter(loader))
    assert set(batch) == {"images", "targets", "camids", "img_paths", "index", "draws"}


def test_vit_b16_runs_the_cargo_recipe(tmp_path):
    from fastreid.config import get_cfg

    cfg = get_cfg()
    vif.add_vif_config(cfg)
    cfg.merge_from_file(str(CONFIGS / "CARGO" / "vif.yml"))
    # the recipe but for ImageNet weights, mixed precision (slow where a CPU has no bfloat16) and sizes
    cfg.merge_from_list(["MODEL.BACKBONE.PRETRAIN", False, "SOLVER.AMP.ENABLED", False])
    cfg.merge_from_list(["SOLVER.IMS_PER_BATCH", 8, "SOLVER.MAX_EPOCH", 1])
    cfg.merge_from_list(["SEED", 0, "OUTPUT_DIR", str(tmp_path), "DATALOADER.NUM_WORKERS", 0])
    cfg.merge_from_list(["TEST.EVAL_PERIOD", 1, "SOLVER.LOG_PERIOD", 1, "DATALOADER.NUM_INSTANCE", 2])
    cfg.freeze()
    trainer = vif.VIFTrainer(cfg)
    trainer.max_iter = trainer.iters_per_epoch = 2
    trainer.resume_or_load(resume=False)
    results = trainer.train()
    assert sum(p.numel() for p in trainer.model.backbone.parameters()) == 85_798_656 - (197 - 129) * 768
    assert set(results["CARGO"]) == PROTOCOLS["CARGO"]
    assert all(np.isfinite(line["total_loss"]) for line in logged(tmp_path) if "total_loss" in line)


def test_fastreids_own_data_sets_get_the_plain_protocol_equal_to_fastreids_ranker(tmp_path):
    rng = np.random.default_rng(0)
    items = [
        (str(fake_trees.write_image(tmp_path / f"{pid}_{cam}_{k}.jpg", pid, cam, seed=k)), pid, cam)
        for pid in range(6)
        for cam in range(3)
        for k in range(2)
    ]
    rng.shuffle(items)
    items = [(path, int(pid), int(cam)) for path, pid, cam in items]

    class PlainSet(ImageDataset):
        def __init__(self, root="", **kwargs):
            train_items = [(path, f"plain_{pid}", f"plain_{cam}") for path, pid, cam in items]
            super().__init__(train_items, items[:10], items[10:], **kwargs)

    DATASET_REGISTRY.register(PlainSet)
    try:
        cfg = tiny_cfg(
            "CARGO/vit.yml", tmp_path, "DATASETS.NAMES", ("PlainSet",), "DATASETS.TESTS", ("PlainSet",)
        )
        model = vif.VIFTrainer.build_model(cfg)
        results = vif.VIFTrainer.test(cfg, model)["PlainSet"]["ALL"]
    finally:
        del DATASET_REGISTRY._obj_map["PlainSet"]
    model.eval()
    from vif.data.build import build_transforms
    from vif.data.transforms import read_image

    transform = build_transforms(cfg, is_train=False)
    images = np.stack([transform(read_image(path), np.random.default_rng(0)) for path, _, _ in items])
    with torch.no_grad():
        features = model(torch.from_numpy(images.transpose(0, 3, 1, 2)).float())
    features = torch.nn.functional.normalize(features).numpy()
    pids, cams = np.array([i[1] for i in items]), np.array([i[2] for i in items])
    dist = 1 - features[:10] @ features[10:].T
    cmc, ap, inp = evaluate_rank(
        dist, pids[:10], pids[10:], cams[:10], cams[10:], max_rank=5, use_cython=False
    )
    assert results["Rank-1"] == pytest.approx(100 * cmc[0], abs=1e-4)
    assert results["mAP"] == pytest.approx(100 * np.mean(ap), abs=1e-4)
    assert results["mINP"] == pytest.approx(100 * np.mean(inp), abs=1e-4)


def test_a_users_own_transform_loss_and_evaluator(tmp_path):
    seen = []

    def Grey(cfg):
        return lambda image, rng: np.repeat(image.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)

    class NormLoss(torch.nn.Module):
        def __init__(self, cfg):
            super().__init__()

        def forward(self, features, targets):
            return features.norm(dim=1).mean()

    class Counter:
        def __init__(self, cfg):
            pass

        def evaluate(self, table, protocols):
            seen.append(len(table))
            return {p.name: {"mAP": 1.0} for p in protocols}

    registries = (
        (vif.TRANSFORM_REGISTRY, Grey),
        (vif.LOSS_REGISTRY, NormLoss),
        (vif.EVALUATOR_REGISTRY, Counter),
    )
    for registry, entry in registries:
        registry.register(entry)
    try:
        cfg = tiny_cfg(
            *("SynthAG/vit.yml", tmp_path, "INPUT.TRANSFORMS", ("Grey",), "TEST.EVALUATOR", "Counter"),
            *("MODEL.LOSSES.NAME", ("CrossEntropyLoss", "NormLoss"), "SOLVER.MAX_EPOCH", 1),
            *("INPUT.REA.ENABLED", False),
        )
        batch = next(iter(vif.VIFTrainer.build_train_loader(cfg)))
        assert torch.equal(batch["images"][:, 0], batch["images"][:, 2])
        train(cfg)
        assert "loss_norm" in logged(tmp_path)[0]
        assert seen
    finally:
        for registry, entry in registries:
            del registry._obj_map[entry.__name__]


@pytest.mark.parametrize(
    ("opts", "error", "message"),
    [
        (["SOLVER.IMS_PER_BATCH", 512], ConfigError, "needs 256 identities a batch, and the training set"),
        (
            ["SOLVER.IMS_PER_BATCH", 512, "DATALOADER.SAMPLER_TRAIN", "TrainingSampler"],
            DataError,
            "images, fewer than one batch",
        ),
        (["DATALOADER.SAMPLER_TRAIN", "Mine"], ConfigError, "SAMPLER_TRAIN='Mine' is unknown"),
        (
            ["DATASETS.NAMES", ("Nowhere",)],
            ConfigError,
            "'Nowhere', which is not registered; there are .*CARGO",
        ),
        (["TEST.BEST_PROTOCOL", "XX"], ConfigError, "TEST.BEST_PROTOCOL='XX' is not scored on SynthAG"),
    ],
)
def test_a_run_that_cannot_start_says_why(opts, error, message, tmp_path):
    with pytest.raises(error, match=message):
        vif.VIFTrainer(tiny_cfg("SynthAG/vif.yml", tmp_path, *opts))


def test_evaluating_without_weights_says_what_to_set(tmp_path):
    with pytest.raises(ConfigError, match="nothing to load: set MODEL.WEIGHTS"):
        vif.VIFTrainer.evaluate_weights(tiny_cfg("SynthAG/vif.yml", tmp_path))


def test_the_best_checkpoint_follows_the_named_number(tmp_path):
    cfg = tiny_cfg("CARGO/vif.yml", tmp_path, "TEST.BEST_PROTOCOL", "GG", "TEST.BEST_METRIC", "mINP")
    train(cfg)
    best = torch.load(tmp_path / "model_best.pth", weights_only=True)
    assert best["metric"] == max(
        line["CARGO/GG/mINP"] for line in logged(tmp_path) if "CARGO/GG/mINP" in line
    )


def test_a_run_shorter_than_its_warm_up_says_so(tmp_path, caplog):
    with caplog.at_level("WARNING"):
        vif.VIFTrainer(tiny_cfg("SynthAG/vif.yml", tmp_path, "SOLVER.WARMUP_ITERS", 500))
    assert "SOLVER.WARMUP_ITERS=500 fills all 2 epochs" in caplog.text


def test_verify_results_lists_misses_and_absent_numbers():
    results = {"SynthAG": {"AG": {"mAP": 20.0}}}
    assert vif.verify_results([("SynthAG", "AG", "mAP", 20.4, 0.5)], results) == []
    assert vif.verify_results([("SynthAG", "AG", "mAP", 21, 0.5)], results) == [
        "SynthAG AG mAP: 20.00, expected 21 +- 0.5"
    ]
    assert len(vif.verify_results([("CARGO", "AG", "mAP", 20, 50)], results)) == 1
