"""VIFTrainer: what differs from fastreid's DefaultTrainer - data, evaluation, progress, device and seed."""

import logging
import os
from collections import OrderedDict
from typing import Any, Dict, List

from fastreid.engine import hooks
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY
from fastreid.utils import comm
from fastreid.utils.events import get_event_storage

from . import compat
from .compat.distributed import share_buffers, sync_norm_on_cpu
from .config import with_value
from .config_checks import check_config
from .data.build import build_test_loader, build_test_set, build_train_loader
from .data.unreadable import start_training
from .errors import ConfigError, DataError, EvaluationError
from .evaluation.extract import extract_table
from .evaluation.protocols import select
from .evaluation.training_count import add_training_count
from .files import require_writable, write_json
from .hooks import BestCheckpointer, CollapseWarning, Evaluation, Freeze, Writers
from .precision import amp_dtype
from .registries import EVALUATOR_REGISTRY
from .replay import add_skipped, build_guard
from .resume.trainer import ResumableTrainer
from .weight_files import read_weights
from .weights import load_weights
from .writers import Metrics, ProgressWriter, TensorBoard

logger = logging.getLogger(__name__)
# identity classifiers in checkpoints: of fastreid's Baseline and what derives from it, PCB, fastreid's MGN
CLASSIFIERS = ("heads.weight", "heads.classifiers.0.weight", "b1_head.weight")


def prepare(cfg: Any) -> Any:
    """A frozen copy of `cfg`, checked, with the device that this machine has."""
    check_config(cfg)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = compat.resolve_device(cfg.MODEL.DEVICE)
    cfg.freeze()
    return cfg


def with_seed(cfg: Any) -> Any:
    """`cfg`, or a frozen copy with a drawn SEED, the same on all processes, where none is set."""
    if cfg.SEED >= 0:
        return cfg
    cfg = with_value(cfg, "SEED", comm.all_gather(int.from_bytes(os.urandom(4), "little"))[0])
    logger.info("SEED was not set; this run draws %d", cfg.SEED)
    return cfg


