"""Every system trains under DistributedDataParallel, which fails where a parameter gets no gradient."""

import vif
import pytest
import torch.distributed as dist
from fastreid.utils.events import EventStorage
from vif.compat.distributed import data_parallel

from tests import fake_trees
from tests.systems import CONVOLUTIONAL, small_cfg
from tests.tiny import tiny_cfg


@pytest.fixture(scope="module", autouse=True)
def one_process(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    fake_trees.make_synthag(root, ids=4)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(root))
        yield
    dist.destroy_process_group()


@pytest.mark.parametrize("name", ["vif", "vit", "vdt", "explain", *CONVOLUTIONAL])
def test_every_parameter_of_every_system_gets_a_gradient(name, tmp_path):
    make = small_cfg if name in CONVOLUTIONAL else tiny_cfg
    trainer = vif.VIFTrainer(make(f"SynthAG/{name}.yml", tmp_path))
    model, batches = data_parallel(trainer.model), iter(trainer.data_loader)
    with EventStorage(0):
        for _ in range(2):  # the second step fails where the first missed one
            sum(model(next(batches)).values()).backward()
