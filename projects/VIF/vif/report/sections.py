"""Sections that show features: distances of pairs, ranked lists, map; and the curves of training."""

from typing import TYPE_CHECKING, Dict, List, Set

import numpy as np

from ..evaluation.evaluate import Sides, protocol_sides
from ..evaluation.processing import Processing
from ..evaluation.protocols import Protocol
from ..features import FeatureTable
from .blocks import Block, Contest, Lacking, Lists, Picture, Table, Text
from .canvas import Drawing
from .crops import Crops
from .embedding import map_features
from .figures import feature_map, median_of, pair_histograms, pair_title, training_curves
from .lists import RankedList, choose_queries, ranked_lists
from .pairs import count_pairs
from .run import Run
from .training import read_training

if TYPE_CHECKING:
    from .build import Options


def pairs_section(table: FeatureTable, contests: List[Contest], processing: Processing) -> List[Block]:
    """Histograms of positives and negatives by view pair, over all pairs of a query and a gallery image."""
    splits = dict.fromkeys((c.protocol.query_split, c.protocol.gallery_split) for c in contests)
    sides: List[Sides] = []
    for query, gallery in splits:
        every = Protocol("pairs", "pairs", query_split=query, gallery_split=gallery)
        sides.append(protocol_sides(table, every, Processing(processing.metric)))
    counts = count_pairs(sides, table.views)
    if not counts:
        raise Lacking("there is no pair of a query and a gallery image")
    rows = [
        (
            pair_title(pair),
            f"{pair.positives.sum():,}",
            f"{median_of(pair.edges, pair.positives):.3f}",
            f"{pair.negatives.sum():,}",
            f"{median_of(pair.edges, pair.negatives):.3f}",
        )
        for pair in counts
    ]
    headers = ("views", "same person", "median", "different people", "median")
    caption = (
        "Every pair of a query and a gallery image, counted exactly; pairs of one person under one camera "
        "are left out. Dotted: medians. The less the two overlap, the better; an overlap that is larger "
        "across views than within one is the view gap."
    )
    alt = (
        "Histograms of distances: "
        + "; ".join(f"{r[0]}: medians {r[2]} same, {r[4]} different" for r in rows)
        + "."
    )
    metric = processing.metric
    drawing = Drawing("distances", alt, caption, lambda palette: pair_histograms(counts, metric, palette))
    plain = [] if processing == Processing(metric) else [Text("Distances before post-processing.")]
    return [
        Picture(drawing),
        *plain,
        Table("Number of pairs and median distance", headers, rows, numeric=True),
    ]


def lists_section(
    table: FeatureTable, contests: List[Contest], crops: Crops, options: "Options"
) -> List[Block]:
    """The ranked lists of each protocol's best, typical and worst queries."""
    blocks: List[Block] = [
        Text(
            "By average precision (AP). A green frame and a tick mark the same person, a red frame and a "
            "cross another one; a grey dashed frame and a dash mark images of the same person that the "
            "protocol's same-camera filter ignores. Beside the mark stands the rank; d is the distance."
        )
    ]
    rows: Set[int] = set()
    for protocol, sides, ranking in contests:
        groups: Dict[str, List[RankedList]] = {}
        for title, positions in choose_queries(ranking, options.queries).items():
            groups[title] = ranked_lists(sides, ranking, positions.tolist(), options.top)
            for found in groups[title]:
                rows |= {found.row, *(hit.row for hit in found.hits)}
        blocks.append(Lists(protocol, groups))
    lost = sum(crops.pixels(str(table.paths[row])) is None for row in rows)
    if lost == len(rows):
        raise Lacking("none of the images could be read below the data root; name their folder with --root")
    if lost:
        blocks.insert(
            1, Text(f"{lost} of {len(rows)} images could not be read below the data root.", warning=True)
        )
    return blocks


def map_section(table: FeatureTable, method: str, seed: int) -> List[Block]:
    """Two dimensions of a sample of the features."""
    found = map_features(table.features, table.pids, table.views, method, seed)
    name = {"tsne": "t-SNE", "pca": "PCA"}[method]
    sampled = "all " if len(found.rows) == len(table) else f"a sample of the {len(table):,} images, "
    caption = (
        f"{name} of the features, at length 1, of {sampled}{len(found.rows):,} images, seed {seed}. Left, "
        f"{len(found.identities)} identities in colour with their numbers, others grey; right, the views. "
        "Markers tell views apart. Images of one person should lie together whatever their view; distances "
        "between far-off clusters mean little."
    )
    views = ", ".join(str(view) or "none" for view in np.unique(table.views))
    coloured = f"coloured by {len(found.identities)} identities and by view: {views}"
    alt = f"{name} map of {len(found.rows):,} images, {coloured}."
    draw = lambda palette: feature_map(found, table.pids, table.views, palette)  # noqa: E731
    return [Picture(Drawing("map", alt, caption, draw))]


def training_section(run: Run, dataset: str) -> List[Block]:
    """Losses, learning rate, geometry and scores over iterations."""
    if not run.metrics:
        raise Lacking(run.missing.get("metrics.json", "metrics.json is empty"))
    training = read_training(run.metrics, dataset)
    if not any(training):
        raise Lacking("metrics.json holds no losses, learning rate, geometry or scores")
    caption = (
        "As metrics.json has them, smoothed by training itself. Geometry: mean cosine of one person's "
        "features (pos_cos) and of different people's (neg_cos), and the share of different-people pairs "
        "that VIAL counts as hard (hard_share). If neg_cos stays near 1 the network has collapsed."
    )
    last = run.metrics[-1]
    alt = f"Training curves over {last['iteration'] + 1:,.0f} iterations."
    return [Picture(Drawing("training", alt, caption, lambda palette: training_curves(training, palette)))]
