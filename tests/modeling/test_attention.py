"""Fused attention against fastreid's own: outputs, gradients, dropout, names; compiled backbones."""

import functools

import vif
import numpy as np
import pytest
import torch
from fastreid.modeling.backbones.vision_transformer import Attention, VisionTransformer
from vif.errors import ConfigError
from vif.modeling import attention, compiling
from vif.modeling.attention import FusedAttention, eager_attention, set_attention

from tests import fake_trees
from tests.tiny import tiny_cfg

has_sdpa = pytest.mark.skipif(
    tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 1),
    reason="torch < 2.1 scales fused attention one way only",
)
has_compile = pytest.mark.skipif(not hasattr(torch.nn.Module, "compile"), reason="torch < 2.2")


def transformer(**kwargs):
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=(32, 16), patch_size=8, stride_size=8, embed_dim=24, depth=3, num_heads=3, **kwargs
    )
    for parameter in model.parameters():  # biases and attention that differ from token to token
        parameter.data += torch.randn_like(parameter) / 8
    return model


def outputs_and_gradients(model, images):
    model.zero_grad()
    out = model(images)
    (out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum().backward()
    return out.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


@has_sdpa
@pytest.mark.parametrize("qk_scale", [None, 24**-0.5])
@pytest.mark.parametrize("training", [False, True])
def test_fused_attention_is_fastreids_in_outputs_and_gradients(qk_scale, training):
    model = transformer(qkv_bias=True, qk_scale=qk_scale).train(training)
    images = torch.randn(4, 3, 32, 16)
    expected, gradients = outputs_and_gradients(model, images)
    names = list(model.state_dict())
    set_attention(model, "sdpa")
    assert [type(block.attn) for block in model.blocks] == [FusedAttention] * 3
    found, fused = outputs_and_gradients(model, images)
    assert list(model.state_dict()) == names
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == fused.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(fused[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


@has_sdpa
def test_fused_attention_drops_weights_in_training_alone():
    """The mean over many draws is the undropped output, and a draw differs from it as fastreid's does."""
    torch.manual_seed(0)
    eager = Attention(8, num_heads=2, qkv_bias=True, attn_drop=0.4)
    tokens = torch.randn(1, 6, 8)
    spread = {}
    for kind in ("eager", "sdpa"):
        set_attention(eager, kind)
        whole = eager.eval()(tokens)
        assert torch.equal(whole, eager(tokens))
        eager.train()
        with torch.no_grad():
            draws = torch.stack([eager(tokens) for _ in range(3000)])
        torch.testing.assert_close(draws.mean(0), whole, rtol=0, atol=0.03)
        spread[kind] = draws.std(0).mean()
    assert spread["eager"] > 0.05
    torch.testing.assert_close(spread["sdpa"], spread["eager"], rtol=0.05, atol=0)


@has_sdpa
def test_weights_of_attention_can_be_seen_inside_eager_attention():
    model = set_up = transformer().eval()
    set_attention(set_up, "sdpa")
    seen = []
    for block in model.blocks:
        block.attn.attn_drop.register_forward_hook(lambda _, inputs, output: seen.append(output))
    images = torch.randn(2, 3, 32, 16)
    fused = model(images)
    assert seen == []
    with eager_attention(model):
        eager = model(images)
    assert [tuple(weights.shape) for weights in seen] == [(2, 3, 9, 9)] * 3
    torch.testing.assert_close(seen[0].sum(-1), torch.ones(2, 3, 9))
    torch.testing.assert_close(eager, fused, rtol=1e-5, atol=1e-5)
    assert type(model.blocks[0].attn) is FusedAttention
    with pytest.raises(ZeroDivisionError), eager_attention(model):
        1 / 0  # noqa: B018
    assert type(model.blocks[0].attn) is FusedAttention


@has_sdpa
@pytest.mark.parametrize("name", ["CARGO/vif.yml", "CARGO/vdt.yml", "AGReIDv1/explain.yml"])
def test_the_setting_reaches_every_block_of_a_system(name, tmp_path):
    opts = ("MODEL.HEADS.NUM_CLASSES", 2, "MODEL.BACKBONE.VIT.DEPTH", 2)
    kinds = {}
    for kind in ("eager", "sdpa"):
        model = vif.VIFTrainer.build_model(
            tiny_cfg(name, tmp_path, *opts, "MODEL.BACKBONE.VIT.ATTENTION", kind)
        )
        kinds[kind] = {type(m) for m in model.modules() if isinstance(m, Attention)}
    assert kinds == {"eager": {Attention}, "sdpa": {FusedAttention}}


@has_sdpa
def test_the_setting_reaches_fastreids_own_backbone(tmp_path):
    opts = ("MODEL.BACKBONE.NAME", "build_vit_backbone", "MODEL.BACKBONE.DEPTH", "small")
    opts += ("MODEL.BACKBONE.FEAT_DIM", 768, "MODEL.HEADS.NUM_CLASSES", 2)
    torch.manual_seed(0)
    model = vif.VIFTrainer.build_model(
        tiny_cfg("CARGO/vit.yml", tmp_path, *opts, "MODEL.BACKBONE.VIT.ATTENTION", "sdpa")
    )
    kinds = [type(m) for m in model.modules() if isinstance(m, Attention)]
    assert kinds == [FusedAttention] * 8
    images = torch.rand(2, 3, 32, 16)
    fused = model.backbone.eval()(images)
    with eager_attention(model):
        torch.testing.assert_close(model.backbone(images), fused, rtol=1e-5, atol=1e-5)


def test_sdpa_on_an_old_torch_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(attention.torch, "__version__", "2.0.1")
    cfg = tiny_cfg("CARGO/vif.yml", tmp_path, "MODEL.BACKBONE.VIT.ATTENTION", "sdpa")
    with pytest.raises(ConfigError, match="ATTENTION='sdpa' needs torch 2.1 or newer, this is 2.0.1"):
        vif.check_config(cfg)


def losses_of_a_run(cfg):
    trainer = vif.VIFTrainer(cfg)
    trainer.resume_or_load(resume=False)
    step, losses = trainer.run_step, []

    def logged():
        step()
        losses.append(trainer.storage.history("total_loss").latest())

    trainer.run_step = logged
    results = trainer.train()
    return trainer.model, losses, results


@has_compile
def test_a_compiled_run_keeps_names_losses_and_scores(tmp_path, monkeypatch):
    """torch's own code generator would take a minute here; `benchmarks/precision.py` goes through it."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    fake_trees.make_cargo(tmp_path, ids=4)
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    opts = ("SOLVER.AMP.ENABLED", False, "TEST.IMS_PER_BATCH", 7)  # a last batch that is smaller
    runs = [
        losses_of_a_run(tiny_cfg("CARGO/vif.yml", tmp_path / str(i), *opts, "MODEL.COMPILE", bool(i)))
        for i in range(2)
    ]
    (plain, losses, results), (compiled, found, scores) = runs
    assert plain.backbone._compiled_call_impl is None
    assert compiled.backbone._compiled_call_impl is not None
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    assert scores["CARGO"]["ALL"]["mAP"] == pytest.approx(results["CARGO"]["ALL"]["mAP"], abs=0.5)
    states = [torch.load(tmp_path / str(i) / "model_final.pth", weights_only=True)["model"] for i in range(2)]
    assert list(states[0]) == list(states[1])
    # a checkpoint of the one goes on in the other, exactly as the network computes it
    changed = ("MODEL.COMPILE", False, "SOLVER.RESUME_CHANGED", True)
    cfg = tiny_cfg("CARGO/vif.yml", tmp_path / "1", *opts, *changed)
    again = vif.VIFTrainer(cfg)
    again.resume_or_load(resume=True)
    assert again.start_epoch == 2
    assert all(torch.equal(v, again.model.state_dict()[k]) for k, v in states[1].items())


@has_compile
def test_torch_compiles_a_backbone(tmp_path):
    """With the real code generator and compiler, evaluation alone."""
    opts = ("MODEL.HEADS.NUM_CLASSES", 2, "MODEL.COMPILE", True)
    model = vif.VIFTrainer.build_model(tiny_cfg("CARGO/vif.yml", tmp_path, *opts)).eval()
    images = torch.rand(3, 3, 32, 16)
    with torch.inference_mode():
        compiled = model.backbone(images)
        model.backbone._compiled_call_impl = None
        torch.testing.assert_close(compiled, model.backbone(images), rtol=1e-5, atol=1e-5)


@has_compile
@pytest.mark.parametrize(
    ("change", "device", "message"),
    [
        (("shutil", "which", lambda name: None), "cpu", r"needs a C\+\+ compiler \(one of c\+\+"),
        (("sysconfig", "get_path", lambda name: "/nowhere"), "cpu", r"needs Python's header files"),
        (("importlib.util", "find_spec", lambda name: None), "cuda:0", "needs the package triton"),
    ],
)
def test_compiling_without_what_it_needs_is_refused(change, device, message, monkeypatch):
    module, name, fake = change
    monkeypatch.setattr(f"{module}.{name}", fake)
    with pytest.raises(ConfigError, match=f"MODEL.COMPILE=True {message}"):
        compiling.check_compile(device, "VIF")


def test_compiling_on_an_old_torch_is_refused(tmp_path, monkeypatch):
    monkeypatch.delattr(torch.nn.Module, "compile", raising=False)
    with pytest.raises(ConfigError, match=r"MODEL.COMPILE=True needs torch 2.2 or newer"):
        vif.check_config(tiny_cfg("CARGO/vif.yml", tmp_path, "MODEL.COMPILE", True))


@has_compile
def test_compiling_a_system_that_hooks_into_its_backbone_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="does not go with MODEL.META_ARCHITECTURE='Explain'"):
        vif.check_config(tiny_cfg("AGReIDv1/explain.yml", tmp_path, "MODEL.COMPILE", True))
