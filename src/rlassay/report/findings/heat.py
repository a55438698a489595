"""Attention on an image's or a clip's tokens, over the image or film strip."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rlassay.prompts import shown_frames
from rlassay.records import Media
from rlassay.report.content import Heat
from rlassay.report.tables import STORED_DECIMALS

MAX_CELLS = 24
"""Cells along one side of an image; finer grids are pooled."""
STRIP_CELLS = 48
"""Cells along a film strip, all frames together, if each has several."""


def heat_of(
    attention: list[float | None] | None, grid: list[int] | None, media: Media | None, most: int | None
) -> Heat | None:
    """The attention laid out over the image or film strip; None unless each cell has a finite number."""
    if media is None or attention is None or grid is None or len(attention) != np.prod(grid):
        return None
    mass = np.array([np.nan if value is None else value for value in attention])
    if not mass.size or not np.isfinite(mass).all():
        return None
    total = round(float(mass.sum()), STORED_DECIMALS)
    if media.kind == "image":
        return _cells(pool_cells(mass.reshape(grid)), total) if len(grid) == 2 else None
    shown = shown_frames(media, most)
    strip = film_strip(mass.reshape([-1, *grid[-2:]]), shown, len(media.times))
    return None if strip is None else _cells(strip.cells, total, strip.frames)


def _cells(cells: Float[np.ndarray, "rows cols"], total: float, frames: tuple[float | None, ...] = ()) -> Heat:
    # Four significant digits: the shares are far below 1, so rounding to decimal places would lose them.
    values = tuple(float(f"{value:.4g}") for value in cells.ravel().tolist())
    return Heat(rows=len(cells), cols=cells.shape[1], cells=values, total=total, frames=frames)


class StripAttention(NamedTuple):
    """Attention on a film strip."""

    cells: Float[np.ndarray, "rows cols"]
    """Attention share per token over the strip; 0 on frames that are not shown."""
    frames: tuple[float | None, ...]
    """Attention share of each frame of the strip; None for those that are not shown."""


def film_strip(
    mass: Float[np.ndarray, "times rows cols"], shown: Sequence[int], num_frames: int
) -> StripAttention | None:
    """Attention on a film strip, from that on the vision tokens of a clip.

    Models may give several frames in a row one set of tokens (Qwen-VL: two). Each of them gets the share of every token
    in its picture, and an equal part of the sum of all.

    Args:
        mass: attention share of each token, frames in their order.
        shown: places in the strip of the frames that the model saw.
        num_frames: frames of the strip.

    Returns None if the tokens do not fit the frames.
    """
    times = len(mass)
    per_token = -(-len(shown) // times)
    if not (times - 1) * per_token < len(shown) <= times * per_token:
        return None
    side = min(MAX_CELLS, max(2, STRIP_CELLS // num_frames))
    pooled = [pool_cells(picture, side) for picture in mass]
    cells = np.zeros((len(pooled[0]), num_frames, pooled[0].shape[1]))
    frames: list[float | None] = [None] * num_frames
    for place, frame in enumerate(shown):
        moment = place // per_token
        sharing = min(per_token, len(shown) - moment * per_token)
        cells[:, frame] = pooled[moment]
        frames[frame] = round(float(mass[moment].sum()) / sharing, STORED_DECIMALS)
    return StripAttention(cells.reshape(len(cells), -1), tuple(frames))


def pool_cells(
    mass: Float[np.ndarray, "rows cols"], most: int = MAX_CELLS
) -> Float[np.ndarray, "fewer_rows fewer_cols"]:
    """Means over equal blocks, so that no side has more than `most` cells."""
    size = -(-max(mass.shape) // most)
    for axis in (0, 1):
        blocks = np.array_split(mass, -(-mass.shape[axis] // size), axis=axis)
        mass = np.stack([block.mean(axis=axis) for block in blocks], axis=axis)
    return mass
