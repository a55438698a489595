"""From watched rows to scenes: one prompt at one step, one completion of every arm, words and heat."""

from collections.abc import Sequence
from math import isfinite

import numpy as np
from jaxtyping import Float

from rlassay.records import PromptRow
from rlassay.report.credit_choice import Chosen, Group
from rlassay.report.credit_records import CreditWord, Heat, Scene, WatchedCompletion
from rlassay.report.credit_words import Piece, mean_over, pieces
from rlassay.report.estimates import DECIMALS, tidy

MAX_WORDS = 100
"""Words of a completion; of a longer one the middle is left out."""
MAX_CELLS = 24
"""Cells along one side of an image; finer grids are pooled."""


def build_scene(chosen: Chosen, groups: dict[str, Group], prompt: PromptRow) -> Scene:
    """One prompt at one step; of each arm's group the completion with the largest advantage in size."""
    images = [media.path for media in prompt.media if media.kind == "image"]
    image = f"../data/{images[0]}" if len(images) == len(prompt.media) == 1 else None
    return Scene(
        stage=chosen.stage,
        step=chosen.step,
        rank=chosen.rank,
        prompt_id=chosen.prompt_id,
        question=prompt.question,
        choices=prompt.choices,
        answer=prompt.answer,
        image=image,
        group_size=max(len(group) for group in groups.values()),
        completions=tuple(_completion(arm, group, image is not None) for arm, group in groups.items()),
    )


def _completion(arm: str, group: Group, has_image: bool) -> WatchedCompletion:
    row = min(group, key=lambda one: (-abs(_finite(one["advantage"]) or 0.0), one["sample"]))
    found = pieces(row["tokens"])
    half = MAX_WORDS // 2
    kept = found if len(found) <= MAX_WORDS else [*found[:half], *found[-half:]]
    signals = {name: row[name] for name in ("weight", "perception", "entropy", "dominance")}
    return WatchedCompletion(
        arm=arm,
        sample=row["sample"],
        reward=_finite(row["reward"]),
        advantage=_finite(row["advantage"]),
        scale=_finite(row["scale"]),
        words=tuple(_word(piece, signals) for piece in kept),
        omitted=len(found) - len(kept),
        heat=_heat(row["vision_attention"], row["vision_grid"]) if has_image else None,
    )


def _word(piece: Piece, signals: dict[str, Sequence[float | None] | None]) -> CreditWord:
    means = {name: _finite(mean_over(piece, values)) for name, values in signals.items()}
    return CreditWord(before=piece.before, text=piece.text, num_tokens=len(piece.tokens), **means)


def _heat(attention: list[float | None] | None, grid: list[int] | None) -> Heat | None:
    """The attention laid out over the image; None unless there is one finite number per cell."""
    if attention is None or grid is None or len(grid) != 2 or len(attention) != grid[0] * grid[1]:
        return None
    mass = np.array([np.nan if value is None else value for value in attention]).reshape(grid)
    if not mass.size or not np.isfinite(mass).all():
        return None
    cells = pooled(mass)
    values = tuple(float(f"{value:.4g}") for value in cells.ravel())  # shares far below one: places would not do
    return Heat(rows=len(cells), cols=cells.shape[1], cells=values, total=round(float(mass.sum()), DECIMALS))


def pooled(mass: Float[np.ndarray, "rows cols"]) -> Float[np.ndarray, "fewer_rows fewer_cols"]:
    """Means over equal blocks, such that no side has more than `MAX_CELLS` cells."""
    size = -(-max(mass.shape) // MAX_CELLS)
    for axis in (0, 1):
        blocks = np.array_split(mass, -(-mass.shape[axis] // size), axis=axis)
        mass = np.stack([block.mean(axis=axis) for block in blocks], axis=axis)
    return mass


def _finite(value: float | None) -> float | None:
    return tidy(value) if value is not None and isfinite(value) else None
