"""Position embeddings of another grid, with other tokens."""

import json

import cv2
import numpy as np
import pytest
import torch
from fastreid.modeling.backbones.vision_transformer import resize_pos_embed
from safetensors.torch import save_file
from vif.modeling.vdt import ViewDecoupledTransformer
from vif.positions import position_grids
from vif.weight_files import GRIDS, read_weights
from vif.weights import fit, load_weights

from tests.small_networks import Network, same, vit, weights


def cv2_resized(positions, old, new):
    """Patches (n, D) of grid `old` on grid `new`, bilinear: OpenCV's."""
    grid = positions.numpy().reshape(*old, -1)
    layers = [
        cv2.resize(grid[..., d], new[::-1], interpolation=cv2.INTER_LINEAR) for d in range(grid.shape[2])
    ]
    return np.stack(layers, axis=-1).reshape(new[0] * new[1], -1)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((32, 32), (32, 16)),
        ((64, 64), (48, 24)),
        ((64, 64), (48, 16)),
        ((64, 32), (48, 24)),
        ((32, 16), (64, 32)),
        ((48, 16), (64, 16)),
    ],
)
def test_positions_of_another_grid_are_resized_bilinearly(source, target):
    a, b = vit(*source, seed=1), vit(*target, seed=2)
    old, new = tuple(n // 8 for n in source), tuple(n // 8 for n in target)
    report = load_weights(b, weights(a.state_dict()))
    assert report.resized == {"pos_embed": "{} x {} -> {} x {}".format(*old, *new)}
    assert torch.equal(b.pos_embed[:, :1], a.pos_embed[:, :1])
    expected = cv2_resized(a.pos_embed[0, 1:].detach(), old, new)
    np.testing.assert_allclose(b.pos_embed[0, 1:].detach().numpy(), expected, atol=1e-5)
    if source[0] == source[1]:  # the only grids that fastreid knows
        assert torch.equal(b.pos_embed, resize_pos_embed(a.pos_embed, b.pos_embed, *new))


def test_a_noted_grid_decides_where_the_number_of_patches_misleads(tmp_path):
    """18 x 8 patches could be 12 x 12, and 6 x 4 are as many as 8 x 3."""
    for source, target in (((144, 64), (128, 64)), ((48, 32), (64, 24))):
        a, b = vit(*source, seed=1), vit(*target, seed=2)
        assert position_grids(a) == {"pos_embed": [n // 8 for n in source]}
        torch.save({"model": a.state_dict(), GRIDS: position_grids(a)}, tmp_path / "noted.pth")
        save_file(a.state_dict(), tmp_path / "noted.safetensors", {GRIDS: json.dumps(position_grids(a))})
        old, new = tuple(n // 8 for n in source), tuple(n // 8 for n in target)
        expected = cv2_resized(a.pos_embed[0, 1:].detach(), old, new)
        for name in ("noted.pth", "noted.safetensors"):
            noted = read_weights(str(tmp_path / name))
            assert GRIDS not in noted.rest
            load_weights(b, noted)
            np.testing.assert_allclose(b.pos_embed[0, 1:].detach().numpy(), expected, atol=1e-5)


def test_half_precision_weights_load_as_float32():
    a, b = vit(32, 32).half(), vit(32, 16)
    load_weights(b, weights(a.state_dict()))
    assert b.pos_embed.dtype == torch.float32
    expected = cv2_resized(a.pos_embed[0, 1:].detach().float(), (4, 4), (4, 2))
    np.testing.assert_allclose(b.pos_embed[0, 1:].detach().numpy(), expected, atol=1e-5)


def test_the_distillation_token_of_deit_is_dropped_with_its_position():
    tensors = dict(vit(32, 32).state_dict())
    plain, dist = tensors["pos_embed"], torch.full((1, 1, 16), 9.0)
    tensors.update(
        dist_token=torch.zeros(1, 1, 16), pos_embed=torch.cat([plain[:, :1], dist, plain[:, 1:]], 1)
    )
    for height, width in ((32, 32), (32, 16)):
        model, expected = vit(height, width, seed=2), vit(height, width, seed=2)
        report = load_weights(model, weights(tensors))
        load_weights(expected, weights(vit(32, 32).state_dict()))
        assert torch.equal(model.pos_embed, expected.pos_embed)
        assert "tokens cls_token dist_token -> cls_token" in report.resized["pos_embed"]
        assert report.left_out == {"dist_token": "no such weight in the network"}


def test_vdts_checkpoints_load_into_ours_and_into_a_plain_vit():
    """Its published names: backbone.view_token, heads, view_heads; two tokens before the patches."""
    source = vit(32, 16, ViewDecoupledTransformer)
    tensors = {f"module.{key}": value for key, value in Network(source).state_dict().items()}
    tensors["module.view_heads.weight"] = torch.zeros(2, 16)
    ours, plain = vit(32, 16, ViewDecoupledTransformer, seed=1), vit(32, 16, seed=1)
    assert load_weights(ours, weights(tensors)).missing == []
    same(ours.state_dict(), source.state_dict())
    report = load_weights(plain, weights(tensors))
    assert torch.equal(plain.pos_embed[:, 1:], source.pos_embed[:, 2:])
    assert torch.equal(plain.pos_embed[:, 0], source.pos_embed[:, 0])
    assert report.missing == []
    assert "module.backbone.view_token" in report.left_out
    larger = vit(64, 32, ViewDecoupledTransformer, seed=1)
    load_weights(larger, weights(tensors))
    assert torch.equal(larger.pos_embed[:, :2], source.pos_embed[:, :2])
    expected = cv2_resized(source.pos_embed[0, 2:].detach(), (4, 2), (8, 4))
    np.testing.assert_allclose(larger.pos_embed[0, 2:].detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 16), (1, 0, 16), (2, 17, 16), (1, 17, 8), (17, 16), (0,), ()])
def test_positions_of_an_odd_shape_are_left_out(shape):
    tensors = {**vit(32, 16).state_dict(), "pos_embed": torch.zeros(shape)}
    _, report = fit(weights(tensors), vit(32, 16))
    assert list(report.left_out) == report.missing == ["pos_embed"]
    assert report.left_out["pos_embed"].endswith(" there and 1 x 9 x 16 here")
    assert report.resized == {}


def test_a_noted_grid_that_does_not_go_with_the_patches_is_not_believed():
    source = vit(32, 32)
    noted = weights(source.state_dict(), grids={"pos_embed": (5, 5)})
    assert fit(noted, vit(32, 16))[1].resized == {"pos_embed": "4 x 4 -> 4 x 2"}


def test_patches_as_rows_are_kernels():
    source = vit(32, 16)
    tensors = dict(source.state_dict())
    tensors["patch_embed.proj.weight"] = tensors["patch_embed.proj.weight"].flatten(1)
    target = vit(32, 16, seed=1)
    load_weights(target, weights(tensors))
    same(target.state_dict(), source.state_dict())
