"""Random states of a GPU that is not the first, and the largest seed: functions that note their arguments."""

import pytest
import torch
import vif.trainer
from vif import replay
from vif.resume.randomness import random_states, set_random_states

from tests.tiny import tiny_cfg


@pytest.fixture
def of_gpus(monkeypatch):
    """States by GPU; without a device torch takes the current one, here the first."""
    states = {f"cuda:{k}": torch.tensor([k], dtype=torch.uint8) for k in range(2)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device="cuda:0": states[str(device)])
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, device="cuda:0": states.update({str(device): state})
    )
    return states


def test_a_run_saves_and_sets_the_state_of_its_own_gpu(of_gpus):
    saved = random_states("cuda:1")
    assert saved["cuda"].tolist() == [1]
    of_gpus["cuda:1"] = torch.tensor([9], dtype=torch.uint8)
    set_random_states(saved, "cuda:1")
    assert {name: int(state) for name, state in of_gpus.items()} == {"cuda:0": 0, "cuda:1": 1}


def test_a_replay_sets_the_state_of_the_models_gpu(of_gpus):
    states = {"cpu": torch.get_rng_state(), "cuda": torch.tensor([7], dtype=torch.uint8)}
    replay._set_random(states, torch.device("cuda:1"))
    assert {name: int(state) for name, state in of_gpus.items()} == {"cuda:0": 0, "cuda:1": 7}


def test_the_largest_seed_has_a_next_one_for_the_second_process(tmp_path, monkeypatch):
    class Seeded(Exception):
        pass

    def seed(value):
        raise Seeded(value)

    monkeypatch.setattr(vif.trainer.compat, "seed_everything", seed)
    monkeypatch.setattr(vif.trainer.comm, "get_rank", lambda: 1)
    with pytest.raises(Seeded, match="^0$"):
        vif.VIFTrainer(tiny_cfg("SynthAG/vif.yml", tmp_path, "SEED", 2**32 - 1))