class VIFTrainer(ResumableTrainer):
    """fastreid's trainer with VIF's loaders, protocol-aware evaluation and progress.

    Args:
        cfg: fastreid config with VIF's keys.
    """

    def __init__(self, cfg: Any) -> None:
        drawn = cfg.SEED < 0
        cfg = with_seed(prepare(cfg))
        require_writable(cfg.OUTPUT_DIR)
        compat.seed_everything((cfg.SEED + comm.get_rank()) % 2**32)
        super().__init__(cfg, seed_is_drawn=drawn)
        start_training(self.data_loader.unreadable)
        self.guard = self._trainer.guard = build_guard(self.cfg, self.data_loader)
        if cfg.SOLVER.AMP.ENABLED:
            self._trainer.set_dtype(amp_dtype(cfg.SOLVER.AMP.DTYPE, self._trainer.device_type))

    def rebuild(self) -> None:
        """Also what counts unreadable images, and what batches that are not finite are told by."""
        super().rebuild()
        start_training(self.data_loader.unreadable)
        self.guard = self._trainer.guard = build_guard(self.cfg, self.data_loader)

    @classmethod
    def build_model(cls, cfg: Any) -> Any:
        """The model on the configured device, or on the CPU when there is no GPU."""
        with compat.own_entry(META_ARCH_REGISTRY, cfg.MODEL.META_ARCHITECTURE):
            return sync_norm_on_cpu(super().build_model(prepare(cfg)))

    @classmethod
    def build_optimizer(cls, cfg: Any, model: Any) -> Any:
        """What fastreid returns, the optimizer and since 1.3.0 its parameter wrapper; with SOLVER.AMSGRAD."""
        built = super().build_optimizer(cfg, model)
        optimizer = built[0] if isinstance(built, tuple) else built
        if cfg.SOLVER.AMSGRAD:
            for group in optimizer.param_groups:
                group["amsgrad"] = True
        return built

    @classmethod
    def build_lr_scheduler(cls, cfg: Any, optimizer: Any, iters_per_epoch: int) -> Any:
        """fastreid's schedule; a run shorter than warm-up or delay says so instead of dividing by zero."""
        warmup_epochs = -(-cfg.SOLVER.WARMUP_ITERS // iters_per_epoch)
        if warmup_epochs >= cfg.SOLVER.MAX_EPOCH:
            logger.warning(
                "SOLVER.WARMUP_ITERS=%d fills all %d epochs of %d iterations: the learning rate never "
                "reaches SOLVER.BASE_LR",
                cfg.SOLVER.WARMUP_ITERS,
                cfg.SOLVER.MAX_EPOCH,
                iters_per_epoch,
            )
        elif cfg.SOLVER.DELAY_EPOCHS >= cfg.SOLVER.MAX_EPOCH:
            logger.warning(
                "SOLVER.DELAY_EPOCHS=%d fills all %d epochs: the learning rate stays at SOLVER.BASE_LR",
                cfg.SOLVER.DELAY_EPOCHS,
                cfg.SOLVER.MAX_EPOCH,
            )
        idle = max(warmup_epochs, cfg.SOLVER.DELAY_EPOCHS)
        if idle >= cfg.SOLVER.MAX_EPOCH:
            cfg = cfg.clone()
            cfg.defrost()
            cfg.SOLVER.MAX_EPOCH = idle + 1  # the cosine's length, never reached
        return super().build_lr_scheduler(cfg, optimizer, iters_per_epoch)

    @classmethod
    def build_train_loader(cls, cfg: Any) -> Any:
        """Batches for ever; dict of images (B, 3, H, W) float32 in 0..255, targets, camids, img_paths."""
        loader = build_train_loader(cfg)
        if len(loader.dataset) < cfg.SOLVER.IMS_PER_BATCH:
            raise DataError(
                f"The training set has {len(loader.dataset)} images, fewer than one batch "
                f"(SOLVER.IMS_PER_BATCH={cfg.SOLVER.IMS_PER_BATCH}); set a smaller batch or add data."
            )
        return loader

    def build_hooks(self) -> List[Any]:
        """fastreid's hooks with VIF's checkpoint choice, collapse warning and log period."""
        chosen: List[Any] = []
        for hook in super().build_hooks():
            if isinstance(hook, hooks.PeriodicCheckpointer):
                continue  # ours comes last, on all processes
            if isinstance(hook, hooks.EvalHook):
                hook = Evaluation(hook._period, hook._func)
            elif isinstance(hook, hooks.LayerFreeze):
                hook = Freeze(hook.model, hook.freeze_layers, hook.freeze_iters)
            elif isinstance(hook, hooks.PeriodicWriter):
                chosen.append(CollapseWarning())
                hook = Writers(hook._writers, self.cfg.SOLVER.LOG_PERIOD)
            chosen.append(hook)
        solver = self.cfg.SOLVER
        chosen.append(
            BestCheckpointer(
                self.checkpointer, solver.CHECKPOINT_PERIOD, self.best_metric(), solver.CHECKPOINT_KEEP
            )
        )
        return chosen

    def build_writers(self) -> List[Any]:
        """Progress on the screen and in log.txt, metrics.json, TensorBoard."""
        return [
            ProgressWriter(self.max_iter, self.max_epoch, self.cfg.SOLVER.IMS_PER_BATCH),
            Metrics(os.path.join(self.cfg.OUTPUT_DIR, "metrics.json")),
            TensorBoard(self.cfg.OUTPUT_DIR),
        ]

    def best_metric(self) -> str:
        """Key of the number that chooses model_best: "data set/protocol/metric"."""
        name = self.cfg.DATASETS.TESTS[0]
        dataset = build_test_set(self.cfg, name, show=False)
        protocols = select(self.cfg.TEST.PROTOCOLS, dataset.protocols)
        best = self.cfg.TEST.BEST_PROTOCOL or protocols[0].name
        if best not in [p.name for p in protocols]:
            raise ConfigError(
                f"TEST.BEST_PROTOCOL={best!r} is not scored on {name}; its protocols are "
                f"{', '.join(p.name for p in protocols)}."
            )
        return f"{dataset.title}/{best}/{self.cfg.TEST.BEST_METRIC}"

    def train(self) -> Any:
        """fastreid's loop; a miss of TEST.EXPECTED_RESULTS by the last evaluation fails the run.

        Returns:
            What the last `test` returned; None on processes other than the first.
        """
        results = super().train()
        if results:
            write_json(os.path.join(self.cfg.OUTPUT_DIR, "results.json"), results)
            require_results(self.cfg.TEST.EXPECTED_RESULTS, results)
        return results

    @classmethod
    def evaluate_weights(cls, cfg: Any) -> Dict[str, Dict[str, Dict[str, float]]]:
        """`test` of the checkpoint in MODEL.WEIGHTS: what `--eval-only` runs."""
        return cls.test(cfg, cls.load_model(cfg))

    @classmethod
    def load_model(cls, cfg: Any) -> Any:
        """The trained model of MODEL.WEIGHTS, its classifier as large as the checkpoint's."""
        path = cfg.MODEL.WEIGHTS
        if not path:
            raise ConfigError("There is nothing to load: set MODEL.WEIGHTS to a checkpoint.")
        weights = read_weights(path)
        cfg = cfg.clone()
        cfg.defrost()
        names = {f"{prefix}{name}" for name in CLASSIFIERS for prefix in ("", "module.")}
        found = [len(tensor) for key, tensor in weights.tensors.items() if key in names]
        cfg.MODEL.HEADS.NUM_CLASSES = found[0] if found else 0
        cfg.MODEL.BACKBONE.PRETRAIN = False  # the checkpoint holds the whole model
        model = cls.build_model(cfg)
        load_weights(model, weights)
        return model

    @classmethod
    def test(cls, cfg: Any, model: Any) -> Dict[str, Dict[str, Dict[str, float]]]:
        """Score every data set of DATASETS.TESTS on all its protocols; one forward pass an image.

        Data sets that share their images (CARGO, CARGO_AA, ...) share one extraction. Writes
        OUTPUT_DIR/results.json.

        Returns:
            `{data set: {protocol: {metric: value}}}`, percent; empty on processes other than the first.

        Raises:
            EvaluationError: not within training, and TEST.EXPECTED_RESULTS is missed.
        """
        cfg = prepare(cfg)
        share_buffers(model)
        evaluator = EVALUATOR_REGISTRY.get(cfg.TEST.EVALUATOR)(cfg)
        tables: Dict[str, Any] = {}
        results: Dict[str, Any] = OrderedDict()
        for name in cfg.DATASETS.TESTS:
            dataset = build_test_set(cfg, name)
            if dataset.source not in tables:
                loader = build_test_loader(cfg, dataset.splits)
                table = extract_table(model, loader, dataset.splits, cfg.TEST.FLIP.ENABLED)
                table.meta["dataset"] = dataset.source
                tables[dataset.source] = table
            if comm.is_main_process():
                protocols = select(cfg.TEST.PROTOCOLS, dataset.protocols)
                results[dataset.title] = evaluator.evaluate(tables[dataset.source], protocols)
        add_training_count(cfg, results)
        if cfg.SOLVER.NON_FINITE == "skip" and _in_training():
            add_skipped(results, get_event_storage())
        if comm.is_main_process():
            try:
                write_json(os.path.join(cfg.OUTPUT_DIR, "results.json"), results)
            except OSError as e:
                if not _in_training():  # `train` writes those of the last evaluation again
                    raise
                logger.error("results.json could not be written (%s); the run goes on", e)
            if not _in_training():  # `train` looks at the last evaluation only
                require_results(cfg.TEST.EXPECTED_RESULTS, results)
        return results


def _in_training() -> bool:
    try:
        get_event_storage()
    except AssertionError:  # fastreid's way to say that there is none
        return False
    return True


def require_results(expected: List[Any], results: Dict[str, Any]) -> None:
    """Fail a run that missed TEST.EXPECTED_RESULTS.

    Raises:
        EvaluationError: lists the misses, which the log holds as well.
    """
    misses = verify_results(expected, results)
    for miss in misses:
        logger.error("Expected result missed: %s", miss)
    if misses:
        raise EvaluationError(f"TEST.EXPECTED_RESULTS missed: {'; '.join(misses)}.")


def verify_results(expected: List[Any], results: Dict[str, Any]) -> List[str]:
    """Compare results with TEST.EXPECTED_RESULTS.

    Args:
        expected: entries (data set, protocol, metric, percent, tolerance).
        results: what `VIFTrainer.test` returns.

    Returns:
        One line for each miss; empty when all hold.
    """
    misses = []
    for name, protocol, metric, value, tolerance in expected:
        found = results.get(name, {}).get(protocol, {}).get(metric, float("nan"))
        if not abs(found - value) <= tolerance:
            misses.append(f"{name} {protocol} {metric}: {found:.2f}, expected {value} +- {tolerance}")
    return misses
