"""From a run and its features to a report: each section by itself, so that one that fails costs no other."""

from dataclasses import dataclass, field
from typing import Any, Callable, List, Optional, Sequence, Tuple

from .. import __version__
from ..errors import VIFError
from ..evaluation.evaluate import protocol_sides
from ..evaluation.processing import Processing
from ..evaluation.protocols import Protocol
from ..features import FeatureTable
from .blocks import Block, Contest, Facts, Lacking, Report, Section, Table, Text
from .config import RunConfig, shorten
from .crops import Crops
from .run import Run
from .scores import cmc_section, protocol_section
from .sections import lists_section, map_section, pairs_section, training_section


@dataclass(frozen=True)
class Options:
    """How much to show.

    Attributes:
        queries: of the best, typical and worst of a protocol, each.
        top: ranks of a list.
        level: of the bootstrap intervals.
        method: of the map, "tsne" or "pca".
        seed: of every draw.
    """

    queries: int = 5
    top: int = 10
    level: float = 0.95
    method: str = "tsne"
    seed: int = 0


@dataclass(frozen=True)
class Material:
    """What a report is made from; None and "" where it is not there.

    Attributes:
        run: what training left.
        config: the run's config.
        dataset: what its scores stand under in results.json.
        table: features.
        protocols: to score.
        processing: metric and post-processing.
        crops: images.
        warnings: to put on the page.
        reasons: why something is missing, by "config" and "features".
    """

    run: Run
    dataset: str
    crops: Crops
    config: Optional[RunConfig] = None
    table: Optional[FeatureTable] = None
    protocols: Sequence[Protocol] = ()
    processing: Processing = Processing()  # noqa: RUF009  (immutable)
    warnings: List[str] = field(default_factory=list)
    reasons: "dict[str, str]" = field(default_factory=dict)


def build_report(material: Material, options: Options) -> Report:
    """Every section that has its input; the others are listed with what they lack."""
    left_out: List[Tuple[str, str]] = []
    table = material.table
    contests = [] if table is None else _score(table, material, left_out)

    def need_contests() -> List[Contest]:
        if table is None:
            raise Lacking(material.reasons.get("features", "there are no features"))
        if not contests:
            raise Lacking("no protocol could be scored on these features")
        return contests

    def need_scored() -> Tuple[FeatureTable, List[Contest]]:
        found = need_contests()
        assert table is not None
        return table, found

    run, seed = material.run, options.seed
    makers: List[Tuple[str, str, Callable[[], List[Block]]]] = [
        ("protocols", "Scores by protocol", lambda: protocol_section(contests, run, material, options.level)),
        ("cmc", "CMC curves", lambda: cmc_section(need_contests())),
        ("distances", "Distances of pairs", lambda: pairs_section(*need_scored(), material.processing)),
        ("queries", "Best, typical and worst queries",
         lambda: lists_section(*need_scored(), material.crops, options)),
        ("map", "Map of the features", lambda: map_section(need_scored()[0], options.method, seed)),
        ("training", "Training", lambda: training_section(run, material.dataset)),
        ("config", "Config", lambda: _config(material)),
        ("environment", "Environment", lambda: _environment(run)),
    ]  # fmt: skip
    sections: List[Section] = []
    for anchor, title, make in makers:
        try:
            sections.append(Section(anchor, title, make()))
        except (Lacking, VIFError) as reason:
            left_out.append((title, str(reason)))
    sections.insert(0, Section("summary", "Summary", _summary(material, contests, left_out)))
    return Report(f"{run.name} on {material.dataset}", sections, left_out, table)


def _score(table: FeatureTable, material: Material, left_out: List[Tuple[str, str]]) -> List[Contest]:
    """The protocols that can be scored; `left_out` gets the others."""
    contests = []
    for protocol in material.protocols:
        try:
            sides = protocol_sides(table, protocol, material.processing)
            contests.append(Contest(protocol, sides, sides.rank()))
        except VIFError as error:
            left_out.append((f"Protocol {protocol.label}", str(error)))
    return contests


def _summary(material: Material, contests: List[Contest], left_out: List[Tuple[str, str]]) -> List[Block]:
    rows: List[Tuple[str, str]] = [("run", material.run.name), ("data set", material.dataset)]
    if contests:
        scores, label = contests[0].ranking.scores(), contests[0].protocol.label
        rows.append((f"{label}: mAP", f"{scores['mAP']:.2f} %"))
        rows.append((f"{label}: Rank-1", f"{scores['Rank-1']:.2f} %"))
        rows.append((f"{label}: valid queries", f"{scores['valid_queries']:,} of {scores['queries']:,}"))
    table = material.table
    if table is not None:
        splits = ", ".join(
            f"{count:,} {name or 'in no split'}" for name, count in table.split_names().items()
        )
        rows.append(("images", f"{len(table):,} ({splits})"))
        rows.append(("identities", f"{len(set(table.pids.tolist())):,}"))
        rows.append(("features", f"{table.features.shape[1]} dimensions, {material.processing.describe()}"))
        rows += [(name, table.meta[name]) for name in ("flip", "fingerprint") if table.meta.get(name)]
    if material.config is not None:
        rows += _network(material.config.cfg)
    blocks: List[Block] = [Facts(rows), *(Text(text, warning=True) for text in material.warnings)]
    if left_out:
        rows_out = [(name, reason) for name, reason in left_out]
        blocks.append(Table("Left out of this report", ("part", "why"), rows_out))
    return blocks


def _network(cfg: Any) -> List[Tuple[str, str]]:
    size = " x ".join(str(side) for side in cfg.INPUT.SIZE_TEST)
    return [
        ("network", f"{cfg.MODEL.META_ARCHITECTURE}, {cfg.MODEL.BACKBONE.NAME}, images of {size}"),
        ("losses", ", ".join(cfg.MODEL.LOSSES.NAME)),
        ("augmentation", ", ".join(cfg.INPUT.TRANSFORMS) or "none of its own"),
        (
            "training",
            f"{cfg.SOLVER.MAX_EPOCH} epochs, batches of {cfg.SOLVER.IMS_PER_BATCH}, seed {cfg.SEED}",
        ),
    ]


def _config(material: Material) -> List[Block]:
    if material.config is None:
        raise Lacking(material.reasons.get("config", "the run has no config.yaml"))
    changed, everything = material.config.changed, material.config.everything
    return [
        Table(f"{len(changed)} keys that differ from the defaults", ("key", "value", "default"), changed),
        Table("", ("key", "value"), everything, folded=f"All {len(everything)} keys"),
    ]


def _environment(run: Run) -> List[Block]:
    if not run.environment:
        raise Lacking(run.missing.get("log.txt", "log.txt names no environment"))
    rows = [*run.environment.items(), ("report made by", f"vif {__version__}")]
    return [Facts([(name, shorten(value, [run.folder])) for name, value in rows])]
