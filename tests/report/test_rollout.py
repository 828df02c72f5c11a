"""Attention roll-out against numpy on attention that is computed again from the network's weights."""

import numpy as np
import pytest
import torch
from vif.errors import ConfigError
from vif.report.rollout import captured, class_attention, patch_grid, rollout
from vif.trainer import VIFTrainer

from tests.marks import needs_packages
from tests.tiny import tiny_cfg


def build(name, tmp_path, *opts):
    cfg = tiny_cfg(name, tmp_path, "MODEL.HEADS.NUM_CLASSES", 4, *opts)
    needs_packages(cfg)
    torch.manual_seed(0)
    return VIFTrainer.build_model(cfg).eval()


def images(count=3):
    return 255 * torch.rand(count, 3, 32, 16, generator=torch.Generator().manual_seed(1))


def naive_attention(model, pixels):
    """Attention (B, T, T), the mean over heads, of each block: from tokens, weights and softmax in numpy."""
    mean, std = (np.array(v.cpu()).reshape(1, 3, 1, 1) for v in (model.pixel_mean, model.pixel_std))
    net, found = model.backbone, []
    x = torch.from_numpy((pixels.numpy() - mean) / std).float()
    with torch.no_grad():
        tokens = torch.cat([net.cls_token.expand(len(x), -1, -1), net.patch_embed(x)], dim=1) + net.pos_embed
        for block in net.blocks:
            attn, inside = block.attn, block.norm1(tokens).numpy()
            qkv = inside @ attn.qkv.weight.numpy().T + attn.qkv.bias.numpy()
            q, k, _ = np.split(qkv, 3, axis=2)
            side = q.shape[2] // attn.num_heads
            heads = []
            for h in range(attn.num_heads):
                part = slice(h * side, (h + 1) * side)
                score = q[..., part] @ k[..., part].transpose(0, 2, 1) * attn.scale
                power = np.exp(score - score.max(axis=2, keepdims=True))
                heads.append(power / power.sum(axis=2, keepdims=True))
            found.append(np.mean(heads, axis=0))
            tokens = block(tokens)
    return found


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_captured_attention_is_the_networks_own(tmp_path, attention):
    if attention == "sdpa" and int(torch.__version__.split(".")[0]) < 2:
        pytest.skip("torch 1 has no fused attention")
    opts = ["MODEL.BACKBONE.VIT.DEPTH", 3, "MODEL.BACKBONE.VIT.ATTENTION", attention]
    model = build("SynthAG/vif.yml", tmp_path, *opts)
    kinds = [type(module) for module in model.modules()]
    pixels = images()
    with torch.no_grad(), captured(model) as seen:
        model({"images": pixels.clone()})
    expected = naive_attention(model, pixels)
    assert len(seen) == len(expected) == 3
    for a, b in zip(seen, expected):
        np.testing.assert_allclose(a, b, atol=1e-5)
        np.testing.assert_allclose(a.sum(axis=2), 1, atol=1e-5)
    assert [type(module) for module in model.modules()] == kinds


def test_the_roll_out_equals_a_naive_one_and_its_rows_sum_to_one(tmp_path):
    model = build("SynthAG/vif.yml", tmp_path, "MODEL.BACKBONE.VIT.DEPTH", 3)
    pixels = images()
    layers = naive_attention(model, pixels)
    for b, weights in enumerate(class_attention(model, pixels)):
        flow = None
        for layer in layers:
            mixed = (layer[b] + np.eye(len(layer[b]))) / 2
            mixed /= mixed.sum(axis=1, keepdims=True)
            flow = mixed if flow is None else mixed @ flow
        np.testing.assert_allclose(flow.sum(axis=1), 1, atol=1e-5)
        h, w = patch_grid(model)
        assert weights.shape == (h, w) == (4, 2)
        np.testing.assert_allclose(weights, flow[0, 1:].reshape(h, w), atol=1e-5)
    np.testing.assert_allclose(rollout(layers).sum(axis=2), 1, atol=1e-6)


def test_the_share_of_the_skip_connection():
    attention = np.array([[[0.2, 0.8], [0.6, 0.4]]])
    np.testing.assert_allclose(rollout([attention], residual=1.0)[0], np.eye(2))
    np.testing.assert_allclose(rollout([attention], residual=0.0), attention)
    second = np.array([[[1.0, 0.0], [0.5, 0.5]]])
    np.testing.assert_allclose(rollout([attention, second], 0.0)[0], second[0] @ attention[0])


def test_reading_leaves_images_and_network_as_they_were(tmp_path):
    model, pixels = build("SynthAG/vif.yml", tmp_path), images()
    before = pixels.clone()
    class_attention(model, pixels)
    assert torch.equal(before, pixels)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_backbone_with_further_tokens_is_read_too(tmp_path):
    model = build("SynthAG/vdt.yml", tmp_path)
    weights = class_attention(model, images(2))
    with torch.no_grad(), captured(model) as seen:
        model({"images": images(2)})
    assert seen[0].shape == (2, 2 + 4 * 2, 2 + 4 * 2)  # class and view token stand before the patches
    np.testing.assert_allclose(weights.reshape(2, 8), rollout(seen)[:, 0, 2:], atol=1e-6)


TIMM = ["MODEL.BACKBONE.NAME", "build_vif_timm_backbone", "MODEL.BACKBONE.TIMM.NAME", "vit_tiny_patch16_224"]
TIMM += ["MODEL.BACKBONE.FEAT_DIM", 192, "MODEL.BACKBONE.STRIDE_SIZE", (16, 16)]


@pytest.mark.parametrize(
    ("name", "opts", "backbone"),
    [
        ("SynthAG/bot.yml", ["MODEL.BACKBONE.FEAT_DIM", 512], "ResNet"),
        ("SynthAG/vif.yml", TIMM, "TimmBackbone"),
    ],
)
def test_a_backbone_that_hides_its_attention_is_refused(name, opts, backbone, tmp_path):
    model = build(name, tmp_path, *opts)
    with pytest.raises(ConfigError, match=f"attention cannot be read from {backbone}"), captured(model):
        pass
