"""Position embeddings of vision transformers for another grid of patches or other tokens before them.

Knows fastreid's transformer, ours and timm's. Shape letters: T tokens (first those of the image, then one a
patch), D embedding.
"""

import math
from typing import Any, Collection, Dict, List, NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import nn

Grid = Tuple[int, int]  # rows, columns
TOKENS = ("cls_token", "view_token", "dist_token")  # before the patches, in the order of their positions


class Table(NamedTuple):
    """A position embedding of a network."""

    grid: Grid
    tokens: List[
        str
    ]  # before the patches; numbers where timm gives its tokens no position or others have one
    how: Dict[str, Any]  # how torch's `interpolate` resizes it: as the library does whose transformer it is


def position_tables(model: nn.Module) -> Dict[str, Table]:
    """The position embeddings of a network by name."""
    tables = {}
    for name, module in model.named_modules():
        embed, positions = getattr(module, "patch_embed", None), getattr(module, "pos_embed", None)
        if embed is None or not isinstance(positions, torch.Tensor):
            continue
        from_timm = type(module).__module__.startswith("timm.")
        grid = tuple(embed.grid_size) if from_timm else (embed.num_y, embed.num_x)
        tokens = [token for token in TOKENS if getattr(module, token, None) is not None]
        count = positions.shape[1] - grid[0] * grid[1]
        if len(tokens) != count:
            tokens = [str(i) for i in range(count)]
        how = {"mode": "bicubic", "antialias": True} if from_timm else {"mode": "bilinear"}
        tables[f"{name}.pos_embed" if name else "pos_embed"] = Table(grid, tokens, how)
    return tables


def position_grids(model: nn.Module) -> Dict[str, List[int]]:
    """Rows and columns of each position embedding by name: what a checkpoint notes, as shapes do not tell."""
    return {name: list(table.grid) for name, table in position_tables(model).items()}


def fit_positions(
    positions: torch.Tensor, present: Collection[str], grid: Optional[Grid], table: Table
) -> Tuple[torch.Tensor, str]:
    """Positions of a file for a network's grid and tokens.

    A token that the file lacks takes the position of its first patch, as the authors of VDT do for theirs.

    Args:
        positions: (1, T, D) of the file, floating; any other shape comes back as it is.
        present: the file's tokens, those of `TOKENS`.
        grid: the file's; None where it does not say: the network's if the number of patches is the same, else
            a square, else the one of this number that is nearest to the network's proportions.
        table: the network's.

    Returns:
        (1, T, D) for the network, float32 where resized, and in words what was done, empty for nothing.
    """
    there = table.tokens
    if there and set(there) <= set(TOKENS):
        there = [token for token in TOKENS if token in present]
    if positions.dim() != 3 or len(positions) != 1 or positions.shape[1] <= len(there):
        return positions, ""
    first, patches = positions[:, : len(there)], positions[:, len(there) :]
    if grid is None or grid[0] * grid[1] != patches.shape[1]:
        grid = _guess_grid(patches.shape[1], table.grid)
    if (there, grid) == (table.tokens, table.grid):
        return positions, ""
    known = dict(zip(there, first.split(1, dim=1)))
    tokens = [known.get(token, patches[:, :1]) for token in table.tokens]
    done = "{} x {} -> {} x {}".format(*grid, *table.grid)
    if there != table.tokens:
        done += f", tokens {' '.join(there) or 'none'} -> {' '.join(table.tokens)}"
    if grid != table.grid:
        patches = patches.float().reshape(1, *grid, -1).permute(0, 3, 1, 2)
        patches = F.interpolate(patches, table.grid, **table.how).permute(0, 2, 3, 1).flatten(1, 2)
    return torch.cat([*tokens, patches], dim=1), done


def _guess_grid(count: int, grid: Grid) -> Grid:
    side = math.isqrt(count)
    if count == grid[0] * grid[1]:
        return grid
    if side * side == count:
        return side, side
    shapes = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    return min(shapes, key=lambda shape: abs(math.log(shape[0] * grid[1] / (shape[1] * grid[0]))))
