"""No key of VIF's is silently ignored: not by fastreid's own trainer, not by a run that does not need it."""

import itertools

import vif
import pytest
from vif import compat
from fastreid.config import get_cfg
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.engine import DefaultTrainer
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from vif.errors import ConfigError
from vif.unread import READERS, changed_keys, readers_of, refuse_unread, vif_defaults, warn_unread

OTHER = {bool: lambda v: not v, int: lambda v: v + 1, float: lambda v: v + 0.25, str: lambda v: v + "x"}
DEFAULTS = vif_defaults()
READ = {  # without a choice: by VIFTrainer, its loaders and its evaluation
    *("SEED", "INPUT.TRANSFORMS", "INPUT.EXACT", "DATASETS.HOLDOUT", "DATALOADER.LABELS", "SOLVER.AMSGRAD"),
    *("SOLVER.LOG_PERIOD", "TEST.EVALUATOR", "TEST.PROTOCOLS", "TEST.BEST_PROTOCOL", "TEST.BEST_METRIC"),
    *("TEST.CONFIDENCE", "TEST.EXPECTED_RESULTS", "MODEL.COMPILE", "SOLVER.NON_FINITE"),
    *(
        "DATALOADER.BAD_IMAGES",
        "SOLVER.CHECKPOINT_KEEP",
        "SOLVER.CHECKPOINT_MINUTES",
        "SOLVER.RESUME_CHANGED",
    ),
}


def load(*opts):
    cfg = get_cfg()
    vif.add_vif_config(cfg)
    cfg.merge_from_list(list(opts))
    return cfg


def another(key):
    value = DEFAULTS[key]
    return OTHER[type(value)](value) if type(value) in OTHER else ("x",)


def test_the_defaults_are_all_of_vifs_keys_and_no_others():
    assert changed_keys(load()) == []
    assert changed_keys(get_cfg()) == []
    assert {"SEED", "INPUT.PLRM.ALPHA", "MODEL.LOSSES.VIAL.SCALE", "TEST.PROTOCOLS"} <= DEFAULTS.keys()
    assert not {"OUTPUT_DIR", "TEST.METRIC", "MODEL.LOSSES.TRI.SCALE"} & DEFAULTS.keys()


@pytest.mark.parametrize("key", sorted(k for k in DEFAULTS if not k.startswith("MODEL.")))
def test_fastreids_trainer_refuses_every_key_that_it_does_not_read(key):
    cfg = load(key, another(key))
    for use in (DefaultTrainer.build_train_loader, lambda c: DefaultTrainer.test(c, None)):
        with pytest.raises(ConfigError, match=rf"sets {key}, .*fastreid's own trainer does not read"):
            use(cfg)


def test_fastreids_trainer_refuses_to_be_built(tmp_path):
    class Mine(DefaultTrainer):
        pass

    cfg = load("SEED", 3, "TEST.PROTOCOLS", ("AG",), "OUTPUT_DIR", str(tmp_path))
    for trainer in (DefaultTrainer, Mine):
        with pytest.raises(ConfigError, match="sets SEED, TEST.PROTOCOLS, which fastreid's own"):
            trainer(cfg)


def test_vial_without_the_meta_architecture_that_reads_it_is_refused():
    losses = ("MODEL.LOSSES.NAME", ("CrossEntropyLoss", "VIALLoss"))
    for cfg in (load(*losses), get_cfg()):
        cfg.merge_from_list(list(losses))
        with pytest.raises(ConfigError, match=r"LOSSES.NAME \(VIALLoss with .*'Baseline'"):
            DefaultTrainer.build_train_loader(cfg)
    refuse_unread(load(*losses, "MODEL.META_ARCHITECTURE", "VIF"))


def test_fastreids_own_keys_and_losses_of_a_fork_are_left_alone():
    refuse_unread(get_cfg())
    refuse_unread(load("MODEL.LOSSES.NAME", ("CenterLoss",), "SOLVER.BASE_LR", 0.1))


