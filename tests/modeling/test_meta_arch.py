"""Meta architecture VIF: total loss, devices, and that the batch is left as it was."""

import vif
import pytest
import torch
from fastreid.modeling.losses import cross_entropy_loss, triplet_loss
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from fastreid.utils.events import EventStorage
from torch._subclasses import FakeTensorMode
from vif.modeling.losses import vial_loss

from tests.marks import fake_cuda
from tests.tiny import tiny_cfg


def test_the_total_is_identity_plus_gamma_triplet_plus_delta_vial(tmp_path):
    scales = ["MODEL.LOSSES.TRI.SCALE", 0.3, "MODEL.LOSSES.VIAL.SCALE", 2.0, "MODEL.HEADS.NUM_CLASSES", 4]
    model = vif.VIFTrainer.build_model(tiny_cfg("CARGO/vif.yml", tmp_path, *scales))
    targets = torch.arange(8) // 2
    images = torch.rand(8, 3, 32, 16, generator=torch.Generator().manual_seed(0)) * 255
    outputs = {}
    model.heads.register_forward_hook(lambda _, __, out: outputs.update(out))
    with EventStorage(0) as storage:
        losses = model({"images": images, "targets": targets})
        logged = {k: v for k, (v, _) in storage.latest().items()}
    features = outputs["features"]
    assert losses["loss_cls"].item() == pytest.approx(
        cross_entropy_loss(outputs["cls_outputs"], targets, 0.0).item()
    )
    triplet = triplet_loss(features, targets, 0.0, False, True)
    assert losses["loss_triplet"].item() == pytest.approx(0.3 * triplet.item())
    assert losses["loss_vial"].item() == pytest.approx(2.0 * vial_loss(features, targets).item())
    assert set(losses) == {"loss_cls", "loss_triplet", "loss_vial"}
    assert {"pos_cos", "neg_cos", "hard_share", "feat_norm", "cls_accuracy"} <= set(logged)


@fake_cuda
@pytest.mark.parametrize("name", ["CARGO/vit.yml", "CARGO/vif.yml", "SynthAG/vif.yml"])
def test_forward_and_losses_run_on_cuda_tensors(name, tmp_path):
    cfg = tiny_cfg(name, tmp_path, "MODEL.HEADS.NUM_CLASSES", 4)
    model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg).eval()
    tensors = {k: v.detach() for k, v in [*model.named_parameters(), *model.named_buffers()]}
    with FakeTensorMode() as mode:
        weights = {key: mode.from_tensor(value).to("cuda") for key, value in tensors.items()}
        images = torch.empty(8, 3, 32, 16, device="cuda")
        features = torch.func.functional_call(model, weights, ({"images": images},))
        assert features.device.type == "cuda"
        assert features.shape == (8, 16)
        targets = torch.empty(8, dtype=torch.int64, device="cuda")
        for loss in model.extra_losses.values():
            assert loss(features, targets).device.type == "cuda"
