"""fastreid's published configs for Market-1501, as files with the values that they have."""

import yaml

LOSSES = '("CrossEntropyLoss", "TripletLoss",)'
MARKET = {"NAMES": '("Market1501",)', "TESTS": '("Market1501",)'}
INPUT = {
    "SIZE_TRAIN": [256, 128],
    "SIZE_TEST": [256, 128],
    "REA": {"ENABLED": True, "PROB": 0.5},
    "FLIP": {"ENABLED": True},
    "PADDING": {"ENABLED": True},
}
DATALOADER = {"SAMPLER_TRAIN": "NaiveIdentitySampler", "NUM_INSTANCE": 4, "NUM_WORKERS": 8}
FILES = {
    "Base-bagtricks.yml": {
        "MODEL": {
            "META_ARCHITECTURE": "Baseline",
            "BACKBONE": {
                "NAME": "build_resnet_backbone",
                "NORM": "BN",
                "DEPTH": "50x",
                "LAST_STRIDE": 1,
                "FEAT_DIM": 2048,
                "WITH_IBN": False,
                "PRETRAIN": True,
            },
            "HEADS": {
                "NAME": "EmbeddingHead",
                "NORM": "BN",
                "WITH_BNNECK": True,
                "NECK_FEAT": "before",
                "POOL_LAYER": "GlobalAvgPool",
                "CLS_LAYER": "Linear",
            },
            "LOSSES": {
                "NAME": LOSSES,
                "CE": {"EPSILON": 0.1, "SCALE": 1.0},
                "TRI": {"MARGIN": 0.3, "HARD_MINING": True, "NORM_FEAT": False, "SCALE": 1.0},
            },
        },
        "INPUT": INPUT,
        "DATALOADER": DATALOADER,
        "SOLVER": {
            "AMP": {"ENABLED": True},
            "OPT": "Adam",
            "MAX_EPOCH": 120,
            "BASE_LR": 0.00035,
            "IMS_PER_BATCH": 64,
            "WEIGHT_DECAY": 0.0005,
            "WEIGHT_DECAY_NORM": 0.0005,
            "CHECKPOINT_PERIOD": 30,
            "SCHED": "MultiStepLR",
            "STEPS": [40, 90],
            "GAMMA": 0.1,
            "WARMUP_FACTOR": 0.1,
            "WARMUP_ITERS": 2000,
        },
        "TEST": {"EVAL_PERIOD": 30, "IMS_PER_BATCH": 128},
        "CUDNN_BENCHMARK": True,
    },
    "Base-SBS.yml": {
        "_BASE_": "Base-bagtricks.yml",
        "MODEL": {
            "FREEZE_LAYERS": ["backbone"],
            "BACKBONE": {"WITH_NL": True},
            "HEADS": {
                "NECK_FEAT": "after",
                "POOL_LAYER": "GeneralizedMeanPoolingP",
                "CLS_LAYER": "CircleSoftmax",
                "SCALE": 64,
                "MARGIN": 0.35,
            },
            "LOSSES": {"TRI": {"MARGIN": 0.0}},
        },
        "INPUT": {
            "SIZE_TRAIN": [384, 128],
            "SIZE_TEST": [384, 128],
            "AUTOAUG": {"ENABLED": True, "PROB": 0.1},
        },
        "DATALOADER": {"NUM_INSTANCE": 16},
        "SOLVER": {
            "MAX_EPOCH": 60,
            "SCHED": "CosineAnnealingLR",
            "DELAY_EPOCHS": 30,
            "ETA_MIN_LR": 0.0000007,
            "FREEZE_ITERS": 1000,
            "CHECKPOINT_PERIOD": 20,
        },
        "TEST": {"EVAL_PERIOD": 10},
    },
    "Base-AGW.yml": {
        "_BASE_": "Base-bagtricks.yml",
        "MODEL": {
            "BACKBONE": {"WITH_NL": True},
            "HEADS": {"POOL_LAYER": "GeneralizedMeanPooling"},
            "LOSSES": {"TRI": {"MARGIN": 0.0, "HARD_MINING": False}},
        },
    },
    "Base-MGN.yml": {
        "_BASE_": "Base-SBS.yml",
        "MODEL": {
            "META_ARCHITECTURE": "MGN",
            "FREEZE_LAYERS": ["backbone", "b1", "b2", "b3"],
            "BACKBONE": {"WITH_NL": False},
            "HEADS": {"EMBEDDING_DIM": 256},
        },
    },
    "Market1501/bagtricks_R50.yml": {"_BASE_": "../Base-bagtricks.yml", "DATASETS": MARKET},
    "Market1501/sbs_R50.yml": {"_BASE_": "../Base-SBS.yml", "DATASETS": MARKET},
    "Market1501/AGW_R50.yml": {"_BASE_": "../Base-AGW.yml", "DATASETS": MARKET},
    "Market1501/mgn_R50-ibn.yml": {
        "_BASE_": "../Base-MGN.yml",
        "MODEL": {"BACKBONE": {"WITH_IBN": True}},
        "DATASETS": MARKET,
    },
    "Market1501/bagtricks_vit.yml": {
        "MODEL": {
            "META_ARCHITECTURE": "Baseline",
            "PIXEL_MEAN": [127.5, 127.5, 127.5],
            "PIXEL_STD": [127.5, 127.5, 127.5],
            "BACKBONE": {
                "NAME": "build_vit_backbone",
                "DEPTH": "base",
                "FEAT_DIM": 768,
                "PRETRAIN": True,
                "PRETRAIN_PATH": "jx_vit_base_p16_224-80ecf9dd.pth",
                "STRIDE_SIZE": "(16, 16)",
                "DROP_PATH_RATIO": 0.1,
                "DROP_RATIO": 0.0,
                "ATT_DROP_RATE": 0.0,
            },
            "HEADS": {
                "NAME": "EmbeddingHead",
                "NORM": "BN",
                "WITH_BNNECK": True,
                "NECK_FEAT": "before",
                "POOL_LAYER": "Identity",
                "CLS_LAYER": "Linear",
            },
            "LOSSES": {
                "NAME": LOSSES,
                "CE": {"EPSILON": 0.0, "SCALE": 1.0},
                "TRI": {"MARGIN": 0.0, "HARD_MINING": True, "NORM_FEAT": False, "SCALE": 1.0},
            },
        },
        "INPUT": INPUT,
        "DATALOADER": DATALOADER,
        "SOLVER": {
            "AMP": {"ENABLED": False},
            "OPT": "SGD",
            "MAX_EPOCH": 120,
            "BASE_LR": 0.008,
            "WEIGHT_DECAY": 0.0001,
            "IMS_PER_BATCH": 64,
            "SCHED": "CosineAnnealingLR",
            "ETA_MIN_LR": 0.000016,
            "WARMUP_FACTOR": 0.01,
            "WARMUP_ITERS": 1000,
            "CLIP_GRADIENTS": {"ENABLED": True},
            "CHECKPOINT_PERIOD": 30,
        },
        "TEST": {"EVAL_PERIOD": 5, "IMS_PER_BATCH": 128},
        "CUDNN_BENCHMARK": True,
        "DATASETS": MARKET,
    },
}


def write_configs(folder):
    """All files below `folder`."""
    (folder / "Market1501").mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_text(yaml.safe_dump(content))
    return folder