@pytest.mark.parametrize("key", sorted(DEFAULTS))
def test_a_key_whose_reader_is_not_chosen_is_said(key, caplog):
    compat.process._SAID.clear()
    cfg = load(key, another(key))
    with caplog.at_level("WARNING"):
        warn_unread(cfg)
    said = [r.message for r in caplog.records]
    if key in READ:
        assert said == []
    else:
        ((message),) = said
        assert message.startswith(f"{key}=")
        assert "has no effect in this run: it is read where" in message


@pytest.mark.parametrize("key", sorted(DEFAULTS.keys() - READ))
def test_a_key_of_which_all_readers_are_chosen_is_not(key, caplog):
    choices = [[(c, w) for c in r.chosen_by for w in r.words] for r in readers_of(key)]
    for chosen in itertools.product(*choices):
        opts = [x for c, w in chosen for x in (c, w if isinstance(get(load(), c), (str, bool)) else (w,))]
        compat.process._SAID.clear()
        caplog.clear()
        with caplog.at_level("WARNING"):
            warn_unread(load(key, another(key), *opts))
        assert [r.message for r in caplog.records if r.message.startswith(key)] == []


@pytest.mark.parametrize(
    ("key", "value", "opts", "needed"),
    [
        (
            "MODEL.LOSSES.VIAL.BETA",
            3.0,
            ["MODEL.LOSSES.NAME", ("VIALLoss",), "MODEL.LOSSES.VIAL.PENALTY", False],
            "MODEL.LOSSES.VIAL.PENALTY has True",
        ),
        (
            "MODEL.LOSSES.VIAL.LAMBDA",
            0.1,
            ["MODEL.LOSSES.VIAL.PENALTY", False],
            "MODEL.LOSSES.NAME has VIALLoss, and MODEL.LOSSES.VIAL.PENALTY has True",
        ),
        (
            "MODEL.LOSSES.TRI.GATHER",
            True,
            ["MODEL.META_ARCHITECTURE", "VIF", "MODEL.LOSSES.NAME", ("CrossEntropyLoss",)],
            "MODEL.LOSSES.NAME has TripletLoss",
        ),
    ],
)
def test_a_key_that_needs_more_than_one_thing_says_what_is_missing(key, value, opts, needed, caplog):
    compat.process._SAID.clear()
    with caplog.at_level("WARNING"):
        warn_unread(load(key, value, *opts))
    said = f"{key}={value!r} has no effect in this run: it is read where {needed}"
    assert said in [r.message for r in caplog.records]


def test_every_reader_is_of_a_key():
    for reader in READERS:
        for prefix in reader.prefixes:
            assert [k for k in DEFAULTS if f"{k}.".startswith(f"{prefix}.")], prefix


def test_the_readers_are_names_that_are_registered():
    registries = (vif.TRANSFORM_REGISTRY, vif.LOSS_REGISTRY, META_ARCH_REGISTRY, BACKBONE_REGISTRY)
    known = {name for registry in (*registries, DATASET_REGISTRY) for name in registry._obj_map}
    assert {word for reader in READERS for word in reader.words} - known == {
        *("attributes", True, "skip", "TripletLoss")  # a label, a switch, an action, a loss of fastreid's
    }


def get(cfg, key):
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def test_fastreids_trainer_says_it_of_the_keys_that_work_there(caplog):
    compat.process._SAID.clear()
    with caplog.at_level("WARNING"):
        refuse_unread(load("MODEL.VDT.VIEW_WEIGHT", 0.5))
    assert "MODEL.VDT.VIEW_WEIGHT=0.5 has no effect in this run" in caplog.text


def test_vifs_trainer_says_it_when_it_checks_a_config(caplog):
    compat.process._SAID.clear()
    with caplog.at_level("WARNING"):
        vif.check_config(load("INPUT.PLRM.ALPHA", 0.3))
    assert "INPUT.PLRM.ALPHA=0.3 has no effect in this run" in caplog.text
