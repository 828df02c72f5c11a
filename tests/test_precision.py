"""Mixed precision: types, scaler, clipping, losses in float32, every system, evaluation in float32."""

import json
from pathlib import Path

import vif
import numpy as np
import pytest
import torch
from vif import compat
from fastreid.engine.train_loop import SimpleTrainer as FastreidStep
from fastreid.modeling import losses as fastreid_losses
from fastreid.modeling.meta_arch import baseline
from fastreid.utils.events import EventStorage
from vif.compat.step import AMPTrainer, StepTrainer
from vif.errors import ConfigError
from vif.modeling.losses import batch_triplet_loss, pair_statistics, vial_loss
from vif.modeling.pcb import PCB
from vif.nonfinite import Guard
from vif.precision import amp_dtype, native_bfloat16

from tests import fake_trees
from tests.systems import small_cfg
from tests.tiny import tiny_cfg

BFLOAT16 = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "bfloat16")  # on any processor
TARGETS = torch.arange(4).repeat_interleave(4)
has_cpu_scaler = pytest.mark.skipif(
    not hasattr(torch.amp, "GradScaler"), reason="torch < 2.3 scales on a GPU only"
)


@pytest.fixture(scope="module", autouse=True)
def trees(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    fake_trees.make_cargo(root, ids=4)
    fake_trees.make_agreidv1(root, ids=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(root))
        yield root


def metrics(output):
    return [json.loads(line) for line in (Path(output) / "metrics.json").read_text().splitlines()]


class Net(torch.nn.Module):
    """y = w x, a tenth of its square; says in which type the product was taken."""

    def __init__(self, size=3):
        super().__init__()
        self.linear = torch.nn.Linear(size, 2, bias=False)
        torch.nn.init.constant_(self.linear.weight, 0.5)

    def forward(self, batch):
        out = self.linear(batch["images"])
        self.seen = out.dtype
        return {"loss_a": out.float().square().sum() / 10, "loss_b": 0 * out.float().sum()}


def steps(kind, net, batches, optimizer=None, dtype=None):
    optimizer = optimizer or torch.optim.SGD(net.parameters(), lr=0.1)
    trainer = kind(net, batches, optimizer, None)
    if dtype is not None:
        trainer.set_dtype(dtype)
    with EventStorage(0) as storage:
        for trainer.iter in range(len(batches)):
            storage.iter = trainer.iter
            trainer.run_step()
    return trainer, storage


def batches(count=3):
    return [{"images": torch.rand(4, 3, generator=torch.Generator().manual_seed(i))} for i in range(count)]


@pytest.mark.parametrize(
    ("name", "device", "dtype"),
    [
        ("auto", "cuda", torch.float16),
        ("bfloat16", "cuda", torch.bfloat16),
        ("bfloat16", "cpu", torch.bfloat16),
        ("float16", "cuda", torch.float16),
    ],
)
def test_the_type_follows_setting_and_device(name, device, dtype):
    assert amp_dtype(name, device) == dtype


@pytest.fixture(params=[True, False], ids=["with bfloat16", "without"])
def native(request, monkeypatch):
    """A processor that has instructions for bfloat16, and one that has none."""
    monkeypatch.setattr("vif.precision.native_bfloat16", lambda: request.param)
    compat.process._SAID.clear()
    return request.param


def test_auto_on_the_cpu_is_bfloat16_where_the_processor_computes_in_it(native):
    assert amp_dtype("auto", "cpu") == (torch.bfloat16 if native else torch.float32)
    assert amp_dtype("bfloat16", "cpu") == torch.bfloat16
    assert amp_dtype("auto", "cuda") == torch.float16


def test_a_run_without_bfloat16_says_so_once_and_is_that_of_float32(native, tmp_path, caplog):
    weights = {}
    for name, opts in {
        "auto": ("SOLVER.AMP.ENABLED", True),
        "chosen": BFLOAT16,
        "off": ("SOLVER.AMP.ENABLED", False),
    }.items():
        trainer = vif.VIFTrainer(tiny_cfg("CARGO/vif.yml", tmp_path / name, *opts))
        caplog.clear()
        with EventStorage(0):
            for trainer.iter in range(2):
                trainer.run_step()
        said = [r for r in caplog.messages if "mixed precision computes in float32 here" in r]
        assert len(said) == (name == "auto" and not native), name
        weights[name] = trainer.model.state_dict()
    same = "chosen" if native else "off"
    assert all(torch.equal(weights["auto"][k], weights[same][k]) for k in weights["auto"])
    assert any(not torch.equal(weights["chosen"][k], weights["off"][k]) for k in weights["off"])


@pytest.mark.parametrize(
    ("cpuinfo", "native"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 clzero\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("Features\t: fp asimd bf16 dgh\n", True),
        ("flags\t\t: fpu avx2 avx512f avx512_fp16 amx_tile\n", False),
        ("Features\t: fp asimd fphp\n", False),
    ],
)
def test_the_processor_is_known_by_its_flags_in_linux(cpuinfo, native, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": not native}, raising=False)
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{cpuinfo}")
    assert native_bfloat16.__wrapped__(str(tmp_path / "cpuinfo")) == native


def test_elsewhere_torch_is_asked_and_a_processor_that_nobody_knows_has_none(tmp_path, monkeypatch):
    def asked(found):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
        return native_bfloat16.__wrapped__(str(tmp_path / "no"))

    assert asked({"bf16": True, "architecture": "arm64"})
    assert asked({"avx512_bf16": True})
    assert not asked({"bf16": False, "avx512_bf16": False, "neon": True})
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not native_bfloat16.__wrapped__(str(tmp_path / "no"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_float16_on_the_cpu_is_refused_with_a_reason(tmp_path):
    opts = ("SOLVER.AMP.DTYPE", "float16", "SOLVER.AMP.ENABLED")
    with pytest.raises(ConfigError, match="DTYPE='float16' is for CUDA, and this run is on cpu: .*take 'bfl"):
        vif.check_config(tiny_cfg("CARGO/vif.yml", tmp_path, *opts, True))
    vif.check_config(tiny_cfg("CARGO/vif.yml", tmp_path, *opts, False))
    with pytest.raises(ConfigError, match="SOLVER.AMP.DTYPE='half' is unknown; choose one of auto, float16"):
        vif.check_config(tiny_cfg("CARGO/vif.yml", tmp_path, "SOLVER.AMP.DTYPE", "half"))


def test_without_mixed_precision_the_step_is_fastreids_to_the_bit():
    found = {}
    for kind in (FastreidStep, StepTrainer):
        net = Net()
        _, storage = steps(kind, net, batches())
        assert net.seen == torch.float32
        losses = {n: h.values() for n, h in storage.histories().items() if "loss" in n}
        found[kind] = (net.linear.weight.detach().numpy().tobytes(), losses)
    assert found[FastreidStep] == found[StepTrainer]
    assert set(found[StepTrainer][1]) == {"total_loss", "loss_a", "loss_b"}


def test_mixed_precision_computes_in_bfloat16_on_the_cpu_and_steps_in_float32():
    net = Net()
    trainer, _ = steps(AMPTrainer, net, batches(), dtype=torch.bfloat16)
    assert net.seen == torch.bfloat16
    assert trainer.grad_scaler is None
    exact = Net()
    steps(StepTrainer, exact, batches())
    assert not torch.equal(net.linear.weight, exact.linear.weight)
    torch.testing.assert_close(net.linear.weight, exact.linear.weight, rtol=0.02, atol=0.02)


@has_cpu_scaler
def test_float16_scales_the_loss_and_the_step_is_that_of_float32():
    net = Net()
    trainer, _ = steps(AMPTrainer, net, batches(), dtype=torch.float16)
    assert net.seen == torch.float16
    assert trainer.grad_scaler.state_dict()["scale"] == 2.0**16
    assert trainer.grad_scaler.state_dict()["_growth_tracker"] == 3
    exact = Net()
    steps(StepTrainer, exact, batches())
    torch.testing.assert_close(net.linear.weight, exact.linear.weight, rtol=0.005, atol=0.005)


@has_cpu_scaler
@pytest.mark.parametrize("clip_type", ["norm", "value"])
def test_clipping_sees_unscaled_gradients(clip_type, tmp_path):
    """fastreid clips inside the optimizer's step: clipped by the scale, weights would hardly move."""
    opts = ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", clip_type)
    opts += ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.05, "SOLVER.WEIGHT_DECAY", 0.0, "SOLVER.MOMENTUM", 0.0)
    cfg = tiny_cfg("CARGO/vif.yml", tmp_path, *opts, "SOLVER.OPT", "SGD", "SOLVER.BASE_LR", 0.1)
    moved, seen = {}, []
    for dtype in (torch.float32, torch.float16):
        net = Net()
        optimizer, wrapper = compat.build_optimizer(cfg, net)
        trainer = AMPTrainer(net, batches(1), optimizer, wrapper)
        trainer.set_dtype(dtype)
        trainer.guard, trainer.iter = Guard("stop", 1, str(tmp_path), "", None), 0
        inner = trainer._numbers
        trainer._numbers = lambda losses, inner=inner: seen.append(inner(losses)) or seen[-1]
        with EventStorage(0):
            trainer.run_step()
        moved[dtype] = (net.linear.weight.detach() - 0.5).numpy()
    largest = np.linalg.norm(moved[torch.float32]) if clip_type == "norm" else abs(moved[torch.float32]).max()
    assert largest == pytest.approx(0.1 * 0.05, rel=1e-3)  # the clip is what limits the step
    assert seen[1][""] == pytest.approx(seen[0][""], rel=5e-3)  # the guard sees them unscaled as well
    np.testing.assert_allclose(moved[torch.float16], moved[torch.float32], rtol=5e-3, atol=1e-6)


HALF = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.parametrize(
    "loss",
    [
        vial_loss,
        batch_triplet_loss,
        lambda f, t: torch.stack(list(pair_statistics(f, t).values())),
        lambda f, t: baseline.triplet_loss(f, t, 0.3, False, True),
        lambda f, t: baseline.triplet_loss(f, t, 0.0, False, False),
        lambda f, t: baseline.pairwise_circleloss(f, t, 0.25, 128),
        lambda f, t: baseline.pairwise_cosface(f, t, 0.25, 128),
        lambda f, t: baseline.cross_entropy_loss(f, t, 0.1, 0.2),
        lambda f, t: fastreid_losses.cross_entropy_loss(f, t, 0.1, 0.2),
        lambda f, t: PCB.losses(None, f[None], t)["loss_cls"],
    ],
)
def test_losses_under_autocast_are_those_of_float32_on_the_same_half_features(loss, dtype, scale):
    """Features of length 300 have squared distances beyond float16, and beyond bfloat16's 8 bits."""
    torch.manual_seed(0)
    half = (scale * torch.nn.functional.normalize(torch.randn(16, 8))).to(dtype)
    with EventStorage(0):
        expected = loss(half.float(), TARGETS)
        with torch.autocast("cpu", torch.bfloat16):  # the only type that every CPU's autocast has
            found = loss(half, TARGETS)
    assert found.dtype == torch.float32
    assert bool(found.isfinite().all())
    assert torch.equal(found, expected)


def test_losses_of_fastreid_are_wrapped_once_and_keep_float32_to_the_bit():
    compat.losses.losses_in_float32()
    inner = baseline.triplet_loss.__wrapped__
    assert not hasattr(inner, "__wrapped__")
    features = torch.randn(16, 8)
    arguments = (TARGETS, 0.0, False, True)
    assert torch.equal(baseline.triplet_loss(features, *arguments), inner(features, *arguments))
    assert baseline.triplet_loss(features.double(), *arguments).dtype == torch.float64


@pytest.mark.parametrize(
    "name",
    [
        *("CARGO/vif.yml", "CARGO/vdt.yml", "AGReIDv1/explain.yml"),
        *("CARGO/bot.yml", "CARGO/pcb.yml", "CARGO/vv.yml"),
    ],
)
def test_every_system_trains_in_mixed_precision_on_the_cpu(name, tmp_path):
    convolutional = name.split("/")[1] in ("bot.yml", "pcb.yml", "vv.yml")
    make = small_cfg if convolutional else tiny_cfg
    cfg = make(name, tmp_path, *BFLOAT16, "MODEL.FREEZE_LAYERS", [])
    trainer = vif.VIFTrainer(cfg)
    assert trainer._trainer.dtype == torch.bfloat16
    with EventStorage(0) as storage:
        for trainer.iter in range(2):
            trainer.run_step()
    losses = {name: values.latest() for name, values in storage.histories().items() if "loss" in name}
    assert losses
    assert np.isfinite(list(losses.values())).all()
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in trainer.model.parameters())


def test_the_setting_chooses_the_type_of_the_step(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("vif.trainer.amp_dtype", lambda *args: asked.append(args) or torch.float16)
    monkeypatch.setattr("vif.compat.step.grad_scaler", lambda device: f"scaler on {device}")
    trainer = vif.VIFTrainer(tiny_cfg("CARGO/vif.yml", tmp_path, *BFLOAT16))
    assert asked == [("bfloat16", "cpu")]
    assert trainer._trainer.dtype == torch.float16
    assert trainer.grad_scaler == "scaler on cpu"  # what checkpoints take


def test_a_run_in_bfloat16_evaluates_in_float32(tmp_path):
    cfg = tiny_cfg("CARGO/vif.yml", tmp_path, *BFLOAT16)
    trainer = vif.VIFTrainer(cfg)
    results = trainer.train()
    exact = cfg.clone()
    exact.defrost()
    exact.SOLVER.AMP.ENABLED, exact.MODEL.WEIGHTS = False, str(tmp_path / "model_final.pth")
    assert vif.VIFTrainer.evaluate_weights(exact) == results


def test_the_type_is_read_where_mixed_precision_is_on(tmp_path, caplog):
    compat.process._SAID.clear()
    opts = ("SOLVER.AMP.DTYPE", "bfloat16", "SOLVER.AMP.ENABLED")
    with caplog.at_level("WARNING"):
        vif.check_config(tiny_cfg("CARGO/vif.yml", tmp_path, *opts, True))
        assert "SOLVER.AMP.DTYPE" not in caplog.text
        vif.check_config(tiny_cfg("CARGO/vif.yml", tmp_path, *opts, False))
    assert "SOLVER.AMP.DTYPE='bfloat16' has no effect in this run" in caplog.text
    assert "where SOLVER.AMP.ENABLED has True" in caplog.text
