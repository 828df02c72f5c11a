"""What some hosts cannot run, and why: `make test-legacy` runs the tests on torch 1.13 and Python 3.9."""

import pytest
import torch

fake_cuda = pytest.mark.skipif(
    int(torch.__version__.split(".")[0]) < 2, reason="torch 1 makes fake CUDA tensors on a GPU only"
)


def needs_packages(cfg):
    """Skip a test of a config whose backbone comes from timm where there is no timm."""
    if cfg.MODEL.BACKBONE.NAME == "build_vif_timm_backbone":
        pytest.importorskip("timm")
