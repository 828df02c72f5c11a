"""Transformers small enough to compare weight by weight, and the network around one."""

import torch
from fastreid.modeling.backbones.vision_transformer import VisionTransformer
from torch import nn
from vif.weight_files import Weights

SIZE = {"patch_size": 8, "stride_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "qkv_bias": True}


def vit(height, width, kind=VisionTransformer, seed=0, **changes):
    """A small ViT; no two of its weights share a value."""
    torch.manual_seed(seed)
    model = kind(img_size=[height, width], **{**SIZE, **changes})
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model.eval()


def weights(tensors, source="file.pth", grids=None):
    return Weights(source, dict(tensors), grids or {}, {})


class Network(nn.Module):
    """A whole network: backbone, BNNeck, classifier, as fastreid names them."""

    def __init__(self, backbone, classes=4):
        super().__init__()
        self.backbone = backbone
        self.heads = nn.Module()
        self.heads.bottleneck = nn.Sequential(nn.BatchNorm2d(16))
        self.heads.weight = nn.Parameter(torch.randn(classes, 16))


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key
