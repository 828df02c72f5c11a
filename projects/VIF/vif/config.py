"""Every config key of VIF: default, meaning, the paper's symbol."""

from typing import Any, Iterator, Tuple

from fastreid.config import CfgNode as CN


def add_vif_config(cfg: CN) -> None:
    """Add VIF's keys with their defaults to a fastreid config (equation and table numbers: VIF-AGReID)."""
    # One seed for weights, sampler, augmentation and dropout. Negative: a fresh one each run (in the log).
    cfg.SEED = -1

    # Transforms of TRANSFORM_REGISTRY by name, in order, between the flip and random erasing.
    cfg.INPUT.TRANSFORMS = ()
    # Patch-Level RotateMix, "PatchLevelRotateMix" in INPUT.TRANSFORMS (equations 1-5).
    cfg.INPUT.PLRM = CN()
    cfg.INPUT.PLRM.PROB = 0.5  # P_img: an image is transformed
    cfg.INPUT.PLRM.BASE_PROB = 0.3  # P_0: a patch is selected, base
    cfg.INPUT.PLRM.CENTER_WEIGHT = 0.8  # C_weight: added towards the centre
    cfg.INPUT.PLRM.PATCH_SIZE = 16  # n: patch side in pixels; divides both sides of INPUT.SIZE_TRAIN
    cfg.INPUT.PLRM.MAX_ANGLE = 45.0  # theta_max: degrees
    cfg.INPUT.PLRM.ALPHA = 0.5  # alpha: share of the rotated patch in the mix
    cfg.INPUT.PLRM.FILL = "zeros"  # corners of a rotated patch: zeros, border, reflect
    # Where the patch probability peaks: center (ours), literal (equation 3 as printed), uniform (same mean).
    cfg.INPUT.PLRM.MODE = "center"

    # Training images as fastreid has them to the bit, by Pillow: slower. False: plain JPEGs are decoded by
    # OpenCV and resized by torchvision's kernel, up to two grey levels off. Testing is always exact.
    cfg.INPUT.EXACT = False

    # What Table 4 compares PLRM with: "RandomRotation" of the whole image, "PatchShuffle".
    cfg.INPUT.ROTATION = CN()
    cfg.INPUT.ROTATION.PROB = 0.5  # an image is turned (not published: P_img)
    cfg.INPUT.ROTATION.MAX_ANGLE = 45.0  # degrees (not published: theta_max)
    cfg.INPUT.PATCH_SHUFFLE = CN()
    cfg.INPUT.PATCH_SHUFFLE.PROB = 0.5  # an image is shuffled (not published: P_img)
    cfg.INPUT.PATCH_SHUFFLE.PATCH_SIZE = 2  # pixels; divides both sides of INPUT.SIZE_TRAIN

    # View-Invariant Angular Loss, "VIALLoss" in MODEL.LOSSES.NAME (equations 6-10).
    cfg.MODEL.LOSSES.VIAL = CN()
    cfg.MODEL.LOSSES.VIAL.BETA = 5.0  # beta: decay rate of the penalty
    cfg.MODEL.LOSSES.VIAL.LAMBDA = 0.5  # lambda: strength of the penalty
    cfg.MODEL.LOSSES.VIAL.MARGIN = 0.5  # M: negatives above cosine 1 - M are hard
    cfg.MODEL.LOSSES.VIAL.PENALTY = True  # False: "Angular Loss" of Table 5
    cfg.MODEL.LOSSES.VIAL.HARD_NEGATIVES = True  # False: "VIAL w/o HNM" of Table 5
    cfg.MODEL.LOSSES.VIAL.SCALE = 1.0  # delta of equation 13 (gamma is MODEL.LOSSES.TRI.SCALE)
    # Over the images of all processes, as one process would; False: each process's own, as fastreid's losses.
    cfg.MODEL.LOSSES.VIAL.GATHER = False
    cfg.MODEL.LOSSES.TRI.GATHER = False  # the same for "TripletLoss" of META_ARCHITECTURE VIF and VV

    # Losses of MODEL.META_ARCHITECTURE VDT; the weights are those of its published configuration.
    cfg.MODEL.VDT = CN()
    cfg.MODEL.VDT.VIEW_WEIGHT = 0.001  # cross entropy of the view classifier
    cfg.MODEL.VDT.ORTHOGONAL_WEIGHT = 0.001  # |cosine| of the view-independent and the view feature

    # MODEL.META_ARCHITECTURE Explain; the weights are those of the published code of AMD, on which it builds.
    cfg.MODEL.EXPLAIN = CN()
    cfg.MODEL.EXPLAIN.NUM_ATTRIBUTES = 88  # K: binary attributes of the training set; 88 in AG-ReIDv1 and v2
    cfg.MODEL.EXPLAIN.SHARE = 0.5  # of the ViT's blocks, shared with the interpreter (AMD: 2 of 4 stages)
    cfg.MODEL.EXPLAIN.DISTILLATION_WEIGHT = 1.0  # metric distillation loss
    cfg.MODEL.EXPLAIN.PRIOR_WEIGHT = 10.0  # attribute prior loss

    # MODEL.META_ARCHITECTURE PCB.
    cfg.MODEL.PCB = CN()
    cfg.MODEL.PCB.STRIPES = 6  # horizontal stripes; divides the rows of the backbone's feature map
    cfg.MODEL.PCB.DIM = 256  # dimensions of a stripe
    cfg.MODEL.PCB.DROPOUT = 0.5  # share of a pooled stripe's channels that training drops

    # A ViT of any size: MODEL.BACKBONE.NAME build_vif_vit_backbone or build_vdt_backbone.
    cfg.MODEL.BACKBONE.VIT = CN()
    cfg.MODEL.BACKBONE.VIT.EMBED_DIM = 768  # D: token width; MODEL.BACKBONE.FEAT_DIM must equal it
    cfg.MODEL.BACKBONE.VIT.DEPTH = 12  # blocks
    cfg.MODEL.BACKBONE.VIT.NUM_HEADS = 12  # divides EMBED_DIM
    cfg.MODEL.BACKBONE.VIT.MLP_RATIO = 4.0  # hidden width of the MLP / EMBED_DIM
    cfg.MODEL.BACKBONE.VIT.PATCH_SIZE = 16  # side of a token's patch; its step is MODEL.BACKBONE.STRIDE_SIZE

    # How fastreid's attention is computed, also in build_vit_backbone: "eager" as fastreid does, to the bit;
    # "sdpa" by torch's fused kernels (torch >= 2.1), equal up to rounding.
    cfg.MODEL.BACKBONE.VIT.ATTENTION = "eager"

    # torch.compile of the backbone in training and evaluation; checkpoints are the same.
    cfg.MODEL.COMPILE = False

    # Any vision transformer of timm: MODEL.BACKBONE.NAME build_vif_timm_backbone.
    cfg.MODEL.BACKBONE.TIMM = CN()
    cfg.MODEL.BACKBONE.TIMM.NAME = ""  # timm's name with the tag of its weights

    # CSV of data set AGManifest: header split,path,pid,camid,view; paths relative to it.
    cfg.DATASETS.MANIFEST = ""

    # Attribute file, for "attributes" in DATALOADER.LABELS; empty: its usual place in the data set's folder.
    cfg.DATASETS.ATTRIBUTES = ""

    # Share of the training identities that is held out: training leaves them out, and the test is on them and
    # not on the test set. For choosing settings; 0: train on all, test on the test set.
    cfg.DATASETS.HOLDOUT = 0.0

    # Labels beside identities that the trainer's batches carry: "views" (0 aerial, 1 other), "attributes".
    # Only systems that are defined by them read any (VDT, Explain); VIF never does.
    cfg.DATALOADER.LABELS = ()

    # An image that cannot be read: "error" names it and stops; "skip" trains on another of its identity and
    # leaves it out of query and gallery, named in the log, counted beside the scores and in results.json.
    cfg.DATALOADER.BAD_IMAGES = "error"

    # The AMSGrad variant of SOLVER.OPT Adam or AdamW, which fastreid has no key for.
    cfg.SOLVER.AMSGRAD = False

    # Checkpoints of epochs that stay, beside the best and the last; 0: all.
    cfg.SOLVER.CHECKPOINT_KEEP = 0
    # Minutes between two saves within an epoch (model_resume.pth); 0: none but before an evaluation.
    cfg.SOLVER.CHECKPOINT_MINUTES = 0.0
    # Resume under a config that changes what the run means; docs/reliability.md says what then holds.
    cfg.SOLVER.RESUME_CHANGED = False

    # What SOLVER.AMP.ENABLED computes in: "auto" is float16 on CUDA, as in fastreid; on the CPU bfloat16
    # where the processor has instructions for it, else float32. "bfloat16" is taken anywhere.
    cfg.SOLVER.AMP.DTYPE = "auto"
    # A loss or gradient that is NaN or infinite: "stop" with a file that reproduces it, or "skip" the batch.
    cfg.SOLVER.NON_FINITE = "stop"
    cfg.SOLVER.NON_FINITE_LIMIT = 10  # batches in a row that "skip" leaves out; one more stops the run

    # Iterations between two lines of progress.
    cfg.SOLVER.LOG_PERIOD = 50

    # Evaluator of EVALUATOR_REGISTRY by name.
    cfg.TEST.EVALUATOR = "ProtocolEvaluator"
    # Protocols to score, by name; empty: all that each data set of DATASETS.TESTS has.
    cfg.TEST.PROTOCOLS = ()
    # The protocol of the first test set that chooses model_best; empty: the data set's headline.
    cfg.TEST.BEST_PROTOCOL = ""
    cfg.TEST.BEST_METRIC = "mAP"  # Rank-1, Rank-5, Rank-10, mAP, mINP
    # Level of the bootstrap intervals over queries beside Rank-1, mAP and mINP; 0 prints none.
    cfg.TEST.CONFIDENCE = 0.95
    # What a run must reach: entries (data set, protocol, metric, percent, tolerance); a miss fails it.
    cfg.TEST.EXPECTED_RESULTS = []


def lookup(cfg: CN, key: str) -> Any:
    """Value of a dotted key, e.g. ``INPUT.PLRM.PROB``."""
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def leaves(cfg: CN, prefix: str = "") -> Iterator[Tuple[str, Any]]:
    """Dotted keys and their values, lists as tuples."""
    for name, value in cfg.items():
        if isinstance(value, CN):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, tuple(value) if isinstance(value, list) else value


def with_value(cfg: CN, key: str, value: Any) -> CN:
    """A frozen copy of `cfg` with another value of one key."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list([key, value])
    cfg.freeze()
    return cfg
